"""Command lines with options and values drawn at random: exit code 0, or 2 and one line, never a traceback."""

import random
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzz
from hypothesis import strategies as st
from small_runs import write_csv
from typer.testing import CliRunner

from plstm_graph.cli import app

# One process and one epoch: what starts others, or waits for other machines, is no case for this test.
NUMBERS = ["0", "1", "2", "3", "-1", "1.5", "x", "", "nan", "inf", "1e400", "99999999999999999999"]
FEW = ["0", "1", "2", "-1", "x", "1.5"]
WORDS = ["", "x", "plstm", "gine", "gin", "none", "batch", "layer", "rms", "mean", "max", "PD", "-", "both", "random"]
FILES = [
    "small.csv",
    "odd.csv",
    "in.smi",
    "run",
    "run/checkpoints/last.ckpt",
    "no.csv",
    "new.csv",
    "new",
    ".",
    "run/config.toml",
    "nav71",
    "no/where.csv",
    "x.svg",
]
TRAIN = {
    "--data": FILES, "--target": ["y", "z", "smiles", "", "Y"], "--smiles-column": ["smiles", "y", ""],
    "--task": ["regression", "binary", "multiclass", "x"], "--metric": ["r2", "mae", "rocauc", "x"],
    "--split": ["random", "scaffold", "folds", "x"], "--split-seed": NUMBERS, "--fold": NUMBERS, "--seed": NUMBERS,
    "--model": WORDS, "--width": [*FEW, "8", "12"], "--layers": FEW, "--heads": [*FEW, "4"], "--modes": WORDS,
    "--directions": WORDS, "--local": WORDS, "--norm": WORDS, "--dropout": NUMBERS, "--pooling": WORDS,
    "--rwse": [*FEW, "4"], "--order": ["index", "bfs", "given", "canonical", "x"], "--epochs": FEW,
    "--batch-size": NUMBERS, "--lr": NUMBERS, "--weight-decay": NUMBERS, "--warmup-epochs": NUMBERS, "--clip": NUMBERS,
    "--patience": NUMBERS, "--accelerator": ["cpu", "gpu", "tpu", "x"], "--devices": ["auto", "0", "1", "x", "-2"],
    "--num-nodes": ["0", "1", "x"], "--precision": ["32-true", "64-true", "bf16-mixed", "16-mixed", "7"],
    "--config": FILES, "--out": FILES, "--resume": None, "--overwrite": None, "--quiet": None, "--no-such": None,
    "--set": ["", "=", "lr", "lr=1", "model.width=8", "model.head_layers=0", "model.backend=scatter", "model=1",
              "model.expansion=0", "model.degrees=maybe", "targets=y,z", "data=odd.csv", "model.degrees=yes"],
}  # fmt: skip
CHECKPOINT = {"--checkpoint": FILES, "--smiles-column": ["smiles", "x"], "--device": ["cpu", "auto", "x", "cuda:9", ""]}
OPTIONS = {
    "train": TRAIN,
    "predict": CHECKPOINT | {"--input": FILES, "--out": FILES, "--batch-size": NUMBERS},
    "evaluate": CHECKPOINT
    | {
        name: TRAIN[name]
        for name in ("--data", "--target", "--split", "--split-seed", "--fold", "--batch-size", "--out")
    }
    | {"--split-part": ["train", "valid", "all", "x"]},
    "draw": {
        "CCO": None,
        "C1CC": None,
        "": None,
        "--out": ["x.svg", "x.png", "x.txt", "no/x.svg", "run"],
        "--order": TRAIN["--order"],
    },
    "datasets": {"--debug": None, "x": None},
    "": {"--version": None, "--help": None, "nonsense": None},
}
USUAL = {
    "train": "--epochs 1 --batch-size 16 --width 8 --layers 1 --heads 4 --rwse 0 --accelerator cpu "
    "--data small.csv --target y --overwrite",
    "predict": "--checkpoint run --input in.smi --out p.csv --device cpu",
    "evaluate": "--checkpoint run --data small.csv --device cpu",
    "draw": "CCO --out x.svg",
}


def command_line(seed: int) -> list[str]:
    """What is usual, with some options replaced, added or left out; every option is as likely as any other."""
    rng = random.Random(seed)
    command = rng.choice([*OPTIONS, "train", "train", "train", "predict", "evaluate"])
    words = USUAL.get(command, "").split()
    if rng.random() < 0.1 and words:
        del words[rng.randrange(len(words))]
    for name in rng.sample([*OPTIONS[command]], min(rng.randint(0, 3), len(OPTIONS[command]))):
        values = OPTIONS[command][name]
        words += [name] if values is None else [name, rng.choice(values)]
    return [command, *words] if command else words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a run, two tables and a list of molecules."""
    folder = tmp_path_factory.mktemp("cli")
    write_csv(folder / "small.csv")
    write_csv(folder / "odd.csv", task="binary", count=13)
    (folder / "in.smi").write_text("CCO\nC1CC\nc1ccccc1\n")
    return folder


@fuzz(0.07, words=st.integers(0, 2**62).map(command_line))
def test_a_command_line_works_or_says_why(folder: Path, words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if not (folder / "run" / "checkpoints").exists():
            assert invoke(["train", *USUAL["train"].split(), "--out", "run"]).exit_code == 0
        found = invoke(words)
    told = f"{words}\n{found.output}\n{found.exception!r}"
    assert found.exception is None or isinstance(found.exception, SystemExit), told
    assert found.exit_code in (0, 2), told
    assert "Traceback" not in found.output, told
    if found.exit_code == 2 and words and "╭─ Error" not in found.stderr:  # typer explains wrong usage in a box
        assert found.stderr.strip().splitlines()[-1].startswith("error: "), told
        assert found.stderr.count("error: ") == 1, told


def invoke(words: list[str]) -> Any:
    return CliRunner().invoke(app, words)
