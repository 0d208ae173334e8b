"""What can be added from outside the package, each with its trainer, reports and checkpoints: no file of ours changes.

A task from outside is in ``tests/tasks/test_tasks.py``.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_runs import small_config, small_dataset, write_csv
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import SAGEConv

from plstm_graph import Gates, LineDAG
from plstm_graph.config.architectures import MODELS, Architecture, architecture
from plstm_graph.config.models import AnyConfig, ModelConfig
from plstm_graph.config.names import check_options
from plstm_graph.data import load
from plstm_graph.data.dataset import Dataset
from plstm_graph.data.examples import Arrays, Examples, Graphs, Part
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import CheckpointError, ConfigError
from plstm_graph.nn import PLSTMChain, PLSTMConv
from plstm_graph.ops import compiled, dispatch, propagate
from plstm_graph.tasks import METRICS, TASKS, Binary, Task
from plstm_graph.train import evaluate, predict, train
from plstm_graph.train.config import from_dict, to_dict


class Sage(nn.Module):
    """A network: one layer of GraphSAGE, called like PyG's ``BasicGNN``."""

    def __init__(self, config: ModelConfig, edge_dim: int | None) -> None:
        super().__init__()
        self.conv = SAGEConv(config.width, config.width)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Any = None, batch: Any = None, batch_size: Any = None):
        return x + self.conv(x, edge_index).relu()


def test_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "sage", Architecture(Sage))
    found = train(
        small_config(model_model="sage", budget="2k", epochs=12, lr=0.03, out=tmp_path / "run"), small_dataset(tmp_path)
    )
    assert found["valid"]["r2"] > 0
    assert predict(tmp_path / "run", ["CCO"]).values.isfinite().all()
    monkeypatch.delitem(MODELS, "sage")
    with pytest.raises(CheckpointError, match="unknown model 'sage'; choose one of plstm, gine"):
        predict(tmp_path / "run", ["CCO"])


def test_a_network_of_another_package_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "others.py").write_text(
        "from plstm_graph.config.architectures import Architecture\nsage = Architecture('test_outside:Sage')\n"
    )
    info = tmp_path / "others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[plstm_graph.models]\nothers-sage = others:sage\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("plstm_graph.config.architectures.MODELS", dict(MODELS))
    with pytest.raises(ConfigError, match="unknown model 'others-sagen'; choose one of plstm"):
        check_options({"model.model": "others-sagen"})
    check_options({"model.model": "others-sage"})
    assert isinstance(architecture("others-sage").stacked(ModelConfig(), None), nn.Module)


def test_a_task_of_another_package_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a metric of its own, which the task knows."""
    (tmp_path / "askers.py").write_text(
        "from plstm_graph.tasks import METRICS, Regression\n"
        "class Halves(Regression):\n    name = 'halves'\n    metrics = ('half_r2', 'r2')\n"
        "METRICS['half_r2'] = METRICS['r2']\n"
    )
    info = tmp_path / "askers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: askers\nVersion: 1.0\n")
    with pytest.raises(ConfigError, match="unknown task 'halves'; choose one of regression, ranking, binary"):
        check_options({"task": "halves"})
    (info / "entry_points.txt").write_text("[plstm_graph.tasks]\nhalves = askers:Halves\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("plstm_graph.tasks.TASKS", dict(TASKS))
    monkeypatch.setitem(METRICS, "half_r2", METRICS["r2"])  # to be gone after the test
    del METRICS["half_r2"]
    check_options({"task": "halves", "metric": "half_r2"})
    with pytest.raises(ConfigError, match="unknown task 'halve'; choose one of regression"):
        check_options({"task": "halve"})
    assert load(str(write_csv(tmp_path / "own.csv")), targets=["y"], task="halves").task.metric == "half_r2"


@dataclass(frozen=True)
class MeansConfig(AnyConfig):
    """A config of its own."""

    model: str = "means"
    shrink: float = 0.0


class Means(nn.Module):
    """No network: the mean label of graphs with as many nodes, found in one go."""

    table: Tensor
    sized_by_weights = True

    def __init__(self, config: MeansConfig, features: FeatureSpec, task: Task) -> None:
        super().__init__()
        self.config, self.task = config, task
        self.register_buffer("table", torch.zeros(100, task.num_outputs))

    def check(self, graphs: Sequence[Data]) -> None:
        """Anything will do."""

    def fit(self, graphs: Sequence[Data], seed: int) -> "Means":
        sizes, y = torch.tensor([graph.num_nodes for graph in graphs]), torch.cat([graph.y for graph in graphs])
        for size in range(len(self.table)):
            alike = y[sizes == size] if (sizes == size).any() else y
            self.table[size] = alike.mean(0) * (1 - self.config.shrink)
        return self

    def forward(self, batch: Data) -> Tensor:
        return self.task.raw(self.table[batch.ptr.diff().cpu()])


def test_a_model_that_is_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "means", Architecture(build=Means, config=MeansConfig, fitted=True))
    config = small_config(model_model="means", model_shrink=0.01, out=tmp_path / "run")
    assert from_dict(to_dict(config)) == config
    found = train(config, small_dataset(tmp_path))
    assert found["train"]["r2"] > 0.5
    assert evaluate(tmp_path / "run", small_dataset(tmp_path), part="train")["r2"] == found["train"]["r2"]
    with pytest.raises(ConfigError, match=r"unknown option 'model\.width'; choose one of model.model, model.shrink"):
        small_config(model_model="means", model_width=3)


@dataclass(frozen=True)
class ChainConfig(AnyConfig):
    """Of a model of sequences."""

    model: str = "chains"
    width: int = 8


class ChainModel(nn.Module):
    """Sequences [n, length, channels] to the answer at their last place."""

    def __init__(self, config: ChainConfig, features: FeatureSpec, task: Task) -> None:
        super().__init__()
        self.embed = nn.Linear(features.node_dim, config.width)
        self.chain = PLSTMChain(config.width, config.width // 2, heads=2)
        self.head = nn.Linear(config.width, task.num_outputs)

    def forward(self, batch: Arrays) -> Tensor:
        x = self.embed(batch.x)
        return self.head((x + self.chain(x))[:, -1])


def test_data_of_a_new_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences that are no graphs: is there a one at the last place?"""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (200, 6, 1), generator=generator).float()
    dataset = Dataset("last", Arrays(x, x[:, -1].clone()), Binary(("one",)), FeatureSpec(node_dim=1))
    monkeypatch.setitem(MODELS, "chains", Architecture(build=ChainModel, config=ChainConfig))
    config = small_config(model_model="chains", epochs=20, lr=0.05, batch_size=32, out=tmp_path / "run")
    found = train(config, dataset)
    assert found["test"]["rocauc"] == 1.0
    assert found["graphs"] == {"train": 160, "valid": 20, "test": 20}
    assert evaluate(tmp_path / "run", dataset)["rocauc"] == 1.0
    assert train(config, dataset, resume=True)["test"] == found["test"]
    assert len((tmp_path / "run" / "predictions.csv").read_text().splitlines()) == 201


def test_a_compiled_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here one whose operator is the reference and whose steps of a layer are those of numba."""
    numba = pytest.importorskip("plstm_graph.ops.numba")
    ran = []

    def walk_along(*arguments: Any) -> Any:
        ran.append(arguments)
        return numba.walk_along(*arguments)

    steps = {name: getattr(numba, name) for name in numba.__all__} | {"walk_along": walk_along}
    monkeypatch.setitem(sys.modules, "toy_backend", SimpleNamespace(**steps))
    dispatch.add_compiled("toy", compiled.Home("toy_backend", "cpu", "install toy"))
    try:
        conv = PLSTMConv(4, 4, heads=2, backend="toy")
        x, edge_index = torch.randn(4, 4), torch.tensor([[0, 1, 2], [1, 2, 3]])
        found = conv(x, edge_index)
        assert ran
        conv.backend = "reference"
        assert torch.allclose(found, conv(x, edge_index), atol=1e-5)
        found = train(small_config(model_backend="toy", epochs=2, out=tmp_path / "run"), small_dataset(tmp_path))
        assert found["epochs"] == 2
        assert dispatch.choose_backend("cpu", 0, 0, True) == "numba"
    finally:
        del compiled.HOMES["toy"], dispatch.BACKENDS["toy"]


@pytest.mark.parametrize("facts", [{}, {"half": True, "strided": True, "served": lambda keys, values: values // 8}])
def test_a_compiled_backend_says_what_it_takes(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Operator and layer ask for it, and nobody asks for names: half precision, rows that lie apart, large graphs."""
    numba = pytest.importorskip("plstm_graph.ops.numba")
    seen: dict[str, Any] = {}

    def forward(query: Tensor, key: Tensor, value: Tensor, gates: Any, plan: Any, reversed: bool) -> Any:
        seen.update(operator=plan, dtype=value.dtype, strided=not value.is_contiguous())
        output, call = numba.forward(*(x.float() for x in (query, key, value)), gates, plan, reversed)
        return output.to(value.dtype), call

    def walk_along(gates: Tensor, values: int, plan: Any, setting: Any) -> Any:
        seen.update(layer=plan, setting=setting)
        return numba.walk_along(gates, values, plan, setting)

    steps = {name: getattr(numba, name) for name in numba.__all__} | {"forward": forward, "walk_along": walk_along}
    monkeypatch.setitem(sys.modules, "toy_backend", SimpleNamespace(**steps))
    monkeypatch.setitem(compiled.HOMES, "toy", compiled.Home("toy_backend", "cpu", "install toy", **facts))
    monkeypatch.setitem(dispatch.BACKENDS, "toy", partial(compiled.propagate, "toy"))
    compiled.load.cache_clear()
    dag = LineDAG.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 3]]))
    gates = Gates(*(torch.rand(rows, 2) for rows in (3, 2, 3, 4)))
    query, key, value = torch.randn(4, 2, 12).half().split(4, -1)
    want = propagate(query, key, value, gates, dag, backend="reference")
    torch.testing.assert_close(propagate(query, key, value, gates, dag, backend="toy"), want, rtol=1e-2, atol=1e-3)
    assert seen["dtype"] == (torch.float16 if facts else torch.float32)
    assert seen["strided"] == bool(facts)
    PLSTMConv(4, 4, heads=2, reverse=True, backend="toy")(torch.randn(4, 4), None, dag=dag)
    assert (seen["setting"].backend, seen["setting"].heads, seen["setting"].reversed) == ("toy", 2, True)
    large = 4 + 3 if facts else 0  # nodes and edges of graphs beyond the classes that it serves
    assert len(seen["operator"].large) == len(seen["layer"].large) == large + 2


def test_all_kinds_of_examples_meet_one_protocol(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    arrays = Arrays(torch.randn(4, 3), torch.randn(4, 1))
    for examples in (dataset.examples, Part(dataset.examples, [3, 1, 2]), arrays, Part(arrays, [3, 1])):
        assert isinstance(examples, Examples)
        assert len(examples.y) == len(examples)
        batch = examples.batch([1, 0])
        assert torch.equal(batch.y, examples.y[[1, 0]])
        assert len(examples.digest) == 12
        assert examples.to("cpu").digest == examples.digest
    assert Part(arrays, [3, 1]).digest != Part(arrays, [1, 3]).digest != arrays.digest
    assert Graphs(dataset.graphs[1:]).digest != dataset.examples.digest
