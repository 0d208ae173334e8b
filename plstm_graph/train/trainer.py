"""Lightning's trainer as a run wants it, and which of several processes speaks."""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.profilers import Profiler
from pytorch_lightning.utilities import rank_zero_only

from plstm_graph.errors import ConfigError, first_line
from plstm_graph.train.checkpoint_io import AtomicCheckpointIO
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.ddp import over_devices


def first_process() -> bool:
    """Whether this process is the one that writes and speaks, when several train together."""
    node = os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0"))  # until there is a trainer, all that tells
    return getattr(rank_zero_only, "rank", 0) in (0, None) and node == "0"


def trainer_of(
    config: TrainConfig, callbacks: list[Callback], out: Path | None, progress: bool, profiler: Profiler | None = None
) -> pl.Trainer:
    """Lightning's trainer, which writes no log of its own.

    Raises:
        ConfigError: it refuses an option.
    """
    devices: Any = int(config.devices) if re.fullmatch("-?[0-9]+", config.devices) else config.devices
    try:
        make = partial(
            pl.Trainer,
            accelerator=config.accelerator,
            devices=devices,
            num_nodes=config.num_nodes,
            precision=config.precision,  # type: ignore[arg-type]  # a wrong one is Lightning's to refuse
            max_epochs=config.epochs,
            gradient_clip_val=config.clip or None,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=out,
            profiler=profiler,
            logger=False,  # the keeper writes metrics.csv, whole
            enable_progress_bar=progress,
            # What follows costs milliseconds an epoch, which is most of the time on small data sets.
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=10**9,
            use_distributed_sampler=False,  # ours knows about devices: see EpochSampler
        )
        return over_devices(make)
    except Exception as error:  # Lightning has several kinds for options it refuses
        given = f"accelerator={config.accelerator}, devices={config.devices}, precision={config.precision}"
        raise ConfigError(
            f"the trainer refuses its options: {first_line(error)} (got {given}; auto takes what is there)"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice: loaders without workers and few steps an epoch are meant."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
