"""Calibration by hand."""

import math

import pytest
import torch

from plstm_graph.tasks import Binary, Multiclass, Regression
from plstm_graph.tasks.calibration import factor, of_chances, of_spreads

NAN = math.nan


def test_chances_by_hand():
    # The bin from .8 holds .85 (true), that from .9 .95 (false), .05 the lowest (false); the last is not known.
    found = of_chances(torch.tensor([0.85, 0.95, 0.05, 0.5]), torch.tensor([1.0, 0, 0, NAN]))
    assert found["ece"] == pytest.approx((0.15 + 0.95 + 0.05) / 3)
    assert found["brier"] == pytest.approx((0.0225 + 0.9025 + 0.0025) / 3)
    # Two in one bin make up for each other, but not in the Brier score.
    together = of_chances(torch.tensor([0.55, 0.55]), torch.tensor([1.0, 0.0]))
    assert together["ece"] == pytest.approx(0.05)
    assert of_chances(torch.tensor([1.0]), torch.tensor([1.0])) == {"ece": 0.0, "brier": 0.0}


def test_spreads_by_hand():
    value, spread = torch.tensor([[0.0], [0.0], [0.0], [0.0]]), torch.tensor([[1.0], [1.0], [2.0], [9.0]])
    label = torch.tensor([[0.5], [1.5], [6.0], [NAN]])
    found = of_spreads(value, spread, label)
    assert found["within_1"] == pytest.approx(1 / 3)
    assert found["within_2"] == pytest.approx(2 / 3)
    want = ((0.25 + 2.25 + 9) / 2 + math.log(2)) / 3 + math.log(2 * math.pi) / 2
    assert found["nll"] == pytest.approx(want)
    assert found["spearman"] == pytest.approx(3**0.5 / 2)  # ranks 1 2 3 against 1.5 1.5 3


def test_the_factor_makes_errors_as_large_as_spreads_say():
    torch.manual_seed(0)
    spread = torch.rand(4000, 2) + 0.1
    label = torch.randn(4000, 2) * spread * torch.tensor([3.0, 0.5])
    label[0] = NAN
    found = factor(torch.zeros(4000, 2), spread, label)
    torch.testing.assert_close(found, torch.tensor([3.0, 0.5]), rtol=0.05, atol=0)
    assert of_spreads(torch.zeros(4000, 2), spread * found, label)["within_1"] == pytest.approx(0.683, abs=0.02)
    assert factor(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1)).tolist() == [1.0]


def test_tasks_say_what_they_can():
    assert Regression(("y",)).calibration(torch.zeros(1, 1), torch.zeros(1, 1)) == {}
    assert Binary(("y",)).calibration(torch.tensor([[0.25]]), torch.tensor([[0.0]]))["ece"] == 0.25
    found = Multiclass(("c",), classes=2).calibration(torch.tensor([[0.25, 0.75]]), torch.tensor([1]))
    assert found == {"ece": 0.25, "brier": 0.0625}
