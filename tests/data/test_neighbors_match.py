"""Tree-NeighborsMatch by hand."""

import torch

from plstm_graph.data import load, neighbors_match
from plstm_graph.train import train
from plstm_graph.train.config import override
from plstm_graph.train.defaults import default_config


def test_the_answer_stands_at_the_leaf_that_the_root_asks_for():
    depth, count = 3, 40
    x, edge_index, y = neighbors_match.draw(depth, count, torch.Generator().manual_seed(0))
    assert edge_index.tolist() == [list(range(1, 15)), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]]
    for tree, answer in zip(x.tolist(), y.tolist(), strict=True):
        key, none = tree[0]
        assert none == 0
        assert tree[1:7] == [[0, 0]] * 6
        leaves = dict(tree[7:])
        assert sorted(leaves) == sorted(leaves.values()) == list(range(1, 9))
        assert leaves[key] == answer + 1
    assert set(y.tolist()) == set(range(8))


def test_by_name_through_the_trainer(monkeypatch):
    monkeypatch.setattr(neighbors_match, "COUNTS", {"train": 96, "valid": 16, "test": 16})
    data, again = load("neighborsmatch-2"), load("neighborsmatch-2")
    assert data.task.classes == 4
    assert all(torch.equal(a.x, b.x) and a.y == b.y for a, b in zip(data.graphs, again.graphs, strict=True))
    config = default_config("neighborsmatch-2")
    assert config.model.pooling == "sinks"  # the root
    small = {"epochs": 40, "accelerator": "cpu", "lr": 1e-2, "model.width": 32, "model.layers": 2}
    assert train(override(config, small), data)["train"]["accuracy"] > 0.9
