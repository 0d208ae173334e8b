"""Command lines with options and values drawn at random: exit code 0, or 2 and one line, never a traceback."""

import random
from pathlib import Path
from typing import Any

import pytest
import typer
from fuzzing import fuzz
from hypothesis import strategies as st
from small_runs import write_csv
from typer.testing import CliRunner

from plstm_graph.cli import app
from plstm_graph.config.architectures import MODELS

NUMBERS = ["0", "1", "2", "3", "-1", "1.5", "x", "", "nan", "inf", "1e400", "99999999999999999999"]
FEW = ["0", "1", "2", "-1", "x", "1.5"]
WORDS = ["", "x", "plstm", "gine", "gin", "none", "batch", "layer", "rms", "mean", "max", "PD", "-", "both", "random"]
FILES = ["small.csv", "odd.csv", "in.smi", "run", "run/config.toml", "run/checkpoints/last.ckpt", "no.csv", "new.csv"]
FILES += ["new", ".", "nav71", "no/where.csv", "x.svg", "x.png", "x.pt", "p.html"]
SETTINGS = ["", "=", "lr", "lr=1", "model.width=8", "model.head_layers=0", "model.backend=scatter", "model=1"]
SETTINGS += ["model.expansion=0", "model.degrees=maybe", "model.degrees=yes", "targets=y,z", "data=odd.csv"]
SIZES = [*FEW, "4", "8", "12"]

# What an option is given; one that is not listed gets any of the above. Sizes that train for minutes, other machines
# and processes (each would be a pytest of its own) are no cases for this test.
VALUES = {
    **dict.fromkeys(("--data", "--config", "--out", "--checkpoint", "--input", "--atoms", "--pairs", "--root"), FILES),
    **dict.fromkeys(("--width", "--layers", "--heads", "--rwse", "--lap-pe", "--expansion"), SIZES),
    **dict.fromkeys(("--epochs", "--steps", "--test-orientations"), FEW),
    "--targets": ["y", "z", "smiles", "", "Y"],
    "--model": [*MODELS, "x"],
    "--smiles-column": ["smiles", "y", ""],
    "--smiles": ["CCO", "C1CC", "", "C", "not one"],
    "--task": ["regression", "binary", "multiclass", "x"],
    "--metric": ["r2", "mae", "rocauc", "x"],
    "--split": ["random", "scaffold", "folds", "x"],
    "--split-part": ["train", "valid", "all", "x"],
    "--order": ["index", "bfs", "random", "given", "canonical", "x"],
    "--budget": ["3k", "1", "x", "-5k", "nan", ""],
    "--seeds": ["0", "0-1", "1-0", "0,0", "x", "", "-1"],
    "--folds": ["0", "9", "10", "x", ""],
    "--jobs": ["0", "1", "x"],
    "--device": ["cpu", "auto", "x", "cuda:9", ""],
    "--accelerator": ["cpu", "gpu", "tpu", "x"],
    "--devices": ["auto", "0", "1", "x", "-2"],
    "--num-nodes": ["0", "1", "x"],
    "--precision": ["32-true", "64-true", "bf16-mixed", "16-mixed", "7"],
    "--set": SETTINGS,
}
LEFT_OUT = ("--debug", "--compile")  # a traceback is asked for; a minute each
USUAL = {
    "train": "--epochs 1 --batch-size 16 --width 8 --layers 1 --heads 4 --rwse 0 --accelerator cpu "
    "--data small.csv --targets y --overwrite",
    "prepare": "--data small.csv --targets y --out x.pt",
    "predict": "--checkpoint run --input in.smi --out p.csv --device cpu",
    "evaluate": "--checkpoint run --data small.csv --device cpu",
    "embed": "--checkpoint run --input in.smi --out e.csv --device cpu",
    "report": "run --out p.html",
    "blend": "run run --out blended",
    "explain": "--checkpoint run --smiles CCO --steps 2",
    "export": "--checkpoint run --out x.pt2",
    "draw": "CCO --out x.svg",
}
SLOW = ("export",)  # seconds each: drawn less often
ENDLESS = ("serve",)  # where it is right it goes on until it is stopped
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def options(command: str) -> dict[str, list[str] | None]:
    """Options of a command, as it has them now, with values to try; None for a flag."""
    found: dict[str, list[str] | None] = {"--no-such": None, "more": None, "run": None}
    for parameter in COMMANDS[command].params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            if name.startswith("--") and name not in LEFT_OUT:
                found[name] = None if parameter.is_flag else VALUES.get(name, NUMBERS + WORDS + FILES)
    return found


def command_line(seed: int) -> list[str]:
    """What is usual, with some options replaced, added or left out; every option is as likely as any other."""
    rng = random.Random(seed)
    quick = [name for name in COMMANDS if name not in SLOW + ENDLESS]
    command = rng.choice([*3 * quick, *3 * ["train"], *SLOW, "--version", "--help", "nonsense", ""])
    if command not in COMMANDS:
        return [command] if command else []
    words = USUAL.get(command, "").split()
    if rng.random() < 0.1 and words:
        del words[rng.randrange(len(words))]
    choices = options(command)
    for name in rng.sample([*choices], rng.randint(0, 3)):
        values = choices[name]
        words += [name] if values is None else [name, rng.choice(values)]
    return [command, *words]


def test_every_command_has_a_usual_line() -> None:
    assert USUAL.keys() == COMMANDS.keys() - {"datasets", *ENDLESS}  # the first needs no option


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
    some_failed = found.exit_code == 1 and "run again what failed" in found.output  # in a series the others go on
    assert found.exit_code in (0, 2) or some_failed, told
    assert "Traceback" not in found.output, told
    if found.exit_code == 2 and words and "╭─ Error" not in found.stderr:  # typer explains wrong usage in a box
        assert found.stderr.strip().splitlines()[-1].startswith("error: "), told
        assert found.stderr.count("error: ") == 1, told


def invoke(words: list[str]) -> Any:
    return CliRunner().invoke(app, words)
