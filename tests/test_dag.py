"""Levels, line graphs and multitrees against networkx and against path counts."""

import networkx as nx
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import Compose

from plstm_graph.dag import line_graph, to_multitree, topological_levels
from plstm_graph.errors import CycleError, ShapeError
from plstm_graph.transforms import DirectedLineGraph, ToMultitree, TopologicalLevels


def random_dag(nodes: int, density: float) -> Tensor:
    """Columns in any order, node numbers in no topological order."""
    columns = torch.combinations(torch.arange(nodes)).t()
    columns = columns[:, torch.rand(columns.size(1)) < density]
    return torch.randperm(nodes)[columns[:, torch.randperm(columns.size(1))]]


DAGS = [(1, 0.0), (2, 1.0), (6, 1.0), (9, 0.15), (12, 0.3), (20, 0.1), (30, 0.3)]
every = pytest.mark.parametrize(("nodes", "density"), DAGS)


def as_networkx(edge_index: Tensor, nodes: int) -> nx.DiGraph:
    graph = nx.DiGraph(edge_index.t().tolist())
    graph.add_nodes_from(range(nodes))
    return graph


def most_paths(edge_index: Tensor, nodes: int) -> int:
    """The largest number of directed paths between two nodes: entries of the sum over the adjacency's powers."""
    adjacency = torch.zeros(nodes, nodes, dtype=torch.float64).index_put_(
        tuple(edge_index), torch.ones(1).double(), accumulate=True
    )
    return int((torch.linalg.inv(torch.eye(nodes, dtype=torch.float64) - adjacency)).round().max())


@every
def test_levels_are_the_topological_generations(nodes: int, density: float) -> None:
    edge_index = random_dag(nodes, density)
    level = topological_levels(edge_index, nodes)
    generations = nx.topological_generations(as_networkx(edge_index, nodes))
    assert {node: step for step, members in enumerate(generations) for node in members} == dict(
        enumerate(level.tolist())
    )
    twice = torch.cat([edge_index, edge_index], 1)
    assert torch.equal(topological_levels(twice, nodes), level)


@every
def test_line_graph_is_that_of_networkx(nodes: int, density: float) -> None:
    edge_index = random_dag(nodes, density)
    pairs, joint = line_graph(edge_index, nodes)
    ends = list(map(tuple, edge_index.t().tolist()))
    got = {(ends[a], ends[b]) for a, b in pairs.t().tolist()}
    assert got == set(nx.line_graph(as_networkx(edge_index, nodes)).edges)
    assert len(got) == pairs.size(1)
    assert torch.equal(edge_index[1][pairs[0]], joint)
    assert torch.equal(edge_index[0][pairs[1]], joint)


def test_line_graph_of_a_multigraph_with_cycles() -> None:
    """Parallel edges keep their own nodes, in the order of the columns; a self-loop leads to itself."""
    edge_index = torch.tensor([[0, 0, 1, 2], [1, 1, 0, 2]])
    pairs, joint = line_graph(edge_index)
    assert sorted(map(tuple, pairs.t().tolist())) == [(0, 2), (1, 2), (2, 0), (2, 1), (3, 3)]
    assert set(zip(pairs[0].tolist(), joint.tolist(), strict=True)) == {(0, 1), (1, 1), (2, 0), (3, 2)}
    empty, _ = line_graph(edge_index[:, :0])
    assert empty.shape == (2, 0)


@every
def test_a_multitree_has_one_path_and_room_for_no_edge(nodes: int, density: float) -> None:
    edge_index = random_dag(nodes, density)
    keep = to_multitree(edge_index, nodes)
    assert most_paths(edge_index[:, keep], nodes) == 1
    for dropped in torch.nonzero(~keep).view(-1):
        wider = keep.clone()
        wider[dropped] = True
        assert most_paths(edge_index[:, wider], nodes) == 2
    assert to_multitree(edge_index[:, keep], nodes).all()
    shuffle = torch.randperm(edge_index.size(1))
    assert torch.equal(to_multitree(edge_index[:, shuffle], nodes), keep[shuffle])
    twice = torch.cat([edge_index, edge_index], 1)
    assert torch.equal(to_multitree(twice, nodes), torch.cat([keep, torch.zeros_like(keep)]))


@pytest.mark.parametrize("function", [topological_levels, to_multitree])
def test_a_cycle_is_named(function) -> None:
    with pytest.raises(CycleError, match=r"but (1 -> 2 -> 3 -> 1|2 -> 3 -> 1 -> 2|3 -> 1 -> 2 -> 3) is a cycle"):
        function(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 1]]))
    with pytest.raises(CycleError, match="0 -> 0 is a cycle"):
        function(torch.tensor([[0], [0]]))


@pytest.mark.parametrize("function", [topological_levels, line_graph, to_multitree])
def test_wrong_columns_are_refused(function) -> None:
    with pytest.raises(ShapeError, match="node numbers 0 to 1, got 0 to 2"):
        function(torch.tensor([[0], [2]]), 2)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plstm_graph.dag.MAX_EDGES", 3)
    with pytest.raises(ShapeError, match="at most 3 nodes, got 4"):
        to_multitree(torch.tensor([[0], [3]]))
    hub = torch.arange(1, 301)
    spokes = torch.cat([torch.stack([hub, hub * 0]), torch.stack([hub * 0, hub + 300])], 1)
    with pytest.raises(ShapeError, match="node 0 alone joins 300"):
        line_graph(spokes)


def data(nodes: int = 5) -> Data:
    edge_index = random_dag(nodes, 0.7)
    features, weights = torch.randn(nodes, 2), torch.randn(edge_index.size(1), 3)
    return Data(features, edge_index, weights, y=torch.ones(1), smiles="C", rank=torch.arange(nodes))


def test_transforms_call_the_functions() -> None:
    graph = data()
    before = graph.clone()
    assert torch.equal(TopologicalLevels()(graph).level, topological_levels(graph.edge_index, 5))
    kept = to_multitree(graph.edge_index, 5)
    assert not kept.all()
    pruned = ToMultitree()(graph)
    assert torch.equal(pruned.edge_index, graph.edge_index[:, kept])
    assert torch.equal(pruned.edge_attr, graph.edge_attr[kept])
    assert pruned.num_nodes == 5
    line = DirectedLineGraph()(graph)
    pairs, joint = line_graph(graph.edge_index, 5)
    assert torch.equal(line.edge_index, pairs)
    assert torch.equal(line.x, graph.edge_attr)
    assert torch.equal(line.edge_attr, graph.x[joint])
    assert set(line.keys()) == {"x", "edge_index", "edge_attr", "num_nodes", "y", "smiles"}
    bare = DirectedLineGraph()(Data(edge_index=graph.edge_index, num_nodes=5))
    assert (bare.num_nodes, bare.x, bare.edge_attr) == (graph.num_edges, None, None)
    assert set(graph.keys()) == set(before.keys())
    assert all(torch.equal(value, before[key]) for key, value in graph if isinstance(value, Tensor))


@pytest.mark.parametrize("transform", [TopologicalLevels(), DirectedLineGraph(), ToMultitree()], ids=str)
def test_transforms_of_a_batch_are_those_of_its_graphs(transform) -> None:
    graphs = [data(5), data(3), data(7)]
    batch = Compose([transform])(Batch.from_data_list(graphs))
    want = Batch.from_data_list([transform(graph) for graph in graphs])
    assert batch.num_graphs == 3
    for i in range(3):
        for key, value in want[i]:
            assert torch.equal(batch[i][key], value) if isinstance(value, Tensor) else batch[i][key] == value, key
