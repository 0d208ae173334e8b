"""Deep graphs by columns of states under Triton's interpreter, in steps of a few edges and numbers."""

import pytest
import torch
from batches import check_close, check_same, join, molecule, probe, run, split, tame_inputs

pytest.importorskip("triton")

from plstm_graph import LineDAG
from plstm_graph.line_dag import plan
from plstm_graph.line_dag.plan import LargeEdge, LargeLevel
from plstm_graph.ops import BACKENDS
from plstm_graph.ops.triton import sweep
from plstm_graph.ops.triton.columns import TURN
from plstm_graph.testing import VIEWS, Inputs, outcome, random_dag

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has its own tests: test_operator_gpu.py")


@pytest.fixture(autouse=True)
def columns(monkeypatch) -> None:
    """No tile serves any graph, and those of at most two edges a level are deep."""
    monkeypatch.setattr(plan, "WIDEST", 0)
    monkeypatch.setattr(plan, "NARROW", 2)
    monkeypatch.setattr(sweep, "COLUMN", 8)
    monkeypatch.setattr(sweep, "LANES", 4)


@pytest.mark.parametrize(
    ("view", "dtype", "tolerance"),
    [("plain", torch.float64, 1e-10), ("reversed", torch.float32, 1e-5)],
    ids=["plain", "reversed"],
)
def test_many_pairs(monkeypatch, view, dtype, tolerance):
    """More edges a level than one step takes, more pairs of an edge than one turn, and a state of two columns, of which
    the second is not full; to the same bits each time."""
    monkeypatch.setattr(plan, "NARROW", 100)
    dag = VIEWS[view](random_dag(1, nodes=9, density=0.8))
    inputs = tame_inputs(dag, 1, 3, 4)
    want = outcome(BACKENDS["scatter"], inputs, dag, probe(inputs))
    inputs = Inputs.of([x.to(dtype) for x in inputs.flat()])
    got = run(inputs, dag)
    check_close(got, want, tolerance)
    monkeypatch.setattr(sweep, "KEPT", 0)
    check_same(got, run(inputs, dag))
    assert dag.plan(0).levels[LargeLevel.ENTER :].max() > 2 + TURN.value


def test_a_graph_does_not_feel_its_batch():
    """Wide and deep graphs side by side, bit for bit as alone."""
    dags = [molecule(6, 1), random_dag(3, nodes=5, density=0.9), molecule(5, 2), molecule(1)]
    inputs = [tame_inputs(dag, 1, 2, 3, seed=i) for i, dag in enumerate(dags)]
    dag = LineDAG.collate(dags)
    for alone, got in zip(map(run, inputs, dags), split(run(join(inputs), dag), dags), strict=True):
        check_same(got, alone)
    assert [one.plan(0).levels.size(1) - 1 for one in (*dags, dag)] == [1, 0, 1, 0, 2]


def test_tables():
    """Each edge stands once, in its level, those of wide graphs first; and what the largest numbers of pairs are."""
    dag = LineDAG.collate([molecule(7, 1), random_dag(3, nodes=6, density=0.9), molecule(5, 2)])
    tables = dag.plan(0)
    edge = tables.large[dag.num_nodes : -2, LargeEdge.EDGE].long()
    assert edge.sort().values.equal(torch.arange(dag.num_edges))
    place = tables.levels[LargeLevel.PLACE].long() - dag.num_nodes
    for row, graph in enumerate((1, 2, 0)):  # deep ones by their numbers of edges
        for level in range(dag.num_levels):
            here = edge[place[row, level] : place[row, level + 1]]
            assert here.equal(torch.nonzero((dag.level == level) & (dag.edge_graph == graph)).view(-1))
            for plane, ends in ((LargeLevel.ENTER, dag.next), (LargeLevel.EXIT, dag.prev)):
                most = torch.bincount(ends, minlength=dag.num_edges)[here].max().item() if row and len(here) else 0
                assert tables.levels[plane, row, level].item() == most or not row
