"""The task whose answers are words in a row."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from plstm_graph.tasks.base import Task


@dataclass(frozen=True)
class Tokens(Task):
    """A few words in a row. Labels: int64 [n, longest], numbers of words with -1 after the last one.

    ``targets`` are the places of words that are predicted. At each of them the model chooses among the known words,
    "unknown" and "end", in this order; numbers of labels beyond those are words that are not known.

    Args:
        words: the known words.
    """

    words: tuple[str, ...] = ()

    name = "tokens"
    metrics = ("f1",)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "words", tuple(self.words))

    @property
    def num_outputs(self) -> int:
        """At each place the words, unknown and end."""
        return len(self.targets) * (len(self.words) + 2)

    @property
    def no_labels(self) -> Tensor:
        """Labels of no example at all."""
        return torch.empty(0, len(self.targets), dtype=torch.long)

    def count(self, target: Tensor) -> Tensor:
        """The words of an example are one label."""
        return target.new_full((), len(target), dtype=torch.long)

    def _by_place(self, output: Tensor) -> Tensor:
        """[n, places · choices] -> [n, places, choices]"""
        return output.view(len(output), len(self.targets), -1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy over all places; after the last word the end is wanted."""
        words = self._by_place(output)
        places, end = words.size(1), words.size(2) - 1
        wanted = F.pad(target[:, :places], (0, max(0, places - target.size(1))), value=-1)
        wanted = torch.where(wanted < 0, end, wanted.clamp(max=end - 1))  # all words not known are one
        return F.cross_entropy(words.flatten(0, 1), wanted.flatten())

    def readable(self, output: Tensor) -> Tensor:
        """Numbers of words [n, places], -1 from the end on."""
        words = self._by_place(output)
        chosen = words.argmax(-1)
        return chosen.masked_fill((chosen == words.size(-1) - 1).cumsum(1) > 0, -1)
