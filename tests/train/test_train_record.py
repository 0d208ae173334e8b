import json
from pathlib import Path

import numpy as np
import pytest

from plstm_graph.errors import ConfigError, DataError
from plstm_graph.train.record import read_run

CONFIG = 'data = "my.csv"\ntargets = ["y", "z"]\nseed = 3\nepochs = 4\n\n[model]\nmodel = "gin"\n'
HISTORY = "loss,lr,epoch,valid_loss,valid_mae\n1.0,0.1,0,2.0,5.0\n0.5,0.1,1,1.5,4.0\n"
PREDICTIONS = "part,index,smiles,y,z,y_predicted,z_predicted\ntest,7,CCO,1,,1.5,2\nvalid,2,,3,4,5,6\n"
METRICS = {
    "metric": "mae", "task": "regression", "targets": ["y", "z"], "test": {}, "valid": {}, "best_epoch": 1,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "metrics.csv").write_text(HISTORY)
    return tmp_path


def test_an_unfinished_run(folder: Path) -> None:
    run = read_run(folder)
    assert run.options == {"data": "my.csv", "targets": ["y", "z"], "seed": 3, "epochs": 4, "model.model": "gin"}
    assert (run.metrics, run.metric, run.best_epoch, run.predictions) == (None, "mae", 1, {})
    assert [row["epoch"] for row in run.history] == [0, 1]


def test_predictions_by_part(folder: Path) -> None:
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (folder / "predictions.csv").write_text(PREDICTIONS)
    run = read_run(folder)
    assert (run.metric, run.best_epoch, set(run.predictions)) == ("mae", 0, {"valid", "test"})
    test = run.predictions["test"]
    assert (test.index.tolist(), test.smiles) == ([7], ["CCO"])
    np.testing.assert_array_equal(test.target, [[1, np.nan]])
    np.testing.assert_array_equal(test.prediction, [[1.5, 2]])


def test_predictions_of_classes(folder: Path) -> None:
    (folder / "metrics.json").write_text(
        json.dumps(METRICS | {"task": "multiclass", "metric": "accuracy", "targets": ["class"]})
    )
    (folder / "predictions.csv").write_text("part,index,smiles,class,p_0,p_1\ntest,0,,1,0.25,0.75\n")
    test = read_run(folder).predictions["test"]
    assert test.target.tolist() == [1]
    assert test.prediction.tolist() == [[0.25, 0.75]]


def test_repeats_share_their_setting(folder: Path) -> None:
    first = read_run(folder).setting
    (folder / "config.toml").write_text(CONFIG.replace("seed = 3", "seed = 4\nsplit_seed = 1"))
    assert read_run(folder).setting == first
    (folder / "config.toml").write_text(CONFIG.replace("gin", "gine"))
    assert read_run(folder).setting != first


def test_what_is_no_run_or_damaged_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere is not the folder of a run: it holds no config.toml; give"):
        read_run(tmp_path / "nowhere")
    (folder / "metrics.json").write_text('{"metric": "mae"')
    with pytest.raises(DataError, match=r"metrics.json is not what a run writes there"):
        read_run(folder)
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (folder / "predictions.csv").write_text(PREDICTIONS + "test,x,CC,1,2,3,4\n")
    with pytest.raises(DataError, match=r"predictions.csv is damaged .*delete it to report without it"):
        read_run(folder)
    (folder / "metrics.csv").write_text("loss,epoch\nhello,0\n")
    with pytest.raises(DataError, match=r"metrics.csv is damaged"):
        read_run(folder)
