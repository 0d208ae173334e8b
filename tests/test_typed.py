"""The annotations serve a user's type checker: ten lines pass under mypy --strict, and mistakes in them do not."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

TEN_LINES = """
import torch
from plstm_graph import PLSTM, LineDAG, PLSTMConv
from plstm_graph.dag import line_graph, topological_levels

edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
dag: LineDAG = LineDAG.from_edge_index(edge_index, 3, order="bfs").prepare()
conv = PLSTMConv(16, 8, heads=4, mode="D")
model = PLSTM(32, 64, num_layers=2, out_channels=1, local="gine")
out: torch.Tensor = model.forward(conv.forward(torch.randn(3, 16), edge_index, dag=dag), edge_index, dag=dag)
pairs, joint = line_graph(edge_index[:, :2])
depth: int = int(topological_levels(edge_index[:, ::2]).max())
"""
MISTAKES = """
nodes: str = dag.num_nodes
PLSTMConv("16", 8)
conv.forward(out, edge_index, dag=(edge_index,))
"""
CONFIG = """
[mypy]
strict = true
follow_imports = silent
[mypy-torch.*,torch_geometric.*,numpy.*]
follow_imports = skip
ignore_missing_imports = true
"""  # other packages are left out for time: a minute or two


def test_ten_lines_of_a_user(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(TEN_LINES)
    (tmp_path / "wrong.py").write_text(TEN_LINES + MISTAKES)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    words = [sys.executable, "-m", "mypy", "right.py", "wrong.py"]
    found = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False).stdout.splitlines()
    first = len(TEN_LINES.splitlines()) + 2
    assert [line.split(":")[:2] for line in found[:-1]] == [["wrong.py", str(first + i)] for i in range(3)], found
