"""Passes as one CUDA graph: the numbers of the model itself. Without a GPU, its passes run in place of the graph."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_runs import passes_in_place
from torch import Tensor, nn
from torch_geometric.data import Data

from plstm_graph.config.models import ModelConfig
from plstm_graph.data import PackedGraphs
from plstm_graph.data.examples import Arrays
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import ShapeError
from plstm_graph.models.graph import GraphModel
from plstm_graph.nn import Captured

COUNT = 12
CONFIG = ModelConfig(width=16, layers=3, heads=4, order="index", rwse=3, dropout=0.0, virtual_node=True)
CONFIGS = {
    "both modes": CONFIG,
    "alone": replace(CONFIG, local="none", norm="rms", pooling="sum", head_layers=1),
    "gatedgcn": replace(CONFIG, modes="D", directions="along", local="gatedgcn", pooling="attention", degrees=True),
    "edge states": replace(CONFIG, model="gatedgcn-edges"),
    "edge states, no features": replace(CONFIG, model="gatedgcn-edges", edge_features=False, head_norm="batch"),
    "edge states, both ways": replace(CONFIG, model="gatedgcn-edges", both_ways=True),
    "edge states beside pLSTM": replace(CONFIG, local="gatedgcn-edges"),
    "gine": replace(CONFIG, model="gine", pooling="max", head_norm="batch"),
    "gin": replace(CONFIG, model="gin", virtual_node=False),
}  # fmt: skip


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A GPU; without one, no graph is recorded."""
    if torch.cuda.is_available():
        return "cuda"
    monkeypatch.setattr("torch.cuda.make_graphed_callables", passes_in_place)
    return "cpu"


def graphs() -> Iterator[Data]:
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        nodes = int(torch.randint(1, 40, (), generator=generator))
        parent = [int(torch.randint(node, (), generator=generator)) for node in range(1, nodes)]
        down = torch.tensor([parent, list(range(1, nodes))], dtype=torch.long).view(2, -1)
        edge_index = torch.cat([down, down.flip(0)], 1)
        x = torch.randint(5, (nodes, 1), generator=generator)
        edge_attr = torch.rand(edge_index.size(1), 3, generator=generator)
        rwse, y = torch.rand(nodes, 3, generator=generator), torch.rand(1, 2, generator=generator)
        yield Data(x=x, edge_index=edge_index, edge_attr=edge_attr, rwse=rwse, y=y)


def packed_on(device: str, config: ModelConfig) -> PackedGraphs:
    order = config.order if config.model == "plstm" else None
    return PackedGraphs.from_data_list(list(graphs()), order=order).to(device).with_filler(COUNT)


def build(config: ModelConfig, device: str) -> GraphModel:
    return GraphModel(FeatureSpec(node_sizes=(5,), edge_dim=3), 2, config).to(device)


def parts(packed: PackedGraphs, count: int) -> Iterator[list[int]]:
    """Graphs of batches that can be filled."""
    seed = 0
    while count:
        part = torch.randperm(len(packed), generator=torch.Generator().manual_seed(seed))[:COUNT].tolist()
        seed, fits = seed + 1, packed.batch(part, filled=True).num_graphs == COUNT + 1
        count -= fits
        if fits:
            yield part


def gradients(run: Any, model: GraphModel, batch: Any) -> dict[str, Tensor]:
    """Output and gradient of every weight."""
    model.zero_grad()
    output = run(batch)
    ((output - batch.y[: len(output)]) ** 2).sum().backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return {"output": output.detach().clone(), **found}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_numbers_are_those_of_the_model(name: str, device: str) -> None:
    """Batch after batch, also of fewer graphs: output, gradients, running statistics; ordinary ones go as they are."""
    config = CONFIGS[name]
    packed, model = packed_on(device, config), build(config, device)
    twin = copy.deepcopy(model)
    captured = Captured(twin)
    for number, part in enumerate(parts(packed, 6)):
        filled, part = number != 2, part[: 7 if number in (1, 5) else None]
        want = gradients(model, model, packed.batch(part))
        got = gradients(captured, twin, packed.batch(part, filled=filled))
        assert got.keys() == want.keys()
        scale = max(float(x.abs().max()) for x in want.values())
        for key, value in want.items():
            torch.testing.assert_close(
                got[key], value, rtol=2e-4, atol=2e-5 * scale, msg=lambda text, key=key: f"{key}: {text}"
            )
        for (key, value), other in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
            torch.testing.assert_close(other, value, rtol=1e-4, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")


def test_training_with_dropout_can_be_repeated(device: str) -> None:
    """Random numbers follow the seed, and recording uses none; other numbers come in every pass."""
    config = replace(CONFIG, dropout=0.5)
    packed = packed_on(device, config)
    model = build(config, device)
    part = next(parts(packed, 1))
    batch, captured, found = packed.batch(part, filled=True), Captured(model), []
    for _ in range(2):
        torch.manual_seed(3)
        found.append([captured(batch).detach().clone() for _ in range(3)])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)
    first, second, third = found[0]
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, third)


def test_autocast(device: str) -> None:
    packed, model = packed_on(device, CONFIG), build(CONFIG, device)
    twin = copy.deepcopy(model)
    captured = Captured(twin)
    for part in parts(packed, 3):
        with torch.autocast(device, torch.bfloat16):
            want = model(packed.batch(part))
            got = captured(packed.batch(part, filled=True))
        assert got.dtype == want.dtype
        torch.testing.assert_close(got.float(), want.float(), rtol=5e-2, atol=5e-2)


def test_evaluation_and_other_batches_go_through_the_model(device: str) -> None:
    packed, model = packed_on(device, CONFIG), build(CONFIG, device)
    captured, part = Captured(model), next(parts(packed, 1))
    model.eval()
    want = model(packed.batch(part))
    torch.testing.assert_close(captured(packed.batch(part, filled=True)), want)
    model.train()
    want = copy.deepcopy(model)(packed.batch(part))
    torch.testing.assert_close(captured(packed.batch(part, filled=True)), want, rtol=1e-4, atol=1e-5)
    twin = copy.deepcopy(model)
    more = packed.batch(range(COUNT + 1), filled=True)  # as many graphs as a filled batch, and none of them a filler
    torch.testing.assert_close(captured(more), twin(more))


def test_a_batch_may_have_been_used_before(device: str) -> None:
    packed, model = packed_on(device, CONFIG), build(CONFIG, device)
    captured, several = Captured(model), [packed.batch(part, filled=True) for part in parts(packed, 3)]
    for batch in several[:2]:
        model.eval()
        captured(batch)
        batch.line_dag.prune().reverse().plan(4)
        model.train()
        captured(batch)
    captured(several[2])


def test_another_size_is_refused(device: str) -> None:
    packed, model = packed_on(device, CONFIG), build(CONFIG, device)
    captured = Captured(model)
    captured(packed.batch(next(parts(packed, 1)), filled=True))
    other = PackedGraphs.from_data_list(list(graphs())).to(device).with_filler(5).batch(range(5), filled=True)
    assert other.filled
    with pytest.raises(ShapeError, match="each with_filler"):
        captured(other)


def test_lengths_that_coincide(device: str) -> None:
    """63 graphs of 10 nodes and 11 columns would fill up to as many nodes as columns."""
    ring = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1], [1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 8]])
    drawn = [torch.Generator().manual_seed(seed) for seed in range(70)]
    same = [
        Data(x=torch.randint(5, (10, 1), generator=g), edge_index=ring, edge_attr=torch.rand(11, 3, generator=g),
             rwse=torch.rand(10, 3, generator=g), y=torch.rand(1, 2, generator=g))
        for g in drawn
    ]  # fmt: skip
    packed, model = PackedGraphs.from_data_list(same).to(device).with_filler(63), build(CONFIG, device)
    want = copy.deepcopy(model)(packed.batch(range(63)))
    torch.testing.assert_close(Captured(model)(packed.batch(range(63), filled=True)), want, rtol=1e-4, atol=1e-5)


class OfArrays(nn.Module):
    """A model of images with all that a pass may leave behind, and a weight that none reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
        self.unread = nn.Parameter(torch.zeros(3))

    def forward(self, batch: Arrays) -> Tensor:
        return self.layers(batch.x.float())


def test_recording_arrays_leaves_no_trace(device: str) -> None:
    """Neither in running statistics nor in random numbers; arrays of another dtype go as they are."""
    model = OfArrays().to(device).train()
    twin = copy.deepcopy(model)
    captured, found = Captured(model), []
    batch = Arrays(torch.randn(6, 5), torch.zeros(6, 2)).to(device)
    for _ in range(2):
        torch.manual_seed(3)
        found.append([captured(batch).detach().clone() for _ in range(2)])
        for _ in range(2):
            twin(batch)
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)
    for (key, value), other in zip(twin.state_dict().items(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(other, value, msg=lambda text, key=key: f"{key}: {text}")
    whole = replace(batch, x=batch.x.double())
    torch.manual_seed(4)
    want = twin(whole)
    torch.manual_seed(4)
    torch.testing.assert_close(captured(whole), want)
