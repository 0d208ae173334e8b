"""What auto takes is the fastest form, or near it, wherever rows are stored."""

import pytest
import records
import which_form

MARGIN = 1.2


def row(name, median, case="4 images x 2 heads, 8 x 8, d 32, P", group="grid", device="A GPU", **more):
    machine = {"cpu": "A CPU", "cores": 2, "threads": 2, "device": device}
    sizes = {"B": 4, "H": 2, "N": 64, "K": 32, "V": 32}
    what = {
        "run": "1",
        "group": group,
        "case": case,
        "name": name,
        "median_ms": median,
        "min_ms": 0.5 * median,
        "sizes": sizes,
    }
    return {**what, "machine": machine, **more}


def test_a_cpu_is_told_by_its_least_time():
    assert which_form.milliseconds(row("log", 3.0)) == 3.0
    assert which_form.milliseconds(row("log", 3.0, device="cpu")) == 1.5


@pytest.mark.parametrize("kind", which_form.KINDS)
def test_auto_takes_the_fastest_form_or_one_near_it(kind):
    found = which_form.measured(records.read(records.RESULTS / "speed.jsonl"), kind)
    assert {each.machine for each in found} >= {"NVIDIA H200"}
    late = {(each.machine, each.case): (each.taken, each.fastest) for each in found if each.behind > MARGIN}
    assert late == {}


def test_a_form_that_auto_should_have_taken_is_found():
    (each,) = which_form.measured([row("triton", 3.0), row("triton_tiles", 2.0), row("sdpa", 1.0)], "images")
    assert (each.taken, each.fastest, each.behind) == ("triton", "triton_tiles", 1.5)
    (each,) = which_form.measured([row("tiles", 3.0, device="cpu"), row("log", 2.0, device="cpu")], "images")
    assert (each.machine, each.taken) == ("A CPU, 2 threads", "log")
    large = row("triton", 3.0, case="4 images x 2 heads, 1 x 65, d 32, P")
    tiles = {**large, "name": "triton_tiles"}
    assert which_form.takes({"triton": large, "triton_tiles": tiles}) == "triton_tiles"


def test_the_table_of_forms():
    rows = [row("log", 12.34, extra_mib=1234.4), row("triton, bfloat16", 1.0, extra_mib=2.0), row("triton", 2.0)]
    assert which_form.forms_table(rows, "images").splitlines() == [
        "| images, on A GPU | `auto` takes | `log` | `triton` |",
        "| --- | --- | ---: | ---: |",
        "| 4 images x 2 heads, 8 x 8, d 32, P | `triton` | 12.3 ms, 1,234 MiB | **2 ms** |",
        "| 4 images x 2 heads, 8 x 8, d 32, P, bfloat16 | `triton` |  | **1 ms**, 2 MiB |",
    ]
    assert which_form.forms_table(rows, "chains") == "No rows yet."
