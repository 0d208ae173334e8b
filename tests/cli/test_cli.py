import csv
import errno
import gzip
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import molecules, write_csv
from typer.main import get_command
from typer.testing import CliRunner

from plstm_graph import __version__
from plstm_graph.cli import app
from plstm_graph.cli.examples import EXAMPLES
from plstm_graph.cli.options import CHOICES
from plstm_graph.config.architectures import MODELS
from plstm_graph.config.models import ForestConfig, ModelConfig, VisionConfig
from plstm_graph.data import DATASETS, arrow, echo, neighbors_match, paths
from plstm_graph.errors import TargetError, first_line, said
from plstm_graph.train.config import TrainConfig, flat
from plstm_graph.train.results import FILES

Invoke = Callable[..., Any]
SMALL = ["--epochs", 2, "--batch-size", 8, "--accelerator", "cpu"]
SMALL += ["--width", 8, "--layers", 1, "--heads", 4, "--rwse", 0]


@pytest.fixture
def invoke() -> Invoke:
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    data = write_csv(folder / "my.csv")
    words = ["train", "--data", data, "--targets", "y", "--out", folder / "run", *SMALL, "--set", "model.head_layers=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["/anywhere/plstm-graph", *map(str, words)])
        found = CliRunner().invoke(app, [str(word) for word in words])
    assert found.exit_code == 0, found.output
    assert "r2: train " in found.stdout
    assert "epoch 2/2" in found.stderr
    return folder / "run"


def one_line(found: Any, text: str) -> None:
    """An error a user can act on: one line on stderr, exit code 2, no traceback."""
    assert found.exit_code == 2, found.output
    assert found.stderr.startswith("error: ")
    assert found.stderr.count("\n") == 1
    assert text in found.stderr
    assert found.stdout == ""


def defaults() -> dict[str, Any]:
    """Of all fields there are, by flat name."""
    kinds = ForestConfig, VisionConfig, ModelConfig
    return {name: value for kind in kinds for name, value in flat(replace(TrainConfig(), model=kind())).items()}


def test_every_option_sets_a_field_of_the_config() -> None:
    fields = defaults()
    for choice in CHOICES:
        assert (choice.field or choice.name) in fields
    assert len({choice.flag for choice in CHOICES}) == len(CHOICES)


def test_a_switch_goes_both_ways_and_a_budget_sets_the_width(tmp_path: Path, invoke: Invoke) -> None:
    data = write_csv(tmp_path / "my.csv")
    words = ["train", "--data", data, "--targets", "y", "--quiet", "--epochs", 1, "--accelerator", "cpu", "--rwse", 0]
    words += ["--model", "gcn", "--layers", 1, "--no-edge-features", "--virtual-node", "--budget", "20k"]
    found = invoke(*words, "--out", tmp_path / "run")
    assert (found.exit_code, found.output) == (0, "")
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (config["model"]["edge_features"], config["model"]["virtual_node"], config["budget"]) == (False, True, "20k")
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert stored["parameters"] == pytest.approx(20_000, rel=0.1)
    assert config["model"]["width"] != 64
    assert invoke(*words, "--out", tmp_path / "run", "--resume").exit_code == 0
    one_line(invoke(*words[:-1], "20x", "--out", tmp_path / "other"), "such as 300k")


def test_the_table_beside_chemprop_names_options_that_are_there():
    known = {option for each in get_command(app).commands.values() for param in each.params for option in param.opts}
    page = (Path(__file__).parents[2] / "docs" / "chemprop.md").read_text(encoding="utf-8")
    ours = [line.split("|")[2] for line in page.splitlines() if line.startswith("|")]
    named = {option for cell in ours for option in re.findall(r"--[a-z][a-z-]*", cell)}
    assert len(named) > 30
    assert named <= known


@pytest.mark.parametrize("command", [command.callback.__name__ for command in app.registered_commands])
def test_help_ends_in_an_example_and_a_page(command: str, invoke: Invoke) -> None:
    words, pages = EXAMPLES[command]
    text = invoke(command, "--help").stdout
    assert f" plstm-graph {command} {words} " in text  # on one line of 80 columns
    assert all(
        (Path(__file__).parents[2] / "docs" / page).is_file() and f"docs/{page}" in text for page in pages.split(", ")
    )
    known = {option for each in get_command(app).commands[command].params for option in each.opts}
    assert {word for word in words.split() if word.startswith("--")} <= known


def test_version_and_help(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"plstm-graph {__version__}\n"
    text = invoke("train", "--help").stdout
    assert all(flag in text for choice in CHOICES for flag in choice.flag.split("/"))
    (models,) = (choice.help for choice in CHOICES if choice.flag == "--model")
    assert all(name in models for name in MODELS)
    parts = re.split(r"^│ (?=--)", text, flags=re.M)
    for choice in CHOICES:
        default = defaults()[choice.field or choice.name]
        if default not in (None, (), False):
            word = choice.name.replace("_", "-") if default is True else default
            (shown,) = (part for part in parts if part.startswith(choice.flag.split("/")[0] + " "))
            assert f"[default: {word}]" in " ".join(shown.replace("│", " ").split())


def test_train_writes_its_folder(run: Path) -> None:
    found = json.loads((run / "metrics.json").read_text())
    assert found["command"].startswith("plstm-graph train --data ")
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["targets"] == ["y"]
    assert config["model"]["width"] == 8
    assert config["model"]["head_layers"] == 1


def test_config_file_and_options_over_it(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    words = ["--config", run / "config.toml", "--out", tmp_path / "again", "--epochs", 1, "--quiet"]
    found = invoke("train", *words)
    assert (found.exit_code, found.output) == (0, "")
    config = tomllib.loads((tmp_path / "again" / "config.toml").read_text())
    assert config["epochs"] == 1
    assert config["model"]["width"] == 8


def test_resume_takes_the_options_of_the_run(run: Path, invoke: Invoke) -> None:
    before = json.loads((run / "metrics.json").read_text())
    assert invoke("train", "--resume", "--out", run, "--epochs", 2).exit_code == 0
    after = json.loads((run / "metrics.json").read_text())
    assert {**before, "command": "", "minutes": 0, "date": ""} == {**after, "command": "", "minutes": 0, "date": ""}
    one_line(invoke("train", "--resume", "--out", run, "--epochs", 9), "epochs is 2, not 9")
    one_line(invoke("train", "--out", run, *SMALL), "is not empty; give --resume, --overwrite or another --out")


def test_minutes_stop_a_run_that_goes_on(tmp_path: Path, invoke: Invoke) -> None:
    words = ["--data", write_csv(tmp_path / "my.csv"), "--targets", "y", *SMALL, "--out", tmp_path / "run"]
    stopped = invoke("train", *words, "--minutes", 1e-4)
    assert stopped.exit_code == 130
    assert "minutes are over after epoch 1 of 2, which is stored; resume with: plstm-graph train" in stopped.output
    assert invoke("train", *words, "--minutes", 1e-4, "--resume").exit_code == 0
    one_line(invoke("train", *words, "--minutes", 1, "--seeds", "0-1", "--overwrite"), "--minutes is for a single run")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--data", "nav71"], "did you mean 'nav17'?"),
        (["--data", "my.csv"], "my.csv"),
        (["--split", "skaffold"], "did you mean 'scaffold'?"),
        (["--order", "canonicle"], "did you mean 'canonical'?"),
        (["--set", "model.widht=3"], "did you mean 'model.width'?"),
        (["--set", "model.backend=scater"], "did you mean 'scatter'?"),
        (["--set", "width"], "--set takes key=value"),
        (["--width", "8", "--set", "model.width=16"], "model.width is given twice, once by --set model.width=16"),
        (["--set", "lr=1", "--set", "lr=2"], "lr is given twice, once by --set lr=2"),
        (["--width", "8", "--budget", "5k"], "--budget sets the width, and --width is given as well"),
        (["--config", "no.toml"], "cannot read config file no.toml"),
        (["--epochs", "0"], "epochs must be at least 1 (got 0)"),
        (["--precision", "7"], "the trainer refuses its options"),
        (["--resume"], "nothing to resume in"),
    ],
)
def test_wrong_options_are_one_line(
    words: list[str], text: str, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one_line(invoke("train", *words), text)
    assert list(tmp_path.iterdir()) == []


def test_wrong_data_is_one_line(tmp_path: Path, invoke: Invoke) -> None:
    data = write_csv(tmp_path / "my.csv")
    one_line(invoke("train", "--data", data, "--targets", "yy", "--out", tmp_path / "run"), "unknown column 'yy'")
    one_line(invoke("train", "--data", data, "--targets", "y", "--out", data / "run"), "cannot write to output folder")
    assert not (tmp_path / "run").exists()


def test_rejected_rows_are_kept_and_counted(tmp_path: Path, invoke: Invoke) -> None:
    data = write_csv(tmp_path / "my.csv")
    data.write_text(data.read_text() + "C1CC,1,2\nCCCCO,,\n")
    found = invoke("train", "--data", data, "--targets", "y", "--out", tmp_path / "run", *SMALL)
    assert found.exit_code == 0, found.output
    assert "2 rows rejected, see rejected.csv" in found.stdout
    rows = list(csv.DictReader((tmp_path / "run" / "rejected.csv").open()))
    assert [(row["row"], row["text"]) for row in rows] == [("41", "C1CC"), ("42", "CCCCO")]


def test_predict(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "in.smi").write_text("CCO ethanol\nC1CC broken\nc1ccccc1\n")
    out = tmp_path / "pred.csv"
    found = invoke("predict", "--checkpoint", run, "--input", tmp_path / "in.smi", "--out", out)
    assert found.exit_code == 0, found.output
    marked = "1 unlike the training (see column unlike_training)"  # ethanol, which is small
    assert found.stdout == f"3 rows, 1 without a prediction (see column error), {marked}; wrote {out}\n"
    rows = list(csv.DictReader(out.open()))
    assert list(rows[0]) == ["smiles", "id", "y", "unlike_training", "error"]
    assert [row["smiles"] for row in rows] == ["CCO", "C1CC", "c1ccccc1"]
    assert [row["id"] for row in rows] == ["ethanol", "broken", ""]
    assert [row["y"] == "" for row in rows] == [False, True, False]
    one_line(invoke("predict", "--checkpoint", run, "--input", tmp_path / "no.csv", "--out", out), "no.csv")
    one_line(invoke("predict", "--checkpoint", tmp_path, "--input", tmp_path / "in.smi", "--out", out), "best.ckpt")
    missing = tmp_path / "no" / "pred.csv"
    one_line(
        invoke("predict", "--checkpoint", run, "--input", tmp_path / "in.smi", "--out", missing), "there is no folder"
    )
    before = (tmp_path / "in.smi").read_text()
    (tmp_path / "in.smi").rename(tmp_path / "in.txt")  # as a table, not to be taken for one
    one_line(
        invoke("predict", "--checkpoint", run, "--input", tmp_path / "in.txt", "--out", tmp_path / "in.txt"), "lost"
    )
    (tmp_path / "in.txt").rename(tmp_path / "in.smi")
    assert (tmp_path / "in.smi").read_text() == before


OUTS = {
    "predict": ["--checkpoint", "run", "--input", "in.smi", "--out"],
    "evaluate": ["--checkpoint", "run", "--data", "my.csv", "--out"],
    "explain": ["--checkpoint", "run", "--smiles", "CCO", "--atoms"],
    "export": ["--checkpoint", "run", "--out"],
    "report": ["run", "--out"],
    "prepare": ["--data", "my.csv", "--targets", "y", "--out"],
    "draw": ["CCO", "--out"],
}


@pytest.mark.parametrize("command", OUTS)
def test_a_result_takes_no_place_that_is_taken(
    run: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Refused by name before the work, and all that is there stays as it is."""
    for name in ("my.csv", "run"):
        (tmp_path / name).symlink_to(run.parent / name)
    (tmp_path / "in.smi").write_text("CCO\n")
    (tmp_path / "folder.svg").mkdir()
    (tmp_path / "closed.svg").write_text("mine")
    (tmp_path / "closed.svg").chmod(0o444)
    best = (run / "checkpoints" / "best.ckpt").read_bytes()
    monkeypatch.chdir(tmp_path)
    places = {"folder.svg": "is a folder", "no/x.svg": "there is no folder", "closed.svg": "is read-only, and kept"}
    reads = [] if command in ("draw", "report") else ["run/checkpoints/best.ckpt"]
    reads += [word for word in OUTS[command] if word in ("my.csv", "in.smi")]
    if command == "prepare":
        reads.remove("run/checkpoints/best.ckpt")
    places |= dict.fromkeys(reads, "would be lost")
    if command in ("predict", "explain"):
        places["x.xlsx"] = places["x.csv.zip"] = "tables are written as .csv or .tsv"
    for place, text in places.items():
        if place == "in.smi":
            text = "tables are written as .csv"
        one_line(invoke(command, *OUTS[command], place), text)
    assert (tmp_path / "closed.svg").read_text() == "mine"
    assert (tmp_path / "in.smi").read_text() == "CCO\n"
    assert (run / "checkpoints" / "best.ckpt").read_bytes() == best
    assert {path.name for path in tmp_path.iterdir()} == {"my.csv", "run", "in.smi", "folder.svg", "closed.svg"}


def test_prepare_says_how_the_same_data_are_usually_trained(tmp_path: Path, invoke: Invoke) -> None:
    """A prepared file is trained with plain options, whatever is usual for the data that it holds."""
    data = write_csv(tmp_path / "my.csv")
    found = invoke("prepare", "--data", data, "--targets", "y", "--out", tmp_path / "x.pt").stdout.splitlines()
    assert found[1] == (
        f"the file brings no options; to train as with --data {data}: "
        f"plstm-graph train --data {tmp_path / 'x.pt'} --virtual-node --out runs/x"
    )
    words = found[1].partition("plstm-graph train ")[2].split()
    assert invoke("train", *words, "--epochs", 1, "--width", 8, "--layers", 1, "--out", tmp_path / "run").exit_code == 0
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["model"]["virtual_node"]


def test_two_results_do_not_share_a_file(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    words = ["explain", "--checkpoint", run, "--smiles", "CCO"]
    one_line(invoke(*words, "--atoms", tmp_path / "x.csv", "--pairs", tmp_path / "x.csv"), "is to be written twice")


def test_results_as_their_names_say(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "in.smi.gz").write_bytes(gzip.compress(b"CCO ethanol\nc1ccccc1 benzene\n"))
    for name in ("p.csv", "p.tsv.gz"):
        words = ["--checkpoint", run, "--input", tmp_path / "in.smi.gz", "--out", tmp_path / name]
        assert invoke("predict", *words).exit_code == 0
    plain = list(csv.reader((tmp_path / "p.csv").open()))
    packed = gzip.decompress((tmp_path / "p.tsv.gz").read_bytes()).decode().splitlines()
    assert plain == list(csv.reader(packed, delimiter="\t"))
    assert [row[:2] for row in plain[1:]] == [["CCO", "ethanol"], ["c1ccccc1", "benzene"]]


def test_embed(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "in.csv").write_text("id,smiles\na,CCO\nb,C1CC\n")
    words = ["--checkpoint", run, "--input", tmp_path / "in.csv", "--out", tmp_path / "out.csv"]
    assert invoke("embed", *words).stdout == f"2 rows of 8 channels; wrote {tmp_path / 'out.csv'}\n"
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0].startswith("id,smiles,embedding_0,")
    assert rows[0].endswith(",embedding_7,error")
    assert all(map(math.isfinite, map(float, rows[1].split(",")[2:10])))
    assert rows[2].startswith("b,C1CC,,")


def test_predict_from_csv_with_a_column_of_another_name(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "in.csv").write_text("id,structure\n" + "".join(f"{i},{text}\n" for i, text in enumerate(molecules(4))))
    words = ["--checkpoint", run / "checkpoints" / "last.ckpt", "--input", tmp_path / "in.csv"]
    assert invoke("predict", *words, "--out", tmp_path / "p.csv", "--smiles-column", "structure").exit_code == 0
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert list(rows[0]) == ["id", "structure", "y", "unlike_training", "error"]
    assert [(row["id"], row["structure"]) for row in rows] == [(str(i), text) for i, text in enumerate(molecules(4))]
    one_line(invoke("predict", *words, "--out", tmp_path / "p.csv"), "smiles")


def test_evaluate(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    found = invoke("evaluate", "--checkpoint", run, "--split-part", "valid", "--out", tmp_path / "e.json")
    assert found.exit_code == 0, found.output
    stored = json.loads((run / "metrics.json").read_text())["valid"]
    result = json.loads((tmp_path / "e.json").read_text())
    assert result["r2"] == pytest.approx(stored["r2"], abs=1e-5)
    assert f"r2         {result['r2']:.4f}" in found.stdout
    assert "part       valid: as asked\n" in found.stdout
    assert (found.stderr, result["part"], result["notes"]) == ("", "valid", [])
    one_line(invoke("evaluate", "--checkpoint", run, "--data", "MUTAGG"), "unknown data set")
    words = ["--data", run.parent / "my.csv", "--targets", "y", "--targets", "z"]
    one_line(
        invoke("evaluate", "--checkpoint", run, *words),
        "it has labels of 2 targets (regression of y, z), and the model takes labels of 1 target (regression of y);",
    )


def test_scores_in_small_units_are_told(tmp_path: Path, invoke: Invoke) -> None:
    """Concentrations in mol/l: an RMSE of 0.0000 would read as a perfect model."""
    rows = [f"{text},{len(text)}e-7" for text in molecules()]
    (tmp_path / "molar.csv").write_text("\n".join(["smiles,y", *rows]))
    run = tmp_path / "run"
    words = ["--data", tmp_path / "molar.csv", "--targets", "y", "--metric", "rmse", "--seeds", "0-1", "--out", run]
    trained = invoke("train", *words, *SMALL)
    assert trained.exit_code == 0, trained.output
    first = run / "seed-0"
    texts = [trained.stdout, trained.stderr, (first / "card.md").read_text()]
    for words in (["evaluate"], ["explain", "--smiles", "CCO"]):
        texts.append(invoke(*words, "--checkpoint", first).stdout)
    for page in (run, first):
        assert invoke("report", page).exit_code == 0
        texts.append(re.sub("<svg.*?</svg>", "", (page / "report.html").read_text(), flags=re.S))
    for text in texts:
        assert re.search(r"\d(e[-−]0[678]|\.0000\d+)\b", text), text[:2000]
        assert not re.search(r"(?<![\d.])0\.0000?(?![\d])", text), text


def test_evaluate_on_other_data(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    path = write_csv(tmp_path / "other.csv", count=16)
    path.write_text(path.read_text() + "C1CC,1,2\n")
    words = ["evaluate", "--checkpoint", run, "--data", path, "--targets", "z"]
    found = invoke(*words)
    assert found.exit_code == 0, found.output
    assert "part       all: not the data it was trained on\ngraphs     16\nrejected   1\n" in found.stdout
    columns, rejected = found.stderr.splitlines()
    assert columns == "note: scores y against column 'z'"
    assert rejected.startswith("note: 1 row rejected: row 17: rdkit cannot read the SMILES 'C1CC'")
    assert "part       test: as asked\ngraphs     2\n" in invoke(*words, "--split-part", "test").stdout
    own = invoke("evaluate", "--checkpoint", run)
    assert "part       test: the data and the split it was trained on\ngraphs     4\n" in own.stdout


def test_the_folder_of_a_series_is_no_checkpoint(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    for name in ("fold-10_seed-0", "fold-2_seed-0", "fold-0_seed-0"):
        (tmp_path / "series" / name).mkdir(parents=True)
    words = ["evaluate", "--checkpoint", tmp_path / "series"]
    one_line(invoke(*words), f"{tmp_path}/series is a series; none of its runs has a checkpoint yet")
    for name in ("fold-10_seed-0", "fold-2_seed-0"):  # the first was not begun, or failed
        shutil.copytree(run, tmp_path / "series" / name, dirs_exist_ok=True)
    told = f"{tmp_path}/series is a series; give one of its runs, for example {tmp_path}/series/fold-2_seed-0\n"
    one_line(invoke(*words), told)
    for command in ("explain", "export"):
        more = ["--smiles", "CCO"] if command == "explain" else ["--out", tmp_path / "m.pt2"]
        one_line(invoke(command, *words[1:], *more), told)
    assert invoke("evaluate", "--checkpoint", tmp_path / "series" / "fold-2_seed-0").exit_code == 0
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "series.toml").touch()
    one_line(invoke("evaluate", "--checkpoint", tmp_path / "begun"), "begun is a series; none of its runs")


def test_report(run: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plstm_graph.train.analysis.RESAMPLES", 20)
    out = tmp_path / "page.html"
    found = invoke("report", run, "--out", out)
    assert (found.exit_code, found.stdout) == (0, f"wrote {out}\n"), found.output
    assert "regression" in out.read_text()
    one_line(invoke("report", tmp_path), "is not the folder of a run: it holds no config.toml")
    one_line(invoke("report", run, "--out", tmp_path / "no" / "page.html"), "there is no folder")
    assert invoke("report").exit_code == 2


def test_datasets(invoke: Invoke) -> None:
    text = invoke("datasets").stdout
    assert all(name in text for name in DATASETS)


def test_datasets_that_are_on_disk(invoke: Invoke, tmp_path: Path, cache: Path) -> None:
    def here(*words: object) -> set[str]:
        lines = invoke("datasets", *words).stdout.splitlines()[1:]
        return {line.split()[0] for line in lines if "yes" in line.split()}

    always = {"nav17", "digits", *(row.name for row in (*paths.SETS, *neighbors_match.SETS, *echo.SETS, *arrow.SETS))}
    assert here() == always
    (tmp_path / "root" / "ogb" / "ogbg_molhiv").mkdir(parents=True)
    (tmp_path / "root" / "MUTAG" / "raw").mkdir(parents=True)
    assert here("--root", tmp_path / "root") == always | {"ogbg-molhiv", "MUTAG"}


def test_a_set_that_is_not_there_is_one_line(invoke: Invoke, tmp_path: Path) -> None:
    found = invoke("train", "--data", "ogbg-molhiv", "--root", tmp_path, "--out", tmp_path / "run")
    one_line(found, "hiv.zip")
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback(tmp_path: Path, invoke: Invoke) -> None:
    found = invoke("train", "--data", "nav71", "--out", tmp_path / "run", "--debug")
    assert found.exit_code == 1
    assert type(found.exception).__name__ == "DataError"


def test_an_interruption_before_training_leaves_nothing(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("plstm_graph.train.run.load_data", interrupted)
    found = invoke("train", "--out", tmp_path / "run")
    assert found.exit_code == 130
    assert found.stderr == "interrupted; nothing was written\n"
    monkeypatch.setattr("plstm_graph.train.inference.restored.restore", interrupted)
    (tmp_path / "in.smi").write_text("C\n")
    words = ["--checkpoint", tmp_path / "in.smi", "--input", tmp_path / "in.smi", "--out", tmp_path / "p.csv"]
    found = invoke("predict", *words)
    assert (found.exit_code, found.stderr) == (130, "interrupted\n")


STRIKES = """
import os, signal, sys, threading, time
from plstm_graph import cli
from plstm_graph.cli import program, shared
signal.signal(signal.SIGINT, signal.default_int_handler)
def strike():
    time.sleep(0.1)
    for _ in range(20):
        os.kill(os.getpid(), int(os.environ["STRIKE"]))
        time.sleep(float(os.environ["PAUSE"]))
def working(*args, **kwargs):
    threading.Thread(target=strike, daemon=True).start()
    try:
        time.sleep(60)
    finally:
        time.sleep(float(os.environ["CLEARING"]))
shared.check_target = working
program.PATIENCE_S = 0.5
cli.main()
"""


@pytest.mark.parametrize("strike", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("pause", "clearing", "told"), [(0.003, 0.1, "interrupted\n"), (0.1, 60, "interrupted at once\n")]
)
def test_many_interruptions_end_a_command_once(
    tmp_path: Path, strike: signal.Signals, pause: float, clearing: float, told: str
) -> None:
    """Also one whose clearing up hangs, a while after the first."""
    environment = os.environ | {"STRIKE": str(int(strike)), "PAUSE": str(pause), "CLEARING": str(clearing)}
    command = [sys.executable, "-c", STRIKES, "prepare", "--out", str(tmp_path / "x.pt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", told)


def test_draw(tmp_path: Path, invoke: Invoke) -> None:
    pytest.importorskip("plstm_graph.draw")
    found = invoke("draw", "CCO", "--out", tmp_path / "x.svg")
    assert found.exit_code == 0, found.output
    assert "<svg" in (tmp_path / "x.svg").read_text()
    one_line(invoke("draw", "C1CC", "--out", tmp_path / "y.svg"), "C1CC")


def test_explain(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    files = [tmp_path / name for name in ("x.svg", "atoms.csv", "pairs.csv")]
    words = ["explain", "--checkpoint", run, "--smiles", "CCO"]
    found = invoke(*words, "--out", files[0], "--atoms", files[1], "--pairs", files[2])
    assert found.exit_code == 0, found.output
    value, whole, carried, unlike, meaning, wrote = found.stdout.splitlines()
    assert unlike.startswith("unlike the training: 3 atoms, not ")
    assert value.startswith("y: ")
    for line in (whole, carried):
        terms = re.findall(r"([+−]?) ?(?:[a-zA-Z]+ )+(−?[\d.]+)", line.partition("=")[0])
        sums = [float(size.replace("−", "-")) * (-1 if sign == "−" else 1) for sign, size in terms]
        assert 2 <= len(sums) <= 3
        assert f"{sum(sums):.4f}".replace("-", "−") == line.split("= ")[1] == value.split()[1]
    assert all(word in meaning for word in ("blank: ", "silent: ", "gap: "))
    assert wrote == f"wrote {', '.join(map(str, files))}"
    assert "<svg" in files[0].read_text()
    assert [row["symbol"] for row in csv.DictReader(files[1].open())] == ["C", "C", "O"]
    assert (
        len(list(csv.DictReader(files[2].open()))) == 7
    )  # no directed path joins the ends: both bonds point to the middle
    one_line(invoke(*words, "--out", tmp_path / "x.pdf"), "svg or .png")
    one_line(invoke(*words, "--target", "pIC50"), "unknown target 'pIC50'; choose one of y")
    one_line(invoke("explain", "--checkpoint", run, "--smiles", "C1CC"), "C1CC")


QUICK = {
    "--help": (0, "predict"),
    "train --help": (0, "--split-seed"),
    "train --splitt x": (2, "No such option: --splitt"),
    "train --lr fast": (2, "Invalid value for '--lr'"),
    "train --lr=-1": (2, "lr must be above 0"),
    "train --split x": (2, "unknown split 'x'"),
    "train --metric r3": (2, "unknown metric 'r3'"),
    "train --model gcnn": (2, "did you mean 'gcn'?"),
    "train --order canonicle": (2, "did you mean 'canonical'?"),
    "train --set model.widht=3": (2, "did you mean 'model.width'?"),
    "train --config no.toml": (2, "cannot read config file no.toml"),
    "train --data nav71": (2, "did you mean 'nav17'?"),
    "train --data no.csv": (2, "there is no file no.csv"),
    "train --seeds 0-x": (2, "--seeds takes whole numbers"),
    "train --resume": (2, "nothing to resume in"),
    "train --out full": (2, "is not empty; give --resume"),
    "prepare --data nav71 --out x.pt": (2, "did you mean 'nav17'?"),
    "prepare --data nav17 --out no/x.pt": (2, "there is no folder"),
    "predict --checkpoint full --input no.csv --out p.csv": (2, "there is no file no.csv"),
    "predict --checkpoint full --input a.csv --out p.csv": (2, "cannot read checkpoint full/checkpoints/best.ckpt"),
    "predict --checkpoint full --input a.csv --out p.csv --batch-size 0": (2, "Invalid value for '--batch-size'"),
    "evaluate --checkpoint no.ckpt": (2, "cannot read checkpoint no.ckpt"),
    "evaluate --checkpoint a.csv --data nav71": (2, "did you mean 'nav17'?"),
    "evaluate --checkpoint a.csv --split-part tset": (2, "did you mean 'test'?"),
    "report full": (2, "full is not the folder of a run"),
    "explain --checkpoint no.ckpt --smiles C": (2, "cannot read checkpoint no.ckpt"),
    "explain --checkpoint a.csv --smiles C --out x.pdf": (2, "a picture is written as .svg or .png"),
    "export --checkpoint no.ckpt --out m.pt2": (2, "cannot read checkpoint no.ckpt"),
    "draw C --out x.svg --order first": (2, "unknown order 'first'"),
}


@pytest.mark.parametrize("words", QUICK)
def test_what_needs_no_heavy_import_is_answered_in_less_than_a_second(words: str, tmp_path: Path) -> None:
    code, text = QUICK[words]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    (tmp_path / "a.csv").write_text("smiles\nC\n")
    done = in_a_process(words.split(), tmp_path)
    assert (done.returncode, text in " ".join(done.stdout.split() + done.stderr.split())) == (code, True), done
    assert done.stdout.splitlines()[-1] == "quick", done.stdout


def in_a_process(words: list[str], folder: Path, **environment: str) -> Any:
    """The command line as a program, which says at its end whether it was quick: without torch, within a second."""
    heavy = {"torch", "torch_geometric", "pytorch_lightning", "rdkit", "matplotlib", "sklearn"}
    script = (
        "import atexit, sys, time\n"
        "sys.argv[0] = 'plstm-graph'\n"
        f"heavy = lambda: {heavy} & set(sys.modules) or time.process_time() > 1 or 'quick'\n"
        "atexit.register(lambda: print(heavy()))\n"
        "from plstm_graph.cli import main\n"
        "main()"
    )
    command = [sys.executable, "-c", script, *words]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "COLUMNS": "120", **environment}, capture_output=True, text=True
    )


def test_words_are_completed(tmp_path: Path) -> None:
    def completed(words: str) -> list[str]:
        given = {"_PLSTM_GRAPH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        *found, last = in_a_process([], tmp_path, **given).stdout.splitlines()
        assert last == "quick"
        return found

    assert completed("plstm-graph pre") == ["prepare", "predict"]
    assert completed("plstm-graph train --split-s") == ["--split-seed"]
    assert completed("plstm-graph train --split s") == ["scaffold", "scaffold-folds"]
    assert completed("plstm-graph train --model gat") == ["gat", "gatedgcn", "gatedgcn-edges"]
    assert completed("plstm-graph train --data ogbg-mole") == ["ogbg-molesol"]


def test_export(run: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def spy(checkpoint: str, out: Path) -> dict[str, Any]:
        assert (checkpoint, out) == (str(run), tmp_path / "m.pt2")
        return {"inputs": {"x": "int64 [graphs, nodes, features]"}}

    one_line(invoke("export", "--checkpoint", tmp_path, "--out", tmp_path / "m.pt2"), "best.ckpt")
    one_line(invoke("export", "--checkpoint", run, "--out", tmp_path / "m.onnx"), "not ONNX; name it .pt2")
    monkeypatch.setattr("plstm_graph.train.inference.portable.export", spy)
    found = invoke("export", "--checkpoint", run, "--out", tmp_path / "m.pt2")
    assert found.exit_code == 0, found.output
    assert found.stdout == f"x          int64 [graphs, nodes, features]\nwrote {tmp_path / 'm.pt2'}\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b.csv"), "a/b.csv: it is not there"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "r/metrics.csv"), "r/metrics.csv: it is a folder"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a.csv/b"), "a.csv/b: a part of the path is a file"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: there is no permission"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "x: the disk is read-only"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), "x: the disk is full"),
    ],
)
def test_errors_of_the_system_say_what_to_do(error: OSError, words: str) -> None:
    assert said(error).startswith(f"cannot use {words}")
    assert "[Errno" not in said(error)
    assert said(OSError("odd\n words")) == "odd words"  # nothing is known of it
    assert said(TargetError("as it is")) == "as it is"


def test_what_another_library_says_is_cut_to_a_line() -> None:
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(AssertionError()) == "AssertionError"


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_result_is_said_before_anything_is_lost(
    name: str, tmp_path: Path, invoke: Invoke
) -> None:
    (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / "config.toml.old").write_text("mine")
    found = invoke("train", "--out", tmp_path / "run", "--overwrite", "--epochs", 1)
    one_line(found, f"{name} is a folder where a file of the run belongs")
    assert (tmp_path / "run" / "config.toml.old").read_text() == "mine"
