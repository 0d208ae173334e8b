"""Tables from rows, and README files from tables."""

import pytest
import records
import report
from tables import speed_table

from plstm_graph.errors import ConfigError

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


def test_the_columns_of_a_speed_table():
    rows = [
        row("reference", median=100.0, ratios={"scatter": 0.1}),
        row(ratios={"reference": 10.0}, floor_ms=2.0, floor_bytes=2**20, floor_count="all", target=">= 10x", met=True),
    ]
    lines = [line for line in speed_table(rows, "operator").splitlines() if line.startswith("|")]
    assert lines[0] == "| what | median | quartiles | min | vs scatter | vs reference | x byte floor | target |"
    assert lines[2] == "| reference | 100 ms | 100 ms to 120 ms | 90 ms | 0.10 |  |  |  |"
    assert lines[3] == "| scatter | 10 ms | 10 ms to 12 ms | 9 ms |  | 10 | 5.00 | >= 10x: met |"


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


def test_the_committed_readmes_name_tables_that_exist():
    found = report.tables()
    for path in report.READMES:
        report.fill(path.read_text(), dict.fromkeys(found, lambda: ""))


def test_a_command_names_no_place_on_this_machine():
    words = [str(records.ROOT / "benchmarks" / "speed.py"), "all", "--root", "/somewhere/data", "--root=/x", "/y/z.csv"]
    assert records.command(words) == "python benchmarks/speed.py all --root DATA --root=DATA z.csv"
