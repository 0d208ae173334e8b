"""Options that have no effect because of others are refused before a run; defaults of data sets are not."""

from pathlib import Path
from typing import Any

import pytest
from small_runs import invoke, small_config, write_csv

from plstm_graph.cli.train import _config
from plstm_graph.errors import ConfigError
from plstm_graph.train import train
from plstm_graph.train.config import override
from plstm_graph.train.defaults import default_config
from plstm_graph.train.unused import check_unused

FOREST = {"model_model": "fingerprint"}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            FOREST | {"descriptors": "rdkit2d"},
            "descriptors has no effect .*'fingerprint', which is no network",
        ),
        (FOREST | {"init_from": "runs/other"}, "init_from has no effect"),
        (FOREST | {"ema": 0.9}, "ema has no effect"),
        (FOREST | {"model_fingerprint": "maccs", "model_radius": 3}, "model.radius .* only those of Morgan have one"),
        (FOREST | {"model_fingerprint": "maccs", "model_bits": 100}, "model.bits .* whose keys are 167"),
        ({"model_model": "gine", "source_decay": 1.0}, "source_decay has no effect with model 'gine', .* no sources"),
        ({"model_test_orientations": 8}, "model.test_orientations has no effect with order 'canonical'"),
        ({"split": "time", "split_column": "y", "split_seed": 1}, "split 'time' is the same for every seed"),
        ({"split": "column", "split_column": "y", "split_seed": 1, "fold": 1}, "has no folds"),
        ({"ensemble": 2, "devices": "2"}, "networks of an ensemble have one device each; leave --devices"),
    ],
)
def test_what_has_no_effect_is_refused(tmp_path: Path, given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        train(small_config(data=write_csv(tmp_path / "a.csv"), targets="y", epochs=1, **given))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"model.size": "base"}, "model.size has no effect beside model.width=64 and model.heads=4"),
        ({"model.modes": "D", "model.p_mode": "P-code"}, "model.p_mode has no effect with modes 'D' .* of P mode"),
        (
            {"model.layers": 1, "model.chirality": "left"},
            "model.chirality .* modes 'PD' in 1 layers: none is of D mode",
        ),
    ],
)
def test_what_has_no_effect_on_images_is_refused(given: dict[str, Any], text: str) -> None:
    usual = default_config("digits")
    check_unused(
        override(usual, {"model.modes": "D", "model.chirality": "left", "model.size": "base", "model.heads": 0})
    )
    with pytest.raises(ConfigError, match=text):
        check_unused(override(usual, given))


def test_a_size_that_is_asked_for_is_not_that_of_the_data() -> None:
    """Sets of images have a width and heads of their own, beside which a size is nothing."""
    for data, asked, found in (
        ("digits", {"model.size": "base"}, ("base", 0, 0)),
        ("arrow", {"model.size": "base"}, ("base", 0, 0)),
        ("digits", {"model.size": "base", "model.heads": 2}, ("base", 0, 2)),
        ("digits", {"model.layers": 2}, ("tiny", 64, 4)),
    ):
        chosen, _ = _config(None, {"data": data} | asked, None, False, None, None)
        assert (chosen.model.size, chosen.model.width, chosen.model.heads) == found


def test_what_has_one_is_not() -> None:
    for given in (FOREST | {"model_radius": 3}, {"model_order": "random", "model_test_orientations": 8}):
        check_unused(small_config(**given))
    usual = default_config("transfer-line")
    assert usual.source_decay > 0
    check_unused(override(usual, {"model.model": "gine"}))  # nobody asked for it


def test_a_warm_up_that_outlasts_the_training_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_csv(tmp_path / "a.csv")
    train(small_config(data=data, targets="y", epochs=2, warmup_epochs=2))
    assert "learning rate" not in caplog.text
    train(small_config(data=data, targets="y", epochs=2, warmup_epochs=5, lr=0.002))
    assert "grows to 0.002 over 5 epochs, and the training ends after 2" in caplog.text


def test_jobs_are_for_several_runs(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "a.csv")
    found = invoke("--data", data, "--targets", "y", "--out", tmp_path / "run", "--jobs", 2)
    assert found.exit_code == 2
    assert "--jobs is for runs of a series" in found.stderr
