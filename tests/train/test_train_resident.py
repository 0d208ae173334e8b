"""A model that stays in memory and answers line by line."""

import csv
import io
from pathlib import Path

import pytest
from small_runs import small_config, write_csv
from typer.testing import CliRunner

from plstm_graph.cli import app
from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.train import predict, train
from plstm_graph.train.inference import resident
from plstm_graph.train.inference.resident import answer_lines


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("resident")
    train(small_config(out=folder / "run", data=write_csv(folder / "a.csv"), targets="y,z", epochs=1))
    return folder / "run"


def test_each_line_is_answered_before_the_next_one_is_read(run):
    stream, seen = io.StringIO(), []

    def lines():
        for text in ("CCO\n", "C1CC\n", "\n", "c1ccccc1"):
            yield text
            seen.append(stream.getvalue().count("\n"))

    assert answer_lines(run, lines(), stream, device="cpu") == (4, 2)
    assert seen == [2, 3, 4, 5]
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    expected = predict(run, ["CCO", "c1ccccc1"], device="cpu").values
    assert [float(rows[k]["y"]) for k in (0, 3)] == pytest.approx(expected[:, 0].tolist(), rel=1e-4)
    assert [bool(row["error"]) for row in rows] == [False, True, True, False]
    assert rows[1]["y"] == ""


def test_what_a_model_cannot_read_is_said_in_its_row(run, monkeypatch):
    def picky(learner, meta, smiles, answers=resident.answers, **how):
        if smiles == ["CN"]:
            raise ShapeError("too many pairs")
        return answers(learner, meta, smiles, **how)

    monkeypatch.setattr(resident, "answers", picky)
    stream = io.StringIO()
    assert answer_lines(run, ["CCO", "CN", "CC"], stream, device="cpu") == (3, 1)
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [(row["smiles"], row["error"]) for row in rows] == [("CCO", ""), ("CN", "too many pairs"), ("CC", "")]
    assert [bool(row["y"]) for row in rows] == [True, False, True]
    with pytest.raises(ConfigError, match=r"there is no file none\.csv; give --descriptors the file"):
        answer_lines(run, ["CCO"], stream, device="cpu", descriptors=["none.csv"])


def test_from_the_shell(run):
    words = ["predict", "--checkpoint", str(run), "--device", "cpu", "--input", "-", "--out"]
    found = CliRunner().invoke(app, [*words, "-"], input="CCO\nCCN\n")
    assert found.stdout.splitlines()[0] == "smiles,y,z,unlike_training,error"
    assert len(found.stdout.splitlines()) == 3
    assert found.stderr == "2 lines, 0 without a prediction\n"
    broken = CliRunner().invoke(app, [*words, "-"], input=b"CC\xff\nCCN\n")
    rows = list(csv.DictReader(io.StringIO(broken.stdout)))
    assert [bool(row["y"]) for row in rows] == [False, True]
    assert "is not Unicode text" in rows[0]["error"]
    wrong = CliRunner().invoke(app, [*words, "p.csv"])
    assert wrong.exit_code == 2
    assert "give both --input - and --out -" in wrong.stderr
