"""Graphs that a caller made: what does not suit the data set is told before training, and what is not read as well."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import small_config
from torch_geometric.data import Data

from plstm_graph.data.dataset import GraphDataset
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.tasks import MISSING, Multiclass, Regression, Task
from plstm_graph.train import blend, evaluate, train
from plstm_graph.train.page import write_page
from plstm_graph.train.record import read_run

FEATURES = FeatureSpec(node_sizes=(5,), edge_dim=1)
MAE = Regression(("y",), "mae")


def chain(nodes: int) -> Data:
    columns = torch.arange(nodes - 1)
    return Data(
        x=torch.arange(nodes).remainder(5).unsqueeze(1),
        edge_index=torch.stack([columns, columns + 1]),
        edge_attr=torch.rand(nodes - 1, 1),
        y=torch.tensor([[float(nodes)]]),
    )


def chains(task: Task = MAE, features: FeatureSpec = FEATURES) -> GraphDataset:
    return GraphDataset("chains", [chain(2 + number % 7) for number in range(30)], task, features)


def with_each(change: Callable[[Data], Any], task: Task = MAE, *, beyond: int = 0) -> GraphDataset:
    """Chains of which those from number ``beyond`` on are changed."""
    dataset = chains(task)
    for graph in dataset.graphs[beyond:]:
        change(graph)
    return dataset


@pytest.mark.parametrize(
    ("change", "beyond", "text"),
    [
        ({"x": lambda g: g.x.float()}, 3, r"graph 3: x must be \[N, 1\], whole numbers.* x.long\(\)"),
        ({"x": lambda g: g.x[:, 0]}, 0, r"graph 0: x must be \[N, 1\].* x.view\(-1, 1\)"),
        ({"x": lambda g: g.x.expand(-1, 2)}, 0, r"x must be \[N, 1\].* say otherwise in FeatureSpec"),
        ({"x": lambda g: None}, 0, "x must be .* there is none; give all graphs one"),
        ({"edge_index": lambda g: None}, 0, r"edge_index must be \[2, M\].* is NoneType; without edges"),
        ({"edge_attr": lambda g: None}, 7, r"graph 7: edge_attr must be \[1, 1\].* there is none; give all graphs one"),
        ({"edge_attr": lambda g: g.edge_attr[:, 0]}, 0, r"edge_attr must be .* edge_attr.view\(-1, 1\)"),
        ({"edge_attr": lambda g: g.edge_attr.long()}, 0, r"edge_attr must be .*, floating point.* edge_attr.float\(\)"),
        (
            {"edge_attr": lambda g: g.edge_attr.bfloat16()},
            2,
            r"graph 2: edge_attr must not be bfloat16.* edge_attr.float\(\)",
        ),
        ({"y": lambda g: g.y.bfloat16()}, 0, r"y must not be bfloat16, which numpy lacks; call y.float\(\)"),
        ({"edge_attr": lambda g: g.edge_attr[:0]}, 1, r"graph 1: edge_attr must be \[2, 1\]"),
        (
            {"edge_index": lambda g: g.edge_index + 1},
            2,
            "graph 2: edge_index must hold numbers of its 4 nodes.* 1 to 4",
        ),
        ({"edge_attr": lambda g: g.edge_attr * torch.nan}, 2, "graph 2: edge_attr must be finite numbers"),
        ({"rank": lambda g: g.x}, 0, r"rank must be a tensor \[2\], a number for each node, and is \[2, 1\]"),
        ({"y": lambda g: g.x.float()}, 0, "y must have 1 rows, one a graph.* level='node'"),
    ],
)
def test_the_graph_and_what_is_wrong_with_it_are_named(change, beyond: int, text: str) -> None:
    def changed(graph: Data) -> None:
        for name, made in change.items():
            graph[name] = made(graph)

    with pytest.raises(DataError, match=text):
        train(small_config(epochs=1), with_each(changed, beyond=beyond))


def test_labels_of_graphs_are_none_of_nodes() -> None:
    with pytest.raises(DataError, match=r"graph 0: y must have 2 rows, one a node.* level='graph'"):
        train(small_config(epochs=1), chains(replace(MAE, level="node")))


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (2, "classes are 0 to 1, got 2"),
        (-1, "got -1; number them from 0.*, and -100 to what has none"),
    ],
)
def test_a_label_that_is_no_class_is_named(label: int, text: str) -> None:
    task = Multiclass(("y",), classes=2)
    dataset = with_each(lambda graph: graph.update({"y": torch.tensor([len(graph.x) % 2])}), task)
    dataset.graphs[5].y = torch.tensor([label])
    with pytest.raises(DataError, match=text):
        train(small_config(epochs=1), dataset)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool])
def test_classes_are_int64(dtype: torch.dtype) -> None:
    task = Multiclass(("y",), classes=2)
    dataset = with_each(lambda graph: graph.update({"y": torch.tensor([len(graph.x) % 2]).to(dtype)}), task)
    with pytest.raises(DataError, match=r"must be torch.int64, got .*; call y.long\(\)"):
        train(small_config(epochs=1), dataset)


def test_features_are_categories_or_numbers() -> None:
    for features in (FeatureSpec(node_sizes=(5,), node_dim=3), FeatureSpec((5,), edge_sizes=(2,), edge_dim=1)):
        dataset = with_each(lambda graph: graph.update({"edge_attr": graph.edge_attr.long()}))
        with pytest.raises(ConfigError, match="not both; give categories as one-hot numbers"):
            train(small_config(epochs=1), replace(dataset, features=features))


def test_what_is_not_read_is_said(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    train(small_config(epochs=1, out=tmp_path / "run"), chains())
    assert "is not read" not in caplog.text
    task = replace(MAE, level="node")
    masked = with_each(lambda graph: graph.update({"y": graph.x.float(), "val_mask": graph.x[:, 0] > 1}), task)
    train(small_config(epochs=1), replace(masked, features=FeatureSpec(node_sizes=(5,))))
    assert "edge_attr of chains is not read, since its features say that edges have none" in caplog.text
    assert "val_mask of chains is not read: parts are of whole graphs" in caplog.text


def test_parts_of_the_nodes_of_one_graph(caplog: pytest.LogCaptureFixture) -> None:
    """As the message about masks has it: a copy of the graph for each part."""
    whole, graphs = chain(60), []
    for number in range(3):
        label = whole.x.float().where((torch.arange(60) % 3 == number).unsqueeze(1), torch.nan)
        graphs.append(Data(x=whole.x, edge_index=whole.edge_index, edge_attr=whole.edge_attr, y=label))
    parts = {"train": [0], "valid": [1], "test": [2]}
    dataset = GraphDataset("one", graphs, replace(MAE, level="node"), FEATURES, default_split="official", parts=parts)
    found = train(small_config(epochs=60, lr=0.03), dataset)
    assert found["test"]["mae"] < found["test"]["rmse"] < 1


@pytest.fixture
def masked() -> GraphDataset:
    """One graph with classes and masks as PyG's Planetoid has them, given part by part as the message about masks has
    it; of some nodes of each part nobody knows the class."""
    whole = chain(60)
    graphs = []
    for number in range(3):
        mask = (torch.arange(60) % 3 == number) & (torch.arange(60) % 7 > 0)
        y = (whole.x[:, 0] // 2).where(mask, MISSING)
        graphs.append(Data(x=whole.x, edge_index=whole.edge_index, edge_attr=whole.edge_attr, y=y))
    parts = {"train": [0], "valid": [1], "test": [2]}
    task = Multiclass(("y",), classes=3, level="node")
    return GraphDataset("one", graphs, task, FEATURES, default_split="official", parts=parts)


@pytest.mark.parametrize("how", [{}, {"class_weights": True}, {"ensemble": 2}])
def test_nodes_without_a_class(masked: GraphDataset, tmp_path: Path, how: dict[str, Any]) -> None:
    """They are left out wherever labels count."""
    labelled = int((masked.graphs[2].y != MISSING).sum())
    found = train(small_config(epochs=30, lr=0.03, out=tmp_path / "run", **how), masked)
    assert found["test"]["accuracy"] == 1
    assert found["calibration"]["test"]["brier"] < 0.2
    assert found["test_interval"]["high"] == 1
    with (tmp_path / "run" / "predictions.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["part"] == "test"]
    assert (len(rows), sum(row["y"] != "" for row in rows)) == (60, labelled)
    stored = read_run(tmp_path / "run").predictions["test"]
    assert stored.target.tolist() == [y for y in masked.graphs[2].y.tolist() if y != MISSING]
    assert evaluate(tmp_path / "run", masked)["accuracy"] == 1
    assert write_page([tmp_path / "run"]).is_file()
    if not how:
        train(small_config(epochs=2, lr=0.03, seed=1, out=tmp_path / "other"), masked)
        joined = blend([tmp_path / "run", tmp_path / "other"], tmp_path / "blend", equal=True)
        assert joined["graphs"]["test"] == labelled


def test_a_batch_or_a_part_without_a_class(masked: GraphDataset) -> None:
    """A batch teaches nothing, and numbers stay numbers; of a part without any, that is said."""
    graphs = [chain(2 + number % 7) for number in range(40)]
    for number, graph in enumerate(graphs):
        graph.y = (graph.x[:, 0] // 2).where(torch.tensor(number % 3 == 0), MISSING)
    dataset = replace(masked, graphs=graphs, parts=None, default_split="random")
    assert train(small_config(epochs=8, batch_size=2, lr=0.03), dataset)["test"]["accuracy"] > 0.5
    for part, graph in zip(("training", "valid"), (0, 1), strict=True):
        without = replace(masked, graphs=[*masked.graphs])
        without.graphs[graph] = masked.graphs[graph].clone().update({"y": torch.full((60,), MISSING)})
        with pytest.raises(DataError, match=f"no example of the {part} split has a label"):
            train(small_config(epochs=1), without)


def test_one_graph_has_no_parts(masked: GraphDataset) -> None:
    with pytest.raises(DataError, match=r"one a part, got 1; for parts of the nodes .* with -100 as labels"):
        train(small_config(epochs=1), replace(masked, graphs=masked.graphs[:1], parts=None, default_split="random"))


def test_an_attribute_that_some_graphs_lack_is_named() -> None:
    dataset = with_each(lambda graph: graph.update({"extra": torch.ones(1)}))
    del dataset.graphs[4].extra
    with pytest.raises(DataError, match="graph 4: there is no extra, which graph 0 has"):
        train(small_config(epochs=1), dataset)


def test_parts_are_named_as_those_of_a_run() -> None:
    dataset = replace(chains(), default_split="official")
    for parts in ({"train": [0], "val": [1], "test": [2]}, {"train": [0], "valid": [1]}):
        with pytest.raises(DataError, match="must have the parts train, valid, test, got train, val"):
            train(small_config(epochs=1), replace(dataset, parts=parts))


def test_parts_may_be_of_any_numbers_and_features_may_have_gradients(tmp_path: Path) -> None:
    found = []
    for kind in (list, lambda numbers: torch.tensor([*numbers]), lambda numbers: numbers):
        numbers = {"train": range(20), "valid": range(20, 25), "test": range(25, 30)}
        torch.manual_seed(0)
        dataset = chains()
        for graph in dataset.graphs:
            graph.edge_attr.requires_grad_(kind is not list)
        dataset = replace(dataset, parts={part: kind(each) for part, each in numbers.items()}, default_split="official")
        found.append(train(small_config(epochs=1, out=tmp_path / str(len(found))), dataset)["test"])
    assert found[0] == found[1] == found[2]


def test_evaluation_checks_graphs_too(tmp_path: Path) -> None:
    train(small_config(epochs=1, out=tmp_path / "run"), chains())
    with pytest.raises(DataError, match="graph 2: edge_attr must be"):
        evaluate(tmp_path / "run", with_each(lambda graph: graph.update({"edge_attr": None}), beyond=2))
