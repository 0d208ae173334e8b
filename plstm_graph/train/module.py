"""The Lightning module: losses, scaling of labels, optimiser and schedule."""

import logging
import math
from contextlib import nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch_geometric.data import Batch

from plstm_graph.data.taking import Picked
from plstm_graph.nn.captured import Captured
from plstm_graph.nn.conv import PLSTMConv
from plstm_graph.tasks import Task, score
from plstm_graph.train.answering import Answering
from plstm_graph.train.captured_step import CapturedStep
from plstm_graph.train.checkpoint import META

log = logging.getLogger(__name__)


class Learner(Answering, pl.LightningModule):
    """A model with its task, as Lightning trains it.

    Args:
        model: maps a batch to [n, outputs]: n graphs or nodes, see ``Task.level``.
        task: what is asked.
        meta: what the checkpoint says about itself (see ``checkpoint.Meta``); it cannot be written without.
        lr, weight_decay, warmup_steps, total_steps: of AdamW and its schedule.
        source_decay: see :class:`plstm_graph.train.config.TrainConfig`.
        compile: training steps run the model's stack through torch.compile; everything else runs it as it is.
        capture: training steps on filled batches are CUDA graphs, or their passes are.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        meta: dict[str, Any] | None = None,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        source_decay: float = 0.0,
        warmup_steps: int = 0,
        total_steps: int = 1,
        compile: bool = False,
        capture: bool = False,
    ) -> None:
        super().__init__(model, task, meta)
        self.captured = Captured(model) if capture else None
        self.lr, self.weight_decay, self.source_decay = lr, weight_decay, source_decay
        self.warmup_steps, self.total_steps = warmup_steps, total_steps
        self.compiled = compile
        if compile:  # in place: names of weights stay
            # Code is kept for the next network of this process, and there may be many, of more kinds than the usual 8.
            torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
            model.stack.compile(fullgraph=True, dynamic=True)  # type: ignore[union-attr]
        self.whole: CapturedStep | None = None
        self.at_once = False
        """Whether the step at hand is one call, so that of Lightning's hooks only its first does anything."""
        self.loss_sum = torch.zeros(())
        self.labels, self.labels_here = torch.zeros((), dtype=torch.long), torch.zeros((), dtype=torch.long)
        # Steps go through these, and looking for them takes as long as what is done with them.
        self._convs = [module for module in model.modules() if isinstance(module, PLSTMConv)] if source_decay else []
        self.weights = list(self.parameters())
        self._seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def forward(self, batch: Batch) -> Tensor:
        """Predictions in original units, probabilities for classes, numbers of words: [n, outputs]."""
        return self.readable(self.as_it_is(batch))

    def as_it_is(self, batch: Batch) -> Tensor:
        """The model without torch.compile, which would take another minute to compile it for evaluation."""
        with torch.compiler.set_stance("force_eager") if self.compiled else nullcontext():
            return self.model(batch)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss over the labels that are there.

        Args:
            output: [n, outputs] as the model gives it.
            target: [n, targets] in original units, NaN where missing, and behind them sides of bounds where there are
                some; [n] class numbers; [n, longest] numbers of words, -1 after the last one.
        """
        output = output.float()
        if not len(target):  # no gradient, but still a graph for DDP to walk
            return output.sum() * 0.0
        target = target.float() if target.is_floating_point() else target
        if len(self.mean):
            target = self.task.standardised(target, self.mean.float(), self.deviation.float())
        return self.task.loss(output, target)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """A packed batch is there already, or comes to be there: nothing to walk through."""
        if isinstance(batch, Picked) or batch.y.device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_train_start(self) -> None:
        """Here the optimizer has all that a run goes on with."""
        self.loss_sum, self.labels, self.labels_here = (
            number.to(self.device) for number in (self.loss_sum, self.labels, self.labels_here)
        )
        if self.captured is not None and self.task.recorded and not _watched(self.trainer):
            self.whole = CapturedStep(
                self, self.trainer.optimizers[0], self.trainer.gradient_clip_val, self.trainer.world_size
            )

    def on_train_epoch_start(self) -> None:
        self.loss_sum.zero_()
        self.labels.zero_()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Say whether the step will be one call; record it where that is the first."""
        self.at_once = self.whole is not None and isinstance(batch, Picked) and bool(batch.filled)
        if self.whole is None or not self.at_once:
            return
        arguments = self._told(batch, batch_idx)
        self.at_once = arguments[1] > 0
        if self.at_once and not self.whole.recorded:
            with self.trainer.precision_plugin.train_step_context():
                wrong = self.whole.record(*arguments)
            if wrong:
                log.warning("a step in one CUDA graph is not the same step: %s; only its passes are captured", wrong)
                self.whole, self.at_once = None, False

    def _told(self, picked: Picked, index: int) -> tuple[Picked, int, float, float]:
        """What a step in one call takes."""
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        return picked, picked.examples - self._ends_in_repetition(index), lr, self._closing(lr)

    def training_step(self, batch: Batch | Picked, index: int) -> Tensor:
        if self.at_once:
            assert self.whole is not None
            return self.whole(*self._told(batch, index))
        batch = batch.batch() if isinstance(batch, Picked) else batch
        output = self.model(batch) if self.captured is None else self.captured(batch)
        target = batch.y[: len(output)]
        if self._ends_in_repetition(index):  # another device has that graph
            last = 1 if self.task.level == "graph" else int(batch.ptr[-1] - batch.ptr[-2])
            output, target = output[: len(output) - last], target[: len(target) - last]
        loss = self.loss(output, target)
        self.note(loss, self.task.count(target))
        return loss

    def note(self, loss: Tensor, labels: Tensor) -> None:
        """Count the loss and the labels of a step, in place: what is recorded does so where they were then."""
        self.labels_here.copy_(labels)
        self.loss_sum.add_(loss.detach() * labels)
        self.labels.add_(labels)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if not self.at_once:
            super().backward(loss, *args, **kwargs)

    def _ends_in_repetition(self, index: int) -> bool:
        sampler = getattr(self.trainer.train_dataloader, "sampler", None)
        return bool(getattr(sampler, "padded", False)) and self.trainer.is_last_batch

    def _over_devices(self, number: Tensor) -> Tensor:
        """Sum over devices. Lightning's own makes the host wait for the device at a barrier, here in every step."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self.trainer.strategy.reduce(number.clone(), reduce_op="sum")
        found = number.clone()
        torch.distributed.all_reduce(found)
        return found

    def on_validation_epoch_start(self) -> None:
        self._seen = []

    def validation_step(self, batch: Batch, index: int) -> None:
        output, target = self.as_it_is(batch).float(), batch.y
        labels = self.task.count(target)
        self._seen.append((self.readable(output), target, self.loss(output, target) * labels, labels))

    def on_validation_epoch_end(self) -> None:
        # Every device sees the whole validation split: nothing has to be gathered, and no graph is counted twice.
        outputs, targets, losses, labels = zip(*self._seen, strict=True)
        self._seen = []
        mean = torch.stack(losses).sum() / torch.stack(labels).sum().clamp(min=1)  # of labels, not of batches
        metric = self.task.metric
        found = float(mean), score(metric, torch.cat(outputs), self.task.exact(torch.cat(targets)))
        # Devices differ (statistics of BatchNorm, the last bit of a sum), but have to agree on the best epoch.
        loss, value = self.trainer.strategy.broadcast(found)
        self.log("valid_loss", loss, batch_size=sum(map(len, outputs)), logger=False)
        self.log(f"valid_{metric}", value, batch_size=sum(map(len, outputs)), logger=False)

    def on_train_epoch_end(self) -> None:
        loss = self._over_devices(self.loss_sum) / self._over_devices(self.labels).clamp(min=1)
        self.log("loss", loss, batch_size=1, logger=False)

    def _groups(self) -> list[dict[str, Any]]:
        """All weights, those apart that the model wants to be left alone by weight decay."""
        told: Any = getattr(self.model, "without_decay", list)
        free = told()
        names = {id(weight) for weight in free}
        decayed = {"params": [weight for weight in self.parameters() if id(weight) not in names]}
        return [decayed, {"params": free, "weight_decay": 0.0}] if free else [decayed]

    def configure_optimizers(self) -> Any:
        # One kernel for all weights, on a GPU; where the loss is scaled (float16), it cannot be clipped for.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        refused = scaled and self.trainer.gradient_clip_val is not None
        fused = True if self.device.type == "cuda" and not refused else None
        optimizer = torch.optim.AdamW(self._groups(), lr=self.lr, weight_decay=self.weight_decay, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, self.warmup_steps, self.total_steps)
        )
        # Stepped after each batch: when the epoch ends and the checkpoint is written, nothing of it is pending.
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """A step of the optimizer; in the first half of a training sources then close a little."""
        if self.at_once:
            optimizer_closure()
            return
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if closing := self._closing(optimizer.param_groups[0]["lr"]):
            self.close_sources(closing)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        if not self.at_once:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def _closing(self, lr: float) -> float:
        """How much sources close after a step."""
        early = bool(self._convs) and self.trainer.global_step < self.total_steps / 2
        return self.source_decay * lr if early else 0.0

    def close_sources(self, by: float | Tensor) -> None:
        """Lower the biases of all sources."""
        for conv in self._convs:
            conv.close_sources(by)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """By their common norm; Lightning would refuse a fused optimizer in bfloat16, too."""
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(self.weights, gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.meta is not None, "a learner that is stored has to describe itself"
        checkpoint[META] = self.meta


HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
"""Of callbacks, what lies within a step that is one call."""


def _watched(trainer: pl.Trainer) -> bool:
    """Whether someone wants to see, or has to scale, what is within a step."""
    callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
    seen = any(getattr(type(each), name) is not getattr(Callback, name) for each in callbacks for name in HOOKS)
    return seen or getattr(trainer.precision_plugin, "scaler", None) is not None


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Factor of the learning rate: up to 1 over ``warmup`` steps, then half a cosine that reaches 0 at ``total``."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
