"""OGB's data: graphs, splits and scores equal those of its own loader and evaluator."""

import gzip
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import small_config

from plstm_graph import LineDAG
from plstm_graph.canonical import weisfeiler_lehman_rank
from plstm_graph.data import DATASETS, GraphDataset, load, ogbg
from plstm_graph.data.smiles import without_version_check
from plstm_graph.errors import DataError
from plstm_graph.tasks import score
from plstm_graph.train import evaluate, train
from plstm_graph.train.module import Learner

with without_version_check():
    from ogb.graphproppred import Evaluator, PygGraphPropPredDataset


def theirs(name: str, folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """OGB's own loader on a copy it may write to, with its ``torch.load`` as it was before PyTorch 2.6."""
    target = copy / folder.name
    shutil.copytree(folder, target, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        os.chmod(path, 0o755)
    monkeypatch.setattr(torch, "load", partial(torch.load, weights_only=False))
    return PygGraphPropPredDataset(name, str(copy))


def test_molhiv_is_ogbs(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared_data / "ogb" / "ogbg_molhiv"
    ours, own = ogbg.read(folder), theirs("ogbg-molhiv", folder, tmp_path, monkeypatch)
    data, slices = own._data, own.slices
    for key in ("x", "edge_index", "edge_attr"):  # features, edges and their order, graph after graph
        assert torch.equal(getattr(ours, key), data[key])
    assert torch.equal(ours.nodes, slices["x"].diff())
    assert torch.equal(ours.columns, slices["edge_index"].diff())
    assert torch.equal(ogbg.read_labels(folder), data.y.float())
    split = ogbg.read_split(folder / "split" / "scaffold")
    for part, numbers in own.get_idx_split().items():
        assert split[part] == numbers.tolist()


@pytest.mark.parametrize("name", ["ogbg-molclintox", "ogbg-molfreesolv"])
def test_sets_of_molecules_are_ogbs(
    name: str, shared_data: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = theirs(name, shared_data / "ogb" / name.replace("-", "_"), tmp_path, monkeypatch)
    for data in (load(name, root=shared_data), load(name, root=shared_data)):  # from raw files, then from the cache
        assert len(data.graphs) == len(own)
        assert data.task.num_outputs == own.num_tasks
        for graph, other in zip(data.graphs, own, strict=True):
            for key in ("x", "edge_index", "edge_attr"):
                assert torch.equal(graph[key], other[key])
            assert torch.equal(graph.y, other.y.float())
            assert graph.rank.sort().values.equal(torch.arange(graph.num_nodes))
        assert data.split() == {part: numbers.tolist() for part, numbers in own.get_idx_split().items()}
    assert data.task.targets == {"ogbg-molclintox": ("FDA_APPROVED", "CT_TOX"), "ogbg-molfreesolv": ("expt",)}[name]
    assert next(graph.smiles for graph in data.graphs)


def test_missing_labels_and_molecules_unknown_to_rdkit(
    shared_data: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "plstm_graph.data.ogbg"):
        data = load("ogbg-moltox21", root=shared_data)
    assert "8 of 7831 molecules are unknown to rdkit" in caplog.text
    y = torch.cat([graph.y for graph in data.graphs])
    assert y.shape == (7831, 12)
    assert y.isnan().any(0).all()
    graph = data.graphs[1322]  # stored, though rdkit cannot read its SMILES
    assert torch.equal(graph.rank, weisfeiler_lehman_rank(graph))


def same_to_the_last_digit(name: str, y: np.ndarray, prediction: np.ndarray) -> None:
    metric = Evaluator(name).eval_metric
    want = Evaluator(name).eval({"y_true": y, "y_pred": prediction})[metric]
    assert score(metric, torch.from_numpy(prediction), torch.from_numpy(y)) == want


def test_scores_are_those_of_ogbs_evaluator(shared_data: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("molhiv", "moltox21", "molsider", "molesol", "mollipo"):
        labels = ogbg.read_labels(shared_data / "ogb" / f"ogbg_{name}").numpy()
        prediction = np.nan_to_num(labels) + rng.normal(0, 1, labels.shape).astype(np.float32)
        same_to_the_last_digit(f"ogbg-{name}", labels, prediction)
    labels = rng.choice([0.0, 1.0, np.nan], (300, 128), p=[0.6, 0.1, 0.3]).astype(np.float32)
    labels[:, 5] = 0  # a target with one class is left out
    same_to_the_last_digit("ogbg-molpcba", labels, rng.random((300, 128), np.float32).round(2))  # with ties


# ---------------------------------------------------------------- ogbg-code2, by hand

NAMES = ("get item", "get", "set item value", "get item of this very long name", "set", "nothing")
PARTS = {"train": "0\n1\n2\n", "valid": "3\n4\n", "test": "5\n"}


@pytest.fixture
def code(tmp_path: Path) -> Callable[..., Path]:
    """Six trees in OGB's layout: the root 0 has parts 1 and 2, node 2 has part 3; nodes 1, 2 and 3 are tokens."""

    def write(**changes: str) -> Path:
        folder = tmp_path / "ogb" / "ogbg_code2"
        files = {
            "raw/num-node-list": "4\n" * 6,
            "raw/num-edge-list": "3\n" * 6,
            "raw/edge": "0,1\n0,2\n2,3\n" * 6,
            "raw/node-feat": "".join(f"{i % 3},{i % 7}\n" for i in range(24)),
            "raw/node_depth": "0\n1\n1\n2\n" * 5 + "0\n1\n1\n33\n",
            "raw/node_is_attributed": "0\n1\n1\n1\n" * 6,
            "raw/graph-label": "".join(f"{name}\n" for name in NAMES),
            "mapping/typeidx2type": "idx,type\n" + "".join(f"{i},t\n" for i in range(3)),
            "mapping/attridx2attr": "idx,attr\n" + "".join(f"{i},a\n" for i in range(7)),
            **{f"split/project/{part}": text for part, text in PARTS.items()},
        }
        for name, text in (files | changes).items():
            path = folder / f"{name}.csv.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(text.encode()))
        return tmp_path

    return write


@pytest.fixture
def small_code(code: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> GraphDataset:
    monkeypatch.setitem(DATASETS, "ogbg-code2", replace(DATASETS["ogbg-code2"], graphs=6))
    return load("ogbg-code2", root=code())


def test_code_by_hand(small_code: GraphDataset) -> None:
    first, last = small_code.graphs[0], small_code.graphs[-1]
    assert first.x.tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 1], [0, 3, 2]]
    assert last.x[-1].tolist() == [2, 2, 20]  # deeper than what is told apart
    assert first.edge_index.tolist() == [[0, 0, 2, 1, 2], [1, 2, 3, 2, 3]]
    assert first.edge_attr.tolist() == [[0], [0], [0], [1], [1]]
    assert torch.equal(first.edge_index, last.edge_index)
    assert small_code.features.node_sizes == (3, 7, 21)
    assert small_code.task.words == ("get", "item", "set", "value")  # by falling count, then by first appearance
    assert small_code.task.num_outputs == 5 * (4 + 2)
    assert first.y.tolist() == [[0, 1, -1, -1, -1, -1, -1]]
    assert small_code.graphs[3].y.tolist() == [[0, 1, 6, 7, 8, 9, 10]]  # after unknown (4) and end (5)
    assert small_code.split() == {"train": [0, 1, 2], "valid": [3, 4], "test": [5]}
    dag = LineDAG.from_edge_index(first.edge_index, 4, order=first.rank)
    given = LineDAG.from_edge_index(first.edge_index, 4, order="given")
    assert torch.equal(dag.src, given.src)
    assert torch.equal(dag.dst, given.dst)


def test_code_is_what_ogbs_loader_reads(small_code: GraphDataset, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "ogb" / "ogbg_code2" / "RELEASE_v1.txt").write_text("")
    for kind in ("node_dfs_order",):
        shutil.copy(tmp_path / "ogb/ogbg_code2/raw/node_depth.csv.gz", tmp_path / f"ogb/ogbg_code2/raw/{kind}.csv.gz")
    own = theirs("ogbg-code2", tmp_path / "ogb" / "ogbg_code2", tmp_path / "copy", monkeypatch)
    for graph, other in zip(small_code.graphs, own, strict=True):
        assert torch.equal(graph.x[:, :2], other.x)
        assert torch.equal(graph.x[:, 2], other.node_depth[:, 0].clamp(max=20))
        assert torch.equal(graph.edge_index[:, :3], other.edge_index)


def test_f1_is_that_of_ogbs_evaluator(small_code: GraphDataset) -> None:
    generator = torch.Generator().manual_seed(3)
    words = [*small_code.task.words, "__UNK__", None]
    learner = Learner(torch.nn.Identity(), small_code.task)
    y = torch.cat([graph.y for graph in small_code.graphs])
    for _ in range(20):
        predicted = learner.readable(torch.randn(6, small_code.task.num_outputs, generator=generator))
        guesses = []
        for row in predicted.tolist():
            end = row.index(-1) if -1 in row else len(row)
            assert set(row[end:]) <= {-1}
            guesses.append([words[number] for number in row[:end]])
        want = Evaluator("ogbg-code2").eval({"seq_ref": [name.split() for name in NAMES], "seq_pred": guesses})["F1"]
        assert score("f1", predicted, y) == want


def test_code_trains(small_code: GraphDataset, code: Callable[..., Path], tmp_path: Path) -> None:
    """Graphs 3 to 5 are made copies of 0 to 2: a model that has learnt those by heart knows them."""
    features = "".join(f"{i % 3},{i % 7}\n" for i in range(12))
    names = "".join(f"{name}\n" for name in NAMES[:3])
    code(**{"raw/node-feat": 2 * features, "raw/node_depth": "0\n1\n1\n2\n" * 6, "raw/graph-label": 2 * names})
    config = small_config(
        data="ogbg-code2", root=str(tmp_path), out=str(tmp_path / "run"), epochs=80, lr=0.05, batch_size=3
    )
    found = train(config)
    assert found["valid"]["f1"] == 1.0
    assert found["metric"] == "f1"
    again = evaluate(tmp_path / "run", part="valid")
    assert again["f1"] == found["valid"]["f1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"raw/edge": "0,1\n"}, "do not fit together: 1 edges, 18 announced"),
        ({"raw/edge": "0,1\n0,2\n2,4\n" * 6}, "do not fit together"),
        ({"raw/edge": "0,1\n0,2\n3,2\n" * 6}, "depth first"),
        ({"raw/node_depth": "0\n"}, "do not fit together: 1 depths, 24 nodes"),
        ({"raw/num-node-list": "x\n"}, "must hold whole numbers"),
        ({"raw/num-node-list": ""}, "cannot read .*num-node-list"),
        ({"split/project/test": "4\n"}, "each graph once, from 0 to 5"),
    ],
)
def test_broken_files(code: Callable[..., Path], cache: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load("ogbg-code2", root=code(**changes))


def test_incomplete_and_foreign_files(code: Callable[..., Path], cache: Path) -> None:
    root = code()
    with pytest.raises(DataError, match="ogbg-code2 must have 452741 graphs, got 6"):
        load("ogbg-code2", root=root)
    (root / "ogb" / "ogbg_code2" / "raw" / "edge.csv.gz").write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(DataError, match=r"cannot read .*edge\.csv\.gz"):
        load("ogbg-code2", root=root)
    (root / "ogb" / "ogbg_code2" / "raw" / "edge.csv.gz").unlink()
    with pytest.raises(DataError, match=r"ogbg-code2 is not complete: cannot read .*edge\.csv\.gz"):
        load("ogbg-code2", root=root)
