"""Chunks of edges: the same whatever their size, and where ``auto`` takes them."""

import pytest
import torch

from plstm_graph.errors import BackendUnavailable
from plstm_graph.ops import BACKENDS, chunkwise, propagate
from plstm_graph.ops.dispatch import has_compiled
from plstm_graph.testing import check_backend, grid_dag, random_dag, random_inputs

SHAPE = (8, 16, 16)


@pytest.mark.parametrize("edges", [1, 3])
def test_chunks_of_few_edges_pass_all_laws(monkeypatch, edges):
    """Otherwise hardly one of the small DAGs would have more than a chunk for each of its graphs."""
    monkeypatch.setattr(chunkwise, "SIZES", (edges, edges))
    check_backend("chunkwise", torch.float64)


def test_a_long_chain_takes_few_steps_and_agrees(monkeypatch):
    dag = grid_dag(1, 700)
    plan = dag.chunk_plan(128)
    assert len(plan.inside.ptr) + len(plan.tails) < 100  # of 699 levels
    assert plan.width == 1
    inputs = random_inputs(dag, 2, 3, 4, torch.float64, "cpu", 0)
    want = propagate(*inputs, dag, backend="scatter")
    torch.testing.assert_close(propagate(*inputs, dag, backend="chunkwise"), want, rtol=1e-10, atol=1e-10)


def test_the_plan_covers_every_pair_once():
    dag = random_dag(0, nodes=40, density=0.2, graphs=3)
    plan = dag.chunk_plan(16)
    pairs = torch.cat([plan.inside.pair, plan.pair])
    assert pairs.sort().values.tolist() == list(range(dag.num_pairs))
    assert (plan.tail[plan.place] == plan.prev).all()
    assert sum(plan.tails) == plan.tail.numel()
    assert sum(plan.arrivals) == plan.arriving.numel()


@pytest.mark.parametrize(
    ("rows", "columns", "device", "compiled", "expected"),
    [
        (1, 1200, "cuda", True, False),  # kernels and loops do not wait for the host
        (1, 1200, "cpu", True, False),
        (1, 1200, "cuda", False, True),
        (1, 1200, "cpu", False, True),
        (1, 1200, "mps", False, False),  # not measured
        (1, 900, "cuda", False, False),  # not deep
        (1, 900, "cpu", False, False),
        (40, 1000, "cuda", False, False),  # not narrow
        (40, 1000, "cpu", False, False),
    ],
)
def test_where_auto_takes_it(rows, columns, device, compiled, expected):
    assert chunkwise.serves(grid_dag(rows, columns), device, SHAPE, compiled=compiled) is expected


def test_auto_takes_it_on_a_cpu_without_compiled_loops(monkeypatch):
    dag = grid_dag(1, 1200)
    inputs = random_inputs(dag, 1, 2, 2, torch.float64, "cpu", 0)
    called = []
    right = BACKENDS["chunkwise"]
    monkeypatch.setitem(BACKENDS, "chunkwise", lambda *given: called.append("chunkwise") or right(*given))
    propagate(*inputs, dag)
    assert called == [] or not has_compiled(torch.device("cpu"))
    monkeypatch.setattr("plstm_graph.ops.dispatch.COMPILED", {})
    propagate(*inputs, dag)
    assert called[-1:] == ["chunkwise"]


def test_matrices_beyond_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr(chunkwise, "MAX_BYTES", 10)
    dag = grid_dag(1, 1200)
    assert not chunkwise.serves(dag, "cuda", SHAPE, compiled=False)
    with pytest.raises(BackendUnavailable, match="use backend='scatter'"):
        propagate(*random_inputs(dag, 2, 3, 4, torch.float64, "cpu", 0), dag, backend="chunkwise")
