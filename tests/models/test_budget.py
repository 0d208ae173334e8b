"""The width that a number of parameters buys."""

from dataclasses import replace

import pytest
import torch

from plstm_graph.config.architectures import NETWORKS, architecture
from plstm_graph.config.models import ModelConfig, VisionConfig
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import ConfigError
from plstm_graph.models.budget import TOLERANCE, count_parameters, fit_width, parse_budget
from plstm_graph.models.graph import GraphModel

FEATURES = FeatureSpec(node_sizes=(37,), edge_dim=3)
SMALL = ModelConfig(layers=2, heads=4)


@pytest.mark.parametrize(
    ("text", "value"), [("300k", 300_000), ("500000", 500_000), ("1.2M", 1_200_000), ("1,000", 1000), (" 2 K", 2000)]
)
def test_numbers(text: str, value: int) -> None:
    assert parse_budget(text) == value


@pytest.mark.parametrize("text", ["", "k", "many", "-3k", "0", "nan", "inf", "3g"])
def test_no_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 300k"):
        parse_budget(text)


def test_counting_is_building() -> None:
    model = GraphModel(FEATURES, 3, SMALL)
    before = torch.get_rng_state()
    assert count_parameters(FEATURES, 3, SMALL) == sum(weights.numel() for weights in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("budget", ["50k", "300k"])
@pytest.mark.parametrize("model", NETWORKS)
def test_every_model_comes_close(model: str, budget: str) -> None:
    found = fit_width(FEATURES, 1, replace(SMALL, model=model), budget)
    size, wanted = count_parameters(FEATURES, 1, found), parse_budget(budget)
    assert abs(size - wanted) <= TOLERANCE * wanted
    step = found.heads if architecture(model).heads else 1
    for width in (found.width - step, found.width + step):
        assert abs(count_parameters(FEATURES, 1, replace(found, width=width)) - wanted) >= abs(size - wanted)
    assert replace(found, width=SMALL.width, heads=SMALL.heads) == replace(SMALL, model=model)
    GraphModel(FEATURES, 1, found)


def test_heads_are_halved_where_steps_are_too_coarse() -> None:
    config = ModelConfig(heads=8)
    found = fit_width(FEATURES, 1, config, "100k")
    assert (found.heads, found.width % 4) == (4, 0)
    assert fit_width(FEATURES, 1, found, "100k") == found  # as a resumed run asks again


def test_degrees_want_even_widths() -> None:
    for budget in ("40k", "41k", "42k", "43k"):
        found = fit_width(FEATURES, 1, replace(SMALL, model="gcn", degrees=True), budget)
        assert found.width % 2 == 0


def test_too_small() -> None:
    with pytest.raises(ConfigError, match=r"no width gives model 'gps' 50 parameters within 10%.*\(width 2\)"):
        fit_width(FEATURES, 1, replace(SMALL, model="gps", heads=2), "50")
    with pytest.raises(ConfigError, match="at least 1"):
        fit_width(FEATURES, 1, replace(SMALL, heads=0), "50k")


def test_networks_of_images_are_refused():
    with pytest.raises(ConfigError, match="networks of graphs; of 'plstm-vision' choose it by --width"):
        fit_width(FeatureSpec(image=(1, 8, 8)), 10, VisionConfig(), "300k")
