"""Tables from rows, and README files from tables."""

import re

import plot
import pytest
import records
import report
from tables import speed_table, suite_table

from plstm_graph.errors import ConfigError
from plstm_graph.grid import FORMS
from plstm_graph.grid.dispatch import HALF

TEXT = "# Title\n\n<!-- table: one -->\nold\n<!-- end -->\n\nbetween\n\n<!-- table: two -->\n<!-- end -->\nlast\n"
TABLES = {"one": lambda: "| 1 |", "two": lambda: "| 2 |"}


def test_filling_twice_changes_nothing():
    once = report.fill(TEXT, TABLES)
    assert once == (
        "# Title\n\n<!-- table: one -->\n\n| 1 |\n\n<!-- end -->\n\nbetween\n\n"
        "<!-- table: two -->\n\n| 2 |\n\n<!-- end -->\nlast\n"
    )
    assert report.fill(once, TABLES) == once
    assert report.fill("nothing to fill\n", {}) == "nothing to fill\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<!-- table: on -->\n<!-- end -->\n", "did you mean 'one'"),
        ("<!-- table: one -->\nold\n", "has no end"),
        ("<!-- table: one -->\n<!-- table: two -->\n<!-- end -->\n", "'one' has no end"),
    ],
)
def test_slips_in_a_readme(text, reason):
    with pytest.raises(ConfigError, match=reason):
        report.fill(text, TABLES)


def row(name="scatter", run="1", device="cpu", median=10.0, **more):
    times = {"median_ms": median, "min_ms": 0.9 * median, "q1_ms": median, "q3_ms": 1.2 * median, "calls": 5}
    machine = {"cpu": "A CPU", "cores": 2, "threads": 2, "device": device}
    where = {"date": "2026-01-02T03:04:05+00:00", "machine": machine, "versions": {"torch": "2"}, "commit": "abc"}
    what = {"run": run, "group": "operator", "case": "64 molecules", "name": name, "sizes": {"N": 1600}}
    return {**what, **times, **where, "dirty": False, "command": "python speed.py", **more}


def test_only_the_latest_run_on_a_device_is_shown():
    rows = [row("old"), row("new", run="2"), row("gpu", device="A GPU"), row("newer", run="3", median=2000.0)]
    table = speed_table(rows, "operator")
    assert "newer" in table
    assert "gpu" in table
    assert "| old " not in table
    assert "| new " not in table
    assert "2.00 s" in table
    assert speed_table(rows, "layer") == "No rows yet."


def test_a_run_without_peers_gives_way_to_one_that_had_some():
    both = [row("scatter"), row("triton", median=2.0)]
    alone = row("triton", run="2", median=1.0)
    assert "| triton | 2 ms |" in speed_table([*both, alone], "operator")
    assert "| triton | 1 ms |" in speed_table([alone], "operator")
    later = [row("scatter", run="3"), row("triton", run="3", median=3.0)]
    assert "| triton | 3 ms |" in speed_table([*both, alone, *later], "operator")


def test_the_columns_of_a_speed_table():
    rows = [
        row("reference", median=100.0, ratios={"scatter": 0.1}),
        row(ratios={"reference": 10.0}, floor_ms=2.0, floor_bytes=2**20, floor_count="all", target=">= 10x", met=True),
    ]
    lines = [line for line in speed_table(rows, "operator").splitlines() if line.startswith("|")]
    assert lines[0] == "| what | median | quartiles | x byte floor | vs scatter | vs reference | target |"
    assert lines[2] == "| reference | 100 ms | 100 ms to 120 ms |  | 0.10 |  |  |"
    assert lines[3] == "| scatter | 10 ms | 10 ms to 12 ms | 5.00 |  | 10 | >= 10x: met |"


def test_a_gpu_has_tables_and_columns_of_its_own():
    more = {"device_ms": 0.9, "extra_mib": 1234.4, "targets": {"<= 1 ms": True, "<= 400 MiB": False}}
    rows = [row(), row("triton", device="A GPU", median=1.0, **more), row("epoch", device="A GPU", case="b", busy=0.87)]
    cpu, gpu = speed_table(rows, "operator").split("On A GPU:")
    assert "On cpu:" in cpu
    assert "| what | median | quartiles |\n" in cpu
    assert "| what | median | quartiles | device | extra memory | GPU busy | target |" in gpu
    assert "| triton | 1 ms | 1 ms to 1.2 ms | 0.9 ms | 1,234 MiB |  | <= 1 ms: met; <= 400 MiB: missed |" in gpu
    assert "| epoch | 10 ms | 10 ms to 12 ms |  |  | 87 % |  |" in gpu


def test_a_case_measured_alone_leaves_the_others():
    rows = [row("small"), row("large", case="512 molecules", sizes={"E": 9}), row("anew", run="2")]
    table = speed_table(rows, "operator")
    assert "| anew " in table
    assert "| small " not in table
    assert table.index("| anew ") < table.index("| large ")


def test_runs_of_the_suite():
    where = {"machine": {"device": "A GPU"}, "versions": {"python": "3.12", "torch": "2.11", "triton": "3.6"}}
    found = {"passed": 1234, "failed": 0, "skipped": 5, "seconds": 90.0, "date": "2026-01-02T03:04:05", "commit": None}
    lines = suite_table([{**where, **found, "command": "python x.py"}]).splitlines()
    want = (
        "| 2026-01-02 | A GPU | python 3.12, torch 2.11, triton 3.6 | unknown | 1,234 | 0 | 5 | 1.5 | `python x.py` |"
    )
    assert lines[2] == want
    assert suite_table([]) == "No runs yet."


def test_rows_from_elsewhere_are_taken_over_once(tmp_path, capsys):
    carried, results = tmp_path / "carried" / "speed.jsonl", tmp_path / "results"
    for each in (row("a"), row("b")):
        records.append(carried, each)
    records.append(results / "speed.jsonl", row("a"))
    readme = tmp_path / "README.md"
    readme.write_text("no tables\n")
    for new in (1, 0):
        assert report.main([str(readme), "--results", str(results), "--merge", str(carried)]) == 0
        assert f"{new} new rows" in capsys.readouterr().out
    assert [each["name"] for each in records.read(results / "speed.jsonl")] == ["a", "b"]


def test_cost_against_size(tmp_path):
    def of(count, **more):
        case, shape = f"{count} molecules of 20 to 30 atoms (x)", {"N": 25 * count, "E": 26 * count, "H": 8, "K": 16}
        return row(case=case, sizes=shape, floor_ms=0.1, **more)

    rows = [of(64, median=9.0), of(8), of(64, run="2", median=20.0), of(8, device="A GPU", name="triton")]
    rows += [of(8, dtype="bfloat16", run="3"), row("elsewhere")]
    found = plot.curves(rows)
    assert list(found) == ["A CPU, 2 threads", "A GPU"]
    assert found["A CPU, 2 threads"] == {"scatter": [(200, 10.0), (1600, 20.0)], plot.FLOOR: [(200, 0.1), (1600, 0.1)]}
    path = tmp_path / "cost.png"
    assert plot.draw(rows, path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert not plot.draw(rows, path)  # a picture of the same rows stays as it is
    assert not plot.draw([row()], tmp_path / "none.png")


def test_grids_against_size(tmp_path):
    def of(side, mode, name):
        case = f"4 images x 4 heads, {side} x {side}, d 32, {mode}"
        return row(name, group="grid-size", case=case, sizes={"N": side * side})

    rows = [of(12, "P", "log"), of(8, "P", "log"), of(8, "D-left", "closed"), row()]
    found = plot.grid_curves(rows)
    assert found == {
        "A CPU, 2 threads; P": {"log": [(64, 10.0), (144, 10.0)]},
        "A CPU, 2 threads; D-left": {"closed": [(64, 10.0)]},
    }
    assert plot.draw(rows, tmp_path / "grids.png", "grid")
    assert not plot.draw([row()], tmp_path / "none.png", "grid")


def test_speed_against_devices(tmp_path):
    def of(*speeds, **more):
        cases = [{"devices": 2**k, "batch_size": 512, "per_second": speed} for k, speed in enumerate(speeds)]
        return {"what": "throughput", "data": "x.pt", "cases": cases, **more, "machine": {"device": "A GPU"}}

    rows = [of(1.0, 2.0, 3.0), of(2.0, 3.0, 4.0), of(5.0, 9.0), of(4.0, 8.0, 16.0, captured=True)]
    assert plot.device_curves(rows) == {
        "x, 512 a device; A GPU": {
            "kernel by kernel": [(1, 2.0), (2, 3.0), (4, 4.0)],
            plot.IDEAL: [(1, 4.0), (2, 8.0), (4, 16.0)],
            "captured": [(1, 4.0), (2, 8.0), (4, 16.0)],
        }
    }
    assert plot.draw(rows, tmp_path / "devices.png", "devices")
    assert not plot.draw([], tmp_path / "none.png", "devices")


def test_every_curve_of_grids_looks_like_no_other():
    names = [*(name for name in FORMS if name != "reference"), *(name + plot.IN_HALF for name in HALF), "sdpa"]
    names.append("general operator")
    found = [plot.style(name, plot.FORMS) for name in names]
    solid = [each for each in found if "ls" not in each]
    for look in ("color", "marker"):
        assert len({each[look] for each in solid}) == len(solid)
    assert len({tuple(sorted(each.items())) for each in found}) == len(names)
    order = sorted(names, key=lambda name: plot.place(name, plot.FORMS))
    assert order.index("triton" + plot.IN_HALF) == order.index("triton") + 1


def test_rows_to_readme_and_stale(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table: speed-operator -->\n<!-- end -->\n")
    options = [str(readme), "--results", str(tmp_path)]
    records.append(tmp_path / "speed.jsonl", row())
    assert report.main([*options, "--check"]) == 1
    assert "stale: README.md" in capsys.readouterr().out
    assert report.main(options) == 0
    assert "| scatter | 10 ms |" in readme.read_text()
    assert report.main([*options, "--check"]) == 0
    records.append(tmp_path / "speed.jsonl", row(run="2", median=5.0))
    assert report.main([*options, "--check"]) == 1
    assert report.main([str(tmp_path / "none.md")]) == 1


def test_the_committed_pages_name_tables_that_exist():
    found = report.tables()
    for path in report.PAGES:
        report.fill(path.read_text(), dict.fromkeys(found, lambda: ""))


def test_every_page_is_in_the_list_and_links_lead_somewhere():
    pages = [path for path in report.PAGES if path.parent.name == "benchmarks"]
    links = {path: re.findall(r"\]\((?!http|#)([^)#]+)", path.read_text(encoding="utf-8")) for path in pages}
    assert [link for path, found in links.items() for link in found if not (path.parent / link).exists()] == []
    (index,) = (path for path in pages if path.name == "README.md")
    assert {path.name for path in pages} - {"README.md"} == set(links[index])


def test_a_command_names_no_place_on_this_machine():
    words = [str(records.ROOT / "benchmarks" / "speed.py"), "all", "--root", "/somewhere/data", "--root=/x", "/y/z.csv"]
    assert records.command(words) == "python benchmarks/speed.py all --root DATA --root=DATA z.csv"
