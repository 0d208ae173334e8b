"""A moving average of the weights, which is validated, stored and tested, while training goes on without it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


class Averaging(WeightAveraging):
    """Lightning's averaging of weights and statistics of batch norms, exponential: after every step,
    average += (1 - decay) (now - average).

    In checkpoints ``state_dict`` is the average; ``last.ckpt`` holds what training goes on with as well.

    Args:
        decay: between 0 and 1; the average is over about the last 1 / (1 - decay) steps.
    """

    def __init__(self, decay: float) -> None:
        @torch.no_grad()
        def move(average: list[Tensor], now: list[Tensor], _: Tensor | int) -> None:
            if average[0].is_floating_point():
                torch._foreach_lerp_(average, now, 1 - decay)
            else:  # sizes and counts: rounded down, torch's own average of 119 and 119 is 118
                torch._foreach_copy_(average, now)

        super().__init__(multi_avg_fn=move)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:  # asked for in every step, it must not make the host wait for a GPU
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    @contextmanager
    def in_place(self, learner: pl.LightningModule) -> Iterator[None]:
        """The learner has the averaged weights while this lasts."""
        self._swap_models(learner)
        try:
            yield
        finally:
            self._swap_models(learner)
