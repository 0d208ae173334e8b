"""The answers of generated tasks, found once more by walking from node to node."""

import pytest
import torch
from small_runs import SMALL_MODEL
from torch_geometric.data import Data

from plstm_graph import LineDAG
from plstm_graph.data import load, paths
from plstm_graph.data.paths import CARRIES, TRANSFERS
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.train import train
from plstm_graph.train.config import override
from plstm_graph.train.defaults import DEFAULTS, default_config


def steps(graph: Data, source: int) -> list[int]:
    """Edges along the directions of the DAG from ``source`` to every node on the shortest way; -1 where there is no
    way."""
    dag = LineDAG.from_edge_index(graph.edge_index, graph.num_nodes, order=graph.rank)
    found = [-1] * graph.num_nodes
    found[source] = 0
    for src, dst in sorted(zip(dag.src.tolist(), dag.dst.tolist(), strict=True), key=lambda edge: edge[0]):
        if found[src] >= 0 and (found[dst] < 0 or found[dst] > found[src] + 1):
            found[dst] = found[src] + 1
    return found


@pytest.mark.parametrize("kind", TRANSFERS)
def test_transfer(kind):
    distance, generator = 9, torch.Generator().manual_seed(0)
    drawn = paths.transfer(kind, distance, 4, generator)
    far = drawn.distance.view(4, -1)
    for number, graph in enumerate(drawn.graphs.graphs()):
        value, is_source, is_target = graph.x.t()
        ((source,),), ((target,),) = is_source.nonzero().tolist(), is_target.nonzero().tolist()
        assert (~graph.y.isnan()).nonzero().tolist() == [[target, 0]]
        assert graph.y[target] == value[source]
        assert value[target] == 0
        assert value.unique().numel() == graph.num_nodes
        assert steps(graph, source)[target] <= distance
        if kind != "dag":
            assert steps(graph, source)[target] == distance
        assert far[number].tolist() == [distance if node == target else -1 for node in range(graph.num_nodes)]


@pytest.mark.parametrize("kind", paths.SWAPS)
def test_swap(kind):
    """Both ends are as far apart as published, a line's distance being its number of nodes."""
    graph = paths.swap(kind, 9, 2, torch.Generator().manual_seed(0)).graphs()[1]
    end = 8 if kind == "line" else 9
    assert graph.num_nodes == (9 if kind == "line" else 18)
    assert (graph.x[0].item(), graph.x[end].item()) == (1, 0)
    assert (graph.y[0].item(), graph.y[end].item(), int((~graph.y.isnan()).sum())) == (0, 1, 2)
    src, dst = graph.edge_index.tolist()
    pairs = {*zip(src, dst, strict=True)}
    assert len(pairs) == len(src)
    assert {(b, a) for a, b in pairs} == pairs
    assert steps(graph, 0)[end] == (8 if kind == "line" else 9)
    ring = {(i, (i + 1) % 18) for i in range(18)}
    crosses = {(i, 17 - i) for i in range(9)} | {(i, 19 - i) for i in range(2, 9)}
    edges = {"line": {(i, i + 1) for i in range(8)}, "ring": ring, "crossed": ring | crosses}[kind]
    assert {frozenset(pair) for pair in pairs} == {frozenset(pair) for pair in edges}


@pytest.mark.parametrize("kind", CARRIES)
def test_carry(kind):
    drawn = paths.carry(kind, 40, 3, torch.Generator().manual_seed(0), open_share=0.8)
    far = drawn.distance.view(3, -1)
    assert far.max() > 5
    for graph, distances in zip(drawn.graphs.graphs(), far, strict=True):
        src, dst = graph.edge_index.tolist()
        assert len({*zip(src, dst, strict=True)}) == len(src) == 39 + (kind == "dag") * 38
        assert all(0 <= a < b <= a + paths.NEAR for a, b in zip(src, dst, strict=True))
        feeds = [(a, b) for a, b, is_open in zip(src, dst, graph.edge_attr.view(-1).tolist(), strict=True) if is_open]
        assert len(feeds) == len({b for _, b in feeds})
        answer, depth = graph.x.view(-1).tolist(), [0] * graph.num_nodes
        for a, b in sorted(feeds, key=lambda edge: edge[1]):
            answer[b], depth[b] = answer[a], depth[a] + 1
        assert graph.y.view(-1).tolist() == answer
        assert distances.tolist() == depth


def test_unknown_kinds():
    generator = torch.Generator()
    with pytest.raises(ConfigError, match="unknown transfer 'star'"):
        paths.transfer("star", 3, 1, generator)
    with pytest.raises(ConfigError, match="unknown carry 'star'"):
        paths.carry("star", 3, 1, generator)
    with pytest.raises(ConfigError, match="unknown swap 'star'"):
        paths.swap("star", 3, 1, generator)


@pytest.mark.parametrize("name", ["carry", "carry-dag", "transfer-ring"])
def test_a_set_by_name(name):
    """Short paths to learn on, long ones in the test part; the same time and again."""
    data, again = load(name), load(name)
    assert all(torch.equal(a.x, b.x) for a, b in zip(data.graphs, again.graphs, strict=True))
    sizes = {part: max(data.graphs[i].num_nodes for i in chosen) for part, chosen in data.parts.items()}
    assert sizes["train"] == sizes["valid"] <= sizes["test"] / 9
    assert data.task.level == "node"


def test_the_published_form_by_name():
    data = load("swap-ring")
    assert {part: len(chosen) for part, chosen in data.parts.items()} == paths.SWAP_COUNTS
    assert {graph.num_nodes for graph in data.graphs} == {100}
    assert len({graph.x[1].item() for graph in data.graphs}) == 1200
    assert data.task.level == "node"


def test_the_longest_paths_are_for_testing():
    data = load("transfer-line-5000")
    assert {part: len(chosen) for part, chosen in data.parts.items()} == {"train": 0, "valid": 0, "test": 20}
    assert {graph.num_nodes for graph in data.graphs} == {5001}
    with pytest.raises(DataError, match="--data transfer-line, with evaluate"):
        train(default_config("transfer-line-5000"), data)


def test_trained_by_name():
    """An answer a node, with what suits such data by default, through the trainer of all others."""
    config = default_config("Carry")
    assert (config.model.transition, config.model.local, config.model.order) == ("saturating", "none", "canonical")
    assert set(DEFAULTS) >= {row.name for row in paths.SETS}
    small = {"epochs": 1, "accelerator": "cpu"} | {f"model.{key}": value for key, value in SMALL_MODEL.items()}
    found = train(override(config, small))
    assert found["graphs"] == paths.COUNTS
    assert found["valid"]["rmse"] < 0.4
