import io
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context

from plstm_graph.draw import answers, curves, style

HISTORY = [{"epoch": e, "loss": 1 / (e + 1), "valid_loss": 1.0, "valid_r2": e / 10} for e in range(5)]
PNG = b"\x89PNG"


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(PNG) and path.stat().st_size > 5000


def labels_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Axis labels of every figure that is saved from now on."""
    seen: list[tuple[str, str]] = []
    save = style.save

    def spy(figure: object, path: str) -> None:
        seen.extend((axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes)
        save(figure, path)

    monkeypatch.setattr(style, "save", spy)
    return seen


def test_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = labels_of(monkeypatch)
    curves.curves(HISTORY, tmp_path / "c.png", metric="r2", label="R²", best_epoch=4)
    assert is_png(tmp_path / "c.png")
    assert seen == [("epoch", "loss"), ("epoch", "R²")]


def test_parity_has_a_panel_a_target_with_its_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = labels_of(monkeypatch)
    target = np.array([[1.0, 2.0], [2.0, np.nan], [3.0, 4.0]])
    parts = {"valid": (target + 0.1, target), "test": (target - 0.1, target)}
    answers.parity(parts, tmp_path / "p.png", targets=["logS", "Tm"], units=["", "K"], note="R² 0.9")
    assert is_png(tmp_path / "p.png")
    assert seen == [("logS measured", "logS predicted"), ("Tm measured (K)", "Tm predicted (K)")]


@pytest.mark.parametrize("targets", [1, 2, 4, 12])
def test_parity_of_any_number_of_targets(tmp_path: Path, targets: int) -> None:
    target = np.full((3, targets), 2.0)
    answers.parity({"test": (target, target)}, tmp_path / "p.png", targets=[f"t{i}" for i in range(targets)])
    assert is_png(tmp_path / "p.png")


def test_predictions_of_a_diverged_training_are_left_out(tmp_path: Path) -> None:
    target = np.ones((3, 1))
    answers.parity({"test": (np.array([[np.nan], [np.inf], [1.0]]), target)}, tmp_path / "p.png", targets=["y"])
    answers.parity({"test": (np.full((3, 1), np.nan), target)}, tmp_path / "q.png", targets=["y"])
    assert is_png(tmp_path / "p.png")
    assert is_png(tmp_path / "q.png")


def drawn(draw: Callable[..., None], *args: object, **options: object) -> str:
    """What a stream gets, with text as text."""
    stream = io.BytesIO()
    with rc_context({"svg.fonttype": "none"}):
        draw(*args, stream, **options)
    return stream.getvalue().decode()


def test_a_stream_gets_the_same_svg_every_time() -> None:
    first, second = (drawn(curves.curves, HISTORY, metric="r2", label="R²", best_epoch=4) for _ in range(2))
    assert first == second
    assert "best: 0.400 at epoch 5" in first


def test_panels_stand_in_as_many_columns_as_asked() -> None:
    def size(columns: int) -> tuple[float, float]:
        text = drawn(curves.curves_of_runs, {"a": [HISTORY], "b": [HISTORY, HISTORY[:2]]}, metric="r2", columns=columns)
        width, height = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text).groups()
        return float(width), float(height)

    assert size(3)[0] == pytest.approx(3 * size(1)[0])
    assert size(1)[1] == pytest.approx(3 * size(3)[1])


def test_areas_are_told_and_a_target_of_one_class_is_left_out() -> None:
    target = np.array([[0, 1], [1, 1], [0, 1], [1, 1.0]])
    scored = np.array([[0.1, 0.5], [0.9, 0.5], [0.95, 0.5], [0.8, 0.5]])
    text = drawn(answers.roc, {"test": (scored, target)}, targets=["toxic", "active"])
    assert "toxic: 0.500" in text
    assert "active" not in text
    text = drawn(answers.precision_recall, {"test": (scored, target)}, targets=["toxic", "active"])
    assert "toxic (50% positive): 0.583" in text  # hits at ranks 2 and 3: (1/2 + 2/3) / 2


def test_many_targets_are_told_by_their_mean() -> None:
    random = np.random.default_rng(0)
    target = (random.random((40, 20)) < 0.5).astype(float)
    text = drawn(answers.roc, {"test": (target, target)}, targets=[f"t{i}" for i in range(20)])
    assert "their mean: 1.000" in text
    assert "t7" not in text


def test_confusion_counts_and_residuals_bias() -> None:
    text = drawn(answers.confusion, np.array([[31, 2], [0, 17]]))
    assert all(f">{number}<" in text for number in (31, 2, 0, 17))
    target = np.array([[1.0], [2.0], [4.0], [np.nan]])
    text = drawn(answers.residuals, target + 0.25, target, targets=["Tm"], units=["K"])
    assert "mean +0.25" in text
    assert "error of Tm, predicted − measured (K)" in text


def test_classes_with_names_are_told_by_them() -> None:
    text = drawn(answers.confusion, np.array([[31, 2], [0, 17]]), names=["mitosis", "a name that is far too long"])
    assert ">mitosis<" in text
    assert ">a name that i…<" in text
    scored, target = np.eye(3)[[0, 1, 2, 1]], np.array([0, 1, 2, 1])
    assert "class 1: 1.000" in drawn(answers.roc, {"test": (scored, target)}, targets=["class"])
    text = drawn(answers.roc, {"test": (scored, target)}, targets=["a", "b", "c"])
    assert "b: 1.000" in text
    assert "class" not in text.partition("area under curve")[2]
    text = drawn(answers.roc, {"test": (scored[:, :2], target % 2)}, targets=["healthy", "ill"])
    assert "ill: " in text
    assert "healthy" not in text


def test_reliability_and_intervals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = labels_of(monkeypatch)
    bins = np.array([0.2, 0.8]), np.array([0.1, 0.9]), np.array([5, 7])
    answers.reliability(*bins, tmp_path / "r.png", labels=("predicted probability", "share of positives"))
    answers.intervals([("a", 0.5, 0.4, 0.6, []), ("b", 0.7, 0.6, 0.8, [0.6, 0.8])], tmp_path / "i.png", label="test R²")
    assert is_png(tmp_path / "r.png")
    assert seen == [("", "share of positives"), ("predicted probability", "predictions"), ("test R²", "")]


def test_roc_of_targets_and_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = labels_of(monkeypatch)
    random = np.random.default_rng(0)
    target = np.array([[0, 1], [1, np.nan], [0, 0], [1, 1.0]])
    answers.roc({"test": (random.random((4, 2)), target)}, tmp_path / "b.png", targets=["toxic", "mutagenic"])
    answers.roc({"test": (random.random((4, 3)), np.array([0, 1, 2, 1]))}, tmp_path / "m.png", targets=["class"])
    assert is_png(tmp_path / "b.png")
    assert is_png(tmp_path / "m.png")
    assert seen == [("false positive rate", "true positive rate")] * 2


# What eyes with two kinds of cones see, in linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
EYES = {
    "three kinds of cones": np.eye(3),
    "no long ones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no middle ones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no short ones": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D65."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("colours", [style.CYCLE, tuple(style.COLOURS.values())])
def test_colours_can_be_seen_and_told_apart(colours: tuple[str, ...]) -> None:
    for colour in colours:  # WCAG 2.2, 1.4.11: 3 to 1 against white
        assert 1.05 / (linear(colour) @ [0.2126, 0.7152, 0.0722] + 0.05) >= 3, colour
    for name, eyes in EYES.items():
        for first, second in combinations(colours, 2):
            distance = np.linalg.norm(lab(eyes @ linear(first)) - lab(eyes @ linear(second)))
            assert distance > 10, (name, first, second)
