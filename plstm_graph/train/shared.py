"""The data of a series of runs, read and encoded once a process and kept until a run needs others."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from plstm_graph.config.models import AnyConfig
from plstm_graph.data.dataset import AnyDataset
from plstm_graph.io.waiting import named
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.data import load_data

READ_FROM = (
    *("data", "root", "targets", "smiles_column", "task", "featuriser", "descriptors"),
    *("split_column", "test_data", "censored"),
)
"""What decides which data set a run reads."""


def dataset(config: TrainConfig) -> AnyDataset:
    """The data set of a run."""
    return _dataset(_source(config))


def data_hash(config: TrainConfig) -> str:
    """Its digest."""
    return _data_hash(_source(config))


def graphs(config: TrainConfig) -> Any:
    """Its graphs, encoded for the model of the run."""
    return _encoded(_source(config), config.model)


def forget() -> None:
    """Read anew what is asked for next."""
    for kept in (_dataset, _data_hash, _encoded):
        kept.cache_clear()


def _source(config: TrainConfig) -> TrainConfig:
    return replace(TrainConfig(), **{name: getattr(config, name) for name in READ_FROM})


@lru_cache(maxsize=1)
def _dataset(source: TrainConfig) -> AnyDataset:
    with named(f"reading {source.data}"):
        return load_data(source)


@lru_cache(maxsize=1)
def _data_hash(source: TrainConfig) -> str:
    return _dataset(source).examples.digest


@lru_cache(maxsize=1)
def _encoded(source: TrainConfig, model: AnyConfig) -> Any:
    return _dataset(source).encoded(model)
