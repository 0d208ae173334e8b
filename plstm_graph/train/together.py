"""Several devices as Lightning trains them, without what makes the host wait for its device in every step."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import SIGTERMException

LEAN = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
"""Options of DDP. Running statistics are those of the first process, whose scores and checkpoints count, so none has to
be sent in a step; and gradients need not be copied into what is sent and back."""


def lean(trainer: pl.Trainer) -> pl.Trainer:
    """The trainer; several devices of it wait for each other only to add up gradients."""
    if trainer.world_size > 1 and isinstance(trainer.strategy, DDPStrategy):
        request = StopRequest(trainer)
        trainer.strategy._ddp_kwargs |= LEAN
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
