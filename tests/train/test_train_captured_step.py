"""A step in one CUDA graph is the step itself. Without a GPU, what would be recorded runs in place of the graph."""

import copy
import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from small_runs import parts_in_place, passes_in_place, small_config, small_dataset, three_classes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from plstm_graph.config.models import ModelConfig
from plstm_graph.data import PackedGraphs
from plstm_graph.errors import ShapeError, TimeUp
from plstm_graph.models.graph import GraphModel
from plstm_graph.nn.captured import NotRecorded
from plstm_graph.tasks import Ranking
from plstm_graph.train import train
from plstm_graph.train.callbacks import Deadline
from plstm_graph.train.captured_step import CapturedStep
from plstm_graph.train.checkpoint import read
from plstm_graph.train.data import EpochSampler
from plstm_graph.train.module import Learner

GPU = torch.cuda.is_available()
COUNT, LR, CLOSING, CLIP, EPS = 10, 0.1, 1e-3, 0.5, 1.0
"""With such an eps steps go by gradients, not by their signs, which for some are noise."""
MODEL = ModelConfig(width=16, layers=2, heads=4, order="index", rwse=0, dropout=0.0, virtual_node=True)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    if not GPU:
        monkeypatch.setattr("plstm_graph.nn.captured.recorded", parts_in_place)
    return torch.device("cuda" if GPU else "cpu")


@pytest.fixture
def packed(tmp_path: Path, device: torch.device) -> PackedGraphs:
    graphs = small_dataset(tmp_path, targets=("y", "z")).graphs
    for number, graph in enumerate(graphs):
        graph.y[0, 1] = graph.y[0, 1] if number % 3 else torch.nan
    found = PackedGraphs.from_data_list(graphs, order="index", exclude_keys=["smiles"])
    return found.to(device).with_filler(COUNT)


def learner(packed: PackedGraphs, folder: Path, dropout: float = 0.0) -> Learner:
    dataset = small_dataset(folder, targets=("y", "z"))
    task = dataset.task.fitted(packed.y.cpu()[:40])
    config = replace(MODEL, dropout=dropout)
    torch.manual_seed(0)
    found = Learner(GraphModel(dataset.features, 2, config), task, source_decay=0.1).to(packed.device)
    found.loss_sum, found.labels, found.labels_here = (
        x.to(packed.device) for x in (found.loss_sum, found.labels, found.labels_here)
    )
    return found


def adamw(of: Learner) -> torch.optim.Optimizer:
    return torch.optim.AdamW(of.parameters(), lr=LR, eps=EPS, weight_decay=0.1, fused=True if GPU else None)


def by_hand(of: Learner, optimizer: torch.optim.Optimizer, batch: Any) -> torch.Tensor:
    """The same step as Lightning makes it."""
    optimizer.zero_grad()
    loss = of.loss(of.model(batch), batch.y)
    of.note(loss, of.task.count(batch.y))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(of.weights, CLIP)
    optimizer.step()
    of.close_sources(CLOSING)
    return loss.detach()


def parts(packed: PackedGraphs, count: int) -> list[list[int]]:
    """Choices of graphs that can be filled up, the second and the last of few."""
    found = [list(EpochSampler(40, seed))[:COUNT] for seed in range(3 * count)]
    found = [part for part in found if packed.fits(part)][:count]
    return [part[: 3 if number in (1, count - 1) else None] for number, part in enumerate(found)]


def trace(of: Learner, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """All that a step may change."""
    state = [value for each in optimizer.state.values() for value in each.values()]
    return [x.detach().clone() for x in (*of.model.state_dict().values(), of.loss_sum, of.labels, *state)]


@pytest.mark.parametrize("devices", [1, 2])
def test_steps_are_the_same(
    tmp_path: Path, packed: PackedGraphs, monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    """Losses, what is counted, weights, statistics and the optimizer; of two devices whose other has no labels."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda sums: None)
    one, two = (learner(packed, tmp_path) for _ in range(2))
    optimizer, other = adamw(one), adamw(two)
    whole = CapturedStep(two, other, CLIP, devices)
    lr = LR
    for number, part in enumerate(parts(packed, 6)):
        one.train(), two.train()
        optimizer.param_groups[0]["lr"] = lr
        want = by_hand(one, optimizer, packed.batch(part))
        picked = packed.pick(part, filled=True)
        if not whole.recorded:
            assert whole.record(picked, len(part), lr, CLOSING) is None
        got = whole(picked, len(part), lr, CLOSING)
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)
        assert all(weight.grad is None for weight in two.weights)
        assert other.param_groups[0]["lr"] == LR
        lr *= 0.9 if number else 2.0
    for first, second in zip(trace(one, optimizer), trace(two, other), strict=True):
        torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-5)


def test_fewer_examples_may_count(tmp_path: Path, packed: PackedGraphs) -> None:
    """From a graph that another device has, too, nothing is learnt here; batch norms see it."""
    one, two, part = learner(packed, tmp_path), learner(packed, tmp_path), parts(packed, 3)[0][:6]
    batch = packed.batch(part)
    batch.y[5] = torch.nan
    want = by_hand(one, optimizer := adamw(one), batch)
    whole, picked = CapturedStep(two, other := adamw(two), CLIP, 1), packed.pick(part, filled=True)
    assert whole.record(picked, 6, LR, CLOSING) is None
    torch.testing.assert_close(whole(picked, 5, LR, CLOSING), want, rtol=1e-3, atol=1e-4)
    for first, second in zip(trace(one, optimizer), trace(two, other), strict=True):
        torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-5)


def test_recording_leaves_no_trace(tmp_path: Path, packed: PackedGraphs) -> None:
    """Before the first step and after some, neither there nor in random numbers; dropout follows the seed."""
    of = learner(packed, tmp_path, dropout=0.5)
    optimizer = adamw(of)
    first, second, third, _ = parts(packed, 4)
    for before in (False, True):
        if before:
            by_hand(of, optimizer, packed.batch(second))
        old, seeds = trace(of, optimizer), random_numbers()
        whole, picked = CapturedStep(of, optimizer, CLIP, 1), packed.pick(first, filled=True)
        assert whole.record(picked, COUNT, LR, CLOSING) is None
        assert torch.equal(random_numbers(), seeds)
        new = trace(of, optimizer)
        assert all(torch.equal(one, two) for one, two in zip(old, new, strict=False))
        assert not any(each.any() for each in new[len(old) :])
    losses = []
    for seed in (3, 3, 4):
        kept = copy.deepcopy(of.state_dict())
        torch.manual_seed(seed)
        losses.append(whole(packed.pick(third, filled=True), COUNT, 0.0, 0.0).clone())
        of.load_state_dict(kept)
    torch.testing.assert_close(losses[0], losses[1])
    assert not torch.allclose(losses[0], losses[2])


def random_numbers() -> torch.Tensor:
    return torch.cuda.get_rng_state() if GPU else torch.get_rng_state()


def test_another_size_is_refused(tmp_path: Path, packed: PackedGraphs) -> None:
    of = learner(packed, tmp_path)
    whole = CapturedStep(of, adamw(of), None, 1)
    assert whole.record(packed.pick(parts(packed, 1)[0], filled=True), 3, LR, 0.0) is None
    with pytest.raises(ShapeError, match="of another size than the first"):
        whole(packed.pick(range(COUNT + 5)), COUNT, LR, 0.0)


def idle(parts: list[Callable[[], None]], device: torch.device) -> list[Callable[[], None]]:
    return [lambda: None for _ in parts]


def twice(parts: list[Callable[[], None]], device: torch.device) -> list[Callable[[], None]]:
    return [lambda part=part: (part(), part()) for part in parts]  # type: ignore[misc]


def refused(parts: list[Callable[[], None]], device: torch.device) -> list[Callable[[], None]]:
    raise NotRecorded("it cannot be recorded: operation not permitted when stream is capturing")


@pytest.mark.parametrize("wrong", [idle, twice, refused])
def test_a_graph_that_does_something_else_is_found_out(
    tmp_path: Path, packed: PackedGraphs, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    monkeypatch.setattr("plstm_graph.nn.captured.recorded", wrong)
    of = learner(packed, tmp_path)
    whole, old = CapturedStep(of, adamw(of), CLIP, 1), trace(of, adamw(of))
    said = whole.record(packed.pick(parts(packed, 1)[0], filled=True), 3, LR, 0.0)
    assert said is not None
    assert not whole.recorded
    assert all(torch.equal(one, two) for one, two in zip(old, trace(of, adamw(of)), strict=True))
    assert any(words in said for words in ("its loss is", "weights move by", "cannot be recorded"))
    assert all(weight.grad is None for weight in of.weights)


class Crossings(TorchDispatchMode):
    """Notes operations that take or give tensors of the host and of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        both = [x.device.type for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        sent = function is torch.ops.aten.lift_fresh.default and "meta" in both  # numbers that became a tensor there
        self.found += [str(function)] if sent or len(set(both)) > 1 else []
        return result


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("task", ["regression", "ranking", "binary", "multiclass", "weighted"])
def test_what_is_recorded_asks_the_device_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, devices: int
) -> None:
    """On a device that has no numbers: sizes that depend on them, and copies from and to the host, show."""
    dataset = small_dataset(tmp_path, "binary" if task in ("binary", "weighted") else "regression")
    dataset = three_classes(dataset) if task == "multiclass" else dataset
    packed = PackedGraphs.from_data_list(dataset.graphs, order="index", exclude_keys=["smiles"]).with_filler(COUNT)
    asked = Ranking(("y",)) if task == "ranking" else dataset.task.trained_with(None, task == "weighted")
    asked = asked.fitted(packed.y[:40])
    config = replace(MODEL, model="gine")  # kernels are tried on a GPU alone
    of = Learner(GraphModel(dataset.features, asked.num_outputs, config).to("meta"), asked, source_decay=0.1).to("meta")
    of.loss_sum, of.labels, of.labels_here = (x.to("meta") for x in (of.loss_sum, of.labels, of.labels_here))
    whole = CapturedStep(of, torch.optim.AdamW(of.parameters()), CLIP, devices)
    whole._picked = packed.to("meta").pick(parts(packed, 1)[0], filled=True)
    whole._rows = torch.empty(whole._picked.rows.shape, dtype=torch.long, device="meta")
    monkeypatch.setattr(whole.optimizer, "step", lambda: None)  # PyTorch's own affair, which has `capturable`
    monkeypatch.setattr("torch.autocast", lambda *args, **more: nullcontext())
    monkeypatch.setattr("torch.get_autocast_dtype", lambda kind: torch.bfloat16)
    monkeypatch.setattr("torch.is_autocast_enabled", lambda kind=None: False)
    new = torch.Tensor.new_tensor  # a mode does not see what it does
    crossings = Crossings()
    monkeypatch.setattr(torch.Tensor, "new_tensor", lambda *args: crossings.found.append("new_tensor") or new(*args))
    with crossings:
        whole._passes()
        whole._update()
    assert bool(crossings.found) != asked.recorded, crossings.found


class Seen(Callback):
    """Counts steps in one call, and others."""

    def __init__(self) -> None:
        self.steps = {True: 0, False: 0}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.steps[pl_module.at_once] += 1


class Scaled(Seen):
    """Looks at gradients, which a step in one call does not show."""

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        assert any(weight.grad is not None for weight in pl_module.weights)


def captured(tmp_path: Path, name: str, seen: Callback, monkeypatch: pytest.MonkeyPatch, **how: Any) -> dict[str, Any]:
    """The weights of a run on the CPU."""
    monkeypatch.setattr("torch.cuda.make_graphed_callables", passes_in_place)
    monkeypatch.setattr(
        "plstm_graph.train.capture.capturable", lambda graphs, config, *_: graphs.with_filler(config.batch_size)
    )
    config = small_config(out=tmp_path / name, epochs=3, capture=True, precision="64-true")
    train(config, small_dataset(tmp_path), callbacks=[seen, *how.pop("callbacks", ())], **how)
    return read(tmp_path / name)["state_dict"]


def test_who_looks_into_a_step_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plstm_graph.nn.captured.recorded", parts_in_place)
    one, two = Seen(), Scaled()
    states = [captured(tmp_path, str(number), seen, monkeypatch) for number, seen in enumerate((one, two))]
    assert one.steps == {True: 12, False: 0}
    assert two.steps == {True: 0, False: 12}
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-6, atol=1e-6)


def test_a_run_goes_on_where_the_graph_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("plstm_graph.nn.captured.recorded", idle)
    seen = Seen()
    with caplog.at_level(logging.WARNING):
        captured(tmp_path, "run", seen, monkeypatch)
    assert seen.steps == {True: 0, False: 12}
    assert [record.message for record in caplog.records if "only its passes are captured" in record.message]


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded anew, with dropout, on what the optimizer had."""
    monkeypatch.setattr("plstm_graph.nn.captured.recorded", parts_in_place)
    want = captured(tmp_path, "whole", Seen(), monkeypatch)
    with pytest.raises(TimeUp):
        captured(tmp_path, "parts", Seen(), monkeypatch, callbacks=[Deadline(1e-9)])
    got = captured(tmp_path, "parts", Seen(), monkeypatch, resume=True)
    assert all(torch.equal(got[key], value) for key, value in want.items())


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_on_a_gpu_is_one_graph_a_step(tmp_path: Path, precision: str, caplog: pytest.LogCaptureFixture) -> None:
    """Chosen, recorded, found right, used in nearly every step; an epoch's loss is that of steps kernel by kernel."""
    dataset, losses = small_dataset(tmp_path), {}
    for name, capture in (("in one", True), ("kernels", False)):
        seen = Seen()
        options = {"capture": capture, "precision": precision, "accelerator": "gpu", "model_width": 16}
        with caplog.at_level(logging.WARNING):
            train(small_config(out=tmp_path / name, epochs=6, model_dropout=0.0, **options), dataset, callbacks=[seen])
        assert seen.steps[capture] >= 20
        assert sum(seen.steps.values()) == 24
        losses[name] = float((tmp_path / name / "metrics.csv").read_text().splitlines()[1].split(",")[1])
    assert "only its passes" not in caplog.text
    assert losses["in one"] == pytest.approx(losses["kernels"], rel=0.1)
