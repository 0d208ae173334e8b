"""Architectures of D-VAE, by hand and from the published file."""

import random
from pathlib import Path

import pytest
import torch

from plstm_graph import LineDAG
from plstm_graph.data import dvae, load
from plstm_graph.errors import DataError

LINE = "[[3], [0, 1], [5, 0, 1]], 0.75\n"
BURNT = "[[0]], 0.1\n" * dvae.BURN_IN


def test_an_architecture_by_hand(tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text(BURNT + LINE + "[[1]], 0.5\n")
    first, second = dvae.read(tmp_path / "few.txt").graphs()
    assert first.x.view(-1).tolist() == [0, 5, 2, 7, 1]
    # The chain 0 - 1 - 2 - 3 - 4; node 2 also reads node 0, node 3 also node 1.
    assert first.edge_index.t().tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3], [3, 4]]
    assert first.y.tolist() == [[0.75]]
    assert second.edge_index.t().tolist() == [[0, 1], [1, 2]]
    assert second.rank.tolist() == [0, 1, 2]


@pytest.mark.parametrize("line", ["[[3], [0]], 0.7", "[[9]], 0.7", "nonsense", "[[3]]", "[[3]], x"])
def test_broken_lines(tmp_path: Path, line: str) -> None:
    (tmp_path / "few.txt").write_text(BURNT + LINE + line + "\n")
    with pytest.raises(DataError, match=r"few\.txt, line 1002: not"):
        dvae.read(tmp_path / "few.txt")
    (tmp_path / "few.txt").write_text(BURNT)
    with pytest.raises(DataError, match="no line after the first 1000"):
        dvae.read(tmp_path / "few.txt")


def test_the_published_file(shared_data: Path, cache: Path) -> None:
    data = load("dvae", root=shared_data)
    assert len(data.graphs) == 19020
    y = torch.cat([graph.y for graph in data.graphs])
    assert 0 < y.min() < y.max() < 1
    parts = data.split()
    assert {name: len(part) for name, part in parts.items()} == {"train": 15216, "valid": 1902, "test": 1902}
    order = list(range(19020))
    random.Random(0).shuffle(order)
    assert parts["test"] == order[-1902:]  # D-VAE's test part; its training part is the rest
    assert sorted(number for part in parts.values() for number in part) == sorted(order)
    graph = data.graphs[7]
    given, ours = (LineDAG.from_edge_index(graph.edge_index, 8, order=order) for order in ("given", graph.rank))
    assert torch.equal(given.src, ours.src)
    assert torch.equal(given.dst, ours.dst)
