"""Fingerprint and random forest, the baseline every molecular model has to look at; same data and split as the trainer.

``python benchmarks/baselines.py --data nav17 --split random --seed 0``
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plstm_graph.data import GraphDataset, fingerprints
from plstm_graph.errors import DataError, PLSTMGraphError
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.data import labels, load_data, split_of
from plstm_graph.train.metrics import metric_for, scores

KIND = "fingerprint-forest"


@dataclass(frozen=True)
class ForestConfig:
    """Morgan fingerprint and a random forest; what is not here is scikit-learn's default.

    Args:
        trees: of the forest.
        radius: of the fingerprint, in bonds.
        bits: of the fingerprint.
        counts: how often each environment occurs instead of whether it does.
    """

    trees: int = 500
    radius: int = 2
    bits: int = 2048
    counts: bool = False


def forest(
    config: TrainConfig, dataset: GraphDataset | None = None, settings: ForestConfig | None = None
) -> dict[str, Any]:
    """Fits a forest and returns what ``plstm_graph.train.run.train`` returns, as far as it applies.

    Args:
        config: data, split, seed, fold and metric count; the rest is for networks.
        dataset: instead of the one ``config.data`` names.
        settings: of fingerprint and forest.

    Raises:
        DataError: the graphs have no SMILES.
    """
    dataset, settings = dataset or load_data(config), settings or ForestConfig()
    metric = config.metric or dataset.metric
    metric_for(metric, dataset.task)
    if any("smiles" not in graph for graph in dataset.graphs):
        raise DataError(f"a fingerprint needs molecules, but the graphs of {dataset.name} have no SMILES")
    begin = time.perf_counter()
    features = morgan([graph.smiles for graph in dataset.graphs], settings)
    parts = split_of(config, dataset)
    target = {name: labels([dataset.graphs[i] for i in part]) for name, part in parts.items() if part}
    models = _fit(features[parts["train"]], target["train"], dataset, settings, config.seed)
    found = {
        name: scores(dataset.task, _predict(models, features[parts[name]], dataset.task), target[name])
        for name in target
    }
    return {
        "metric": metric,
        **found,
        "graphs": {name: len(part) for name, part in parts.items()},
        "minutes": round((time.perf_counter() - begin) / 60, 4),
        "data": dataset.name,
        "task": dataset.task,
        "targets": list(dataset.targets),
        "seed": config.seed,
        "device": "cpu",
        **asdict(settings),
    }


def morgan(smiles: Sequence[str], settings: ForestConfig) -> np.ndarray:
    """[molecules, bits] zeros and ones, or counts."""
    return fingerprints(smiles, settings.radius, settings.bits, counts=settings.counts)


def _fit(features: np.ndarray, target: Tensor, dataset: GraphDataset, settings: ForestConfig, seed: int) -> list[Any]:
    """One forest for each target over the molecules that have its label, or one for all classes."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    make = RandomForestRegressor if dataset.task == "regression" else RandomForestClassifier
    columns = [target] if target.dim() == 1 else list(target.T)
    models = []
    for column in columns:
        known = ~column.isnan().numpy()
        model = make(settings.trees, random_state=seed, n_jobs=torch.get_num_threads())
        models.append(model.fit(features[known], column.numpy()[known]))
    return models


def _predict(models: list[Any], features: np.ndarray, task: str) -> Tensor:
    """As ``scores`` takes it: values or probabilities [n, targets], or [n, classes]."""
    if task == "multiclass":
        return torch.from_numpy(models[0].predict_proba(features)).float()
    if task == "binary":  # a forest that saw one class only has no column for the other
        columns = [model.predict_proba(features) @ (model.classes_ == 1) for model in models]
    else:
        columns = [model.predict(features) for model in models]
    return torch.from_numpy(np.stack(columns, 1)).float()


def main(arguments: list[str] | None = None) -> int:
    """Prints the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="nav17", help="name of a data set, or a CSV file")
    parser.add_argument("--root", help="folder with public data")
    parser.add_argument("--target", action="append", default=[], help="label column of a CSV file")
    parser.add_argument("--split", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--trees", type=int, default=500)
    parser.add_argument("--counts", action="store_true")
    options = parser.parse_args(arguments)
    try:
        config = TrainConfig(
            data=options.data,
            root=options.root,
            targets=tuple(options.target),
            split=options.split,
            seed=options.seed,
            fold=options.fold,
        )
        print(json.dumps(forest(config, settings=ForestConfig(trees=options.trees, counts=options.counts)), indent=2))
    except PLSTMGraphError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
