"""From a checkpoint and a molecule to what its prediction is made of: a picture and two tables."""

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import torch

from plstm_graph.data.depiction import layout
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.molecules import smiles_to_data
from plstm_graph.draw import draw_explanation
from plstm_graph.io.json_csv import write_rows
from plstm_graph.models import explain as core
from plstm_graph.train.inference.molecules import as_trained
from plstm_graph.train.inference.restored import network, restore_for_molecules


@dataclass(frozen=True)
class Explained:
    """The explanation of one prediction for a molecule.

    Attributes:
        smiles: as given.
        unit: of the output: the name of the target (regression) or ``log-odds of ...`` (classes).
        choices: names by which a target (or class) is chosen, in the order of the model's outputs.
        explanation: see :class:`plstm_graph.models.explain.Explanation`; node i is atom i as written.
        unlike: what of the molecule and its prediction the training never had, in words; empty if there is nothing.
    """

    smiles: str
    unit: str
    choices: list[str]
    explanation: core.Explanation
    unlike: str = ""

    def draw(self, path: str | PathLike[str]) -> Path:
        """The picture, ``.svg`` or ``.png``; see :func:`plstm_graph.draw.draw_explanation`."""
        return draw_explanation(self.explanation, self.smiles, path, unit=self.unit)

    def write_atoms(self, path: str | PathLike[str]) -> None:
        """CSV, one row an atom: ``score`` of the whole model, and what it ``sent`` in pLSTM layers, by kind."""
        found = self.explanation
        columns = [found.scores, found.pairs().sum(0), *(found.pairs(*reading).sum(0) for reading in found.readings)]
        names = ["score", "sent", *(f"sent {mode} {direction}" for mode, direction in found.readings)]
        symbols = layout(self.smiles).symbols
        values = torch.stack(columns, 1).tolist()
        rows = ([number, symbols[number], *map(_cell, row)] for number, row in enumerate(values))
        write_rows(path, ["atom", "symbol", *names], rows)

    def write_pairs(self, path: str | PathLike[str]) -> None:
        """CSV, one row for each pair (from, to) that is not zero, strongest first: ``flow``, and by kind."""
        found = self.explanation
        whole = found.pairs()
        parts = [found.pairs(*reading) for reading in found.readings]
        names = [f"{mode} {direction}" for mode, direction in found.readings]
        symbols = layout(self.smiles).symbols
        to, source = whole.nonzero(as_tuple=True)
        order = whole[to, source].abs().argsort(descending=True, stable=True)
        rows = (
            [m, symbols[m], n, symbols[n], *(_cell(float(flow[n, m])) for flow in (whole, *parts))]
            for n, m in zip(to[order].tolist(), source[order].tolist(), strict=True)
        )
        write_rows(path, ["from", "from_symbol", "to", "to_symbol", "flow", *names], rows)


def explain(
    checkpoint: str | PathLike[str], smiles: str, *, target: str | None = None, steps: int = core.STEPS
) -> Explained:
    """What a prediction for a molecule is made of; see :func:`plstm_graph.models.explain.explain`.

    Args:
        checkpoint: file, or folder of a run.
        smiles: the molecule.
        target: which prediction, by the name of its target, or for several classes by the number of the class; the
            first if not given.
        steps: points of the integrals.

    Raises:
        CheckpointError: the file cannot be used, or its model was not trained on molecules.
        ConfigError: no such target, or a model without pLSTM layers.
        DataError: the text is not a molecule.
    """
    learner, meta = restore_for_molecules(checkpoint, "cpu")
    model = network(learner, checkpoint)
    output, unit = learner.task.chosen(target)
    (graph,) = add_encodings(as_trained([smiles_to_data(smiles, str(meta.featuriser))], meta), meta.model_config)
    found = core.explain(model, graph, output, steps=steps)
    domain, targets = meta.domain, [unit] if unit in meta.asked.targets else []
    if domain is not None and targets and domain.labels:
        domain = replace(domain, labels=(domain.labels[meta.asked.targets.index(unit)],))
    unlike = domain.unlike(graph, targets, torch.tensor([found.value][: len(targets)])) if domain else ""
    return Explained(smiles, unit, learner.task.choices, found, unlike)


def _cell(value: float) -> str:
    return f"{value:.6g}"
