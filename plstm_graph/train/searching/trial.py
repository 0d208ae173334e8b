"""One trial of a search: a training that is judged on validation, epoch by epoch."""

import time
from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from plstm_graph.errors import ConfigError, PLSTMGraphError, TimeUp, said
from plstm_graph.io.waiting import watched
from plstm_graph.tasks import METRICS
from plstm_graph.train import provenance, shared
from plstm_graph.train.assembly import asked
from plstm_graph.train.callbacks import Reporter
from plstm_graph.train.config import TrainConfig, config_hash, override, to_dict
from plstm_graph.train.pool import Row, Say
from plstm_graph.train.run import validate
from plstm_graph.train.searching.plan import Plan
from plstm_graph.train.searching.study import best_row, distributions, optuna, rows_of, study_of, tell


@dataclass(frozen=True)
class Job:
    """A trial, which gets its options when it starts.

    Args:
        plan: of the search.
        number: of the trial.
        until: of ``time.time()``: afterwards none starts and none goes on, but for a first complete one.
    """

    plan: Plan
    number: int
    until: float

    @property
    def name(self) -> str:
        return f"trial {self.number}"


def run_trial(job: Job, say: Say) -> Row:
    """Runs one trial, stores and returns its row; an empty one where there was no time for it.

    Raises:
        ConfigError: the data have changed.
        Exception: one that nobody foresaw; the trial is stored as one that failed.
    """
    plan = job.plan
    reporter = Reporter(say, plan.config.epochs)
    if shared.data_hash(plan.config) != plan.data_hash:
        raise ConfigError("the data have changed since the search began; bring those back, or give --overwrite")
    study = study_of(plan, job.number)
    if time.time() > job.until and best_row(rows_of(study)):
        return {}
    dataset = shared.dataset(plan.config)
    trial, begun = study.ask(distributions(plan.space)), time.perf_counter()
    watch = Judged(trial, asked(plan.config, dataset).metric, job.until)

    def end(state: str, reason: str = "") -> Row:
        row = _row(job, watch, state, time.perf_counter() - begun, reason)
        tell(study, trial, row)
        return row

    try:
        with watched(reporter.wait):
            validate(replace(override(plan.config, trial.params), devices="1"), dataset, [watch, reporter])
    except optuna().TrialPruned:
        return end("pruned")
    except TimeUp:  # as after an interruption: it is tried anew when the search goes on
        return {}
    except PLSTMGraphError as error:  # the search goes on with other options
        return end("failed", said(error))
    except Exception as error:
        end("failed", f"{type(error).__name__}: {said(error)}")
        raise
    return end("complete") if watch.best >= 0 else end("failed", "the validation score is not defined")


class Judged(Checkpoint):
    """Tells Optuna the validation score of every epoch, and stops a trial that it gives up, or that has no time left.

    A ``Checkpoint``, so that it stands behind the one that finds a loss that is not finite.
    """

    def __init__(self, trial: Any, metric: str, until: float) -> None:
        self.trial, self.metric, self.until = trial, metric, until
        self.scores: list[float] = []
        self.parameters = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.parameters = sum(weights.numel() for weights in pl_module.parameters() if weights.requires_grad)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.scores.append(float(trainer.callback_metrics[f"valid_{self.metric}"]))
        self.trial.report(self.scores[-1], trainer.current_epoch)
        if trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs:
            return
        if self.trial.should_prune():
            raise optuna().TrialPruned
        if time.time() > self.until and best_row(rows_of(self.trial.study)):
            raise TimeUp("the minutes of the search are over")

    @property
    def best(self) -> int:
        """Epoch of the best score, from 0; -1 where there is none."""
        sign = 1 if METRICS[self.metric].higher_is_better else -1
        known = [(sign * score, -epoch) for epoch, score in enumerate(self.scores) if score == score]
        return -max(known)[1] if known else -1


def _row(job: Job, watch: Judged, state: str, seconds: float, reason: str) -> Row:
    best, config = watch.best, _config(job.plan.config, watch.trial.params)
    return {
        "trial": job.number,
        "state": state,
        "values": watch.trial.params,
        "metric": watch.metric,
        "valid": watch.scores[best] if best >= 0 else None,
        "epoch": best + 1,
        "epochs": len(watch.scores),
        "seconds": round(seconds, 3),
        "params": watch.parameters,
        "config": to_dict(replace(config, out=None)),
        "config_hash": config_hash(config),
        "data_hash": job.plan.data_hash,
        "date": provenance.now(),
        "commit": provenance.commit(),
        **({"reason": reason} if reason else {}),
    }


def _config(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """Of a trial; of one whose values are refused, what it began from."""
    try:
        return override(config, values)
    except ConfigError:
        return config
