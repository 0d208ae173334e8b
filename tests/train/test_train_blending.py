"""Blends: weights come from validation alone, rows meet by the place of their graph, and what is unlike is refused."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from small_runs import small_config, write_csv
from typer.testing import CliRunner

from plstm_graph.cli import app
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.tasks import score
from plstm_graph.train import blend, evaluate, train, train_series
from plstm_graph.train.blending import ranked, select
from plstm_graph.train.record import read_scored

VALID, TEST = 12, 9
RANDOM = np.random.default_rng(5)
LABELS = {"valid": np.arange(VALID) % 2.0, "test": (np.arange(TEST) % 3 == 0).astype(float)}
NOISE = {part: RANDOM.random((4, len(labels))) for part, labels in LABELS.items()}


def made(
    folder: Path,
    valid: Sequence[float],
    test: Sequence[float],
    *,
    labels: dict[str, np.ndarray] = LABELS,
    start: dict[str, Any] | None = None,
    smiles: bool = True,
    first: int = 0,
    change: Callable[[list[Any]], list[Any]] = lambda rows: rows,
    **metrics: Any,
) -> Path:
    """A finished run that said so of its graphs, which are numbered from ``first``."""
    folder.mkdir(parents=True)
    rows = [
        [part, first + 100 * (part == "test") + place, "C" * (1 + place) * smiles, label, f"{value:.7g}"]
        for part, values in (("valid", valid), ("test", test))
        for place, (label, value) in enumerate(zip(labels[part], values, strict=True))
    ]
    with (folder / "predictions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["part", "index", "smiles", "y", "y_predicted"], *change(rows)])
    scores = {"rocauc": 0.5, "ap": 0.5, "accuracy": 0.5}
    content = {"metric": "rocauc", "task": "binary", "level": "graph", "targets": ["y"], "best_epoch": 1}
    content |= {"valid": scores, "test": scores, "data": "made", "split": "random", "data_hash": "0123"} | metrics
    (folder / "metrics.json").write_text(json.dumps(content))
    if start is not None:
        (folder / "start.json").write_text(json.dumps(start))
    return folder


def noisy(labels: np.ndarray, noise: np.ndarray, share: float) -> np.ndarray:
    return share * labels + (1 - share) * noise


def weights(found: dict[str, Any]) -> list[float]:
    return [each["weight"] for each in found["members"]]


# ---------------------------------------------------------------------- weights


def test_weights_are_those_of_the_least_error() -> None:
    """Errors +1 and -3 cancel at three to one; a third member that is far off gets nothing."""
    target = torch.randn(20, 1, dtype=torch.float64)
    assert select([target + 1, target - 3, target + 9], target, "rmse") == [0.75, 0.25, 0]


def test_a_blend_is_no_worse_than_its_best_member_on_validation(tmp_path: Path) -> None:
    answers = [torch.from_numpy(noisy(LABELS["valid"], noise, 0.2))[:, None] for noise in NOISE["valid"]]
    target = torch.from_numpy(LABELS["valid"])[:, None]
    chosen = select(answers, target, "rocauc")
    joined = sum(weight * each for weight, each in zip(chosen, answers, strict=True))
    assert sum(chosen) == pytest.approx(1)
    alone = [score("rocauc", each, target) for each in answers]
    assert score("rocauc", joined, target) > max(alone)  # here two together beat each
    with pytest.raises(DataError, match="not defined on the validation part"):
        select(answers, torch.ones_like(target), "rocauc")


def test_a_member_that_says_no_numbers_gets_no_weight() -> None:
    target = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    assert select([torch.full_like(target, torch.nan), target], target, "rocauc") == [0, 1]


def test_the_test_part_chooses_nothing(tmp_path: Path) -> None:
    """One run is right on validation and wrong on test, the other the other way round."""
    right, wrong = ({part: sign * labels for part, labels in LABELS.items()} for sign in (1, -1))
    runs = [made(tmp_path / "a", right["valid"], wrong["test"]), made(tmp_path / "b", wrong["valid"], right["test"])]
    found = blend(runs, tmp_path / "out")
    assert weights(found) == [1, 0]
    assert (found["valid"]["rocauc"], found["test"]["rocauc"]) == (1, 0)
    assert [each["test"]["rocauc"] for each in found["members"]] == [0, 1]


def test_predictions_are_the_weighted_mean_and_scores_are_theirs(tmp_path: Path) -> None:
    answers = [{part: noisy(LABELS[part], NOISE[part][k], 0.3) for part in LABELS} for k in range(3)]
    runs = [made(tmp_path / str(k), **each) for k, each in enumerate(answers)]
    found = blend(runs, tmp_path / "out")
    metrics, parts = read_scored(tmp_path / "out")
    assert metrics == json.loads(json.dumps(found))
    for part, labels in LABELS.items():
        want = sum(weight * each[part] for weight, each in zip(weights(found), answers, strict=True))
        np.testing.assert_allclose(parts[part].prediction[:, 0], want, rtol=1e-6)
        assert found[part]["rocauc"] == pytest.approx(roc_auc_score(labels, want))
        assert found["mean"][part]["rocauc"] == pytest.approx(roc_auc_score(labels, sum(a[part] for a in answers)))
    assert found["test_interval"]["low"] <= found["test"]["rocauc"] <= found["test_interval"]["high"]
    equal = blend(runs, tmp_path / "equal", equal=True)
    assert weights(equal) == [1 / 3] * 3
    assert {part: equal[part] for part in LABELS} == found["mean"]


# ---------------------------------------------------------------------- ranks


def test_ranks_are_shares_with_ties_at_their_mean() -> None:
    values = torch.tensor([[0.3, 2.0], [0.1, 2.0], [0.3, 1.0], [0.9, 2.0]])
    assert ranked(values).tolist() == (rankdata(values.numpy(), axis=0) / 4).tolist()


def test_ranks_do_not_ask_how_far_answers_lie_apart(tmp_path: Path) -> None:
    values = [{part: noisy(LABELS[part], NOISE[part][k], 0.1) for part in LABELS} for k in range(2)]
    bent = {part: np.exp(20 * answers) for part, answers in values[1].items()}  # the same order
    a, b, c = (made(tmp_path / name, **each) for name, each in zip("abc", [*values, bent], strict=True))
    plain, other = (blend([a, run], tmp_path / f"out-{run.name}", ranks=True) for run in (b, c))
    assert (weights(plain), plain["test"]) == (weights(other), other["test"])
    assert plain["test"].keys() == {"rocauc", "ap"}  # ranks are no probabilities
    want = sum(w * rankdata(each["test"]) / TEST for w, each in zip(weights(plain), values, strict=True))
    np.testing.assert_allclose(read_scored(tmp_path / "out-b")[1]["test"].prediction[:, 0], want, rtol=1e-6)
    numbers = [made(tmp_path / name, **values[0], metric="rmse", task="regression") for name in "de"]
    with pytest.raises(ConfigError, match="ranks say nothing of RMSE"):
        blend(numbers, tmp_path / "none", ranks=True)


# ---------------------------------------------------------------------- rows


def test_rows_meet_by_the_place_of_their_graph(tmp_path: Path) -> None:
    values = [{part: noisy(LABELS[part], NOISE[part][k], 0.3) for part in LABELS} for k in range(2)]
    a, b = (made(tmp_path / name, **each) for name, each in zip("ab", values, strict=True))
    turned = made(tmp_path / "turned", **values[1], change=lambda rows: rows[::-1])
    found, other = (blend(runs, tmp_path / f"out-{k}") for k, runs in enumerate(([a, b], [turned, a])))
    assert found["test"] == other["test"]
    rows = [(tmp_path / f"out-{k}" / "predictions.csv").read_text() for k in range(2)]
    assert rows[0] == rows[1]
    assert rows[0].startswith("part,index,smiles,y,y_predicted\nvalid,0,C,0.0,")


UNLIKE = {
    "graphs": ({"first": 1}, "valid has 12 rows, 11 of the graphs"),
    "labels": ({"labels": {**LABELS, "test": 1 - LABELS["test"]}}, "test has other labels"),
    "targets": ({"targets": ["z"]}, r"targets \['z'\] instead of \['y'\]"),
    "metric": ({"metric": "ap"}, "metric ap instead of rocauc"),
    "molecules": (
        {"data_hash": "4567", "change": lambda rows: [[*row[:2], "N", *row[3:]] for row in rows]},
        "data_hash",
    ),
    "data": ({"data_hash": "4567", "smiles": False}, "data_hash 4567 instead of 0123, and no SMILES"),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_runs_of_other_data_tasks_or_parts_are_refused(tmp_path: Path, what: str) -> None:
    change, text = UNLIKE[what]
    a, b = made(tmp_path / "a", **LABELS), made(tmp_path / "b", **LABELS, **change)
    with pytest.raises(ConfigError, match=rf"b cannot be blended with .*a: .*{text}"):
        blend([a, b], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_are_the_same_by_their_hash_without_smiles_or_by_molecules_and_labels(tmp_path: Path) -> None:
    a = made(tmp_path / "a", **LABELS, start={"content": "same"})
    prepared = made(tmp_path / "b", **LABELS, data_hash="4567", smiles=False, start={"content": "same"})
    described = made(tmp_path / "c", **LABELS, data_hash="89ab", start={"content": "with descriptors"})
    assert blend([a, prepared], tmp_path / "out")["data_hash"] == "0123"
    assert blend([a, described], tmp_path / "more")["test"]["rocauc"] == 1
    with pytest.raises(ConfigError, match="no SMILES"):
        blend([prepared, described], tmp_path / "none")


def test_what_cannot_be_blended_is_said(tmp_path: Path) -> None:
    a, b = (made(tmp_path / name, **LABELS) for name in "ab")
    with pytest.raises(ConfigError, match="two runs or more"):
        blend([a], tmp_path / "out")
    with pytest.raises(ConfigError, match="not empty"):
        blend([a, b], b)
    (b / "start.json").write_text("{")
    with pytest.raises(DataError, match=r"start\.json is damaged"):
        blend([a, b], tmp_path / "out")
    (b / "metrics.json").unlink()
    with pytest.raises(DataError, match=r"b holds no metrics\.json: .*finished run"):
        blend([a, b], tmp_path / "out")
    words = made(tmp_path / "words", **LABELS, task="tokens", metric="f1")
    with pytest.raises(DataError, match="no predictions of valid, test"):
        blend([a, words], tmp_path / "out")


# ---------------------------------------------------------------------- series, blends, and the command


def test_a_series_is_one_member_and_a_blend_may_be_one(tmp_path: Path) -> None:
    values = [{part: noisy(LABELS[part], NOISE[part][k], 0.3) for part in LABELS} for k in range(3)]
    for seed in range(2):
        made(tmp_path / "series" / f"seed-{seed}", **values[seed])
    mean = made(tmp_path / "mean", **{part: (values[0][part] + values[1][part]) / 2 for part in LABELS})
    other = made(tmp_path / "other", **values[2])
    found = blend([tmp_path / "series", other], tmp_path / "out")
    alone = blend([mean, other], tmp_path / "alone")
    assert [each["runs"] for each in found["members"]] == [2, 1]
    assert weights(found) == weights(alone)
    assert found["test"]["rocauc"] == pytest.approx(alone["test"]["rocauc"])
    again = blend([tmp_path / "out", other], tmp_path / "again")
    assert again["members"][0]["test"] == pytest.approx(found["test"], abs=1e-6)
    blend([mean, other], tmp_path / "ranks", ranks=True)
    with pytest.raises(ConfigError, match="some of these are blends of ranks"):
        blend([tmp_path / "ranks", other], tmp_path / "none")


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_forest_and_a_series_of_networks(tmp_path: Path, task: str) -> None:
    data = write_csv(tmp_path / "small.csv", task="binary")
    if task == "multiclass":
        lines = data.read_text().splitlines()
        data.write_text("\n".join([lines[0], *(f"{line.split(',')[0]},{k % 3},0" for k, line in enumerate(lines[1:]))]))
    how = {"data": data, "targets": "y", "split": "random", "split_seed": 1, "epochs": 1}
    train(small_config(**how, model_model="fingerprint", model_trees=5, out=tmp_path / "forest"))
    train_series(small_config(**how, descriptors=["maccs"], out=tmp_path / "networks"), seeds=[0, 1])
    words = ["blend", tmp_path / "forest", tmp_path / "networks", "--out", tmp_path / "out"]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    stored = json.loads((tmp_path / "out" / "metrics.json").read_text())
    metric, lines = stored["metric"], done.stdout.splitlines()
    forest = evaluate(tmp_path / "forest", part="valid")[metric]
    assert stored["members"][0]["valid"][metric] == pytest.approx(forest)
    assert lines[2].split()[1] == f"{forest:.4f}"
    assert lines[3].endswith("networks (mean of 2 runs)")
    assert lines[5].split() == [f"{stored[part][metric]:.4f}" for part in ("valid", "test")] + ["blend"]
    assert stored["valid"][metric] >= max(each["valid"][metric] for each in stored["members"])
    for words_after in (["report"], ["export", "--out", str(tmp_path / "x.pt2"), "--checkpoint"]):
        refused = CliRunner().invoke(app, [*words_after, str(tmp_path / "out")])
        assert refused.stderr == f"error: {tmp_path / 'out'} is a blend, with no network of its own; give its members\n"
    again = CliRunner().invoke(app, list(map(str, words)))
    assert again.exit_code == 2
    assert again.stderr.startswith("error: output folder ")
