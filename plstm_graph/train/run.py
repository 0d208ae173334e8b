"""A training run from config to results. Read top to bottom: data, model, trainer, fit, report."""

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.profilers import PassThroughProfiler, Profiler
from pytorch_lightning.utilities.seed import isolate_rng
from torch_geometric.data import Data

from plstm_graph.config.architectures import architecture
from plstm_graph.data.dataset import AnyDataset
from plstm_graph.data.examples import batches, take
from plstm_graph.errors import ConfigError
from plstm_graph.io.waiting import named
from plstm_graph.models.budget import fit_width
from plstm_graph.nn.ahead import compile_ahead
from plstm_graph.tasks import Regression
from plstm_graph.train import results
from plstm_graph.train.assembly import asked, assemble, meta_of
from plstm_graph.train.callbacks import Deadline, Guard
from plstm_graph.train.checkpoint import begin_from, check_weights, load_weights, read_training
from plstm_graph.train.config import TrainConfig, anywhere
from plstm_graph.train.data import Collated, at_once, load_data, split_of
from plstm_graph.train.ddp import told_to_stop
from plstm_graph.train.ensemble import check_members, fit_members
from plstm_graph.train.memory import memory_advice
from plstm_graph.train.module import Learner
from plstm_graph.train.outputs import outputs
from plstm_graph.train.owner import Owner, owned
from plstm_graph.train.parts import check_labelled, check_split, parts_of, tell_labels, tell_repeats
from plstm_graph.train.profiling import FEATURISING, READING, SCORING, TRYING
from plstm_graph.train.progress import shown
from plstm_graph.train.report import Run, Trained, report, report_made
from plstm_graph.train.start import Start
from plstm_graph.train.trainer import first_process, quiet
from plstm_graph.train.unused import check_unused

log = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    dataset: AnyDataset | None = None,
    *,
    graphs: Sequence[Data] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    command: str | None = None,
    minutes: float | None = None,
    callbacks: Sequence[Callback] = (),
    profiler: Profiler | None = None,
) -> dict[str, Any]:
    """Trains, tests the weights of the best validation epoch (the last of equals); returns what ``metrics.json`` holds.

    Without ``config.out`` nothing is written, so that a benchmark can call this many times in one process. The
    random state of the caller is left as it was.

    Args:
        config: every choice of the run.
        dataset: instead of the one ``config.data`` names.
        graphs: ``dataset.graphs`` after ``prepare``, to spare preparing them again in a series of runs.
        resume: go on from ``last.ckpt`` in ``config.out``, with the data and the split it began with.
        overwrite: replace the run in ``config.out``.
        progress: show a bar on stderr.
        command: what makes the run from nothing, for the record.
        minutes: stop after an epoch when another one would last beyond so many from now; then ``resume``. Scores come
            on top, with the last epoch.
        callbacks: more of them for Lightning's trainer.
        profiler: told what takes how long, see :class:`plstm_graph.train.profiling.Phases`; for one network.

    Raises:
        ConfigError, DataError: before any training starts; also where another process is at work in ``config.out``.
        CheckpointError: a checkpoint cannot be read or written.
        Diverged: the loss of an epoch is not finite; checkpoints are those of the epoch before.
        OutOfMemory: a batch does not fit; the message names a size to try.
        TimeUp: the ``minutes`` are over; ``last.ckpt`` holds the last finished epoch.
        KeyboardInterrupt: after Ctrl-C; ``last.ckpt`` holds the last finished epoch.
    """
    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "progress": progress, "command": command}
    how |= {"minutes": minutes, "callbacks": callbacks, "profiler": profiler}
    return fit(config, dataset, graphs=graphs, **how).metrics


def fit(
    config: TrainConfig,
    dataset: AnyDataset | None = None,
    *,
    graphs: Sequence[Data] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    command: str | None = None,
    minutes: float | None = None,
    callbacks: Sequence[Callback] = (),
    profiler: Profiler | None = None,
    start: Start | None = None,
) -> Trained:
    """As :func:`train`, with the trained model beside what it scored.

    ``start`` is what an ensemble began with that this is a member of: its ``dataset`` is checked, and what there is to
    say of it has been said.
    """
    if (resume or overwrite) and config.out is None:
        raise ConfigError("resume and overwrite need an output folder; set out")
    config = anywhere(config)
    check_unused(config)
    if minutes is not None:
        check_minutes(config, minutes)
        callbacks = [*callbacks, Deadline(minutes)]
    if profiler is not None and (config.ensemble > 1 or architecture(config.model.model).fitted):
        raise ConfigError("a profile is of the training of one network; leave out --profile, or --ensemble")
    profiler = profiler or PassThroughProfiler()
    # Processes of other devices start once the first has filled the folder: they must not find fault with that.
    with owned(config.out) if config.out and first_process() else nullcontext() as owner:
        if owner:
            results.check_folder(config, resume=resume, overwrite=overwrite)
        return _train(config, dataset, graphs, resume, owner, progress, command, callbacks, profiler, start)


def check_minutes(config: TrainConfig, minutes: float) -> None:
    """Raise ConfigError unless a run can stop after some minutes and go on later."""
    if not minutes > 0:
        raise ConfigError(f"minutes must be above 0 (got {minutes})")
    if config.out is None or config.ensemble > 1 or architecture(config.model.model).fitted:
        raise ConfigError("minutes are for the run of one network with an output folder, in which it can be resumed")


def _train(
    config: TrainConfig,
    dataset: AnyDataset | None,
    graphs: Sequence[Data] | None,
    resume: bool,
    owner: Owner | None,
    progress: bool,
    command: str | None,
    callbacks: Sequence[Callback],
    profiler: Profiler,
    begun: Start | None,
) -> Trained:
    """A run whose folder, if there is one, belongs to this process or to the first of several."""
    seen = shown(progress and first_process())
    with isolate_rng(), quiet(), memory_advice(config.batch_size), seen:
        with profiler.profile(READING), named(f"reading {config.data}"):
            dataset = load_data(config) if dataset is None else dataset if begun else check_labelled(dataset)
        fitted = architecture(config.model.model).fitted
        if config.ensemble > 1:
            check_members(config, dataset.task)
        config = _sized(config, dataset)
        if begun is None:
            check_split(config, dataset)
        start = _start(config, begun or Start.of(dataset, split_of(config, dataset), command), resume)
        if begun is None:
            tell_repeats(config, dataset, start.split)
        if fitted:
            return _fit_once(config, dataset, start)
        if config.ensemble > 1:
            encoded: Any = dataset.encoded(config.model) if graphs is None else graphs  # once for all members
            fit_member = partial(fit, dataset=dataset, graphs=encoded, progress=progress, callbacks=callbacks)
            return fit_members(config, dataset, encoded, start, fit_member, owner=owner, resume=resume)
        if begun is None:
            tell_warmup(config)
        guards = [Guard(owner)] if owner else []
        run, trainer, loader = assemble(config, dataset, graphs, progress, start, [*callbacks, *guards], profiler)
        if begun is None:
            tell_labels(run.learner.task, run.parts)
        with profiler.profile(TRYING):
            _begin(run, trainer, again=bool(resume and results.last_checkpoint(str(config.out))))
        last = None
        if owner:
            last = results.open_folder(config, start.write, resume=resume, rejected=run.dataset.rejected)
        elif config.out and resume:
            last = results.last_checkpoint(config.out)
        _fit(trainer, run, loader, last)
        if owner:
            owner.check()
        with profiler.profile(SCORING):
            return report(run, write=first_process())


def validate(config: TrainConfig, dataset: AnyDataset, callbacks: Sequence[Callback]) -> None:
    """Trains one network for what its callbacks see of it; the test part is not read, and nothing is written.

    Args:
        config: ``out``, ``ensemble`` and ``also`` do not matter.
        dataset: what to train on.
        callbacks: for Lightning's trainer.

    Raises:
        Exception: as :func:`train`, and what callbacks raise.
    """
    config = replace(anywhere(config), out=None, ensemble=1, also=())
    with isolate_rng(), quiet(), memory_advice(config.batch_size):
        config = _sized(config, dataset)
        start = Start.of(dataset, split_of(config, dataset), None)
        start.split["test"] = []
        run, trainer, loader = assemble(config, dataset, None, False, start, callbacks, PassThroughProfiler())
        _begin(run, trainer)
        _fit(trainer, run, loader, None)


def _sized(config: TrainConfig, dataset: AnyDataset) -> TrainConfig:
    """With the width that the budget allows, if there is one; a forest has no parameters to count."""
    if not config.budget or architecture(config.model.model).fitted:
        return config
    model = fit_width(dataset.features, dataset.task.num_outputs, config.model, config.budget)
    if model.heads != (asked := vars(config.model)["heads"]):
        log.warning(f"{model.heads} heads, not {asked}, whose widths miss the budget of {config.budget}")
    return replace(config, model=model)


def _begin(run: Run, trainer: pl.Trainer, again: bool = False) -> None:
    """The learner on its device, with the weights it begins with, and tried on one example."""
    config = run.config
    if config.init_from and not again:
        taken, whole = begin_from(run.learner.model, run.learner.task, config.init_from, run.dataset.features)
        if taken < whole and first_process():
            log.warning(f"{taken:,} of {whole:,} numbers of {config.init_from} are taken over; all others begin anew")
    learner, device = run.learner.to(trainer.strategy.root_device), trainer.strategy.root_device
    example, around = take(run.parts["valid"], [0]), trainer.precision_plugin.forward_context()
    with named("first pass"):
        compile_ahead(
            learner.model, device, around, lambda: learner.as_it_is(next(iter(batches(example, 1))).to(device))
        )
        outputs(learner, example)  # a backend may refuse the model


def tell_warmup(config: TrainConfig) -> None:
    """Warns of a training that ends before its learning rate is reached."""
    if config.warmup_epochs > config.epochs and first_process():
        log.warning(
            f"the learning rate grows to {config.lr:g} over {config.warmup_epochs} epochs, and the training ends after "
            f"{config.epochs}; give --warmup-epochs 0 or 1 for one so short"
        )


def _start(config: TrainConfig, start: Start, resume: bool) -> Start:
    """What the run begins with; when it goes on, what it began with."""
    if not resume:
        return start
    stored = start.check(str(config.out))
    return replace(stored, command=stored.command or start.command, content=start.content)


def _fit_once(config: TrainConfig, dataset: AnyDataset, start: Start) -> Trained:
    """The run of a model that is no network: without epochs; one that was interrupted begins anew."""
    if config.loss:
        raise ConfigError(f"model {config.model.model!r} has no loss to choose; leave --loss out")
    task = asked(config, dataset)
    if isinstance(task, Regression) and task.bounded:
        raise ConfigError(
            f"model {config.model.model!r} learns from no bounds; leave out --censored, or choose a network"
        )
    parts = parts_of(config, dataset, start.split, None)
    tell_labels(task, parts)
    # The task is not fitted: it answers in the units of the labels.
    meta = meta_of(config, dataset, task, parts["train"], start.content)
    model: Any = meta.build()
    model.check(parts["train"])
    if config.out:
        results.open_folder(config, start.write, rejected=dataset.rejected)
    begin = time.perf_counter()
    learner = Learner(model.fit(parts["train"], config.seed), task, meta.plain())
    return report_made(config, dataset, start, parts, learner, time.perf_counter() - begin)


def _fit(trainer: pl.Trainer, run: Run, loader: Any, last: Path | None) -> None:
    """Runs or resumes training; afterwards the learner has the weights of the last epoch, on the device it ran on."""
    if last is not None:
        content = read_training(last)
        check_weights(run.learner.model, content["state_dict"], last)
        run.keeper.load_state_dict(content["callbacks"][run.keeper.state_key])
        if run.keeper.finished:  # it was interrupted after its last epoch: only the results are missing
            load_weights(run.learner.model, content["state_dict"], last)
            run.learner.to(trainer.strategy.root_device)
            return
    with trainer.profiler.profile(FEATURISING):  # type: ignore[attr-defined]
        valid = Collated(run.parts["valid"], run.config.batch_size * at_once(trainer.strategy.root_device))
    try:
        trainer.fit(run.learner, loader, valid, ckpt_path=last)
    except SystemExit as error:  # how Lightning ends after SIGINT and SIGTERM
        raise KeyboardInterrupt from error
    if told_to_stop(trainer):
        raise KeyboardInterrupt
    run.learner.to(trainer.strategy.root_device)
