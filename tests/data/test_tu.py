"""The TU Dortmund collection."""

import shutil
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.datasets import TUDataset

from plstm_graph.data import DATASETS, load, tu
from plstm_graph.errors import DataError
from plstm_graph.nn.encoders import FeatureSpec


@pytest.mark.parametrize("name", ["MUTAG", "PTC_FM", "ENZYMES", "PROTEINS"])
def test_tu_graphs_are_pygs(shared_data: Path, tmp_path: Path, name: str) -> None:
    data = load(name, root=shared_data)
    shutil.copytree(shared_data / "TUDataset" / name, tmp_path / name)
    expected = TUDataset(str(tmp_path), name)
    assert len(data.graphs) == len(expected)
    assert data.features.node_sizes == (expected.num_node_labels,)
    assert data.features.edge_sizes == ((expected.num_edge_labels,) if expected.num_edge_labels else ())
    assert data.num_outputs == expected.num_classes
    for graph, other in zip(data.graphs, expected, strict=True):
        assert torch.equal(graph.x[:, 0], other.x.argmax(dim=1))
        assert torch.equal(graph.edge_index, other.edge_index)
        assert torch.equal(graph.y, other.y)
        assert ("edge_attr" in graph) == ("edge_attr" in other)
        if "edge_attr" in graph:
            assert torch.equal(graph.edge_attr[:, 0], other.edge_attr.argmax(dim=1))


@pytest.mark.parametrize("name", ["PROTEINS", "ENZYMES"])
def test_attributes_are_pygs(shared_data: Path, tmp_path: Path, name: str) -> None:
    data = load(f"{name}+attr", root=shared_data)
    shutil.copytree(shared_data / "TUDataset" / name, tmp_path / name)
    expected = TUDataset(str(tmp_path), name, use_node_attr=True)
    assert data.features == FeatureSpec(node_dim=expected.num_features)
    for graph, other in zip(data.graphs, expected, strict=True):
        assert torch.equal(graph.x, other.x)
        assert torch.equal(graph.edge_index, other.edge_index)


def test_attributes_by_hand(tmp_path: Path) -> None:
    raw = tiny_tu(tmp_path, node_attributes="0.5, 1\n2, 3\n-1, 0\n4, 4\n", node_labels="3\n4\n3\n4\n")
    data = tu.read(raw, "TINY", attributes=True)
    assert data.graphs[0].x.tolist() == [[0.5, 1, 1, 0], [2, 3, 0, 1], [-1, 0, 1, 0]]
    assert data.features == FeatureSpec(node_dim=4, edge_sizes=(7,))
    (raw / "TINY_node_attributes.txt").write_text("0.5, 1\n")
    with pytest.raises(DataError, match="must have 4 lines, got 1"):
        tu.read(raw, "TINY", attributes=True)


def test_every_shared_tu_set_loads_and_nothing_is_written(shared_data: Path) -> None:
    folder = shared_data / "TUDataset"
    before = sorted(folder.rglob("*"))
    for name in sorted(path.name for path in folder.iterdir() if path.name in DATASETS):
        data = load(name, root=shared_data)
        batch = Batch.from_data_list(data.graphs)
        assert batch.x.min() >= 0
        assert int(batch.x.max()) < data.features.node_sizes[0]
        assert batch.y.shape == (DATASETS[name].graphs,)
    assert sorted(folder.rglob("*")) == before


def tiny_tu(folder: Path, **changes: str) -> Path:
    """Two graphs by hand: a path 1-2-3 (with a self-loop and a repeated column) and one node alone."""
    files = {
        "A": "2, 1\n1, 2\n2, 3\n3, 2\n1, 1\n1, 2\n",
        "graph_indicator": "1\n1\n1\n2\n",
        "graph_labels": "5\n-1\n",
        "edge_labels": "3\n3\n4\n4\n9\n3\n",
        **changes,
    }
    raw = folder / "TINY" / "raw"
    raw.mkdir(parents=True)
    for kind, text in files.items():
        (raw / f"TINY_{kind}.txt").write_text(text)
    return raw


def test_tu_by_hand(tmp_path: Path) -> None:
    data = tu.read(tiny_tu(tmp_path), "TINY")
    path, alone = data.graphs
    assert path.x.tolist() == [[0], [0], [0]]
    assert path.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert path.edge_attr.tolist() == [[0], [0], [1], [1]]
    assert (path.y.tolist(), alone.y.tolist()) == ([1], [0])
    assert alone.x.tolist() == [[0]]
    assert alone.edge_index.shape == (2, 0)
    assert alone.edge_attr.shape == (0, 1)
    assert data[1:] == (FeatureSpec(node_sizes=(1,), edge_sizes=(7,)), 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"A": ""}, "is empty"),
        ({"A": "1, 2\nx, y\n"}, "integers separated by commas"),
        ({"A": "1, 2\n2, 9\n", "edge_labels": "1\n1\n"}, "nodes from 1 to 4"),
        ({"A": "1, 4\n4, 1\n", "edge_labels": "1\n1\n"}, "edge between two graphs"),
        ({"A": "1\n4\n", "edge_labels": "1\n1\n"}, "pairs of nodes"),
        ({"edge_labels": "3\n3\n"}, "must have 6 lines, got 2: truncated"),
        ({"node_labels": "3\n3\n"}, "must have 4 lines, got 2: truncated"),
        ({"graph_labels": "1\n"}, "must rise from 1 to the 1 graphs"),
        ({"graph_indicator": "1\n1\n2\n1\n"}, "must rise"),
        ({"graph_labels": "1\n2\n3\n"}, "must rise"),
    ],
)
def test_broken_tu_files(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    raw = tiny_tu(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        tu.read(raw, "TINY")


def test_missing_tu_file_folder_and_graphs(tmp_path: Path, shared_data: Path) -> None:
    raw = tiny_tu(tmp_path)
    (raw / "TINY_graph_labels.txt").unlink()
    with pytest.raises(DataError, match="there is no file"):
        tu.read(raw, "TINY")
    with pytest.raises(DataError, match=r"MUTAG is not in .*leave root out to download it from .*MUTAG.zip"):
        load("MUTAG", root=tmp_path)
    other = tmp_path / "MUTAG" / "raw"
    other.mkdir(parents=True)
    for path in (shared_data / "TUDataset" / "PTC_FM" / "raw").glob("PTC_FM_*.txt"):
        shutil.copy(path, other / path.name.replace("PTC_FM", "MUTAG"))
    with pytest.raises(DataError, match="MUTAG must have 188 graphs, got 349"):
        load("MUTAG", root=tmp_path)
