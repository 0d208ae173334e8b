import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from plstm_graph import LineDAG, PLSTMConv
from plstm_graph.errors import ConfigError, CycleError, ShapeError
from plstm_graph.orient import ORDERS, check_edge_index, positions, rank_nodes, topological_levels
from plstm_graph.transforms import OrientDAG

FEW = settings(max_examples=40, deadline=None, derandomize=True)


def columns(*edges: tuple[int, int]) -> torch.Tensor:
    return torch.tensor(edges, dtype=torch.long).view(-1, 2).t()


def ranks(order, edge_index, *sizes, seed=0) -> list[int]:
    return rank_nodes(edge_index, graphs(*sizes), order, seed).tolist()


def graphs(*sizes: int) -> torch.Tensor:
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


# 0-1-2-3 with the branch 1-4 and a second component 5-6
TREE = columns((0, 1), (2, 1), (2, 3), (4, 1), (5, 6), (6, 5))


def test_orders_by_hand():
    assert ranks("index", TREE, 7) == [0, 1, 2, 3, 4, 5, 6]
    assert ranks("bfs", columns((0, 4), (4, 1), (1, 2), (0, 3)), 5) == [0, 3, 4, 1, 2]
    assert ranks("dfs", columns((0, 4), (4, 1), (1, 2), (0, 3)), 5) == [0, 3, 4, 1, 2]
    assert ranks("bfs", TREE, 7) == [0, 1, 2, 4, 3, 5, 6]
    assert ranks("dfs", TREE, 7) == [0, 1, 2, 3, 4, 5, 6]
    # node 3 hangs on 0 as well: depth first reaches it through 2, breadth first from 0
    ring = columns((0, 1), (1, 2), (2, 3), (3, 0))
    assert ranks("dfs", ring, 4) == [0, 1, 2, 3]
    assert ranks("bfs", ring, 4) == [0, 1, 3, 2]


def test_degree_counts_a_neighbour_once():
    assert ranks("degree", TREE, 7) == [-1, -3, -2, -1, -1, -1, -1]


def test_degree_puts_hubs_first():
    dag = LineDAG.from_edge_index(columns((0, 3), (1, 3), (2, 3)), order="degree")
    assert dag.src.tolist() == [3, 3, 3]


def test_given_ranks_by_level():
    assert ranks("given", columns((3, 1), (1, 0), (3, 0)), 4) == [2, 1, 0, 0]


def test_rank_tensor_is_taken_as_it_is():
    assert ranks(torch.tensor([2.5, -1.0, 0.0]), columns((0, 1)), 3) == [2.5, -1.0, 0.0]


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        (torch.arange(4), r"one entry per node, \[3\], got \[4\]"),
        (torch.tensor([0.0, torch.nan, 1.0]), "must not contain NaN"),
    ],
)
def test_wrong_rank_tensor(rank, message):
    with pytest.raises(ShapeError, match=message):
        ranks(rank, columns((0, 1)), 3)


def test_unknown_order_names_the_closest():
    with pytest.raises(ConfigError, match=r"unknown order 'degre'; choose one of index, .*did you mean 'degree'"):
        LineDAG.from_edge_index(columns((0, 1)), order="degre")


def test_no_order_is_an_unknown_order():
    with pytest.raises(ConfigError, match=r"order must be a name or a rank tensor .*NoneType"):
        LineDAG.from_edge_index(columns((0, 1)), order=None)


def test_canonical_says_what_it_needs():
    with pytest.raises(ConfigError, match=r"needs the molecule: apply plstm_graph.transforms.OrientDAG"):
        LineDAG.from_edge_index(columns((0, 1)), order="canonical")


# ---------------------------------------------------------------------- random


def random_rank(edge_index, *sizes, seed=0):
    graph = graphs(*sizes)
    return positions(rank_nodes(edge_index, graph, "random", seed), graph)


RING = columns(*((i, (i + 1) % 10) for i in range(10)))


def test_random_is_a_property_of_the_graph_alone():
    """The same graph is ranked alike alone, in any batch, and with its columns in any order or direction."""
    alone = random_rank(RING, 10)
    other = columns(*((i, i + 1) for i in range(5)))
    batch = random_rank(torch.cat([other, RING + 6, RING + 16], 1), 6, 10, 10)
    assert torch.equal(batch[6:16] - 6, alone)
    assert torch.equal(batch[16:] - 16, alone)
    assert torch.equal(random_rank(RING.flip(0)[:, torch.randperm(10)], 10), alone)
    assert alone.tolist() != sorted(alone.tolist())


def test_random_differs_between_graphs_and_seeds():
    shortcut = torch.cat([RING, columns((0, 5))], 1)
    fewer = RING[:, :9]
    drawn = [random_rank(RING, 10, seed=seed) for seed in range(20)] + [random_rank(e, 10) for e in (shortcut, fewer)]
    assert len({tuple(r.tolist()) for r in drawn}) == 22
    assert not torch.equal(random_rank(RING, 10), random_rank(RING, 11)[:10])


def test_random_reaches_every_order_evenly():
    """Over seeds each of the three nodes comes first about as often: 300 draws, five sigma."""
    path = columns((0, 1), (1, 2))
    first = torch.stack([random_rank(path, 3, seed=seed).argmin() for seed in range(300)])
    assert ((first.bincount(minlength=3) - 100).abs() < 41).all()


def test_random_draws_by_graph_or_without_a_batch_by_piece():
    """The same for connected graphs; else a batch has to say where graphs end, as ``from_edge_index`` says."""
    two = torch.cat([RING, RING + 10], 1)

    def edges(edge_index, batch=None):
        dag = LineDAG.from_edge_index(edge_index, int(edge_index.max()) + 1, order="random", batch=batch)
        return set(zip(dag.src.tolist(), dag.dst.tolist(), strict=True))

    alone = edges(RING)
    joined = {(u + shift, v + shift) for u, v in alone for shift in (0, 10)}
    assert edges(two) == edges(two, graphs(10, 10)) == joined
    assert edges(RING, graphs(10)) == alone
    whole = OrientDAG("random")(Data(edge_index=two, num_nodes=20)).rank
    assert edges(two, graphs(20)) == {tuple(sorted(pair, key=whole.__getitem__)) for pair in two.t().tolist()} != joined


def test_seed_reaches_the_line_graph():
    built = [LineDAG.from_edge_index(RING, 10, order="random", seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(built[0].src, built[1].src)
    assert not torch.equal(built[0].src, built[2].src)


# ---------------------------------------------------------------------- positions, levels, pointers


@FEW
@given(st.lists(st.lists(st.integers(-3, 3), max_size=6), min_size=1, max_size=4))
def test_positions_sort_by_graph_rank_and_node(drawn):
    keys = [(g, rank) for g, ranks in enumerate(drawn) for rank in ranks]
    expected = sorted(range(len(keys)), key=lambda node: (keys[node], node))
    position = positions(
        torch.tensor([rank for _, rank in keys], dtype=torch.long), torch.tensor([g for g, _ in keys], dtype=torch.long)
    )
    assert [position[node].item() for node in expected] == list(range(len(keys)))


@FEW
@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_levels_are_longest_paths(case):
    """Of DAGs: against relaxation until nothing moves. Of graphs with cycles: -1 on and behind them."""
    n, edges = case
    level = topological_levels(*columns(*edges), n).tolist()
    longest = [0] * n
    for _ in range(n + 1):
        longest = [max([0, *(longest[u] + 1 for u, w in edges if w == v)]) for v in range(n)]
    settled = [-1 if length >= n else length for length in longest]
    assert level == settled


def test_cycle_is_named():
    with pytest.raises(CycleError, match=r"order 'given' .* but (1 -> 2 -> 4 -> 1|2 -> 4 -> 1 -> 2|4 -> 1 -> 2 -> 4)"):
        LineDAG.from_edge_index(columns((0, 1), (1, 2), (2, 4), (4, 1), (4, 5), (5, 6)), order="given")


def test_two_nodes_both_ways_are_a_cycle_and_a_long_one_is_cut():
    with pytest.raises(CycleError, match=r"(0 -> 1 -> 0|1 -> 0 -> 1) is a cycle; .*both directions stored"):
        LineDAG.from_edge_index(columns((0, 1), (1, 0)), order="given")
    long = columns(*((i, (i + 1) % 50) for i in range(50)))
    with pytest.raises(CycleError, match=r"( -> \d+){11} -> \.\.\. is a cycle"):
        LineDAG.from_edge_index(long, order="given")


@pytest.mark.parametrize("order", ORDERS)
def test_undirected_orders_never_meet_a_cycle(order):
    both = torch.cat([RING, RING.flip(0)], 1)
    dag = LineDAG.from_edge_index(both, order=order).validate()
    assert {frozenset(e) for e in zip(dag.src.tolist(), dag.dst.tolist(), strict=True)} == {
        frozenset(e) for e in RING.t().tolist()
    }


@pytest.mark.parametrize("order", ["index", "degree"])
def test_without_a_batch_graphs_are_cut_where_no_edge_crosses(order):
    def pointer(nodes, *edges):
        return LineDAG.from_edge_index(columns(*edges), nodes, order=order).graph_ptr.tolist()

    assert pointer(10, (0, 2), (3, 4), (7, 6), (6, 8)) == [0, 3, 5, 6, 9, 10]
    assert pointer(0) == [0]
    # 0-2 and 1-3 interleave: one piece, two components
    assert pointer(4, (0, 2), (1, 3)) == [0, 4]


@pytest.mark.parametrize("order", ["index", "degree"])
def test_a_batch_keeps_empty_graphs(order):
    dag = LineDAG.from_edge_index(columns((0, 1)), 3, order=order, batch=torch.tensor([1, 1, 3]))
    assert dag.graph_ptr.tolist() == [0, 0, 2, 2, 3]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([0, 0], r"int64 tensor \[3\], got torch.int64 \[2\]"),
        ([0.0, 0.0, 0.0], r"got torch.float32 \[3\]"),
        ([0, 1, 0], "sorted and not negative"),
        ([-1, 0, 0], "sorted and not negative"),
        ([0, 0, 1], "an edge joins two graphs of the batch; check the offsets"),
    ],
)
def test_wrong_batch(batch, message):
    with pytest.raises(ShapeError, match=message):
        LineDAG.from_edge_index(columns((0, 1), (1, 2)), 3, batch=torch.tensor(batch))


@pytest.mark.parametrize(
    ("edge_index", "num_nodes", "message"),
    [
        (torch.zeros(3, 2, dtype=torch.long), None, r"integer tensor \[2, M\], got torch.int64 \[3, 2\]"),
        (torch.zeros(2, dtype=torch.long), None, r"got torch.int64 \[2\]"),
        (torch.zeros(2, 2), None, r"got torch.float32 \[2, 2\]"),
        (torch.zeros(2, 2, dtype=torch.bool), None, r"got torch.bool \[2, 2\]"),
        (torch.eye(2).to_sparse(), None, "layers and stacks take a sparse adjacency as well"),
        (columns((0, 3)), 3, "node numbers 0 to 2, got 0 to 3; check num_nodes and the offsets"),
        (columns((-1, 1)), 3, "node numbers 0 to 2, got -1 to 1"),
        (columns((-1, 1)), None, "node numbers 0 to 1, got -1 to 1"),
        (columns((0, 0)), 0, "node numbers 0 to -1, got 0 to 0"),
    ],
)
def test_wrong_edge_index(edge_index, num_nodes, message):
    with pytest.raises(ShapeError, match=message):
        LineDAG.from_edge_index(edge_index, num_nodes)


def test_number_of_nodes():
    assert check_edge_index(columns((0, 3)), None)[1] == 4
    assert check_edge_index(columns((0, 3)), 7)[1] == 7
    assert check_edge_index(columns(), None)[1] == 0


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_narrow_integers_are_widened(dtype):
    dag = LineDAG.from_edge_index(columns((0, 1), (1, 2)).to(dtype))
    assert dag.src.dtype == torch.long
    assert dag.num_pairs == 1


def test_more_nodes_than_tables_can_number_are_refused_before_anything_is_allocated():
    with pytest.raises(ShapeError, match="may have up to 2147483647 nodes, got 1000000000001; renumber"):
        check_edge_index(columns((0, 10**12)), None)
    with pytest.raises(ShapeError, match="got 2147483648"):
        check_edge_index(columns((0, 1)), 2**31)


@pytest.mark.parametrize("order", [[2, 0, 1], np.arange(3)], ids=lambda order: type(order).__name__)
def test_ranks_that_are_no_tensor_are_named_by_their_type(order: object) -> None:
    """Not by all their numbers."""
    said = rf"rank tensor \[N\], got {type(order).__name__}; ranks in other forms become one by torch.as_tensor"
    with pytest.raises(ConfigError, match=said):
        LineDAG.from_edge_index(TREE, 7, order=order)
    with pytest.raises(ConfigError, match=said):
        PLSTMConv(2, 2, order=order)
    with pytest.raises(ConfigError, match=said):
        OrientDAG(order)
