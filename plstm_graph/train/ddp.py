"""Several devices as Lightning trains them, without what makes the host wait for its device or keeps it busy."""

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors


class FlatDDPStrategy(DDPStrategy):
    """Lightning's DDP, whose gradients are averaged in one piece once they are all there.

    The networks of this package are a few megabytes in some hundred weights. PyTorch's wrapper copies each gradient on
    its own, to send the first while the last are worked out; that costs the host more than sending takes. And passes
    that are recorded (:class:`plstm_graph.nn.Captured`) write all gradients at once. A weight without a gradient
    counts as 0. Running statistics are those of the first process, whose scores and checkpoints count.
    """

    def configure_ddp(self) -> None:
        """All begin with the weights of the first; the model stays as it is."""
        assert self.lightning_module is not None
        for tensor in (*self.lightning_module.parameters(), *self.lightning_module.buffers()):
            torch.distributed.broadcast(tensor.detach(), 0)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Every gradient becomes its mean over the labels of all devices."""
        learner: Any = self.lightning_module
        if learner.at_once:  # the step does so itself
            return
        weights = [weight for weight in learner.weights if weight.requires_grad]
        sums = weighed(weights, learner.labels_here)
        torch.distributed.all_reduce(sums)
        means(sums, weights)


def weighed(weights: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Gradients times the labels that they are means over, and these labels, as one vector: its sum over devices says
    what gradients would be if all graphs were one batch. A weight without a gradient counts as 0.

    Args:
        weights: with gradients, together P numbers.
        labels: on this device, [].

    Returns:
        [P + 1], at least in float32, in which labels are counted.
    """
    flat = _flatten_dense_tensors([_gradient(weight) for weight in weights])
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    labels = labels.to(flat.dtype).view(1)
    return torch.cat([flat * labels, labels])


def means(sums: Tensor, weights: Sequence[Tensor]) -> None:
    """Gradients from the sum over devices of what :func:`weighed` gives."""
    flat = sums[:-1] / sums[-1].clamp(min=1)
    for weight, mean in zip(weights, _unflatten_dense_tensors(flat, weights), strict=True):
        weight.grad = mean.to(weight.dtype)


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def over_devices(make: Callable[..., pl.Trainer]) -> pl.Trainer:
    """A trainer; where Lightning takes several devices for it, they wait for each other only to add up gradients.

    Args:
        make: Lightning's Trainer, but for its ``strategy``.
    """
    trainer = make()
    if not isinstance(trainer.strategy, DDPStrategy):
        return trainer
    trainer = make(strategy=FlatDDPStrategy(start_method=trainer.strategy._start_method))
    request = StopRequest(trainer)
    trainer._signal_connector._sigterm_notifier_fn = request.note  # type: ignore[method-assign,assignment]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = request  # type: ignore[method-assign]
    return trainer


def told_to_stop(trainer: pl.Trainer) -> bool:
    """Whether any of several processes was told to stop since the last step that could answer: in it, or while what it
    led to was validated. To be asked by all of them, after the last step."""
    request = trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor
    return isinstance(request, StopRequest) and bool(request.asked().item())


class StopRequest:
    """Whether any process was told to stop (SIGTERM): asked at the start of a step, answered at the next one's.

    Lightning wants the answer at once, for which the host waits until its device has done all of the step before, and
    neither works while the other does. All processes read the same answer, and stop in the same step.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self.trainer = trainer
        self.told = False
        self._answer: torch.Tensor | None = None
        self._ready: Any = None

    def note(self, *_: Any) -> None:
        """The handler of SIGTERM in this process."""
        self.told = True

    def __call__(self) -> None:
        """Raises SIGTERMException if the answer to the question of the step before is yes."""
        if self._ready is not None:
            self._ready.synchronize()
        if self._answer is not None and self._answer.item():
            raise SIGTERMException
        told = self.asked()
        if told.device.type != "cuda":
            self._answer = told
            return
        if self._answer is None:
            self._answer, self._ready = torch.empty(1, dtype=told.dtype, pin_memory=True), torch.cuda.Event()
        self._answer.copy_(told, non_blocking=True)
        self._ready.record()

    def asked(self) -> torch.Tensor:
        """1 if any process was told to, else 0, on its device, [1]; nobody waits for it."""
        told = torch.full((1,), int(self.told), device=self.trainer.strategy.root_device)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        return told
