"""Filled batches: the graphs are those of a plain batch, the shapes those of every filled batch."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from plstm_graph.data import PackedGraphs
from plstm_graph.data.filling import FILLER_NODES, Capacity
from plstm_graph.errors import DataError
from plstm_graph.line_dag.plan import TILES, Graph, Host, Plan, Work, size_class


def molecule(nodes: int, seed: int) -> Data:
    """A random tree with a few more edges, stored in both directions; nodes are numbered at random."""
    draw = random.Random(seed)
    names = draw.sample(range(nodes), nodes)
    ends = {(draw.randrange(node), node) for node in range(1, nodes)}
    ends |= {tuple(sorted(draw.sample(range(nodes), 2))) for _ in range(nodes // 6)}
    columns = [(names[a], names[b]) for u, v in sorted(ends) for a, b in ((u, v), (v, u))]
    edge_index = torch.tensor(columns, dtype=torch.long).view(-1, 2).t().contiguous()
    x, weights = torch.randint(5, (nodes, 2)), torch.rand(len(columns), 3)
    return Data(x=x, edge_index=edge_index, edge_attr=weights, y=torch.tensor([[float(seed)]]), pair=edge_index.t()[:2])


SIZES = [*range(1, 30), 33, 40, 64, 70, 12, 12, 0, 5]
GRAPHS = [molecule(nodes, seed) for seed, nodes in enumerate(SIZES)]
COUNT = 8


@pytest.fixture(scope="module", params=[True, False], ids=["pruned", "whole"])
def packed(request: pytest.FixtureRequest) -> PackedGraphs:
    return PackedGraphs.from_data_list(GRAPHS, prune=request.param).with_filler(COUNT)


def draws(packed: PackedGraphs, count: int = 60) -> list[list[int]]:
    """Choices of graphs that fit."""
    chosen = [random.Random(seed).sample(range(len(packed)), COUNT) for seed in range(count)]
    return [graphs for graphs in chosen if packed.batch(graphs, filled=True).num_graphs == COUNT + 1]


def some(packed: PackedGraphs) -> list[list[int]]:
    """Choices of graphs that fit, a few of them of fewer graphs."""
    return [graphs[: COUNT - number % 4] for number, graphs in enumerate(draws(packed, 12))]


def plans(batch: Batch, packed: PackedGraphs) -> list[Plan]:
    dag = batch.line_dag
    assert packed.lines is not None
    views = [dag, dag.prune()] if "kept" in packed.lines.tables else [dag]
    return [view.plan(len(TILES)) for view in views]


def shapes(batch: Batch, packed: PackedGraphs) -> dict[str, torch.Size]:
    found = {key: value.shape for key, value in batch.to_dict().items() if isinstance(value, torch.Tensor)}
    for number, plan in enumerate(plans(batch, packed)):
        found |= {f"{name} {number}": table.shape for name, table in plan._asdict().items()}
    lines = batch.line_dag.lines._asdict()
    return found | {key: value.shape for key, value in lines.items() if isinstance(value, torch.Tensor)}


def test_nearly_all_batches_can_be_filled(packed: PackedGraphs) -> None:
    assert len(draws(packed, 300)) >= 299


def test_all_filled_batches_have_the_same_shapes(packed: PackedGraphs) -> None:
    several = [packed.batch(graphs, filled=True) for graphs in draws(packed)]
    several += [packed.batch(graphs[:few], filled=True) for graphs in draws(packed, 12) for few in (1, COUNT - 1)]
    assert all(batch.filled for batch in several)
    assert len({tuple(sorted(shapes(batch, packed).items())) for batch in several}) == 1
    hosts = [plan.host for batch in several for plan in plans(batch, packed)]
    assert all(torch.equal(host, hosts[0]) for host in hosts)


def test_the_graphs_are_those_of_a_plain_batch(packed: PackedGraphs) -> None:
    for graphs in some(packed):
        plain, filled = packed.batch(graphs), packed.batch(graphs, filled=True)
        assert filled.num_graphs == COUNT + 1
        assert filled.examples == filled.own == len(graphs)
        for number in range(len(graphs)):
            for key, value in plain[number].to_dict().items():
                assert torch.equal(value, filled[number][key]), key
        for key, value in plain.to_dict().items():
            if isinstance(value, torch.Tensor):
                length = value.size(plain.__cat_dim__(key, value) or 0)
                assert torch.equal(value, filled[key].narrow(plain.__cat_dim__(key, value) or 0, 0, length)), key
        for one, two in zip(plans(plain, packed), plans(filled, packed), strict=True):
            for name in ("graphs", "nodes", "edges", "pairs"):
                table = getattr(one, name)
                assert torch.equal(table, getattr(two, name)[:, : table.size(1)]), name


def test_the_work_is_that_of_a_plain_batch(packed: PackedGraphs) -> None:
    """Class by class, the same graphs in the same order with rooms that do not overlap, and else the empty graph."""
    for graphs in some(packed):
        plain, filled = packed.batch(graphs), packed.batch(graphs, filled=True)
        for one, two in zip(plans(plain, packed), plans(filled, packed), strict=True):
            assert not one.filled
            assert two.filled
            rows, begin, start = two.graphs, 0, 0
            for have, slots in zip(one.host[Host.GRAPHS].tolist(), two.host[Host.GRAPHS].tolist(), strict=True):
                mine = two.work[:, begin : begin + slots]
                assert torch.equal(mine[:, slots - have :], one.work[:, start : start + have])
                empty = rows[:, mine[Work.GRAPH, : slots - have].long()]
                assert not empty[[Graph.NODES, Graph.EDGES, Graph.PAIRS]].any()
                begin, start = begin + slots, start + have
            assert (one.host[Host.ROOM] <= two.host[Host.ROOM]).all()


def test_nothing_points_out_of_a_filled_batch(packed: PackedGraphs) -> None:
    for graphs in some(packed):
        batch = packed.batch(graphs, filled=True)
        dag, real = batch.line_dag, sum(SIZES[number] for number in graphs)
        assert batch.num_nodes - real >= FILLER_NODES
        filler = batch.edge_index[:, batch.batch[batch.edge_index[0]] == COUNT]
        assert torch.equal(filler[0], filler[1])
        assert filler.numel()
        assert (filler >= real).all()
        assert (filler < batch.num_nodes).all()
        ends = torch.stack([dag.src, dag.dst])[:, dag.edge_ptr[-1] :]
        assert torch.equal(ends[0], ends[1])
        assert torch.equal(ends[0], real + torch.arange(len(ends[0])) % FILLER_NODES)
        for plan in plans(batch, packed):
            edges, pairs = plan.edges.size(1), plan.pairs.size(1)
            assert plan.edges.min() >= 0
            assert plan.edges[:2].max() < batch.num_nodes
            assert plan.edges[-2:].max() < batch.num_edges
            assert plan.pairs.min() >= 0
            assert plan.pairs[[0, 3]].max() < pairs
            assert plan.pairs[[1, 2, 4, 5]].max() < edges


def test_what_does_not_fit_comes_as_it_is(packed: PackedGraphs) -> None:
    largest = [SIZES.index(70)] * COUNT
    for graphs in (largest, list(range(COUNT + 1))):
        batch = packed.batch(graphs, filled=True)
        assert batch.num_graphs == len(graphs)
        assert not batch.filled
        assert shapes(batch, packed) == shapes(packed.batch(graphs), packed)


def test_a_graph_beyond_all_tiles_is_never_filled_up() -> None:
    graphs = [*GRAPHS, molecule(TILES[-1] + 1, 99)]
    packed = PackedGraphs.from_data_list(graphs).with_filler(2)
    assert packed.batch([3, len(graphs) - 1], filled=True).num_graphs == 2
    assert packed.batch([3, 4], filled=True).num_graphs == 3


def test_few_graphs_of_a_class_have_room() -> None:
    """As many of the rare, large ones as there are places for."""
    graphs = [molecule(10, seed) for seed in range(99)] + [molecule(200, 7)]
    packed = PackedGraphs.from_data_list(graphs).with_filler(8)
    assert packed.fits([99, *range(7)])
    draw = random.Random(0)
    assert sum(packed.fits(draw.sample(range(100), 8)) for _ in range(200)) >= 195


def test_graphs_without_line_graphs() -> None:
    packed = PackedGraphs.from_data_list(GRAPHS, order=None).with_filler(COUNT)
    several = [packed.batch(random.Random(seed).sample(range(len(packed)), COUNT), filled=True) for seed in range(20)]
    assert Counter(batch.num_nodes for batch in several if batch.num_graphs == COUNT + 1).total() >= 19
    assert len({batch.num_nodes for batch in several if batch.num_graphs == COUNT + 1}) == 1


def test_what_cannot_be_filled() -> None:
    packed = PackedGraphs.from_data_list(GRAPHS[:3])
    with pytest.raises(DataError, match="there are 3 graphs, none of whose batches has 4"):
        packed.with_filler(4)
    with pytest.raises(DataError, match="have room for fillers already"):
        packed.with_filler(2).with_filler(1)
    with pytest.raises(DataError, match="at least 1 graph"):
        packed.with_filler(0)
    with pytest.raises(DataError, match=r"call with_filler\(\) first"):
        packed.batch([0], filled=True)
    double = Data(x=torch.ones(2, 2), edge_index=torch.tensor([[0, 0], [1, 1]]))
    with pytest.raises(DataError, match="graph 0 has duplicate columns"):
        PackedGraphs.from_data_list([double]).with_filler(1)


def test_capacity_counts_what_graphs_have() -> None:
    """No spread where all graphs are alike: the sums, and what the filler has at least."""
    alike = PackedGraphs.from_data_list([molecule(40, 7)] * 10).with_filler(5)
    found = alike.capacity
    assert isinstance(found, Capacity)
    batch = alike.batch(range(5), filled=True)
    assert batch.num_nodes == 5 * 40 + FILLER_NODES
    assert batch.y.size(0) == 6
    number = int(size_class(torch.tensor(40), torch.tensor(batch.line_dag.max_edges)))
    assert np.flatnonzero(found.classes[0]).tolist() == [number]
    assert 5 <= found.classes[0][number] <= 8
