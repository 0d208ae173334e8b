"""Networks of one kind, trained from different seeds, that answer together."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from plstm_graph.tasks import Task


class Ensemble(nn.Module):
    """The mean of several networks' answers: of values, or of probabilities.

    Args:
        members: networks that map a batch to [n, outputs].
        task: what they answer.

    Shapes: a batch -> [n, outputs], what one network would have to give for that mean.

    Reference: Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty estimation".
    """

    factor: Tensor  # [outputs] by what a spread is multiplied; found on the validation part

    def __init__(self, members: Iterable[nn.Module], task: Task) -> None:
        super().__init__()
        self.members, self.task = nn.ModuleList(members), task
        self.register_buffer("factor", torch.ones(task.num_outputs))

    def each(self, batch: Any) -> Tensor:
        """What every member gives, [members, n, outputs]."""
        return torch.stack([member(batch).float() for member in self.members])

    def forward(self, batch: Any) -> Tensor:
        """[n, outputs]"""
        return self.together(self.each(batch))

    def together(self, found: Tensor) -> Tensor:
        """Of what every member gives, [members, n, outputs], what one network would have to give for the mean."""
        # One by one: classes are in the last of two dimensions. In double, where a chance near 1 has a finite logit.
        answers = torch.stack([self.task.readable(one.double()) for one in found])
        return self.task.raw(answers.mean(0)).to(found.dtype)
