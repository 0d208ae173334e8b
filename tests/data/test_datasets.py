"""Data sets by name and from CSV files."""

import math
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.datasets import TUDataset

from plstm_graph.data import DATASETS, load, read_smiles, tu
from plstm_graph.data.datasets import METRICS, TUDATASETS
from plstm_graph.data.molecules import contrib_folder
from plstm_graph.errors import ConfigError, DataError

GOOD = "id,smiles,y,z\n1,CCO,2.5,1\n2,xyz,1.5,0\n3,CC,,\n4,c1ccccc1,-1,\n"


@pytest.fixture
def csv_file(tmp_path: Path):
    def inner(text: str) -> str:
        path = tmp_path / "my.csv"
        path.write_text(text)
        return str(path)

    return inner


def test_nav17() -> None:
    data = load("nav17")
    assert (data.name, data.task, data.metric, data.targets, data.num_outputs) == (
        "nav17",
        "regression",
        "r2",
        ("pIC50",),
        1,
    )
    assert len(data.graphs) == len({graph.smiles for graph in data.graphs}) == 1017
    assert data.rejected == []
    labels = torch.cat([graph.y for graph in data.graphs])
    assert labels.shape == (1017, 1)
    assert labels.dtype == torch.float32
    assert labels.min().item() == pytest.approx(4.27)
    assert labels.max().item() == pytest.approx(9.22)
    # joined by the id, not by the order: ids and values of three lines, copied from the files
    by_smiles = {graph.smiles: graph.y.item() for graph in data.graphs}
    assert by_smiles["O=S(=O)(Nc1cccs1)c2ccc(Oc3ccccc3c4ccccc4)c(c2)C#N"] == pytest.approx(5.48)
    lines = (Path(contrib_folder()) / "FreeWilson" / "data" / "CHEMBL2321810.smi").read_text().splitlines()
    assert by_smiles[lines[2].split()[0]] == pytest.approx(5.50)
    assert {key: len(part) for key, part in data.split().items()} == {"train": 813, "valid": 102, "test": 102}


def test_every_row_of_the_table_is_consistent() -> None:
    assert set(TUDATASETS) < set(DATASETS)
    for name, info in DATASETS.items():
        assert info.name == name
        assert info.metric == METRICS[info.task]
        assert info.split in ("random", "scaffold", "folds")
        assert info.source
        assert info.licence


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


def test_every_shared_tu_set_loads_and_nothing_is_written(shared_data: Path) -> None:
    folder = shared_data / "TUDataset"
    before = sorted(folder.rglob("*"))
    for name in sorted(path.name for path in folder.iterdir() if path.name in TUDATASETS):
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
    assert data[1:] == ((1,), (7,), 2)


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
    with pytest.raises(DataError, match=r"MUTAG is not in .*leave root out to download"):
        load("MUTAG", root=tmp_path)
    other = tmp_path / "MUTAG" / "raw"
    other.mkdir(parents=True)
    for path in (shared_data / "TUDataset" / "PTC_FM" / "raw").glob("PTC_FM_*.txt"):
        shutil.copy(path, other / path.name.replace("PTC_FM", "MUTAG"))
    with pytest.raises(DataError, match="MUTAG must have 188 graphs, got 349"):
        load("MUTAG", root=tmp_path)


def test_download_into_the_cache(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, cache = tmp_path / "server", tmp_path / "cache"
    server.mkdir()
    monkeypatch.setattr(tu, "URL", server.as_uri())
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with pytest.raises(DataError, match=r"cannot download .*MUTAG\.zip.*by hand"):
        load("MUTAG")
    (server / "MUTAG.zip").write_bytes(b"half an arch")
    with pytest.raises(DataError, match="cannot download"):
        load("MUTAG")
    folder = cache / "plstm_graph" / "TUDataset" / "MUTAG"
    assert list(folder.iterdir()) == []
    with zipfile.ZipFile(server / "MUTAG.zip", "w") as archive:
        for path in (shared_data / "TUDataset" / "MUTAG" / "raw").iterdir():
            archive.write(path, f"MUTAG/{path.name}")
    assert len(load("MUTAG").graphs) == 188
    assert [path.name for path in folder.iterdir()] == ["raw"]
    (server / "MUTAG.zip").unlink()
    assert len(load("MUTAG").graphs) == 188  # from the cache


@pytest.mark.parametrize("name", ["mutag", "NAV17"])
def test_case_of_a_name_does_not_matter(name: str, shared_data: Path) -> None:
    assert load(name, root=shared_data).name in ("MUTAG", "nav17")


def test_unknown_name() -> None:
    with pytest.raises(
        DataError, match=r"unknown data set 'MUTAGG'; choose one of nav17, .*mean 'MUTAG'.*path of a .csv"
    ):
        load("MUTAGG")
    with pytest.raises(DataError, match="no file"):
        load("nowhere/my.csv", targets=["y"])
    with pytest.raises(DataError, match="no labels to train on"):
        load("my.smi", targets=["y"])


def test_options_of_a_csv_are_refused_for_a_name() -> None:
    with pytest.raises(ConfigError, match="targets, task can only be chosen for a CSV"):
        load("nav17", targets=["y"], task="binary")


def test_csv_regression_with_empty_cells_and_bad_smiles(csv_file) -> None:
    path = csv_file(GOOD)
    data = load(path, targets=["y"])
    assert (data.name, data.task, data.metric, data.num_outputs) == ("my", "regression", "r2", 1)
    assert [graph.smiles for graph in data.graphs] == ["CCO", "c1ccccc1"]
    assert torch.cat([graph.y for graph in data.graphs]).tolist() == [[2.5], [-1.0]]
    assert [(bad.row, bad.text) for bad in data.rejected] == [(2, "xyz"), (3, "CC")]
    assert "cannot read the SMILES" in data.rejected[0].reason
    assert data.rejected[1].reason == "no label in y"
    assert read_smiles(path) == ["CCO", "xyz", "CC", "c1ccccc1"]


def test_csv_with_two_targets_keeps_missing_labels(csv_file) -> None:
    data = load(csv_file(GOOD), targets=["y", "z"])
    assert data.num_outputs == 2
    assert data.graphs[0].y.tolist() == [[2.5, 1.0]]
    assert data.graphs[1].y[0, 0] == -1
    assert math.isnan(data.graphs[1].y[0, 1])
    assert Batch.from_data_list(data.graphs).y.shape == (2, 2)


def test_csv_task_is_guessed_and_can_be_chosen(csv_file) -> None:
    path = csv_file("smiles,a,b,c\nCC,0,1,2\nCO,1,,0\nCN,,0,1\n")
    both = load(path, targets=["a", "b"])
    assert (both.task, both.metric, both.num_outputs) == ("binary", "rocauc", 2)
    assert load(path, targets=["a", "c"]).task == "regression"
    assert load(path, targets=["a"], task="regression").metric == "r2"
    many = load(path, targets=["c"], task="multiclass")
    assert (many.num_outputs, many.metric) == (3, "accuracy")
    assert [graph.y.tolist() for graph in many.graphs] == [[2], [0], [1]]
    assert many.graphs[0].y.dtype == torch.int64


@pytest.mark.parametrize(
    ("targets", "task", "message"),
    [
        (["c"], "binary", r"row 1 .*must be 0 or 1, got \[2.0\]"),
        (["a", "c"], "multiclass", "exactly one target"),
        (["d"], "multiclass", "0, 1, ... without gaps, got 1.5, 3"),
        (["e"], "multiclass", "without gaps"),
        (["a"], "clustering", "unknown task 'clustering'; choose one of regression, binary, multiclass"),
        (None, None, "name the target"),
        (["aa"], None, "unknown column 'aa'; choose one of smiles, a, c, d, e; did you mean 'a'"),
    ],
)
def test_csv_labels_that_do_not_suit_the_task(csv_file, targets: list[str], task: str, message: str) -> None:
    path = csv_file("smiles,a,c,d,e\nCC,0,2,1.5,0\nCO,1,0,3,0\n")
    with pytest.raises((DataError, ConfigError), match=message):
        load(path, targets=targets, task=task)


def test_csv_without_a_usable_row(csv_file) -> None:
    with pytest.raises(DataError, match="none of the 2 rows can be used; row 1: rdkit cannot read"):
        load(csv_file("smiles,y\nxyz,1\nabc,2\n"), targets=["y"])
