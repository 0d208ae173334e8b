"""Kernels on a filled batch: its graphs do not feel the filler, and nothing comes of that."""

import pytest
import torch
from batches import molecule
from torch import Tensor
from torch_geometric.data import Batch, Data

pytest.importorskip("triton")

from plstm_graph import Gates, PLSTMConv, propagate
from plstm_graph.data import PackedGraphs
from plstm_graph.testing import random_inputs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = (20, 60, 100, 1, 200, 31, 33, 45) if DEVICE == "cuda" else (4, 7, 1, 3, 6, 8)
HEADS, VALUES = (8, 16) if DEVICE == "cuda" else (2, 3)
CHOSEN = [5, 3, 2]


def batches(columns_per_edge: int = 2) -> tuple[Batch, Batch]:
    """The same graphs, plain and filled."""
    graphs = []
    for seed, nodes in enumerate(SIZES):
        dag = molecule(nodes, seed)
        columns = torch.stack([torch.cat([dag.src, dag.dst]), torch.cat([dag.dst, dag.src])])
        columns = columns[:, : columns_per_edge * dag.num_edges]
        graphs.append(Data(x=torch.rand(nodes, 5), edge_index=columns, edge_attr=torch.rand(columns.size(1), 3)))
    packed = PackedGraphs.from_data_list(graphs).to(DEVICE).with_filler(len(CHOSEN))
    plain, filled = packed.batch(CHOSEN), packed.batch(CHOSEN, filled=True)
    assert filled.num_graphs == len(CHOSEN) + 1
    return plain, filled


def padded(x: Tensor, rows: int, value: float = 0.0) -> Tensor:
    """With more rows behind it."""
    return torch.cat([x, x.new_full((rows - len(x), *x.shape[1:]), value)])


CASES = [
    ({"edge_dim": 3}, torch.float32, 2),
    ({"edge_dim": 3, "mode": "D", "reverse": True, "bias": False, "concat": False}, torch.float64, 1),
    ({"edge_dim": 3, "mode": "D", "reverse": True, "bias": False, "concat": False}, torch.float32, 2),
    ({"reverse": True, "key_channels": 2, "transition": "saturating"}, torch.float64, 1),
]


@pytest.mark.parametrize("form", ["tiles"], indirect=True)
@pytest.mark.parametrize(("options", "dtype", "columns"), CASES, ids=["P", "D", "D, both ways", "saturating"])
def test_a_layer(form, options, dtype, columns):
    """Rows of the graphs bit for bit; rows of the filler add to no gradient; memory that nobody writes is NaN here."""
    conv = PLSTMConv(5, VALUES, heads=HEADS, backend="triton", **options).to(DEVICE, dtype)
    found = []
    plain, filled = batches(columns)
    for batch in (plain, filled):
        x = batch.x.to(dtype).requires_grad_()
        edge_attr = batch.edge_attr.to(dtype).requires_grad_() if conv.lin_edge else None
        assert conv._as_one(x, batch.line_dag) == "triton"
        output = conv(x, batch.edge_index, edge_attr, dag=batch.line_dag)
        grad = padded(output.detach()[: plain.num_nodes].sin(), len(output))
        leaves = [x, *([] if edge_attr is None else [edge_attr]), *conv.parameters()]
        found.append((output, len(leaves) - len(list(conv.parameters())), torch.autograd.grad(output, leaves, grad)))
    (want, rows, grads), (got, _, filled_grads) = found
    assert got.isfinite().all()
    assert torch.equal(got[: len(want)], want)
    for one, two in zip(grads[:rows], filled_grads[:rows], strict=True):
        assert torch.equal(two, padded(one, len(two)))
    for one, two in zip(grads[rows:], filled_grads[rows:], strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("form", ["tiles"], indirect=True)
def test_the_operator(form):
    plain, filled = batches()
    dag, other = plain.line_dag, filled.line_dag
    inputs = [x.to(DEVICE, torch.float32) for x in random_inputs(dag.cpu(), HEADS, VALUES, VALUES).flat()]
    lengths = [other.num_nodes] * 3 + [other.num_edges, other.num_pairs, other.num_edges, other.num_nodes]
    more = [padded(x, rows, 0.5) for x, rows in zip(inputs, lengths, strict=True)]
    found = []
    for given, line_graph in ((inputs, dag), (more, other)):
        leaves = [x.requires_grad_() for x in given]
        query, key, value, *gates = leaves
        output = propagate(query, key, value, Gates(*gates), line_graph, backend="triton")
        grad = padded(output.detach()[: plain.num_nodes].cos(), len(output))
        found.append([output, *torch.autograd.grad(output, leaves, grad)])
    for one, two in zip(*found, strict=True):
        assert two.isfinite().all()
        assert torch.equal(two, padded(one, len(two)))
