"""An ensemble: one command, one folder, one checkpoint, and members that are runs of their own."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import molecules, small_config, small_dataset, write_csv

from plstm_graph.data.dataset import GraphDataset
from plstm_graph.errors import CheckpointError, ConfigError
from plstm_graph.models.ensemble import Ensemble
from plstm_graph.train import blend, evaluate, explain, predict, train
from plstm_graph.train.record import read_run

SOME = [*molecules(6), "no molecule"]


def run_of(folder: Path, task: str, **values: object) -> Path:
    data = write_csv(folder / f"{task}.csv", task=task)
    train(small_config(out=folder / task, data=data, targets="y", ensemble=2, epochs=2, **values))
    return folder / task


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("ensemble"), "regression")


def test_it_says_the_mean_of_its_members_and_their_spread(run: Path) -> None:
    found = predict(run, SOME)
    members = torch.stack([predict(run / "members" / name, SOME).values for name in "01"])
    assert found.columns == ["y", "y_std"]
    assert not torch.allclose(members[0, :6], members[1, :6])
    torch.testing.assert_close(found.values[:6, 0], members.mean(0)[:6, 0])
    ratio = found.values[:6, 1] / members.std(0)[:6, 0]
    torch.testing.assert_close(ratio, ratio[:1].expand(6), rtol=1e-3, atol=0)  # one size, found on validation
    assert found.values[6].isnan().all()
    assert [row.row for row in found.rejected] == [7]


def test_every_member_runs_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, encodings = [], []
    each, encoded = Ensemble.each, GraphDataset.encoded
    monkeypatch.setattr(Ensemble, "each", lambda self, batch: calls.append(1) or each(self, batch))
    evaluate(run)
    predict(run, SOME)
    assert len(calls) == 2  # a batch each
    monkeypatch.setattr(GraphDataset, "encoded", lambda *args: encodings.append(1) or encoded(*args))
    train(small_config(data=run.parent / "regression.csv", targets="y", ensemble=2, epochs=1, model_rwse=2))
    assert len(encodings) == 1  # for both


def test_what_there_is_to_say_of_the_data_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = small_dataset(tmp_path, targets=("y", "z"))
    data.features = replace(data.features, edge_sizes=())
    for graph in data.graphs:
        graph.y[0, 1] = torch.nan
    data.graphs[8].y[0, 1] = 1.0
    parts = {"train": [*range(8, 40)], "valid": [*range(4)], "test": [*range(4, 8)]}
    train(small_config(ensemble=3, epochs=1, split="official"), replace(data, parts=parts))
    assert [record.message[:12] for record in caplog.records if record.levelname == "WARNING"] == [
        "edge_attr of",
        "nothing to l",
        "no valid sco",
        "no test scor",
    ]


def test_chances_are_averaged_and_not_their_logits(tmp_path: Path) -> None:
    run = run_of(tmp_path, "binary", lr=0.3)
    found = predict(run, SOME[:6]).values
    members = torch.stack([predict(run / "members" / name, SOME[:6]).values for name in "01"])
    torch.testing.assert_close(found[:, :1], members.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, 1:], members.std(0), atol=1e-5, rtol=0)
    assert set(json.loads((run / "metrics.json").read_text())["calibration"]["test"]) == {"ece", "brier"}


def test_its_scores_come_with_calibration(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["calibration"]["test"]) == {"within_1", "within_2", "nll", "spearman"}
    found = evaluate(run)
    assert found["rmse"] == pytest.approx(metrics["test"]["rmse"], rel=1e-5)
    assert found["nll"] == pytest.approx(metrics["calibration"]["test"]["nll"], rel=1e-4)
    members = [json.loads((run / "members" / name / "metrics.json").read_text()) for name in "01"]
    assert metrics["parameters"] == sum(each["parameters"] for each in members)
    assert len({each["seed"] for each in members}) == 2


def test_its_predictions_have_the_spread_that_predict_gives(run: Path, tmp_path: Path) -> None:
    with (run / "predictions.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["part"] == "test"]
    assert list(rows[0])[-3:] == ["y", "y_predicted", "y_std"]
    values = torch.tensor([[float(row["y_predicted"]), float(row["y_std"])] for row in rows])
    torch.testing.assert_close(values, predict(run, [row["smiles"] for row in rows]).values, rtol=1e-4, atol=1e-5)
    assert read_run(run).predictions["test"].prediction[:, 0].tolist() == pytest.approx(values[:, 0].tolist())
    blend([run, run / "members" / "0"], tmp_path / "blend", equal=True)
    header = (tmp_path / "blend" / "predictions.csv").read_text().splitlines()[0]
    assert header.endswith(",y,y_predicted")


def test_members_are_tested_on_what_no_member_has_seen(run: Path) -> None:
    splits = [
        json.loads((folder / "start.json").read_text())["split"] for folder in (run, *(run / "members").iterdir())
    ]
    assert splits[0] == splits[1] == splits[2]


def test_resumed_it_keeps_finished_members_and_says_the_same(tmp_path: Path) -> None:
    run = run_of(tmp_path, "regression")
    before = json.loads((run / "metrics.json").read_text())
    config = small_config(out=run, data=tmp_path / "regression.csv", targets="y", ensemble=2, epochs=2)
    kept = (run / "members" / "0" / "metrics.json").stat().st_mtime_ns
    for place in (run / "metrics.json", run / "checkpoints" / "best.ckpt", run / "members" / "1" / "metrics.json"):
        place.unlink()
    after = train(config, resume=True)
    assert (run / "members" / "0" / "metrics.json").stat().st_mtime_ns == kept
    assert after["test"] == before["test"]
    assert (run / "checkpoints" / "best.ckpt").is_file()


def test_without_a_folder_nothing_stays(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "small.csv")
    found = train(small_config(data=data, targets="y", ensemble=2, epochs=1))
    assert "calibration" in found
    assert [path.name for path in tmp_path.iterdir()] == ["small.csv"]


def test_what_needs_one_network_says_so(run: Path) -> None:
    with pytest.raises(CheckpointError, match="members"):
        explain(run, "CCO")
    with pytest.raises(ConfigError, match="ensemble must be at least 1"):
        small_config(ensemble=0)
    with pytest.raises(ConfigError, match="ensemble is of networks"):
        train(small_config(data=run.parent / "regression.csv", targets="y", ensemble=2, model_model="fingerprint"))
