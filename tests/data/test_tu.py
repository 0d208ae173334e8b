"""The TU Dortmund collection."""

import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.datasets import TUDataset

from plstm_graph.data import DATASETS, load, tu
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import DataError
from plstm_graph.tasks import Regression


@pytest.mark.parametrize("name", ["MUTAG", "PTC_FM", "ENZYMES", "PROTEINS"])
def test_tu_graphs_are_pygs(shared_data: Path, tmp_path: Path, name: str) -> None:
    data = load(name, root=shared_data)
    shutil.copytree(shared_data / "TUDataset" / name, tmp_path / name)
    expected = TUDataset(str(tmp_path), name)
    assert len(data.graphs) == len(expected)
    assert data.features.node_sizes == (expected.num_node_labels,)
    assert data.features.edge_sizes == ((expected.num_edge_labels,) if expected.num_edge_labels else ())
    assert data.task.num_outputs == expected.num_classes
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
        ({"graph_labels": "1, 0\n2, 5\n"}, "must have one class a line, got 2 columns; .* TINY_graph_attributes.txt"),
        ({"graph_labels": "1.5\n2\n"}, "integers .*; quantities belong in TINY_graph_attributes.txt instead"),
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


# ---------------------------------------------------------------------- any set of the collection


def like(shared_data: Path, folder: Path, source: str, name: str, keep: slice = slice(None)) -> Path:
    """The files of a set under another name, as the collection has them."""
    folder.mkdir(parents=True)
    for path in (shared_data / "TUDataset" / source / "raw").glob(f"{source}_*.txt"):
        shutil.copy(path, folder / path.name.replace(source, name))
    return folder


PLACES = {
    "listed, below a root": ("BZR", "TUDataset/BZR/raw", "root"),
    "in another case": ("ptc_mr", "PTC_MR/raw", "root"),
    "not listed, below a root": ("MY-SET", "TUDataset/MY-SET/raw", "root"),
    "listed, in the cache": ("NCI109", "plstm_graph/TUDataset/NCI109/raw", "cache"),
    "a folder": ("{tmp}/flat", "flat", ""),
    "a folder of PyG's": ("{tmp}/BZR", "BZR/raw", ""),
    "a folder below the home folder": ("~/flat", "flat", ""),
    "a zip file": ("{tmp}/COX2.zip", "COX2", "zip"),
    "a zip file of plain files": ("{tmp}/flat.zip", "flat", "zip"),
    "with attributes": ("{tmp}/AIDS+attr", "AIDS", ""),
}


@pytest.mark.parametrize("place", PLACES)
def test_any_set_by_name_folder_or_zip(
    place: str, shared_data: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, folder, how = PLACES[place]
    monkeypatch.setenv("HOME", str(tmp_path))
    source = "AIDS" if place == "with attributes" else "MUTAG"
    name = next((part for part in Path(folder).parts[::-1] if part not in ("raw", "flat")), "SOME")
    like(shared_data, (cache.parent if how == "cache" else tmp_path) / folder, source, name)
    if how == "zip":
        inner = None if folder == "flat" else folder
        shutil.make_archive(str(tmp_path / folder), "zip", tmp_path if inner else tmp_path / folder, inner)
        shutil.rmtree(tmp_path / folder)
    data = load(asked.format(tmp=tmp_path), root=tmp_path if how == "root" else None)
    wanted = load(source + "+attr" * (place == "with attributes"), root=shared_data)
    assert data.name == name + "+attr" * (place == "with attributes")
    assert (data.task.name, data.task.metric, data.default_split) == ("multiclass", "accuracy", "folds")
    assert (data.features, data.task) == (wanted.features, wanted.task)
    assert all(
        torch.equal(one[key], other[key])
        for one, other in zip(data.graphs, wanted.graphs, strict=True)
        for key in ("x", "edge_index", "edge_attr", "y")
    )


def test_a_listed_set_is_downloaded_from_pygs_address(tmp_path: Path, cache: Path, monkeypatch) -> None:
    asked = []

    def fetch(url: str, path: Path, published: str | None = None) -> None:
        asked.append(url)
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(tiny_tu(tmp_path / str(len(asked))).iterdir()):
                archive.write(file, file.name.replace("TINY", name).join((f"{name}/", "")))

    monkeypatch.setattr("plstm_graph.data.source.fetch", fetch)
    for name in ("COX2", "tu:UNHEARD"):
        asked_as, name = name, name.removeprefix("tu:")
        assert len(load(asked_as).graphs) == 2
        assert asked[-1] == f"{TUDataset.url}/{name}.zip"
        assert len(load(asked_as).graphs) == 2
    assert len(asked) == 2
    with pytest.raises(DataError, match=r"unknown data set 'UNHEARD_OF'.*tu:NAME for any set of the TU collection"):
        load("UNHEARD_OF")


def test_attributes_of_edges_and_graphs(tmp_path: Path) -> None:
    raw = tiny_tu(
        tmp_path,
        edge_attributes="0.5\n0.5\n2\n2\n9\n0.5\n",
        node_attributes="1,2\n3,4\n5,6\n7,8\n",
        graph_attributes="1.5, 2\n-3, 4\n",
    )
    (raw / "TINY_graph_labels.txt").unlink()
    data = load(str(raw))
    assert (data.task, data.default_split) == (Regression(("y0", "y1"), "mae"), "random")
    assert [graph.y.tolist() for graph in data.graphs] == [[[1.5, 2.0]], [[-3.0, 4.0]]]
    assert data.graphs[0].x.tolist() == [[1, 2], [3, 4], [5, 6]]  # no labels of nodes: attributes are all there is
    assert data.graphs[0].edge_attr.tolist() == [[0], [0], [1], [1]]
    both = load(f"{raw}+attr")
    assert both.graphs[0].edge_attr[:, 0].tolist() == [0.5, 0.5, 2, 2]
    assert both.features == FeatureSpec(node_dim=2, edge_dim=8)
    with pytest.raises(DataError, match=r"TINY has no attributes of nodes; leave \+attr out"):
        load(f"{tiny_tu(tmp_path / 'plain')}+attr")


def test_a_zip_file_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "BZR.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"BZR.zip is truncated, or no zip file"):
        load(str(tmp_path / "BZR.zip"))
