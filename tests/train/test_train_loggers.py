"""Epochs go to a logger as they are in metrics.csv."""

import csv

import pytest
from small_runs import small_config, write_csv

from plstm_graph.errors import ConfigError, Diverged
from plstm_graph.train import train
from plstm_graph.train.loggers import LOGGERS, Logged


class Recorder:
    """A logger that remembers."""

    def __init__(self):
        self.rows, self.options, self.ended, self.experiment = [], [], [], None

    def log_hyperparams(self, options):
        self.options.append(options)

    def log_metrics(self, row, step):
        self.rows.append((step, row))

    def finalize(self, status):
        self.ended.append(status)


def test_options_and_epochs_are_sent(tmp_path, monkeypatch):
    recorder = Recorder()
    monkeypatch.setitem(LOGGERS, "mlflow", ("json", lambda out: recorder))
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


def test_mlflow_keeps_runs_in_the_folder(tmp_path, monkeypatch):
    client = pytest.importorskip("mlflow").MlflowClient
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = small_config(data=write_csv(tmp_path / "a.csv"), targets="y", epochs=2, out=tmp_path / "run")
    train(config, callbacks=[Logged("mlflow", config)])
    store = client(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    (experiment,) = [each for each in store.search_experiments() if each.name == "plstm-graph"]
    (run,) = store.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["model.width"] == "8"
    values = [each.value for each in store.get_metric_history(run.info.run_id, "valid_r2")]
    with (tmp_path / "run" / "metrics.csv").open() as stream:
        assert values == pytest.approx([float(row["valid_r2"]) for row in csv.DictReader(stream)])


def test_wandb_keeps_each_run_by_itself(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("first", "second"):
        config = small_config(data=write_csv(tmp_path / "a.csv"), targets="y", epochs=1, out=tmp_path / name)
        train(config, callbacks=[Logged("wandb", config)])
        assert wandb.run is None
        (stored,) = (tmp_path / name / "wandb").glob("offline-run-*/run-*.wandb")
        assert b"valid_r2" in stored.read_bytes()


def test_a_run_that_stops_is_no_success(tmp_path, monkeypatch):
    recorder = Recorder()
    monkeypatch.setitem(LOGGERS, "mlflow", ("json", lambda out: recorder))
    config = small_config(data=write_csv(tmp_path / "a.csv"), targets="y", lr=1e30, out=tmp_path / "run")
    with pytest.raises(Diverged):
        train(config, callbacks=[Logged("mlflow", config)])
    assert recorder.ended == ["failed"]


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    config = small_config(out=tmp_path / "run")
    with pytest.raises(ConfigError, match="did you mean 'wandb'"):
        Logged("wandbb", config)
    with pytest.raises(ConfigError, match="set out"):
        Logged("wandb", small_config())

    monkeypatch.setitem(LOGGERS, "wandb", ("no_wandb", None))
    with pytest.raises(ConfigError, match=r"no_wandb is not installed; pip install 'plstm-graph\[loggers\]'"):
        Logged("wandb", config)
