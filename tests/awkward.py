"""Folders of runs as training leaves them, made up: what pages and pictures find hard, without a training."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from small_runs import molecules

LONG = "measured log solubility in mols per litre at 25 C"
UNITS = ("logS", "molecular weight in g/mol", "cLogP", "topological polar surface area in Å²")
METRICS = {"regression": "r2", "binary": "rocauc", "multiclass": "accuracy"}
OTHERS = {"regression": ("rmse", "mae", "pearson"), "binary": ("ap", "accuracy"), "multiclass": ()}


def made_run(
    folder: Path,
    *,
    task: str = "regression",
    targets: Sequence[str] = ("y",),
    classes: int = 0,
    epochs: int = 20,
    seed: int = 0,
    fold: int = 0,
    model: str = "plstm",
    constant: bool = False,
    finished: bool = True,
    smiles: bool = True,
    skill: float = 0.7,
    split: int | None = 0,
) -> Path:
    """A run of this kind; ``split`` draws the labels of the test part, which are those of the seed without one."""
    folder.mkdir(parents=True)
    random, metric = np.random.default_rng(seed + 100 * fold), METRICS[task]
    options = {"data": "made.csv", "epochs": max(epochs, 1), "seed": seed, "fold": fold, "split": "random"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in options.items()]
    (folder / "config.toml").write_text("\n".join([*lines, f"targets = {json.dumps(list(targets))}"]) + "\n")
    with (folder / "config.toml").open("a") as stream:
        stream.write(f'[model]\nmodel = "{model}"\nwidth = 64\n')
    _history(folder / "metrics.csv", metric, epochs, skill, random)
    if not finished:
        return folder
    tests = np.random.default_rng((seed if split is None else split) + 100 * fold)
    header, rows = _predictions(task, targets, classes, constant, smiles, skill, tests, random)
    _write(folder / "predictions.csv", header, rows)
    (folder / "metrics.json").write_text(json.dumps(_metrics(task, targets, seed, epochs, model, skill, random)))
    return folder


def made_series(folder: Path, runs: int = 10, *, by: str = "fold", finished: int | None = None, **options: Any) -> Path:
    """A series of runs that differ in fold or seed; the last ones not finished where ``finished`` says so."""
    folder.mkdir(parents=True)
    (folder / "series.toml").touch()
    words = f"plstm-graph train --data made.csv --{by}s 0-{runs - 1} --out runs/{folder.name}"
    (folder / "summary.json").write_text(json.dumps({"runs": runs, "failed": {}, "command": words}))
    for number in range(runs):
        done = number < (runs if finished is None else finished)
        made_run(folder / f"{by}-{number}", **{by: number}, finished=done, **options)
    return folder


def _history(path: Path, metric: str, epochs: int, skill: float, random: np.random.Generator) -> None:
    if not epochs:
        return
    falling = np.exp(-np.arange(epochs) / 8) + 0.1
    rows = [
        [
            e,
            *(falling[e] * random.uniform(0.9, 1.1, 2) * (1.2 - 0.3 * skill)),
            skill + 0.1 - 0.5 * skill * falling[e] + random.normal(0, 0.02),
            1e-3,
        ]
        for e in range(epochs)
    ]
    _write(path, ["epoch", "loss", "valid_loss", f"valid_{metric}", "lr"], rows)


def _predictions(
    task: str,
    targets: Sequence[str],
    classes: int,
    constant: bool,
    smiles: bool,
    skill: float,
    tests: np.random.Generator,
    random: np.random.Generator,
) -> tuple[list[str], list[list[Any]]]:
    texts, width = molecules(), classes or len(targets)
    rows, parts = [], ["train"] * 24 + ["valid"] * 8 + ["test"] * 8
    for index, part in enumerate(parts):
        noise, scale = random.normal(0, 1, width), 10.0 ** np.arange(width)
        if task == "regression":
            label = np.full(width, 5.0) if constant else tests.normal(0, 2, width) * scale
            answer = skill * label + (1 - skill) * noise * scale
        elif task == "binary":
            label = (tests.random(width) < 0.5).astype(float)
            answer = 1 / (1 + np.exp(-3 * skill * (2 * label - 1) - noise))
        else:
            label = np.array([index % classes])
            answer = np.exp(noise + 2 * skill * (np.arange(classes) == label))
            answer /= answer.sum()
        text = texts[index] if smiles else ""
        rows.append([part, index, text, *(f"{v:.7g}" for v in (*label, *answer))])
    own = [f"p_{k}" for k in range(classes)] if classes else [f"{name}_predicted" for name in targets]
    return ["part", "index", "smiles", *targets, *own], rows


def _metrics(
    task: str,
    targets: Sequence[str],
    seed: int,
    epochs: int,
    model: str,
    skill: float,
    random: np.random.Generator,
) -> dict[str, Any]:
    names = (METRICS[task], *(OTHERS[task] if len(targets) == 1 else ()))
    scores = {part: {name: skill + random.normal(0, 0.05) for name in names} for part in ("train", "valid", "test")}
    each_target = {name: random.random() for name in (METRICS[task], *OTHERS[task])}
    return {
        "metric": METRICS[task],
        **scores,
        **(
            {"by_target": {name: {"valid": each_target, "test": each_target} for name in targets}}
            if len(targets) > 1
            else {}
        ),
        "test_last_epoch": scores["test"],
        "best_epoch": max(0, epochs - 1) or epochs,
        "epochs": epochs,
        "graphs": {"train": 24, "valid": 8, "test": 8},
        "rejected": 0,
        "parameters": 0 if model == "fingerprint" else 280_037,
        "minutes": 2.19,
        "data": "made.csv",
        "split": "random",
        "data_hash": "0123456789ab",
        "task": task,
        "level": "graph",
        "targets": list(targets),
        "seed": seed,
        "config_hash": "ba9876543210",
        "device": "cpu",
        "machine": {"cpu": "AMD EPYC", "cores": 2, "threads": 1, "device": "cpu", "devices": 1},
        "date": "2026-11-29T12:00:00+00:00",
        "command": "plstm-graph train --data made.csv --targets y --out runs/made",
        "commit": "0" * 40,
        "versions": {"python": "3.12.1", "plstm_graph": "0.1.0", "torch": "2.13.0", "torch_geometric": "2.8.1"},
    }


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def gallery(folder: Path) -> dict[str, list[Path]]:
    """Ten awkward things to report, by name."""
    binary = {"task": "binary", "skill": 0.4}
    return {
        "one-epoch": [made_run(folder / "one-epoch", epochs=1)],
        "long-names": [made_run(folder / ("a_run_with_a_name_of_" + 24 * "x"), targets=[LONG], epochs=60)],
        "six-classes": [made_run(folder / "six", task="multiclass", classes=6, targets=["class"], smiles=False)],
        "many-tasks": [made_run(folder / "sider", targets=[f"disorders of system {k}" for k in range(27)], **binary)],
        "constant": [made_run(folder / "constant", constant=True)],
        "series": [made_series(folder / "plstm", **binary)],
        "two-series": [
            made_series(folder / "two" / "plstm-wide-with-virtual-node", **binary),
            made_series(folder / "two" / "gin", task="binary", model="gin", skill=0.1),
        ],
        "unfinished": [made_run(folder / "unfinished", epochs=2, finished=False)],
        "forest": [made_run(folder / "forest", model="fingerprint", epochs=0)],
        "units": [made_run(folder / "units", targets=UNITS)],
    }
