"""Run by test_train_devices.py: the same trainings on one device and on two, which are forked after the imports.

``python on_devices.py FOLDER`` writes FOLDER/CASE.DEVICES.json: the loss of every step, and what the run found.
"""

import json
import math
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop as TrainingEpochLoop
from pytorch_lightning.utilities import rank_zero_only
from small_runs import parts_in_place, passes_in_place, small_config, small_dataset, three_classes

from plstm_graph.data.dataset import GraphDataset
from plstm_graph.draw import style
from plstm_graph.train import train
from plstm_graph.train.module import Learner

BATCH = 8
RECORDING = {  # as far as a CPU can
    "torch.cuda.make_graphed_callables": passes_in_place,
    "plstm_graph.nn.captured.recorded": parts_in_place,
    "plstm_graph.train.capture.capturable": lambda graphs, config, *_: graphs.with_filler(config.batch_size),
}


def with_gaps(dataset: GraphDataset) -> GraphDataset:
    """Labels are missing for most graphs of one target, and a few have none at all in the first."""
    for index, graph in enumerate(dataset.graphs):
        graph.y[0, 1] = graph.y[0, 1] if index % 3 == 0 else math.nan
        graph.y[0, 0] = graph.y[0, 0] if index % 5 else math.nan
    return dataset


def fewer(dataset: GraphDataset, count: int) -> GraphDataset:
    dataset.graphs = dataset.graphs[:count]
    return dataset


CASES: dict[str, tuple[Callable[[Path], GraphDataset], dict[str, Any]]] = {
    "gaps": (lambda folder: fewer(with_gaps(small_dataset(folder, targets=("y", "z"))), 39), {"model_norm": "rms"}),
    "odd": (lambda folder: fewer(small_dataset(folder, "binary"), 37), {"model_norm": "none", "metric": "accuracy"}),
    "last": (
        lambda folder: fewer(three_classes(small_dataset(folder)), 31),
        {"model_norm": "layer", "clip": 0.1, "ema": 0.8},
    ),
    "recorded": (
        lambda folder: small_dataset(folder),
        {"model_norm": "layer", "model_layers": 1, "capture": True, "precision": "64-true"},
    ),
    "batch": (lambda folder: fewer(small_dataset(folder), 37), {"model_norm": "batch", "patience": 2}),
}


def run(folder: Path, devices: int, own: Path) -> None:
    for name, (make, options) in CASES.items():
        losses: list[float] = []
        step = Learner.training_step

        def noted(self: Learner, *args: Any, step: Any = step, losses: list[float] = losses) -> Any:
            with mock.patch("torch.distributed.barrier", side_effect=AssertionError("a step waits for other devices")):
                loss = step(self, *args)
            parts = (loss.detach() * self.labels_here, self.labels_here.clone())
            both = [float(self.trainer.strategy.reduce(part, reduce_op="sum")) for part in parts]
            losses.append(both[0] / both[1])
            return loss

        Learner.training_step = noted  # type: ignore[method-assign]
        here = folder / f"{devices}"
        here.mkdir(exist_ok=True)
        config = small_config(
            **{"out": here / name, "devices": str(devices), "batch_size": BATCH // devices, "model_dropout": 0.0},
            **{"epochs": 2, "split": "random", **options},
        )
        found = train(config, make(own))
        Learner.training_step = step  # type: ignore[method-assign]
        if rank_zero_only.rank == 0:
            (folder / f"{name}.{devices}.json").write_text(json.dumps({"losses": losses, "found": found}))


class Told(Callback):
    """The second process is told to stop, after a step or while the last epoch is validated."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._tell(trainer, trainer.global_step == self.step)

    def on_validation_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._tell(trainer, self.step is None and trainer.current_epoch + 1 == trainer.max_epochs)

    def _tell(self, trainer: pl.Trainer, now: bool) -> None:
        if now and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def stop(folder: Path, own: Path, name: str, step: int | None) -> None:
    """Writes in which step each of two processes stopped when one was told to."""
    config = small_config(out=folder / name, devices="2", batch_size=BATCH // 2, epochs=2)
    steps: list[int] = []
    with mock.patch.object(Learner, "on_train_batch_start", lambda self, *args: steps.append(self.global_step)):
        try:
            train(config, small_dataset(own), callbacks=[Told(step)])
        except KeyboardInterrupt:
            (folder / f"{name}.{rank_zero_only.rank}.json").write_text(json.dumps(steps[-1]))


def forked(folder: Path, devices: int, rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    if devices > 1:  # what torchrun sets
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
        os.environ |= {"WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices), "GROUP_RANK": "0"}
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    rank_zero_only.rank = rank
    own = folder / "data" / f"{devices}-{rank}"  # cases write files of one name, and no process waits for another's
    own.mkdir(parents=True)
    try:
        with ExitStack() as stack:
            waits = mock.patch.object(
                TrainingEpochLoop, "_broadcast_sigterm_tensor", side_effect=AssertionError("it waits")
            )
            for patch in (waits, *(mock.patch(name, new) for name, new in RECORDING.items())):
                stack.enter_context(patch)
            run(folder, devices, own)
            if devices > 1:
                stop(folder, own, "stopped", 3)
                stop(folder, own, "late", None)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    folder = Path(sys.argv[1])
    style.save = lambda figure, out: None
    torch.set_num_threads(1)
    small_dataset(folder)  # imports what all use
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [forked(folder, devices, rank, port) for devices in (1, 2) for rank in range(devices)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(max(map(abs, codes)))


if __name__ == "__main__":
    main()
