"""Training steps as one CUDA graph: the same run within rounding, and plain errors where it cannot be."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import parts_in_place, passes_in_place, small_config, small_dataset, three_classes
from torch_geometric.data import Data

from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.packed import PackedGraphs
from plstm_graph.errors import ConfigError
from plstm_graph.models.graph import GraphModel
from plstm_graph.nn import Captured
from plstm_graph.tasks import Regression
from plstm_graph.train import evaluate, train
from plstm_graph.train.capture import capturable, chosen
from plstm_graph.train.captured_step import CapturedStep
from plstm_graph.train.checkpoint import read

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, with what is recorded itself in place of the graph."""
    monkeypatch.setattr("torch.cuda.make_graphed_callables", passes_in_place)
    monkeypatch.setattr("plstm_graph.nn.captured.recorded", parts_in_place)
    monkeypatch.setattr(
        "plstm_graph.train.capture.capturable", lambda graphs, config, *_: graphs.with_filler(config.batch_size)
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "regression": {"source_decay": 0.1, "clip": 0.1},
    "binary": {"model_virtual_node": True, "weight_decay": 0.1},
    "multiclass": {},
    "edge states": {"model_local": "gatedgcn-edges"},
    "weighted": {"class_weights": True},  # only its passes can be recorded
}


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize("task", OPTIONS)
def test_a_captured_run_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    """32 graphs in four batches, of which one is not full and seldom one too large to be filled up."""
    whole, passes = watch(monkeypatch, CapturedStep), watch(monkeypatch, Captured)
    dataset = small_dataset(
        tmp_path, {"multiclass": "regression", "edge states": "regression", "weighted": "binary"}.get(task, task)
    )
    dataset = three_classes(dataset) if task == "multiclass" else dataset
    found, states = {}, {}
    for capture in (False, True):
        out = tmp_path / f"captured-{capture}"
        options = {"capture": capture, "precision": "64-true", "model_layers": 1, "model_dropout": 0.0}
        config = small_config(out=out, epochs=3, batch_size=10, **options | OPTIONS[task])
        found[capture], states[capture] = train(config, dataset), read(out)["state_dict"]
    filled = passes if task == "weighted" else whole
    assert sum(batch.filled for batch in filled) >= 9
    assert any(batch.examples == 2 for batch in filled)
    assert not (whole and any(batch.filled for batch in passes))
    metric = dataset.task.metric
    assert found[True]["valid"][metric] == pytest.approx(found[False]["valid"][metric], abs=1e-5)
    assert states[True].keys() == states[False].keys()
    for key, value in states[False].items():
        torch.testing.assert_close(states[True][key], value, rtol=1e-6, atol=1e-6)
    again = evaluate(tmp_path / "captured-True", dataset, part="valid")
    assert again[metric] == pytest.approx(found[True]["valid"][metric], abs=1e-6)


def watch(monkeypatch: pytest.MonkeyPatch, kind: Any) -> list[Any]:
    """The batches that are given to any of this kind."""
    seen, run = [], kind.__call__

    def note(self: Any, batch: Any, *more: Any) -> Any:
        seen.append(batch)
        return run(self, batch, *more)

    monkeypatch.setattr(kind, "__call__", note)
    return seen


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({}, True),
        ({"epochs": 80}, True),
        ({"model_model": "gine", "model_virtual_node": True}, True),
        ({"model_model": "gatedgcn-edges"}, True),
        ({"model_local": "gatedgcn-edges"}, True),
        ({"capture": False}, False),
        ({"epochs": 29}, False),  # 290 steps
        ({"batch_size": 64}, False),
        ({"model_pooling": "attention"}, False),
        ({"model_jk": "cat"}, False),
        ({"model_local": "gat"}, False),
        ({"model_model": "gps"}, False),
        ({"precision": "16-mixed"}, False),
        ({"compile": True}, False),
        ({"descriptors": ("rdkit2d",)}, False),
    ],
    ids=str,
)
def test_steps_are_captured_unasked_where_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], taken: bool
) -> None:
    monkeypatch.setattr("plstm_graph.train.capture.compiled_backend", lambda name, device: "triton")
    config = small_config(**({"epochs": 30, "batch_size": 4} | options))
    assert config.capture is options.get("capture")
    packed = PackedGraphs.from_data_list(small_dataset(tmp_path).encoded(config.model), exclude_keys=["smiles"])
    model = GraphModel(FeatureSpec(node_sizes=(5,)), 1, config.model)
    given = packed, config, Regression(("y",)), model
    assert (chosen(*given, GPU) is not None) == taken
    assert chosen(*given, CPU) is None
    assert (chosen(*given, GPU, devices=2) is not None) == (taken and config.epochs >= 80)  # half the steps each


def test_what_cannot_be_captured_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small_dataset(tmp_path)
    with pytest.raises(ConfigError, match="capture needs a GPU, not cpu; leave capture out"):
        train(small_config(capture=True), dataset)
    packed = PackedGraphs.from_data_list(dataset.encoded(small_config().model), exclude_keys=["smiles"])

    without = PackedGraphs.from_data_list(dataset.graphs, order=None, exclude_keys=["smiles"])
    chain = torch.arange(300)
    long = Data(x=torch.ones(300, 1), edge_index=torch.stack([chain[:-1], chain[1:]]))
    large = PackedGraphs.from_data_list([long] * 9)

    def check(
        graphs: Any = packed, backend: str | None = "triton", level: str = "graph", **options: Any
    ) -> PackedGraphs:
        monkeypatch.setattr("plstm_graph.train.capture.compiled_backend", lambda name, device: backend)
        config = small_config(capture=True, **options)
        model = GraphModel(FeatureSpec(node_sizes=(5,)), 1, config.model)
        return capturable(graphs, config, Regression(("y",), level=level), model, GPU)

    found = check()
    assert found.capacity is not None
    assert found.capacity.graphs == 8
    for message, options in {
        "and compile do not go together": {"compile": True},
        "takes one answer a graph, not one a node": {"level": "node"},
        "not model 'gps'": {"model_model": "gps"},
        "not local 'gat'": {"model_local": "gat"},
        "needs graphs that can be packed on the GPU, and these cannot": {"graphs": dataset.graphs},
        "needs the backend 'triton', not chosen or unable to run": {"backend": "numba"},
        "needs narrower heads: K and V of at most 128 each": {"model_width": 600, "model_heads": 2},
        "not order 'random'": {"graphs": without, "model_order": "random"},
        "needs norms in 16-mixed": {"precision": "16-mixed", "model_norm": "none"},
        "is for graphs of up to 256 nodes: of batches of 8, 0% have none that is larger": {"graphs": large},
        "but there are 40 graphs, none of whose batches has 64": {"batch_size": 64},
    }.items():
        with pytest.raises(ConfigError, match=message):
            check(**options)
