"""What a run found: metrics of the best and the last epoch, and the files that show them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plstm_graph.data.dataset import AnyDataset
from plstm_graph.draw import answers, curves
from plstm_graph.errors import rounded
from plstm_graph.grid import DIRECTIONS
from plstm_graph.io.files import write_text
from plstm_graph.io.json_csv import apart, write_json, write_rows
from plstm_graph.io.waiting import named
from plstm_graph.models.patches_read import patches_read, reads_along_directions
from plstm_graph.tasks import MISSING, Task
from plstm_graph.tasks.thresholds import at_thresholds
from plstm_graph.train import provenance, results
from plstm_graph.train.analysis import interval_of
from plstm_graph.train.callbacks import Keeper
from plstm_graph.train.card import card
from plstm_graph.train.checkpoint import META, load_weights, read
from plstm_graph.train.checkpoint_io import AtomicCheckpointIO
from plstm_graph.train.config import TrainConfig, config_hash
from plstm_graph.train.data import labels
from plstm_graph.train.machine import machine
from plstm_graph.train.module import Learner
from plstm_graph.train.outputs import outputs
from plstm_graph.train.start import Start
from plstm_graph.train.trainer import first_process


@dataclass
class Run:
    """A run and its parts.

    ``split`` holds the places of train, valid and test in the data set, ``parts`` their prepared graphs, and those of
    further data sets that are scored, by their name; ``devices`` is how many train it together.
    """

    config: TrainConfig
    dataset: AnyDataset
    split: dict[str, list[int]]
    parts: dict[str, Any]
    learner: Learner
    keeper: Keeper
    out: Path | None
    start: Start
    devices: int = 1


class Trained(NamedTuple):
    """A learner with the weights of its best epoch, and what ``metrics.json`` says of it."""

    learner: Learner
    metrics: dict[str, Any]


MOST_VALUES = 10_000_000
"""A training part with more predictions than this is left out of ``predictions.csv``."""

Found = dict[str, tuple[Tensor, Tensor]]  # by part: prediction and target
Spreads = dict[str, Tensor | None]  # of an ensemble's members, by part


def report(run: Run, *, write: bool = True) -> Trained:
    """Scores the last and the best weights in float32, and writes the folder if there is one."""
    run.learner.float()
    size = run.config.batch_size  # what training had memory for
    task = run.learner.task
    last_epoch = task.scores(outputs(run.learner, run.parts["test"], size).values, _exact(run, "test"))
    load_weights(run.learner.model, _best_state(run), results.BEST)
    given = {name: outputs(run.learner, graphs, size) for name, graphs in run.parts.items()}
    found = {name: (values, _exact(run, name)) for name, (values, _) in given.items()}
    with named("scores, predictions and pictures"):
        spreads = {name: spread for name, (_, spread) in given.items()}
        content = _content(run, found, spreads, last_epoch)
        if run.out is not None and write:
            _write(run, run.out, found, spreads, content)
    return Trained(run.learner, content)


def report_made(
    config: TrainConfig, dataset: AnyDataset, start: Start, parts: dict[str, Any], learner: Learner, seconds: float
) -> Trained:
    """As :func:`report`, of a learner that came about without epochs in the folder of this run: it is stored first."""
    task, write = learner.task, first_process()
    out = Path(config.out) if config.out else None
    keeper = Keeper(f"valid_{task.metric}", task.rule.higher_is_better)
    keeper.seconds, keeper.best_state = seconds, {k: v.detach().clone() for k, v in learner.state_dict().items()}
    if out and write:
        AtomicCheckpointIO().save_checkpoint({META: learner.meta, "state_dict": keeper.best_state}, out / results.BEST)
    return report(Run(config, dataset, start.split, parts, learner, keeper, out, start), write=write)


def _exact(run: Run, part: str) -> Tensor:
    """What a part is scored by."""
    task: Task = run.dataset.task
    return task.exact(labels(run.parts[part], task))


def _censored(run: Run, found: Found) -> dict[str, Any]:
    """How many labels of each part are bounds, which are learnt from and not scored."""
    task: Task = run.dataset.task
    counts = {
        part: int(task.count(labels(run.parts[part], task)) - task.count(target)) for part, (_, target) in found.items()
    }
    return {"censored": counts} if any(counts.values()) else {}


def _best_state(run: Run) -> dict[str, Tensor]:
    if run.keeper.best_state is not None:
        return run.keeper.best_state
    assert run.out is not None
    return read(run.out)["state_dict"]


def _content(run: Run, found: Found, spreads: Spreads, last_epoch: dict[str, float]) -> dict[str, Any]:
    config, dataset, keeper, task = run.config, run.dataset, run.keeper, run.learner.task
    scores = {name: task.scores(prediction, target) for name, (prediction, target) in found.items()}
    return {
        "metric": task.metric,
        **{name: scores[name] for name in run.split},
        **_also(scores, run),
        "test_last_epoch": last_epoch,
        **_by_target(run, found),
        **_calibration(run, found, spreads),
        **_thresholds(task, found),
        **_intervals(run, found),
        **_unlabelled(task, found),
        **_censored(run, found),
        "best_epoch": keeper.best_epoch + 1,
        "epochs": len(keeper.history),
        "graphs": {name: len(graphs) for name, graphs in run.parts.items()},
        "rejected": len(dataset.rejected),
        "parameters": sum(weights.numel() for weights in run.learner.model.parameters() if weights.requires_grad),
        "minutes": round(keeper.seconds / 60, 4),
        "data": dataset.name,
        "split": config.split or dataset.default_split,
        "data_hash": run.start.data_hash,
        "task": task.name,
        "level": task.level,
        "targets": list(task.targets),
        **({"classes": list(task.class_names)} if task.class_names else {}),
        **({"ensemble": config.ensemble} if config.ensemble > 1 else {}),
        "seed": config.seed,
        "config_hash": config_hash(config),
        "date": provenance.now(),
        "device": run.learner.device.type,
        "machine": machine(run.learner.device.type) | {"devices": run.devices},
        "command": run.start.command,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
    }


def _also(scores: dict[str, dict[str, float]], run: Run) -> dict[str, Any]:
    """Scores on further data sets."""
    further = {name: each for name, each in scores.items() if name not in run.split}
    return {"also": further} if further else {}


def _by_target(run: Run, found: Found) -> dict[str, Any]:
    """Scores of each target of several, on validation, test and further data."""
    parts = {part: run.learner.task.by_target(*pair) for part, pair in found.items() if part != "train"}
    scores = {name: {part: parts[part][name] for part in parts} for name in parts["test"]}
    return {"by_target": scores} if scores else {}


def _calibration(run: Run, found: Found, spreads: Spreads) -> dict[str, Any]:
    """Of validation and test; the first is where the spread of an ensemble gets its size."""
    task, parts = run.learner.task, {}
    for name in ("valid", "test"):
        parts[name] = task.calibration(*found[name], spreads[name]) if len(found[name][1]) else {}
    return {"calibration": parts} if any(parts.values()) else {}


def _thresholds(task: Task, found: Found) -> dict[str, Any]:
    """Of each target the threshold that suits validation, and what it does there and on the test part."""
    chosen = task.thresholds(*found["valid"])
    parts = {part: at_thresholds(task, *found[part], chosen) for part in ("valid", "test") if len(found[part][1])}
    scores = {
        name: {"threshold": threshold} | {part: by_target[name] for part, by_target in parts.items()}
        for name, threshold in chosen.items()
    }
    return {"thresholds": scores} if scores else {}


def _intervals(run: Run, found: Found) -> dict[str, Any]:
    """Bootstrap interval of the metric on the test part; the report has those of all metrics."""
    ends = interval_of(run.learner.task, *found["test"])
    return {"test_interval": ends} if ends else {}


def _unlabelled(task: Task, found: Found) -> dict[str, Any]:
    """Targets that a part says nothing about."""
    parts = {part: task.unlabelled(found[part][1]) for part in ("valid", "test") if len(found[part][1])}
    named = {part: names for part, names in parts.items() if names}
    return {"unlabelled": named} if named else {}


def _write(run: Run, out: Path, found: Found, spreads: Spreads, content: dict[str, Any]) -> None:
    """Pictures first: a folder with ``metrics.json`` is complete."""
    task, label = run.learner.task, run.learner.task.rule.label
    if run.keeper.history:  # a forest has no epochs
        curves.curves(
            run.keeper.history,
            out / "curves.png",
            metric=task.metric,
            label=label,
            best_epoch=run.keeper.best_epoch,
        )
    own = {name: found[name] for name in run.split}
    arrays = {name: _scored(task, *pair) for name, pair in own.items()}
    arrays = {name: pair for name, pair in arrays.items() if len(pair[0])}
    part = "test" if "test" in arrays else "valid"
    note = f"{run.dataset.name}: {part} {label} {rounded(content[part][task.metric], 3)}"
    if task.picture:
        names = task.class_names or task.targets
        getattr(answers, task.picture)(arrays, out / f"{task.picture}.png", targets=names, note=note)
    if reads_along_directions(run.learner.model) and len(run.parts["test"]):
        _draw_patches(run, found["test"], out / results.PATCHES)
    write_rows(out / results.PREDICTIONS, _columns(run), _rows(run, own, spreads))
    write_text(out / results.CARD, card(content, run.config.model.model))
    write_json(out / results.SCORES, content)


def _scored(task: Task, prediction: Tensor, target: Tensor) -> tuple[Any, Any]:
    """For pictures: of several classes what has one; all else may lack some labels."""
    rows = task.known(target) if task.exclusive else slice(None)
    return prediction[rows].numpy(), target[rows].numpy()


DRAWN = 4
"""Test images of which is shown what the network reads."""


def _draw_patches(run: Run, found: tuple[Tensor, Tensor], path: Path) -> None:
    """The first test images, and how much each patch speaks for what was decided on."""
    learner, count = run.learner, min(DRAWN, len(run.parts["test"]))
    batch = run.parts["test"].batch(range(count)).to(learner.device)
    learner.eval()
    with torch.compiler.set_stance("force_eager"):
        read = patches_read(learner.model, batch).cpu().numpy()
    chosen = found[0][:count].argmax(1).tolist()
    names = learner.task.choices
    true = ["not known" if label == MISSING else names[label] for label in found[1][:count].tolist()]
    titles = [f"is {what}, says {names[said]}" for what, said in zip(true, chosen, strict=True)]
    answers.patches(batch.x.float().mean(1).cpu().numpy(), read, path, titles=titles, directions=list(DIRECTIONS))


def _columns(run: Run) -> list[str]:
    """Header of ``predictions.csv``: labels are empty where missing, predictions as ``predict`` writes them, behind
    which those of an ensemble have their spreads.

    ``row`` and ``id`` are those of the file, ``row`` in the numbering of ``rejected.csv``. A target that is called
    like one of the first columns has its labels in ``NAME_label``.
    """
    task = run.learner.task
    first = ["part", "index", *_known(run), "smiles" if task.level == "graph" else task.level]
    named = [*first, *(f"{name}_label" if name in first else name for name in task.targets)]
    own = (f"{name}_predicted" if name in task.targets else name for name in task.outputs)
    spreads = [f"{name}_std" for name in task.outputs] if run.config.ensemble > 1 else []
    return [*named, *apart([*own, *spreads], named)]


def _known(run: Run) -> dict[str, Sequence[Any]]:
    """What the file says of the place of its graphs, by the name of the column."""
    found = {"row": getattr(run.dataset, "rows", ()), "id": getattr(run.dataset, "ids", ())}
    count = len(run.dataset.examples)
    return {name: values for name, values in found.items() if len(values) == count > 0}


def _rows(run: Run, found: Found, spreads: Spreads) -> Iterator[list[Any]]:
    for part, (prediction, target) in found.items():
        spread = spreads[part]
        whole = prediction if spread is None else torch.cat([prediction, spread], 1)
        if part == "train" and prediction.numel() > MOST_VALUES:
            continue
        known = target.double().where(run.learner.task.known(target), torch.nan)
        known = known.unsqueeze(-1) if target.dim() == 1 else known
        answers, columns = _answers(run, part), _known(run).values()
        for (place, what), label, values in zip(answers, known.tolist(), whole.tolist(), strict=True):
            numbers = ("" if value != value else f"{value:.7g}" for value in (*label, *values))
            yield [part, place, *(column[place] for column in columns), what, *numbers]


def _answers(run: Run, part: str) -> Iterator[tuple[int, Any]]:
    """What each answer is for: number of the graph in the data set, and its SMILES or the number of a node."""
    graphs, whole = getattr(run.dataset, "graphs", None), run.learner.task.level == "graph"
    for place in run.split[part]:
        if graphs is None or whole:
            yield place, "" if graphs is None else graphs[place].get("smiles", "")
        else:
            yield from ((place, node) for node in range(graphs[place].num_nodes))
