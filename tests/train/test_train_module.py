import math
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from torch import nn
from torch.nn import functional as F
from torch_geometric.data import Data

from plstm_graph.tasks import TASKS, Binary, Regression, Tokens
from plstm_graph.train.module import Learner, warmup_cosine


def learner(task: str, metric: str = "r2", mean: float = 2.0, deviation: float = 4.0) -> Learner:
    asked = TASKS[task](("y",))
    if isinstance(asked, Regression):
        asked = replace(asked, metric=metric, mean=(mean,), deviation=(deviation,))
    return Learner(nn.Identity(), asked)


def test_regression_is_learnt_in_standard_deviations_and_read_in_units() -> None:
    output = torch.tensor([[0.5], [-1.0]])
    assert learner("regression").readable(output).tolist() == [[4.0], [-2.0]]
    assert learner("regression").loss(output, torch.tensor([[4.0], [2.0]])) == pytest.approx(0.5)  # (0² + 1²) / 2
    assert learner("regression", "mae").loss(output, torch.tensor([[4.0], [6.0]])) == pytest.approx(1.0)


def test_missing_labels_have_no_part_in_loss_and_gradient() -> None:
    output = torch.randn(3, 2, requires_grad=True)
    target = torch.tensor([[1.0, math.nan], [0.0, 1.0], [math.nan, 1.0]])
    known = ~target.isnan()
    loss = learner("binary").loss(output, target)
    assert torch.equal(loss, F.binary_cross_entropy_with_logits(output[known], target[known]))
    loss.backward()
    assert output.grad is not None
    assert (output.grad[~known] == 0).all()
    assert (output.grad[known] != 0).all()


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_with_all_labels_it_is_the_plain_mean_to_the_last_bit(task: str) -> None:
    output = torch.randn(7, 3, requires_grad=True)
    target = torch.rand(7, 3).round()
    function = F.mse_loss if task == "regression" else F.binary_cross_entropy_with_logits
    wanted = function(output, target)
    gradient = torch.autograd.grad(wanted, output)[0]
    found = learner(task, mean=0.0, deviation=1.0).loss(output, target)
    assert torch.equal(found, wanted)
    assert torch.equal(torch.autograd.grad(found, output)[0], gradient)


@pytest.mark.parametrize(("task", "metric"), [("regression", "r2"), ("regression", "mae"), ("binary", "rocauc")])
def test_no_step_waits_for_a_gpu(task: str, metric: str) -> None:
    """On the meta device there are no values to wait for: whatever looks at one, or depends on one, fails."""
    output = torch.empty(4, 2, device="meta", requires_grad=True)
    learner(task, metric).to("meta").loss(output, torch.empty(4, 2, device="meta")).backward()
    with pytest.raises(RuntimeError):
        output[output > 0]
    with pytest.raises(RuntimeError):
        bool(output.isnan().any())


def test_a_batch_without_labels_still_has_a_gradient() -> None:
    output = torch.randn(2, 1, requires_grad=True)
    learner("regression").loss(output, torch.full((2, 1), math.nan)).backward()
    assert output.grad is not None
    assert (output.grad == 0).all()


def test_classes() -> None:
    output, target = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    assert learner("multiclass").loss(output, target) == F.cross_entropy(output, target)
    assert torch.allclose(learner("multiclass").readable(output).sum(1), torch.ones(4))


def test_schedule_rises_then_falls_to_zero() -> None:
    factors = [warmup_cosine(step, 10, 100) for step in range(101)]
    assert 0 < factors[0] < 0.1
    assert factors[10] == 1.0
    assert all(a < b for a, b in pairwise(factors[:11]))
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert factors[100] == pytest.approx(0.0, abs=1e-12)
    assert warmup_cosine(0, 0, 10) == 1.0
    assert warmup_cosine(3, 5, 2) > 0  # warm-up longer than the run


def test_words_of_a_name() -> None:
    model = Learner(
        nn.Identity(), Tokens(("word 1", "word 2"), words=("a", "b"))
    )  # two words, unknown (2), end (3); at two places
    output = torch.randn(4, 2 * 4)
    target = torch.tensor([[0, 1, 9], [1, -1, -1], [7, 0, -1], [-1, -1, -1]])
    wanted = torch.tensor([[0, 1], [1, 3], [2, 0], [3, 3]])
    expected = (F.cross_entropy(output[:, :4], wanted[:, 0]) + F.cross_entropy(output[:, 4:], wanted[:, 1])) / 2
    assert torch.allclose(model.loss(output, target), expected)
    assert torch.allclose(model.loss(output, target[:, :1]), model.loss(output, F.pad(target[:, :1], (0, 1), value=-1)))
    sure = torch.tensor([[1, 0], [0, 3], [3, 1], [2, 2]])
    found = model.readable(F.one_hot(sure, 4).float().flatten(1))
    assert found.tolist() == [[1, 0], [0, -1], [-1, -1], [2, 2]]


@pytest.mark.parametrize("part", ["train", "valid"])
def test_losses_of_an_epoch_count_labels_not_batches(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = learner("binary", "rocauc"), {}
    monkeypatch.setattr(model, "log", lambda name, value, **options: seen.update({name: float(value)}))
    strategy = SimpleNamespace(broadcast=lambda found: found, reduce=lambda number, **_: number)
    model._trainer = SimpleNamespace(strategy=strategy, world_size=1, train_dataloader=None)
    target = torch.tensor([[1.0, math.nan], [0.0, 1.0], [math.nan, math.nan], [1.0, 0.0]])
    output = torch.randn(4, 2)
    model.model = nn.Module()
    model.model.forward = lambda batch: batch.x
    step = model.training_step if part == "train" else model.validation_step
    (model.on_train_epoch_start if part == "train" else model.on_validation_epoch_start)()
    for rows in (slice(0, 1), slice(1, 4)):
        step(Data(x=output[rows], y=target[rows]), 0)
    (model.on_train_epoch_end if part == "train" else model.on_validation_epoch_end)()
    assert seen["loss" if part == "train" else "valid_loss"] == pytest.approx(float(model.loss(output, target)))


@pytest.mark.parametrize("clip", [None, 1.0], ids=["free", "clipped"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_lightning_clips_for_the_optimiser_of_a_gpu(
    precision: str, clip: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fused one does not suit a scaled loss (float16) that is clipped."""
    plugin = Precision() if precision == "32-true" else MixedPrecision(precision, "cuda")  # type: ignore[arg-type]
    one = Learner(nn.Linear(2, 1), Binary(("y",)))
    one._trainer = SimpleNamespace(precision_plugin=plugin, gradient_clip_val=clip)  # type: ignore[assignment]
    monkeypatch.setattr(Learner, "device", torch.device("cuda"))
    optimizer = one.configure_optimizers()["optimizer"]
    assert bool(optimizer.defaults["fused"]) == (clip is None or precision != "16-mixed")
    one.model.weight.grad = torch.full((1, 2), 3.0)
    one.configure_gradient_clipping(optimizer, clip)
    assert float(one.model.weight.grad.norm()) == pytest.approx(clip or 18**0.5)
