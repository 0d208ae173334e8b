"""Notebooks, one for each kind of user, run from top to bottom."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "examples" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, object] = {"__name__": "__main__"}
    pieces = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    assert len(pieces) > 1
    assert all(not cell["outputs"] for cell in book["cells"] if cell["cell_type"] == "code")
    for number, piece in enumerate(pieces):
        exec(compile(piece, f"{path.name}, cell {number}", "exec"), names)
