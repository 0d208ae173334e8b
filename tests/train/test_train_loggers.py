"""Epochs go to a logger as they are in metrics.csv."""

import csv

import pytest
from small_runs import small_config, write_csv

from plstm_graph.errors import ConfigError
from plstm_graph.train import train
from plstm_graph.train.loggers import LOGGERS, Logged


class Recorder:
    """A logger that remembers."""

    def __init__(self):
        self.rows, self.options, self.ended = [], [], []

    def log_hyperparams(self, options):
        self.options.append(options)

    def log_metrics(self, row, step):
        self.rows.append((step, row))

    def finalize(self, status):
        self.ended.append(status)


def test_options_and_epochs_are_sent(tmp_path, monkeypatch):
    recorder = Recorder()
    monkeypatch.setitem(LOGGERS, "mlflow", ("mlflow", lambda out: recorder))
    config = small_config(data=write_csv(tmp_path / "a.csv"), targets="y", epochs=2, out=tmp_path / "run")
    train(config, callbacks=[Logged("mlflow", config)])
    assert recorder.options[0]["model.width"] == 8
    with (tmp_path / "run" / "metrics.csv").open() as stream:
        expected = list(csv.DictReader(stream))
    assert [step for step, _ in recorder.rows] == [0, 1]
    for (_, row), wanted in zip(recorder.rows, expected, strict=True):
        assert {name: row[name] for name in ("loss", "valid_r2", "lr")} == pytest.approx(
            {name: float(wanted[name]) for name in ("loss", "valid_r2", "lr")}
        )
    assert recorder.ended == ["success"]


def test_tensorboard_has_a_file_in_the_folder_of_the_run(tmp_path):
    config = small_config(data=write_csv(tmp_path / "a.csv"), targets="y", epochs=1, out=tmp_path / "run")
    train(config, callbacks=[Logged("tensorboard", config)])
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    config = small_config(out=tmp_path / "run")
    with pytest.raises(ConfigError, match="did you mean 'wandb'"):
        Logged("wandbb", config)
    with pytest.raises(ConfigError, match="set out"):
        Logged("wandb", small_config())

    def missing(out):
        raise ModuleNotFoundError("no wandb")

    monkeypatch.setitem(LOGGERS, "wandb", ("wandb", missing))
    with pytest.raises(ConfigError, match=r"wandb is not installed; pip install 'plstm-graph\[loggers\]'"):
        Logged("wandb", config)
