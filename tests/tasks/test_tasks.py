"""Kinds of tasks: what they refuse, how they are stored, nodes as what is asked about, and one from outside."""

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from small_runs import small_config, small_dataset, write_csv
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data

from plstm_graph.data import GraphDataset, load, read_prepared, write_prepared
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import CheckpointError, ConfigError, DataError
from plstm_graph.tasks import TASKS, Multiclass, Regression, Task, Tokens, restore
from plstm_graph.train import evaluate, export, predict, train
from plstm_graph.train.page import write_page


@pytest.mark.parametrize(
    "task",
    [
        Regression(("a", "b"), "mae", mean=(1.0, 2.0), deviation=(3.0, 4.0)),
        Regression(("a",), level="node"),
        Multiclass(("class",), classes=7),
        Tokens(("word 1", "word 2"), words=("get", "set")),
    ],
)
def test_a_task_is_a_plain_value(task: Task) -> None:
    assert restore(json.loads(json.dumps(task.plain()))) == task


def test_what_a_task_refuses() -> None:
    with pytest.raises(ConfigError, match=r"unknown metric 'rocauc'; choose one of r2, .* \(task regression\)"):
        Regression(("y",), "rocauc")
    with pytest.raises(ConfigError, match="unknown level 'bond'; choose one of graph, node"):
        Regression(("y",), level="bond")
    with pytest.raises(ConfigError, match="got 1 classes and targets a"):
        Multiclass(("a",), classes=1)
    with pytest.raises(ConfigError, match="answers to task 'tokens' have no mean"):
        Tokens(("word 1",)).raw(torch.ones(1, 2))


def test_scaling_leaves_missing_labels_out() -> None:
    task = Regression(("a", "b")).fitted(torch.tensor([[1.0, 7.0], [3.0, 7.0], [torch.nan, 7.0]]))
    assert task.mean == (2.0, 7.0)
    assert task.deviation == (1.0, 1.0)  # the second target does not vary: left as it is
    with pytest.raises(DataError, match="target 'a' has no label in the training split"):
        Regression(("a",)).fitted(torch.full((3, 1), torch.nan))


def depths(count: int = 24) -> GraphDataset:
    """Chains of 3 to 8 nodes, each of which is asked for the sum of the marks up to it."""
    graphs = []
    for number in range(count):
        x = (torch.arange(3 + number % 6)[:, None] * (number + 1) % 3 == 0).float()
        nodes = torch.arange(len(x))
        graphs.append(Data(x=x, edge_index=torch.stack([nodes[:-1], nodes[1:]]), y=x.cumsum(0), rank=nodes))
    return GraphDataset("depths", graphs, Regression(("sum",), "mae", level="node"), FeatureSpec(node_dim=1))


def test_every_node_is_asked(tmp_path: Path) -> None:
    """Training, scores, rows of predictions, evaluation and what can only be asked about graphs."""
    dataset = depths()
    config = small_config(out=tmp_path / "run", epochs=30, lr=0.02, model_norm="none", model_dropout=0)
    found = train(config, dataset)
    nodes = [node for graph in dataset.graphs for node in graph.y.flatten().tolist()]
    constant = sum(abs(value - sorted(nodes)[len(nodes) // 2]) for value in nodes) / len(nodes)
    assert found["test"]["mae"] < 0.5 * constant
    with (tmp_path / "run" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(nodes)
    for row in rows:
        label = dataset.graphs[int(row["index"])].y[int(row["node"]), 0]
        assert float(row["sum"]) == pytest.approx(float(label))
    again = evaluate(tmp_path / "run", dataset, part="test")
    assert again["mae"] == pytest.approx(found["test"]["mae"])
    write_page([tmp_path / "run"], tmp_path / "page.html")
    assert "Predicted against measured sum" in (tmp_path / "page.html").read_text()
    with pytest.raises(CheckpointError, match="not on molecules given as SMILES; use evaluate"):
        predict(tmp_path / "run", ["CCO"])
    with pytest.raises(CheckpointError, match="answers for each node; only one for a graph is exported"):
        export(tmp_path / "run", tmp_path / "model.pt2")
    with pytest.raises(
        DataError,
        match=r"it has .* \(regression of sum\), and the model takes .* \(regression of sum, one a node\)",
    ):
        evaluate(tmp_path / "run", replace(dataset, task=Regression(("sum",))))
    with pytest.raises(DataError, match="one class label a graph"):
        dataset.split("folds")
    write_prepared(tmp_path / "depths.pt", dataset)
    assert read_prepared(tmp_path / "depths.pt").task == dataset.task


@dataclass(frozen=True)
class Counts(Task):
    """A kind of task from outside: numbers of things, learnt by the likelihood of a Poisson distribution."""

    name = "counts"
    metrics = ("mae", "rmse")
    tabular = True
    picture = "parity"

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.poisson_nll_loss(output, target)

    def readable(self, output: Tensor) -> Tensor:
        return output.exp()


def test_a_task_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class and an entry: read from a table, trained, stored, predicted with."""
    monkeypatch.setitem(TASKS, "counts", Counts)
    dataset = load(str(write_csv(tmp_path / "own.csv")), targets=["y"], task="counts")
    found = train(small_config(out=tmp_path / "run", epochs=20, lr=0.05), dataset)
    assert found["metric"] == "mae"
    assert found["test"]["mae"] < 3
    assert (tmp_path / "run" / "parity.png").is_file()
    assert (predict(tmp_path / "run", ["CCO"]).values > 0).all()
    monkeypatch.delitem(TASKS, "counts")
    with pytest.raises(CheckpointError, match="unknown task 'counts'; choose one of regression, ranking, binary"):
        predict(tmp_path / "run", ["CCO"])
    with pytest.raises(ConfigError, match="unknown task 'counts'"):
        load(str(tmp_path / "own.csv"), targets=["y"], task="counts")


def test_folds_need_a_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one class label a graph"):
        small_dataset(tmp_path).task.strata([torch.ones(1, 1)])
    assert TASKS["binary"](("y",)).strata([torch.ones(1, 1), torch.zeros(1, 1)]) == [1, 0]
    with pytest.raises(DataError, match="one class label a graph"):
        TASKS["binary"](("y",)).strata([torch.full((1, 1), torch.nan)])
