"""A model behind HTTP gives what ``predict`` writes, whoever asks at the same time."""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from small_runs import molecules, small_config, write_csv

from plstm_graph.errors import PLSTMGraphError
from plstm_graph.train import predict, train
from plstm_graph.train.inference import serving
from plstm_graph.train.inference.molecules import Predictions

BAD = ["C1CC", "", "CC O"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    config = small_config(out=folder / "run", data=write_csv(folder / "a.csv"), targets="y,z", epochs=1, ensemble=2)
    train(config)
    return folder / "run"


@pytest.fixture(scope="module")
def client(run):
    with TestClient(serving.application(run, device="cpu", most_molecules=50, most_bytes=4000)) as client:
        yield client


def test_a_row_has_the_columns_and_numbers_that_predict_writes(run, client, tmp_path):
    texts = [*molecules(5), *BAD, "[U]"]
    rows = client.post("/predict", json={"smiles": texts}).json()["predictions"]
    predict(run, texts, device="cpu").write(tmp_path / "p.csv")
    with (tmp_path / "p.csv").open() as stream:
        written = list(csv.DictReader(stream))
    assert [list(row) for row in rows] == [list(row) for row in written]
    for row, want in zip(rows, written, strict=True):
        assert (row["smiles"], row["error"], row["unlike_training"]) == (
            *(want["smiles"], want["error"], want["unlike_training"]),
        )
        for name in ("y", "z", "y_std", "z_std"):
            assert row[name] == (pytest.approx(float(want[name]), rel=1e-4) if want[name] else None)
    assert [bool(row["error"]) for row in rows] == 5 * [False] + 3 * [True] + [False]
    assert "element U" in rows[-1]["unlike_training"]


def test_a_chance_called_class_keeps_its_decimals():
    (row,) = serving.as_rows(Predictions(["C"], ["class"], torch.tensor([[0.75]]), []))
    assert row == {"smiles": "C", "class": 0.75, "error": ""}


def test_no_molecules_are_no_rows(client):
    assert client.post("/predict", json={"smiles": []}).json() == {"predictions": []}


NO_QUESTIONS = {
    b"": "Field required",
    b"{": "JSON decode error",
    b'{"smiles": "CCO"}': "Input should be a valid list",
    b'{"smiles": [1]}': "Input should be a valid string",
    b'{"text": []}': "Field required",
    b'{"smiles": ["CCO", "CC\\ud800O"]}': "surrogates not allowed",
    b'{"smiles": "\\ud800"}': "Input should be a valid list",
}


@pytest.mark.parametrize("body", NO_QUESTIONS)
def test_what_is_no_question_is_refused(client, body):
    found = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    (reason,) = found.json()["detail"]
    assert (found.status_code, list(reason)) == (422, ["type", "loc", "msg"])
    assert NO_QUESTIONS[body] in reason["msg"]
    without = client.post("/predict", content=b'{"smiles": ["CCO"]}')
    assert without.status_code == 422


def test_too_much_is_refused_and_the_next_is_answered(client):
    many = client.post("/predict", json={"smiles": ["C"] * 51})
    assert many.status_code == 413
    assert "at most 50 molecules, got 51" in many.json()["detail"]
    assert client.post("/predict", json={"smiles": ["C"] * 50}).status_code == 200
    long = b'{"smiles": ["' + b"C" * 4000 + b'"]}'
    for content in (long, iter([long[:2000], long[2000:]])):  # the second does not say how long it is
        refused = client.post("/predict", content=content)
        assert refused.status_code == 413
        assert "at most 4,000 bytes" in refused.json()["detail"]
    assert client.post("/predict", json={"smiles": ["C"]}).status_code == 200


def test_health_says_what_the_model_card_says(run, client):
    found = client.get("/health").json()
    assert found["status"] == "ok"
    assert found["columns"] == ["smiles", "y", "z", "y_std", "z_std", "unlike_training", "error"]
    assert (found["targets"], found["task"], found["ensemble"]) == (["y", "z"], "regression", 2)
    assert found["data"] == "a.csv"
    assert {"split", "graphs", "metric", "valid", "test", "trained_with"} <= found.keys()
    alone = serving.facts(run / "checkpoints" / "best.ckpt", serving.restore_for_molecules(run, "cpu")[1], [])
    assert "valid" not in alone
    assert alone["targets"] == ["y", "z"]


def test_who_asks_at_the_same_time_is_answered_together(run, monkeypatch):
    calls = []

    def counted(*args, answers=serving.answers, **how):
        calls.append(len(args[2]))
        return answers(*args, **how)

    monkeypatch.setattr(serving, "answers", counted)
    texts = molecules(12)
    with TestClient(serving.application(run, device="cpu")) as client, ThreadPoolExecutor(12) as pool:
        calls.clear()
        found = list(pool.map(lambda text: client.post("/predict", json={"smiles": [text]}).json(), texts))
    assert [row["predictions"][0]["smiles"] for row in found] == texts
    expected = predict(run, texts, device="cpu").values[:, 0].tolist()
    assert [row["predictions"][0]["y"] for row in found] == pytest.approx(expected, rel=1e-4)
    assert sum(calls) == 12
    assert len(calls) < 12


def test_a_request_that_fails_harms_no_other(run, monkeypatch):
    def picky(learner, meta, smiles, answers=serving.answers, **how) -> Predictions:
        if "N" in smiles:
            raise PLSTMGraphError("no nitrogen today")
        return answers(learner, meta, smiles, **how)

    monkeypatch.setattr(serving, "answers", picky)
    with TestClient(serving.application(run, device="cpu")) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: client.post("/predict", json={"smiles": [text]}), "CNCCNCCC"))
    assert [each.status_code for each in found] == [500 if text == "N" else 200 for text in "CNCCNCCC"]
    assert found[1].json() == {"detail": "no nitrogen today"}
