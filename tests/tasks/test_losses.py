"""Losses, class weights, thresholds, and targets without labels."""

import json
import math

import pytest
import torch
from small_runs import molecules, small_config, write_csv
from torch.nn import functional as F

from plstm_graph.errors import ConfigError
from plstm_graph.tasks import Binary, Multiclass, Regression, restore
from plstm_graph.tasks.thresholds import at_threshold, best_threshold
from plstm_graph.train import train

NAN = math.nan


def test_losses_of_quantities_are_means_over_known_labels():
    output, target = torch.tensor([[0.0], [3.0], [9.0]]), torch.tensor([[0.5], [1.0], [NAN]])
    expected = {"mse": (0.25 + 4) / 2, "mae": (0.5 + 2) / 2, "huber": (0.125 + 1.5) / 2}
    for name, value in expected.items():
        assert float(Regression(("y",)).trained_with(name, False).loss(output, target)) == pytest.approx(value)
    assert float(Regression(("y",), "mae").loss(output, target)) == pytest.approx(expected["mae"])
    with pytest.raises(ConfigError, match="unknown loss 'hubert'; choose one of mse, mae, huber; did you mean 'huber'"):
        Regression(("y",)).trained_with("hubert", False)
    with pytest.raises(ConfigError, match="class_weights cannot be chosen for task 'regression'"):
        Regression(("y",)).trained_with("mse", True)
    with pytest.raises(ConfigError, match="loss cannot be chosen for task 'binary'"):
        Binary(("y",)).trained_with("mse", False)


def test_rare_classes_weigh_as_much_as_common_ones():
    """Summed over the training labels; a missing label weighs nothing, a class that does not occur changes nothing."""
    target = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, NAN], [0.0, 0.0]])
    task = Binary(("a", "b")).trained_with(None, True).fitted(target)
    assert task.weights == pytest.approx((2 / 3, 2.0, 0.5, 1.0))
    output = torch.zeros(4, 2, requires_grad=True)
    task.loss(output, target).backward()
    slope = output.grad[:, 0]
    assert float(slope[0]) == pytest.approx(-float(slope[1:].sum()))
    assert float(output.grad[2, 1]) == 0
    classes = torch.tensor([0, 0, 0, 1])
    task = Multiclass(("y",), classes=2).trained_with(None, True).fitted(classes)
    output = torch.randn(4, 2)
    expected = F.cross_entropy(output, classes, reduction="none") * torch.tensor([1.0, 1.0, 1.0, 3.0])
    assert float(task.loss(output, classes)) == pytest.approx(float(expected.sum()) / 6)


def test_tasks_of_before_are_read():
    task = Binary(("a",)).trained_with(None, True).fitted(torch.tensor([[1.0], [0.0]]))
    assert restore(json.loads(json.dumps(task.plain()))) == task
    older = {key: value for key, value in task.plain().items() if key not in ("weights", "balanced")}
    assert restore(older) == Binary(("a",))


def test_a_threshold_is_the_best_of_all():
    chance = torch.tensor([0.1, 0.2, 0.2, 0.3, 0.4, 0.6, 0.9])
    label = torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0, NAN, 1.0])
    found = best_threshold(chance, label)
    cuts = [0.05, 0.15, 0.25, 0.35, 0.65, 0.95]
    best = max(at_threshold(chance, label, cut)["balanced_accuracy"] for cut in cuts)
    assert at_threshold(chance, label, found)["balanced_accuracy"] == pytest.approx(best)
    assert found == pytest.approx(0.35)
    scores = at_threshold(chance, label, found)
    assert scores["sensitivity"] == pytest.approx(2 / 3)
    assert scores["specificity"] == 1
    assert scores["mcc"] == pytest.approx(2 * 3 / math.sqrt(2 * 3 * 3 * 4))
    assert math.isnan(best_threshold(chance, torch.ones(7)))


def test_metrics_of_a_run_have_thresholds_an_interval_and_targets_without_labels(tmp_path, caplog):
    path = write_csv(tmp_path / "a.csv", task="binary")
    lines = path.read_text().splitlines()
    config = small_config(data=path, targets="y,z", epochs=1, class_weights=True, out=tmp_path / "run")
    found = train(config)
    assert found["thresholds"]["y"].keys() == {"threshold", "valid", "test"}
    ends = found["test_interval"]
    assert ends["low"] <= found["test"]["rocauc"] <= ends["high"]
    assert "unlabelled" not in found
    text = (tmp_path / "run" / "card.md").read_text()
    assert f"on the test part {found['test']['rocauc']:.3f} ({ends['low']:.3f} to {ends['high']:.3f}" in text
    assert "| z |" in text
    parts = ["test" if row < 4 else "valid" if row < 8 else "train" for row in range(len(molecules()))]
    rows = [
        f"{line.rpartition(',')[0]},{line.rpartition(',')[2] if part == 'train' else ''},{part}"
        for line, part in zip(lines[1:], parts, strict=True)
    ]
    path.write_text("\n".join([lines[0] + ",part", *rows]) + "\n")
    found = train(small_config(data=path, targets="y,z", split_column="part", epochs=1))
    assert found["unlabelled"] == {"valid": ["z"], "test": ["z"]}
    assert "no test score for z: no label there" in caplog.text
    assert "labels are all alike" not in caplog.text


def test_a_mean_over_fewer_targets_is_said(tmp_path, caplog):
    """Labels of one class rank nothing, and leave the mean without a word where it is over many targets."""
    parts = ["test" if row < 4 else "valid" if row < 8 else "train" for row in range(16)]
    rows = [
        f"{text},{row % 2},{(row % 2) * (part != 'test')},{part}"
        for row, (text, part) in enumerate(zip(molecules(16), parts, strict=True))
    ]
    (tmp_path / "a.csv").write_text("\n".join(["smiles,y,z,part", *rows]) + "\n")
    found = train(small_config(data=tmp_path / "a.csv", targets="y,z", split_column="part", epochs=1))
    assert math.isnan(found["by_target"]["z"]["test"]["rocauc"])
    assert found["test"]["rocauc"] == found["by_target"]["y"]["test"]["rocauc"]
    assert "no test ROC-AUC for z: labels are all alike there; the mean is over others" in caplog.text
    assert "no valid ROC-AUC" not in caplog.text
