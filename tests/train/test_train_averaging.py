"""A moving average of the weights: what is validated, stored and tested, and what training goes on with."""

import csv
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from small_runs import small_config, small_dataset
from torch import Tensor

from plstm_graph.errors import ConfigError
from plstm_graph.train import evaluate, train
from plstm_graph.train.checkpoint import read

DECAY = 0.9


class ByHand(Callback):
    """The average in float64, and what each epoch ends with."""

    def __init__(self) -> None:
        self.average: dict[str, Tensor] = {}
        self.epochs: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        self.places: set[tuple[int, ...]] = set()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        for name, now in pl_module.state_dict().items():
            now = now.detach().clone()
            wide = now.double() if now.is_floating_point() else now
            before = self.average.get(name, wide)
            self.average[name] = DECAY * before + (1 - DECAY) * wide if now.is_floating_point() else now

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        weights = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
        self.epochs.append((dict(self.average), weights))
        self.places.add(tuple(weight.data_ptr() for weight in pl_module.parameters()))


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.allclose(value.double(), second[name].double(), atol=1e-6) for name, value in first.items())


def test_what_is_stored_validated_and_tested_is_the_average(tmp_path: Path) -> None:
    dataset, hand = small_dataset(tmp_path), ByHand()
    config = small_config(out=tmp_path / "run", ema=DECAY, model_norm="batch", model_rwse=4)
    found = train(config, dataset, callbacks=[hand])
    best, last = (read(tmp_path / "run" / "checkpoints" / name) for name in ("best.ckpt", "last.ckpt"))
    average, weights = hand.epochs[-1]
    assert same(last["state_dict"], average)
    assert same(last["current_model_state"], weights)
    assert not same(average, weights)
    assert same(best["state_dict"], hand.epochs[found["best_epoch"] - 1][0])
    for part in ("valid", "test"):  # read from the file
        scores = evaluate(tmp_path / "run", dataset, part=part)
        assert {name: scores[name] for name in found[part]} == pytest.approx(found[part])
    with (tmp_path / "run" / "metrics.csv").open() as stream:
        validated = [float(row["valid_r2"]) for row in csv.DictReader(stream)]
    assert max(validated) == pytest.approx(found["valid"]["r2"])


def test_training_itself_is_left_alone(tmp_path: Path) -> None:
    """The weights that go on are those of a run without an average, and lie where they lay, as CUDA graphs need them;
    without a folder the best average answers, too."""
    dataset, seen = small_dataset(tmp_path), []
    for ema in (None, DECAY):
        hand = ByHand()
        found = train(small_config(ema=ema, model_norm="batch"), dataset, callbacks=[hand])
        seen.append((hand.epochs[-1][1], found))
        assert len(hand.places) == 1
    (plain, without), (averaged, with_average) = seen
    assert all(torch.equal(value, averaged[name]) for name, value in plain.items())
    assert without["valid"] != with_average["valid"]
    stored = train(small_config(ema=DECAY, model_norm="batch", out=tmp_path / "run"), dataset)
    assert (stored["valid"], stored["test"]) == (with_average["valid"], with_average["test"])


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match="ema must be between 0 and 1"):
        small_config(ema=decay)


def test_in_double_precision_with_encodings(tmp_path: Path) -> None:
    """What is in the data is in single, the average as wide as the weights."""
    train(small_config(out=tmp_path / "run", precision="64-true", ema=DECAY, model_rwse=4), small_dataset(tmp_path))
    state = read(tmp_path / "run" / "checkpoints" / "best.ckpt")["state_dict"]
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float64}
