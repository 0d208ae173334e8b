"""What molecules a training has seen, so that a prediction for one unlike all of them is marked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.data.features import ATOM_SIZES
from plstm_graph.data.molecules import element
from plstm_graph.data.stacked import joined, sizes
from plstm_graph.errors import ConfigError, count
from plstm_graph.tasks import Task

NUMBER, CHARGE, AROMATIC = 0, 3, 7
"""Columns of OGB's atom features: the element, the formal charge, and whether an atom is aromatic."""
WILDCARD, FIRST_CHARGE = ATOM_SIZES[NUMBER] - 1, -5
"""Category of an atom that is no element; the charge of category 0."""

_WHOLE = ("elements", "charges", "atoms", "aromatic")


@dataclass(frozen=True)
class Domain:
    """What there was in a training part of molecules.

    Args:
        elements, charges: categories of the atom features that occurred.
        atoms: fewest and most heavy atoms of a molecule.
        labels: lowest and highest label of each target, in the units of the data; empty for classes and ranks.
        aromatic: as ``elements``; both where that is not known, as of earlier checkpoints.
    """

    elements: tuple[int, ...]
    charges: tuple[int, ...]
    atoms: tuple[int, int]
    labels: tuple[tuple[float, float], ...] = ()
    aromatic: tuple[int, ...] = (0, 1)

    @classmethod
    def of(cls, graphs: Sequence[Data], task: Task) -> "Domain":
        """That of molecules with labels."""
        x, counts = joined(graphs, "x"), sizes(graphs)
        labels: list[tuple[float, float]] = []
        if task.name == "regression":
            for column in task.values(joined(graphs, "y")).double().T:
                known = column[~column.isnan()]
                labels.append((float(known.min()), float(known.max())))
        elements, charges, aromatic = (tuple(x[:, each].unique().tolist()) for each in (NUMBER, CHARGE, AROMATIC))
        return cls(elements, charges, (min(counts), max(counts)), tuple(labels), aromatic)

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> "Domain":
        """The inverse of :meth:`plain`.

        Raises:
            ConfigError: it is none.
        """
        try:
            stored = {"aromatic": cls.aromatic} | dict(stored)
            whole = {key: tuple(int(value) for value in stored[key]) for key in _WHOLE}
            labels = tuple((float(low), float(high)) for low, high in stored["labels"])
            low, high = whole["atoms"]
            if len(stored) > len(whole) + 1:
                raise KeyError("more")
            return cls(whole["elements"], whole["charges"], (low, high), labels, whole["aromatic"])
        except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise ConfigError("what was seen in training is described wrongly") from error

    def plain(self) -> dict[str, Any]:
        """As values that a checkpoint holds."""
        found = asdict(self)
        return {**found, "labels": [list(pair) for pair in self.labels]} | {key: list(found[key]) for key in _WHOLE}

    def unlike_each(self, graphs: Sequence[Data], targets: Sequence[str], values: Tensor) -> list[str]:
        """As :meth:`unlike`, of many molecules, most of them like the training; ``values`` [molecules, outputs]."""
        counts = torch.tensor([graph.num_nodes or 0 for graph in graphs])
        low, high = self.atoms
        suspect = (counts < low) | (counts > high)
        x, graph_of = torch.cat([graph.x for graph in graphs]), torch.arange(len(graphs)).repeat_interleave(counts)
        for column, seen in ((NUMBER, self.elements), (CHARGE, self.charges), (AROMATIC, self.aromatic)):
            suspect[graph_of[~torch.isin(x[:, column], torch.tensor(seen))]] = True
        if len(self.labels) == len(targets) == values.size(1):
            least, most = torch.tensor(self.labels, dtype=torch.double).T
            suspect |= ~((least <= values) & (values <= most)).all(1)
        marks = zip(graphs, values, suspect.tolist(), strict=True)
        return [self.unlike(graph, targets, row) if odd else "" for graph, row, odd in marks]

    def unlike(self, graph: Data, targets: Sequence[str], values: Tensor) -> str:
        """What of a molecule and its prediction the training never had, in words; empty if there is nothing.

        Args:
            graph: of the molecule.
            targets: names of the outputs, [outputs].
            values: the prediction in the units of the data, [outputs].
        """
        numbers, charges = (sorted({*graph.x[:, column].tolist()}) for column in (NUMBER, CHARGE))
        found = ["a wildcard atom" if each == WILDCARD else f"element {element(each + 1)}" for each in numbers
                 if each not in self.elements]  # fmt: skip
        found += [f"charge {each + FIRST_CHARGE:+d}" for each in charges if each not in self.charges]
        found += ["aromatic atoms"] if graph.x[:, AROMATIC].any() and 1 not in self.aromatic else []
        low, high = self.atoms
        if not low <= (size := int(graph.num_nodes or 0)) <= high:
            found.append(f"{count(size, 'atom')}, not {low} to {high}")
        if len(self.labels) == len(targets) == len(values):
            for name, value, (least, most) in zip(targets, values.tolist(), self.labels, strict=True):
                if not least <= value <= most:
                    found.append(f"{name} {value:.3g}, labels {least:.3g} to {most:.3g}")
        return "; ".join(found)
