"""Which of the epochs that are best by validation to keep? ``python benchmarks/which_epoch.py tudatasets --root DATA``

On a small validation part many epochs score alike. Runs of a config file are trained with the test part scored after
every epoch, and a row for each run goes to ``results/which_epoch.jsonl``: what the first and the last of the best
epochs and the last of all have on test. A run that is stored already is skipped.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import records
from leaderboard import placed
from plan import read_plan
from pytorch_lightning.callbacks import Callback

from plstm_graph.config.architectures import architecture
from plstm_graph.tasks import METRICS
from plstm_graph.tasks.metrics import score
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.data import labels, load_data, split_of
from plstm_graph.train.outputs import outputs
from plstm_graph.train.parts import parts_of
from plstm_graph.train.run import train

OUT = records.RESULTS / "which_epoch.jsonl"


class EveryEpoch(Callback):
    """Scores a part after each epoch: ``scores`` are those of validation and of the part."""

    def __init__(self, part: Any) -> None:
        self.part = part
        self.scores: list[tuple[float, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, learner: Any) -> None:
        metric = learner.task.metric
        target = learner.task.exact(labels(self.part, learner.task))
        found = score(metric, outputs(learner, self.part).values, target)
        self.scores.append((float(trainer.callback_metrics[f"valid_{metric}"]), found))


def of_run(config: TrainConfig) -> dict[str, Any]:
    """Trains once: how many epochs are best, the first of them, and test scores of the first, the last and the end."""
    dataset = load_data(config)
    every = EveryEpoch(parts_of(config, dataset, split_of(config, dataset), None)["test"])
    found = train(config, dataset, callbacks=[every])
    valid, test = zip(*every.scores, strict=True)
    best = (max if METRICS[found["metric"]].higher_is_better else min)(valid)
    equal = [epoch for epoch, value in enumerate(valid) if value == best]
    chosen = {"first": test[equal[0]], "last": test[equal[-1]], "end": test[-1]}
    return {"metric": found["metric"], "equal": len(equal), "epoch": equal[0] + 1, "epochs": len(test), **chosen}


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """A row for each run of the entries that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="name of a file in benchmarks/configs")
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument("--only", nargs="+", help="entries, by name; all if none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    plan = read_plan(records.CONFIGS / f"{options.config}.toml", options.root)
    done = {(row["config"], row["entry"], row["seed"], row["fold"]) for row in records.read(options.out)}
    for job in plan.jobs:
        name = {"config": plan.name, "entry": job.entry, "seed": job.config.seed, "fold": job.config.fold}
        asked = job.config.seed in options.seeds and (not options.only or job.entry in options.only)
        if tuple(name.values()) in done or not asked or architecture(job.config.model.model).fitted:
            continue
        row = name | of_run(placed(job.config))
        print(row, flush=True)
        records.append(options.out, row | records.provenance())
    return 0


if __name__ == "__main__":
    sys.exit(main())
