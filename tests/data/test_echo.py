"""Distances of ECHO's families, found once more by a search from every node."""

from collections import deque

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from plstm_graph.data import echo, load
from plstm_graph.data.echo import FAMILIES


def search(graph: Data, start: int) -> list[int]:
    near: dict[int, list[int]] = {node: [] for node in range(graph.num_nodes)}
    for a, b in graph.edge_index.t().tolist():
        near[a].append(b)
    found, waiting = {start: 0}, deque([start])
    while waiting:
        node = waiting.popleft()
        for other in near[node]:
            if other not in found:
                found[other] = found[node] + 1
                waiting.append(other)
    return [found[node] for node in range(graph.num_nodes)]


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(echo, "EACH", 2)
    monkeypatch.setattr(echo, "DIAMETERS", range(17, 22))
    return {question: load(f"echo-{question}", root=None).graphs for question in ("sssp", "ecc", "diam")}


def test_the_three_questions(few):
    diameters = [17, 18, 19, 20, 21] * len(FAMILIES) * 2
    assert few["diam"][0].y.shape == (1, 1)
    for sssp, ecc, diam, wanted in zip(*few.values(), diameters, strict=True):
        assert torch.equal(sssp.x, ecc.x)
        assert torch.equal(sssp.edge_index, diam.edge_index)
        (source,) = sssp.x[:, 1].nonzero().flatten().tolist()
        assert sssp.y.flatten().tolist() == search(sssp, source)
        farthest = [max(search(ecc, node)) for node in range(ecc.num_nodes)]
        assert ecc.y.flatten().tolist() == farthest
        assert diam.y.item() == max(farthest) == wanted
        assert torch.equal(diam.edge_index.flip(0).unique(dim=1), diam.edge_index.unique(dim=1))


def test_families_are_what_their_names_say():
    rng = np.random.default_rng(0)
    for name, make in FAMILIES.items():
        nodes, edges, _ = make(20, rng)
        degree = np.bincount(np.array(edges).flat, minlength=nodes)
        assert len(edges) == {"ladder": nodes // 2 + 2 * (nodes // 2 - 1)}.get(name, len(edges))
        if name in ("line", "tree", "caterpillar", "lobster"):
            assert len(edges) == nodes - 1
        assert (degree.max() <= 2) == (name == "line")
        if name in ("caterpillar", "lobster"):  # without its leaves a caterpillar is a path, a lobster a caterpillar
            for _ in range(1 if name == "caterpillar" else 2):
                kept = np.bincount(np.array(edges).flat, minlength=nodes) > 1
                edges = [edge for edge in edges if kept[edge[0]] and kept[edge[1]]]
            assert np.bincount(np.array(edges).flat).max() <= 2


def test_the_parts_share_no_graph(few):
    data = load("echo-diam")
    assert sorted(index for part in data.parts.values() for index in part) == list(range(len(data.graphs)))
    assert {part: len(chosen) for part, chosen in data.parts.items()} == {"train": 48, "valid": 6, "test": 6}
