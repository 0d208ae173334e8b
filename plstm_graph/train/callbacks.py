"""What happens around an epoch: the same random numbers again, history, checkpoints, the progress bar."""

import math
import random
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, ProgressBar
from torch import Tensor

from plstm_graph.errors import Diverged, TimeUp, rounded
from plstm_graph.io.files import make_durable
from plstm_graph.io.json_csv import write_rows
from plstm_graph.tasks import METRICS
from plstm_graph.train.averaging import Averaging
from plstm_graph.train.data import mixed_seed
from plstm_graph.train.owner import Owner
from plstm_graph.train.pool import Say, Status
from plstm_graph.train.progress import EVERY_S, progress_console
from plstm_graph.train.results import BEST, HISTORY, LAST

State = dict[str, Tensor]
DURABLE_S = 1.0
"""What an epoch of at least so many seconds leaves outlives a power cut. A shorter one would wait for the disk longer
than for anything else, and what is lost with it is soon had again."""


class Reseed(Callback):
    """Random numbers of an epoch (dropout, orientations) are a pure function of seed and epoch, on each device its own.

    So a resumed epoch draws what an uninterrupted one would, whatever was drawn in between.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        number = mixed_seed(self.seed + 7919 * (trainer.global_rank + 1), trainer.current_epoch)
        torch.manual_seed(number)
        np.random.seed(number % 2**32)
        random.seed(number)
        pl_module.model.orientation = number  # type: ignore[union-attr]


class Guard(Callback):
    """Before the :class:`Keeper` writes an epoch: the folder still belongs to this run."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.owner.check()


class Keeper(Checkpoint):
    """Keeps history and best weights and, with a folder, writes its ``metrics.csv`` and checkpoints, every epoch.

    Of epochs that score alike the last one is best: on the few dozen graphs of a small validation part many do, and the
    first to get there was there by luck.

    Lightning runs a ``Checkpoint`` after all other callbacks, so what is stored is the finished epoch: weights,
    optimiser, schedule, early stopping, history. ``last.ckpt`` is written last: killed before that, a run resumes from
    the epoch before and writes the same ``best.ckpt`` and the same row of ``metrics.csv`` once more. That holds for a
    process that is killed; for a power cut as well, once an epoch takes :data:`DURABLE_S` or was the last.

    Args:
        metric: logged name of the validation metric.
        higher: whether more is better.
        folder: of the run; best weights are kept in memory without one.
        average: of the weights, which is kept in their place.
    """

    def __init__(self, metric: str, higher: bool, folder: Path | None = None, average: Averaging | None = None) -> None:
        self.metric, self.higher, self.folder, self.average = metric, higher, folder, average
        self.history: list[dict[str, float]] = []
        self.best_epoch = -1
        self.best_score = float("nan")
        self.best_state: State | None = None
        self.finished = False
        self.seconds = 0.0
        self._since = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        names = ("history", "best_epoch", "best_score", "finished", "seconds")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logged = trainer.callback_metrics
        names = ("loss", "valid_loss", self.metric)
        row = {"epoch": trainer.current_epoch} | {name: float(logged[name]) for name in names}
        _check_finite(row, self.history)
        row["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        self.history.append(row)
        self.finished = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        now = time.perf_counter()
        took, self._since = now - self._since, now
        self.seconds += took
        how = {"durable": self.finished or took >= DURABLE_S}
        if self._as_good(row[self.metric]):
            self.best_epoch, self.best_score = trainer.current_epoch, row[self.metric]
            with self.average.in_place(pl_module) if self.average else nullcontext():
                self._keep(trainer, pl_module, how)
        elif self.finished and self.folder is not None and trainer.is_global_zero:
            make_durable(self.folder / BEST)
        if self.folder is not None:
            if trainer.is_global_zero:
                write_rows(self.folder / HISTORY, list(row), (list(each.values()) for each in self.history), **how)
            trainer.save_checkpoint(self.folder / LAST, storage_options=how)

    def text(self, label: str) -> str:
        """The last epoch in a few words; ``label`` is the metric as a reader knows it."""
        if not self.history:
            return ""
        row, best = self.history[-1], f"best {rounded(self.best_score, 3)} at {self.best_epoch + 1}"
        return f"loss {rounded(row['loss'], 3)}  valid {label} {rounded(row[self.metric], 3)}  {best}"

    def _as_good(self, value: float) -> bool:
        if self.best_epoch < 0 or self.best_score != self.best_score:  # nothing yet, or NaN
            return True
        return value >= self.best_score if self.higher else value <= self.best_score

    def _keep(self, trainer: pl.Trainer, learner: pl.LightningModule, how: dict[str, bool]) -> None:
        if self.folder is not None:
            trainer.save_checkpoint(self.folder / BEST, weights_only=True, storage_options=how)
        else:
            self.best_state = {key: value.detach().clone() for key, value in learner.state_dict().items()}


class Deadline(Checkpoint):
    """Ends a training in time: after an epoch that is stored, where another one as long as the last would not fit.

    Stands behind the :class:`Keeper`. One epoch is trained at least, so that a run that is resumed again and again
    comes to its end.

    Args:
        minutes: how long from now.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._until = time.monotonic() + 60 * minutes
        self._began = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now, epochs = time.monotonic(), trainer.current_epoch + 1
        after_another = now + (now - self._began)  # as long as the last one: the first may have compiled
        if trainer.should_stop or epochs == trainer.max_epochs or after_another <= self._until:
            return
        raise TimeUp(f"{self.minutes:g} minutes are over after epoch {epochs} of {trainer.max_epochs}, which is stored")


def _check_finite(row: dict[str, float], history: list[dict[str, float]]) -> None:
    for name in ("loss", "valid_loss"):
        if not math.isfinite(row[name]):
            kept = f"checkpoints are those of epoch {len(history)}" if history else "there is no checkpoint"
            raise Diverged(
                f"the training diverged: {name} of epoch {len(history) + 1} is {row[name]}; {kept}; lower --lr"
            )


FIRST = "the first step takes longest"
"""Beside the bar until there is a time to tell."""


class Bar(ProgressBar):
    """One bar for the whole run: loss, validation metric and its best. Lines now and then where there is no terminal.

    Args:
        keeper: where the numbers come from.
        label: the metric as a reader knows it.
    """

    def __init__(self, keeper: Keeper, label: str) -> None:
        super().__init__()
        self.keeper, self.label = keeper, label
        self._progress: Any = None
        self._task: Any = None
        self._said = 0.0
        self._enabled = True

    def disable(self) -> None:  # Lightning calls it on all devices but the first
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._enabled or not sys.stderr.isatty():
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        whole = Column(no_wrap=True)  # in a narrow terminal only the bar gives way
        words = [TextColumn(text, table_column=whole) for text in ("{task.description}", "{task.fields[numbers]}")]
        rest = TimeRemainingColumn(compact=True, table_column=whole)
        self._progress = Progress(words[0], BarColumn(20), rest, words[1], console=progress_console())
        total = int(trainer.num_training_batches) * int(trainer.max_epochs or 0)
        self._task = self._progress.add_task(self._epoch(trainer), total=total, numbers=FIRST)
        self._progress.update(self._task, completed=trainer.global_step)
        self._progress.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._progress:  # here the keeper has the epoch before in its history
            self._progress.update(self._task, description=self._epoch(trainer))

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self._progress:
            self._progress.update(self._task, completed=trainer.global_step, numbers=self._numbers())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._progress and self._progress.finished:  # the time that is left says 0
            self._progress.update(self._task, description="validating")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._enabled and not self._progress and self.keeper.history and time.monotonic() - self._said > EVERY_S:
            self._said = time.monotonic()
            print(f"epoch {len(self.keeper.history)}/{trainer.max_epochs}  {self._numbers()}", file=sys.stderr)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._progress:
            self._progress.update(self._task, description=self._epoch(trainer), numbers=self._numbers())
        elif self._enabled and self.keeper.history:
            print(f"epoch {len(self.keeper.history)}/{trainer.max_epochs}  {self._numbers()}", file=sys.stderr)
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None

    @staticmethod
    def _epoch(trainer: pl.Trainer) -> str:
        begun = min(trainer.current_epoch + 1, trainer.max_epochs or 0)  # the last one stays once it has ended
        return f"epoch {begun}/{trainer.max_epochs}"

    def _numbers(self) -> str:
        return self.keeper.text(self.label)


class Reporter(Callback):
    """Tells someone else how far a run is: after every epoch, and what it waits for before and after them.

    Args:
        say: called with a :class:`Status`.
        epochs: of the run.
    """

    def __init__(self, say: Say, epochs: int) -> None:
        self.say, self.last = say, Status(0, epochs, "")

    def wait(self, what: str, done: int, total: int) -> None:
        """A watch for :func:`plstm_graph.io.waiting.watched`."""
        if not done >= total > 0:
            self.say(self.last._replace(text=what))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer)  # here the keeper has the epoch before in its history

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer)

    def _tell(self, trainer: pl.Trainer) -> None:
        keeper = trainer.checkpoint_callback
        assert isinstance(keeper, Keeper)
        text = keeper.text(METRICS[keeper.metric.removeprefix("valid_")].label)
        self.last = Status(len(keeper.history), int(trainer.max_epochs or 0), text)
        self.say(self.last)
