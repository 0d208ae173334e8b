"""What an installed wheel has to do with the core dependencies alone; ``make release-check`` runs it."""

import importlib.metadata
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from torch_geometric.data import Batch, Data

import plstm_graph
from plstm_graph import PLSTM, LineDAG, PLSTMConv
from plstm_graph.transforms import AddLineDAG

EXTRAS = (
    "rdkit",
    "ogb",
    "pytorch_lightning",
    "torchmetrics",
    "typer",
    "matplotlib",
    "numba",
    "torch_scatter",
    "triton",
)

assert "site-packages" in plstm_graph.__file__, plstm_graph.__file__
assert importlib.metadata.version("plstm-graph") == plstm_graph.__version__
assert (Path(plstm_graph.__file__).parent / "py.typed").is_file()
edge_index = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
x = torch.randn(4, 16)
for mode in "PD":
    conv = PLSTMConv(16, 8, heads=4, mode=mode)
    conv(x, edge_index).sum().backward()
    assert all(parameter.grad is not None for parameter in conv.parameters())
batch = Batch.from_data_list([AddLineDAG(prune=True)(Data(x, edge_index)) for _ in range(3)])
assert isinstance(batch.line_dag, LineDAG)
assert PLSTM(16, 8, 2, 1)(batch.x, batch.edge_index, dag=batch.line_dag).shape == (12, 1)
found = [name for name in EXTRAS if find_spec(name)]
print(f"plstm-graph {plstm_graph.__version__} on torch {torch.__version__}, Python {sys.version.split()[0]}")
print("extras that are there:", ", ".join(found) or "none")
