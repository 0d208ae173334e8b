import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

from plstm_graph.config.models import ModelConfig
from plstm_graph.errors import ConfigError
from plstm_graph.train.config import (
    TrainConfig,
    config_hash,
    differences,
    from_dict,
    override,
    read_toml,
    to_dict,
    write_toml,
)
from plstm_graph.train.defaults import default_config


def test_a_config_survives_toml(tmp_path: Path) -> None:
    config = override(TrainConfig(), {"targets": "y,z", "lr": "3e-4", "model.width": "32", "split_seed": 42})
    write_toml(config, tmp_path / "config.toml")
    assert from_dict(read_toml(tmp_path / "config.toml")) == config
    assert tomllib.loads((tmp_path / "config.toml").read_text())["model"]["width"] == 32
    assert from_dict(to_dict(TrainConfig())) == TrainConfig()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("epochs", "7", 7),
        ("lr", "1e-2", 0.01),
        ("lr", 1, 1.0),
        ("root", "none", None),
        ("split_seed", "42", 42),
        ("targets", "a, b", ("a", "b")),
        ("targets", ["a"], ("a",)),
        ("devices", 2, "2"),
        ("model.degrees", "true", True),
        ("model.degrees", "no", False),
    ],
)
def test_text_is_typed_by_its_field(key: str, text: object, value: object) -> None:
    config = override(TrainConfig(), {key: text})
    found = getattr(config.model, key.removeprefix("model.")) if "." in key else getattr(config, key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.widht": "3"}, "did you mean 'model.width'"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"width": 3}, "did you mean 'model.width'"),
        ({"modes": "D"}, "did you mean 'model.modes'"),
        ({"epochs": "many"}, "epochs must be a whole number .got 'many'."),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"lr": "fast"}, "lr must be a finite number"),
        ({"model.degrees": "perhaps"}, "must be true or false"),
        ({"data": 1.5}, "data must be text"),
        ({"epochs": 0}, "epochs must be at least 1 .got 0."),
        ({"lr": 0}, "lr must be above 0"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(TrainConfig(), values)


def test_toml_slips(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read config file"):
        read_toml(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_toml(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match="model must be a table"):
        from_dict({"model": "gin"})


def test_differences_and_hash_do_not_depend_on_the_folder() -> None:
    first = TrainConfig(out="a")
    second = override(first, {"out": "b"})
    assert differences(second, first) == []
    assert config_hash(second) == config_hash(first)
    third = override(first, {"epochs": 3, "model.layers": 1})
    assert differences(third, first) == ["epochs is 60, not 3", "model.layers is 4, not 1"]
    assert config_hash(third) != config_hash(first)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr", "inf", "lr must be a finite number"),
        ("lr", 10**400, "lr must be a finite number"),
        ("clip", "nan", "clip must be a finite number"),
        ("seed", str(2**32), "seed must be at most 4294967295"),
        ("split_seed", "-1", "split_seed must be at least 0"),
        ("model.width", "0", "model.width must be at least 1"),
        ("model.layers", "-1", "model.layers must be at least 0"),
        ("model.rwse", "-1", "model.rwse must be at least 0"),
        ("model.lap_pe", "-1", "model.lap_pe must be at least 0"),
        ("model.test_orientations", "0", "model.test_orientations must be at least 1"),
        ("model.head_layers", "0", "model.head_layers must be at least 1"),
        ("model.expansion", "-1", "model.expansion must be at least 0"),
        ("model.dropout", "1", "model.dropout must be at least 0 and below 1"),
        ("model.pooling", "mean+sum+mean", "names one read-out twice"),
    ],
)
def test_numbers_out_of_range_are_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(TrainConfig(), {key: value})


def test_numbers_of_a_program_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"model\.trees must be at least 1"):
        override(TrainConfig(), {"model.model": "fingerprint", "model.trees": "0"})
    with pytest.raises(ConfigError, match="weight_decay must be at least 0"):
        TrainConfig(weight_decay=math.nan)
    with pytest.raises(ConfigError, match="dropout must be at least 0 and below 1"):
        ModelConfig(dropout=math.nan)
    with pytest.raises(ConfigError, match="degrees needs an even width"):
        ModelConfig(degrees=True, width=7)


@pytest.mark.parametrize(("value", "meant"), [(True, True), ("No", False), (0, False), (1, True), ("true", True)])
def test_yes_and_no(value: Any, meant: bool) -> None:
    assert override(TrainConfig(), {"model.degrees": value}).model.degrees is meant


@pytest.mark.parametrize("value", [2, 0.5, "maybe", [], {}])
def test_neither_yes_nor_no(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"model.degrees must be true or false"):
        override(TrainConfig(), {"model.degrees": value})


@pytest.mark.parametrize(
    ("data", "model", "virtual_node"),
    [
        ("nav17", None, True),
        ("ogbg-molhiv", "plstm", True),
        ("ESOL", None, True),
        ("my.csv", None, True),
        ("folder/new.sdf.gz", None, True),
        ("nav17", "gine", False),
        ("MUTAG", None, False),
        ("carry", None, False),
        ("molhiv.pt", None, False),
        ("aig:some.folder", None, False),
    ],
)
def test_molecules_get_a_virtual_node_from_plstm(data: str, model: str | None, virtual_node: bool) -> None:
    config = default_config(data, model)
    assert (config.data, config.model.virtual_node) == (data, virtual_node)
    assert config.model.model == "plstm"  # the name that is given is still to be set
