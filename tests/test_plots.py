from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from plstm_graph import plots

HISTORY = [{"epoch": e, "loss": 1 / (e + 1), "valid_loss": 1.0, "valid_r2": e / 10} for e in range(5)]
PNG = b"\x89PNG"


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(PNG) and path.stat().st_size > 5000


def labels_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Axis labels of every figure that is saved from now on."""
    seen: list[tuple[str, str]] = []
    save = plots._save

    def spy(figure: object, path: str) -> None:
        seen.extend((axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", spy)
    return seen


def test_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = labels_of(monkeypatch)
    plots.curves(HISTORY, tmp_path / "c.png", metric="r2", label="R²", best_epoch=4)
    assert is_png(tmp_path / "c.png")
    assert seen == [("epoch", "loss"), ("epoch", "R²")]


def test_parity_has_a_panel_a_target_with_its_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = labels_of(monkeypatch)
    target = np.array([[1.0, 2.0], [2.0, np.nan], [3.0, 4.0]])
    parts = {"valid": (target + 0.1, target), "test": (target - 0.1, target)}
    plots.parity(parts, tmp_path / "p.png", targets=["logS", "Tm"], units=["", "K"], note="R² 0.9")
    assert is_png(tmp_path / "p.png")
    assert seen == [("logS measured", "logS predicted"), ("Tm measured (K)", "Tm predicted (K)")]


@pytest.mark.parametrize("targets", [1, 2, 4, 12])
def test_parity_of_any_number_of_targets(tmp_path: Path, targets: int) -> None:
    target = np.full((3, targets), 2.0)
    plots.parity({"test": (target, target)}, tmp_path / "p.png", targets=[f"t{i}" for i in range(targets)])
    assert is_png(tmp_path / "p.png")


def test_predictions_of_a_diverged_training_are_left_out(tmp_path: Path) -> None:
    target = np.ones((3, 1))
    plots.parity({"test": (np.array([[np.nan], [np.inf], [1.0]]), target)}, tmp_path / "p.png", targets=["y"])
    plots.parity({"test": (np.full((3, 1), np.nan), target)}, tmp_path / "q.png", targets=["y"])
    assert is_png(tmp_path / "p.png")
    assert is_png(tmp_path / "q.png")


def test_roc_points_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    positive = random.random(200) < 0.3
    scored = np.round(random.random(200) + 0.4 * positive, 1)  # many equal scores
    x, y, area = plots.roc_points(scored, positive)
    assert area == pytest.approx(roc_auc_score(positive, scored), abs=1e-12)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_roc_of_one_class_is_undefined() -> None:
    x, _, area = plots.roc_points(np.array([0.1, 0.2]), np.array([True, True]))
    assert len(x) == 0
    assert np.isnan(area)


def test_roc_of_targets_and_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = labels_of(monkeypatch)
    random = np.random.default_rng(0)
    target = np.array([[0, 1], [1, np.nan], [0, 0], [1, 1.0]])
    plots.roc({"test": (random.random((4, 2)), target)}, tmp_path / "b.png", targets=["toxic", "mutagenic"])
    plots.roc({"test": (random.random((4, 3)), np.array([0, 1, 2, 1]))}, tmp_path / "m.png", targets=["class"])
    assert is_png(tmp_path / "b.png")
    assert is_png(tmp_path / "m.png")
    assert seen == [("false positive rate", "true positive rate")] * 2
