"""What chemists would use instead, on the same molecules and parts: ``benchmarks/rivals.py chemprop | boosting``.

``chemprop`` runs `chemprop train` with its defaults in a process of its own (it has to be installed, for instance with
``pip install chemprop`` in an environment beside); ``boosting`` is scikit-learn's gradient boosting with its defaults
on the descriptors of a prepared file (rdkit2d and Morgan counts). Sets are those of ``configs/small_sets.toml``, in the
folder of ``--root``. A run that is stored in ``results/rivals.jsonl`` is skipped.
"""

import argparse
import csv
import importlib.metadata
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import records
import torch
from boards import sets_board
from leaderboard import placed
from plan import Plan, read_plan, stored

from plstm_graph.data.dataset import GraphDataset
from plstm_graph.tasks.metrics import score
from plstm_graph.train.config import TrainConfig, replace
from plstm_graph.train.data import load_data

CONFIG = records.CONFIGS / "small_sets.toml"
RESULTS = "rivals.jsonl"
PARTS = {"train": "train", "valid": "val", "test": "test"}
"""Our words for the parts, and chemprop's."""
READ = ("rdkit2d", "morgan-counts")
"""Descriptors that boosting reads."""
RIVALS = {"chemprop": "chemprop", "boosting": "scikit-learn"}
"""Names of rivals, with the package whose version belongs to a row."""

Found = tuple[str, dict[str, float]]


@lru_cache
def molecules(config: TrainConfig) -> tuple[GraphDataset, torch.Tensor, dict[str, list[int]]]:
    """A data set, its labels [molecules, 1] and its parts."""
    dataset: Any = load_data(placed(config))
    seed = config.seed if config.split_seed is None else config.split_seed
    parts = dataset.split(config.split, seed, config.fold)
    y = torch.cat([graph.y.reshape(1, -1) for graph in dataset.graphs])
    return dataset, y, {part: list(rows) for part, rows in parts.items()}


def chemprop(config: TrainConfig) -> Found:
    """Metric and score of ``chemprop train`` as it comes, on the parts of our split."""
    dataset, y, parts = molecules(config)
    part_of = {row: PARTS[part] for part, rows in parts.items() for row in rows}
    classes = dataset.task.name == "binary"
    with tempfile.TemporaryDirectory() as name:
        with (Path(name) / "data.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["smiles", "y", "part"])
            for row, (graph, value) in enumerate(zip(dataset.graphs, y[:, 0].tolist(), strict=True)):
                writer.writerow([graph.smiles, int(value) if classes else value, part_of[row]])
        words = [sys.executable, "-c", "from chemprop.cli.main import main; main()", "train", "--data-path", "data.csv"]
        words += ["--smiles-columns", "smiles", "--target-columns", "y", "--splits-column", "part", "-o", "out"]
        words += ["--task-type", "classification" if classes else "regression", "--accelerator", "cpu"]
        words += ["--pytorch-seed", str(config.seed), "--data-seed", str(config.seed)]
        one = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, cwd=name, env=one, capture_output=True, text=True, check=False)
        files = sorted((Path(name) / "out").rglob("test_predictions.csv"))
        if done.returncode or not files:
            raise RuntimeError("chemprop failed: " + (done.stderr or done.stdout)[-600:])
        with files[0].open(newline="") as file:
            answers = torch.tensor([[float(row["y"])] for row in csv.DictReader(file)])
    metric = config.metric or dataset.task.metric
    return metric, {"test": score(metric, answers, y[parts["test"]])}


def boosting(config: TrainConfig) -> Found:
    """Metric and scores of gradient boosting on descriptors."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    dataset, y, parts = molecules(replace(config, descriptors=READ))
    descriptors = torch.cat([graph.descriptors for graph in dataset.graphs]).double()
    x = torch.where(descriptors.isfinite(), descriptors, torch.nan).numpy()
    classes = dataset.task.name == "binary"
    model = (HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor)(random_state=config.seed)
    model.fit(x[parts["train"]], y[parts["train"], 0].numpy())
    found = model.predict_proba(x)[:, 1] if classes else model.predict(x)
    answers = torch.from_numpy(np.asarray(found)).reshape(-1, 1)
    metric = config.metric or dataset.task.metric
    return metric, {part: score(metric, answers[parts[part]], y[parts[part]]) for part in ("valid", "test")}


def run(rival: str, entry: str, config: TrainConfig) -> dict[str, Any]:
    """The row of a rival on a set, with one seed."""
    torch.set_num_threads(1)
    since = time.perf_counter()
    metric, scores = {"chemprop": chemprop, "boosting": boosting}[rival](config)
    minutes = (time.perf_counter() - since) / 60
    row = {"set": entry.partition(": ")[0], "rival": rival, "seed": config.seed, "metric": metric, **scores}
    row |= {"data_hash": molecules(config)[0].content, "minutes": minutes}
    found = records.provenance("cpu")
    package = RIVALS[rival]
    return row | found | {"versions": found["versions"] | {package: importlib.metadata.version(package)}}


def wanted(plan: Plan) -> dict[tuple[str, int], tuple[str, TrainConfig]]:
    """By set and seed: the first entry of the set, whose data and parts rivals get."""
    found: dict[tuple[str, int], tuple[str, TrainConfig]] = {}
    for job in plan.jobs:
        found.setdefault((job.entry.partition(": ")[0], job.config.seed), (job.entry, job.config))
    return found


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rival", choices=[*RIVALS])
    parser.add_argument("--root", help="folder with the prepared sets")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--results", type=Path, default=records.RESULTS)
    parser.add_argument("--commit", help="of these files, where git cannot tell")
    options = parser.parse_args(arguments)
    plan, path = read_plan(CONFIG, options.root), options.results / RESULTS
    done = {(row["set"], row["seed"]) for row in records.read(path) if row["rival"] == options.rival}
    failed = 0
    fresh = multiprocessing.get_context("spawn")  # OpenMP survives no fork
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(options.jobs, mp_context=fresh) as pool:
        todo = [pair for key, pair in wanted(plan).items() if key not in done]
        todo.sort(key=lambda pair: pair[1].seed)
        futures: list[Future[dict[str, Any]]] = [pool.submit(run, options.rival, *pair) for pair in todo]
        for future in as_completed(futures):
            try:
                row = future.result()
            except Exception as error:  # one that fails is a line, no end
                failed += 1
                print(f"failed: {error}", file=sys.stderr, flush=True)
                continue
            records.append(path, row | ({"commit": options.commit, "dirty": False} if options.commit else {}))
            line = f"{row['set']} {row['rival']} seed {row['seed']}: test {row['test']:.4f} ({row['minutes']:.2f} min)"
            print(line, flush=True)
    own = stored(plan, options.results / f"{plan.name}.jsonl")
    print("\n" + sets_board(plan, own, records.read(path)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
