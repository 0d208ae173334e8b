import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plstm_graph import LineDAG
from plstm_graph.errors import ShapeError
from plstm_graph.line_dag import prune
from plstm_graph.line_dag.prune import multitree_pairs
from plstm_graph.ops import influence
from plstm_graph.testing import check_distribution, grid_dag, path_counts, random_dag, random_inputs

FEW = settings(max_examples=60, deadline=None, derandomize=True)
graphs = st.integers(2, 7).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=16),
        st.permutations(range(n)),
    )
)


def dag_of(case) -> LineDAG:
    n, edges, rank = case
    edge_index = torch.tensor(edges, dtype=torch.long).view(-1, 2).t()
    return LineDAG.from_edge_index(edge_index, n, order=torch.tensor(rank))


def test_laws_of_d_mode():
    check_distribution()


@FEW
@given(graphs)
def test_at_most_one_path_and_maximal(case):
    dag = dag_of(case)
    pruned = dag.prune().validate()
    counts = path_counts(pruned)
    assert counts.numel() == 0 or counts.max() <= 1
    left = set(zip(pruned.prev.tolist(), pruned.next.tolist(), strict=True))
    for prev, next in set(zip(dag.prev.tolist(), dag.next.tolist(), strict=True)) - left:
        assert (counts + counts[:, next, None] * counts[None, prev]).max() > 1


@FEW
@given(graphs)
def test_equals_the_rule_with_plain_sets(case):
    """Edges in order; a pair stays if no edge reaches, or is, both its ends so far."""
    dag = dag_of(case)
    ancestors = [{edge} for edge in range(dag.num_edges)]
    kept = []
    for prev, next in zip(dag.prev.tolist(), dag.next.tolist(), strict=True):
        kept.append(not ancestors[prev] & ancestors[next])
        if kept[-1]:
            ancestors[next] |= ancestors[prev]
    assert multitree_pairs(dag.prev.tolist(), dag.next.tolist(), dag.edge_ptr.tolist()) == kept


def test_by_hand():
    # 0 -> 1, then 1 -> 2 -> 4 and 1 -> 3 -> 4, then 4 -> 5: the way through 3 loses its last pair
    dag = LineDAG.from_edge_index(torch.tensor([[0, 1, 1, 2, 3, 4], [1, 2, 3, 4, 4, 5]]))
    assert list(zip(dag.prev.tolist(), dag.next.tolist(), strict=True)) == [
        (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 5)
    ]  # fmt: skip
    assert multitree_pairs([0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 5], [0, 6]) == [True] * 5 + [False]
    # without the edge into the ring nothing is joined twice: the diamond stays whole
    assert multitree_pairs([0, 1, 2, 3], [2, 3, 4, 4], [0, 5]) == [True] * 4


def test_graphs_of_a_batch_are_pruned_alone():
    single = grid_dag(3, 3)
    batch = LineDAG.collate([single] * 3).prune()
    assert batch.num_pairs == 3 * single.prune().num_pairs
    assert torch.equal(batch.prev[: single.prune().num_pairs], single.prune().prev)


def test_bound_of_the_state():
    """Every gate of size 1: each edge reaches each other one by at most 1, in both readings."""
    for dag in (grid_dag(6, 6).prune(), random_dag(3, nodes=12, density=0.5).prune().reverse()):
        gates = random_inputs(dag, heads=2).gates
        gates = gates._replace(
            source=torch.ones_like(gates.source),
            transition=gates.transition.sign(),
            mark=torch.ones_like(gates.mark),
            direct=torch.zeros_like(gates.direct),
        )
        degrees = torch.bincount(dag.src, minlength=dag.num_nodes), torch.bincount(dag.dst, minlength=dag.num_nodes)
        matrix = influence(gates, dag)[0][0]
        assert (matrix.abs() <= degrees[1][:, None] * degrees[0]).all()


def test_reach_can_shrink():
    """The documented price: an edge may lose its only path to another one."""
    shrunk = 0
    for seed in range(20):
        dag = random_dag(seed, nodes=9, density=0.5)
        shrunk += bool(((path_counts(dag) > 0) & (path_counts(dag.prune()) == 0)).any())
    assert shrunk


def test_refuses_graphs_beyond_its_limit(monkeypatch):
    monkeypatch.setattr(prune, "MAX_EDGES", 12)
    assert grid_dag(3, 3).prune().pruned  # 12 edges
    LineDAG.collate([grid_dag(3, 3)] * 4).prune()  # the limit is that of a graph, not of the batch
    with pytest.raises(ShapeError, match=r"graphs of at most 12 edges .* got 17; use mode='P'"):
        grid_dag(3, 4).prune()


def test_nothing_to_prune():
    assert multitree_pairs([], [], [0]) == []
    assert multitree_pairs([], [], [0, 2, 2]) == []


@pytest.mark.parametrize("reverse", [False, True])
def test_a_union_of_pruned_graphs_is_pruned_already(monkeypatch, reverse):
    dags = [grid_dag(3, 3), random_dag(3, nodes=6, density=0.6), grid_dag(1, 2), grid_dag(2, 4)]
    dags = [dag.reverse() for dag in dags] if reverse else dags
    want = LineDAG.collate(dags).prune()
    for dag in dags:
        dag.prune()
    monkeypatch.setattr("plstm_graph.line_dag.derived.multitree_pairs", lambda *_: pytest.fail("pruned again"))
    got = LineDAG.collate(dags).prune()
    assert torch.equal(got.prev, want.prev)
    assert torch.equal(got.next, want.next)
