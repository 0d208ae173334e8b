"""A trained model with its task: what it answers, in the units of the data."""

from typing import Any

import torch
from torch import Tensor, nn

from plstm_graph.tasks import Task


class Answering(nn.Module):
    """A model whose outputs are read as its task asks; a :class:`~plstm_graph.train.module.Learner` trains one.

    Args:
        model: maps a batch to [n, outputs]: n graphs or nodes, see ``Task.level``.
        task: what is asked.
        meta: what the checkpoint says about itself (see ``checkpoint.Meta``); it cannot be written without.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: nn.Module, task: Task, meta: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.model, self.task, self.meta = model, task, meta
        # Not persistent: the checkpoint's meta is the one place where the scaling is stored.
        for name, values in zip(("mean", "deviation"), task.scale, strict=True):
            self.register_buffer(name, torch.tensor(values), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.mean.device

    def forward(self, batch: Any) -> Tensor:
        """Predictions in original units, probabilities for classes, numbers of words: [n, outputs]."""
        return self.readable(self.model(batch))

    def readable(self, output: Tensor) -> Tensor:
        """The model's output [n, outputs] as a user reads it; words [n, places] with -1 from the end on."""
        output = output.float()
        if len(self.mean):
            output = output * self.deviation.float() + self.mean.float()
        return self.task.readable(output)
