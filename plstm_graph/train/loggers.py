"""Epochs as they end, to TensorBoard, Weights & Biases or MLflow, through the loggers of Lightning."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import loggers
from pytorch_lightning.callbacks import Checkpoint

from plstm_graph.errors import ConfigError, missing_extra, unknown
from plstm_graph.train.config import TrainConfig, flat

PROJECT = "plstm-graph"


def _tensorboard(out: Path) -> Any:
    return loggers.TensorBoardLogger(str(out), name="", version="tensorboard")


def _wandb(out: Path) -> Any:
    return loggers.WandbLogger(name=out.name, project=PROJECT, save_dir=str(out))


def _mlflow(out: Path) -> Any:
    place = (
        os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out / 'mlflow.db'}"
    )  # it takes no plain files any more
    artifacts = None if "MLFLOW_TRACKING_URI" in os.environ else (out / "mlruns").as_uri()
    return loggers.MLFlowLogger(PROJECT, run_name=out.name, tracking_uri=place, artifact_location=artifacts)


LOGGERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "tensorboard": ("tensorboardX", _tensorboard),
    "wandb": ("wandb", _wandb),
    "mlflow": ("mlflow", _mlflow),
}
"""By name: the package, and what makes the logger of a run in a folder. Where W&B and MLflow send to is said by their
own environment variables (``WANDB_MODE=offline``, ``MLFLOW_TRACKING_URI``)."""


class Logged(Checkpoint):
    """Sends the options of a run at its start, and loss, validation and learning rate of every epoch.

    A ``Checkpoint``, so that it comes after the learner, which says its loss at the end of an epoch.

    Args:
        name: key of :data:`LOGGERS`.
        config: of the run, with a folder.

    Raises:
        ConfigError: no such logger, its package is missing, or the run has no folder.
    """

    def __init__(self, name: str, config: TrainConfig) -> None:
        if name not in LOGGERS:
            raise ConfigError(unknown("logger", name, LOGGERS))
        if config.out is None:
            raise ConfigError("a logger is for a run with a folder; set out")
        package, self.make = LOGGERS[name]
        if find_spec(package) is None:
            raise ConfigError(missing_extra(package, "loggers"))
        self.out = Path(config.out).absolute()
        self.logger: Any = None
        self.options = {key: value for key, value in flat(config).items() if value not in (None, ())}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Once a run, or once more where it goes on."""
        if trainer.is_global_zero:
            self.logger = self.make(self.out)  # now: it may write to the folder, which had to be empty
            self.logger.log_hyperparams(self.options)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What stands in a row of ``metrics.csv``."""
        if self.logger is not None:
            row = {name: float(value) for name, value in trainer.callback_metrics.items()}
            row["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
            self.logger.log_metrics(row, step=trainer.current_epoch)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """All is sent."""
        self._end("success")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """What was sent stays, as that of a run that failed."""
        self._end("failed")

    def _end(self, status: str) -> None:
        if self.logger is not None:
            self.logger.finalize(status)
            finish = getattr(self.logger.experiment, "finish", None)
            if finish is not None:  # W&B would have the next run of this process go on with this one
                finish()
