"""The benchmark of predictions, without the program it measures."""

import gzip
import sys
from pathlib import Path

import predicting
import pytest
from tables import predicting_table


def test_a_command_is_measured_and_has_to_succeed() -> None:
    found = predicting.measured([sys.executable, "-c", "sum(range(10**6)); bytearray(50 * 2**20)"])
    assert 0 < found["cpu_seconds"] <= found["seconds"] + 0.1
    assert 50 < found["peak_mib"] < 500
    with pytest.raises(SystemExit, match="ended with 3"):
        predicting.measured([sys.executable, "-c", "raise SystemExit(3)"])


def test_molecules_are_repeated_as_needed(tmp_path: Path) -> None:
    folder = tmp_path / "ogb" / "ogbg_molhiv" / "mapping"
    folder.mkdir(parents=True)
    with gzip.open(folder / "mol.csv.gz", "wt") as stream:
        stream.write("HIV_active,smiles\n0,C\n1,CO\n")
    assert predicting.molecules(tmp_path, 5) == ["C", "CO", "C", "CO", "C"]


def test_the_table_says_the_latest_row() -> None:
    one = {"seconds": 2.0, "cpu_seconds": 1.5, "peak_mib": 400.0}
    row = {"floor": one, "one": one, "resident": {"first_seconds": 2.1, "next_seconds": 0.0123}, "load": [0.1, 1.9]}
    row |= {
        "many": {"molecules": 100_000, "jobs": 2, "per_second": 2345.6, **one},
        "date": "2026-01-01",
        "command": "c",
    }
    row |= {"machine": {"cpu": "x", "cores": 2, "threads": 1, "device": "cpu"}, "commit": "0" * 40, "dirty": False}
    row |= {"versions": {"torch": "2", "torch_geometric": "2"}}
    text = predicting_table([row])
    assert "| 100,000 molecules, --jobs 2: 2,346 a second | 2.00 | 1.50 | 400 |" in text
    assert "| resident: line to answer | 0.0123 |  |  |" in text
    assert predicting_table([]) == "No rows yet."
