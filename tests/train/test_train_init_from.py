"""Fine-tuning: what a training takes over from another, and what it does not; and scores of each target."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import small_config, write_csv

from plstm_graph.errors import CheckpointError
from plstm_graph.train import train
from plstm_graph.train.inference.restored import restore

STILL = {"lr": 1e-12, "weight_decay": 0.0, "epochs": 1}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    train(small_config(out=folder / "run", data=write_csv(folder / "small.csv"), targets="y,z", epochs=2))
    return folder / "run"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in restore(run)[0].model.named_parameters()}


def run_from(first: Path, out: Path, **values: object) -> dict[str, torch.Tensor]:
    train(small_config(out=out, data=first.parent / "small.csv", init_from=first, **STILL | values))
    return weights(out)


def test_the_same_question_takes_all_weights(first: Path, tmp_path: Path) -> None:
    found = run_from(first, tmp_path / "run", targets="y,z", seed=5)
    for name, value in weights(first).items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def test_another_question_takes_all_but_the_last_layers(first: Path, tmp_path: Path, caplog: Any) -> None:
    found = run_from(first, tmp_path / "run", targets="y,z", seed=5)
    assert "taken over" not in caplog.text
    found = run_from(first, tmp_path / "other", targets="y", seed=5)
    whole = sum(value.numel() for value in restore(first)[0].model.state_dict().values())
    head = sum(value.numel() for name, value in weights(first).items() if name.startswith("head."))
    assert f"{whole - head:,} of {whole:,} numbers of {first} are taken over; all others begin anew" in caplog.text
    for name, value in weights(first).items():
        if name.startswith("head."):
            assert found[name].shape != value.shape
        else:
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def test_resumed_it_does_not_begin_again(first: Path, tmp_path: Path) -> None:
    moved = small_config(out=tmp_path / "run", data=first.parent / "small.csv", targets="y,z", init_from=first)
    want = train(moved)["test"]
    (tmp_path / "run" / "metrics.json").unlink()
    assert train(moved, resume=True)["test"] == want


def test_nothing_in_common_is_told(first: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"only .* have the name and shape"):
        run_from(first, tmp_path / "run", targets="y", model_width=12)
    assert not (tmp_path / "run").exists()


def test_of_an_ensemble_a_member_is_taken(first: Path, tmp_path: Path) -> None:
    several = tmp_path / "several"
    train(small_config(out=several, data=first.parent / "small.csv", targets="y,z", ensemble=2, epochs=1))
    with pytest.raises(CheckpointError, match="holds several networks; give one of them, in the folder members"):
        train(small_config(data=first.parent / "small.csv", targets="y,z", init_from=several))
    train(small_config(data=first.parent / "small.csv", targets="y,z", init_from=several / "members" / "1"))


def test_scores_of_each_target(first: Path) -> None:
    found = json.loads((first / "metrics.json").read_text())
    assert set(found["by_target"]) == {"y", "z"}
    mean = sum(scores["test"]["r2"] for scores in found["by_target"].values()) / 2
    assert mean == pytest.approx(found["test"]["r2"])
    assert all({"rmse", "mae"} <= set(scores["valid"]) for scores in found["by_target"].values())
    assert "rmse" not in found["test"]  # a mean over the units of y and z


def test_scores_of_each_target_on_further_data(first: Path) -> None:
    data = str(first.parent / "small.csv")
    found = train(small_config(data=data, targets="y,z", also=data, epochs=1))
    for scores in found["by_target"].values():
        assert scores[data] == scores["test"]
