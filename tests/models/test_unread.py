"""Options that a network does not read are refused where they are asked for, and nowhere else."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from small_runs import invoke, molecules, small_config, small_dataset, write_csv
from torch_geometric.data import Batch

from plstm_graph import MoleculeRegressor
from plstm_graph.config.architectures import MODELS, NETWORKS, architecture, check_read
from plstm_graph.config.models import ModelConfig, VisionConfig
from plstm_graph.data import smiles_to_data
from plstm_graph.data.dataset import MOLECULE
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import ConfigError
from plstm_graph.tasks import Multiclass, Regression
from plstm_graph.train import predict, train
from plstm_graph.train.config import from_dict, override, to_dict, write_toml
from plstm_graph.train.defaults import default_config
from plstm_graph.train.searching import read_space

READ: set[str] = set()


class Watched:
    """Keeps in ``READ`` which of its fields are read."""

    def __getattribute__(self, name: str) -> Any:
        READ.add(name)
        return super().__getattribute__(name)


@dataclass(frozen=True)
class WatchedGraph(Watched, ModelConfig):
    """A config of a network of graphs."""


@dataclass(frozen=True)
class WatchedVision(Watched, VisionConfig):
    """A config of a network of images."""


@pytest.fixture(autouse=True)
def nothing_read() -> Iterator[None]:
    yield
    READ.clear()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_graphs_reads_what_its_entry_says(name: str) -> None:
    config = WatchedGraph(model=name, width=16, layers=2, heads=4, rwse=2)
    graphs = add_encodings([smiles_to_data(text) for text in ("CCO", "c1ccccc1")], config)
    READ.clear()
    model = MODELS[name].made(config, MOLECULE, Regression(("y",))).eval()
    model(Batch.from_data_list(graphs))
    own = {item.name for item in fields(ModelConfig)}
    told = architecture(name).reads
    if name == "gin-virtual":  # a copy of its config with a virtual node, for which all are read
        assert told == architecture("gine").reads
        return
    to_refuse = {"both_ways", "virtual_node", "jk"} - told
    every = {"model", "test_orientations"}  # its range is every model's to check
    assert READ & own - every - to_refuse == told - every
    assert ("test_orientations" in told) == architecture(name).oriented


@pytest.mark.parametrize("name", [name for name, kind in MODELS.items() if kind.config is VisionConfig])
def test_a_network_of_images_reads_what_its_entry_says(name: str) -> None:
    if name == "efficientnet":
        pytest.importorskip("torchvision")
    config = WatchedVision(model=name, layers=1, patch_size=4)
    READ.clear()
    MODELS[name].made(config, FeatureSpec(image=(1, 8, 8)), Multiclass(("y",), classes=3))
    assert READ & {item.name for item in fields(VisionConfig)} - {"model"} == architecture(name).reads


SAID = "model 'gine' does not read model.modes; leave it out, or choose a model that does: plstm"


def test_the_command_line_refuses_them(tmp_path: Path) -> None:
    words = ["--data", write_csv(tmp_path / "own.csv"), "--targets", "y", "--model", "gine", "--out", tmp_path / "run"]
    file = tmp_path / "own.toml"
    file.write_text('[model]\nmodes = "P"\n')
    for more in (["--modes", "P"], ["--set", "model.modes=P"], ["--config", file]):
        found = invoke(*words, *more)
        assert (found.exit_code, SAID in " ".join(found.stderr.split())) == (2, True), (more, found.output)
        assert not (tmp_path / "run").exists()
    space = tmp_path / "space.toml"
    space.write_text('[model]\nmodes = ["P", "D"]\n')
    with pytest.raises(ConfigError, match=r"does not read model\.modes"):
        read_space(space, small_config(model_model="gine"))


def test_a_default_is_no_choice(tmp_path: Path) -> None:
    """Not the class's, nor that of the data, nor what the run in a folder has."""
    usual = default_config("carry", "gine")
    gine = override(usual, {"model.model": "gine"})
    assert gine.model.local == "none"
    every = [item.name for item in fields(ModelConfig)]
    check_read(gine.model, every, gine.model)
    check_read(override(gine, {"model.local": "gine"}).model, ["local"], gine.model)
    with pytest.raises(ConfigError, match=r"does not read model\.local"):
        check_read(override(gine, {"model.local": "gcn"}).model, ["local"], gine.model)
    write_toml(gine, tmp_path / "carry.toml")
    found = invoke("--config", tmp_path / "carry.toml", "--out", tmp_path / "run", "--set", "epochs=0")
    assert "epochs must be" in found.stderr  # and not the options of pLSTM that are in the file


def test_what_is_stored_is_read(tmp_path: Path) -> None:
    """A run that was made with an option that its network does not read goes on and answers."""
    config = small_config(model_model="gine", model_modes="P", epochs=1, out=tmp_path / "run")
    assert from_dict(to_dict(config)) == config
    train(config, small_dataset(tmp_path))
    assert predict(tmp_path / "run", ["CCO"]).values.isfinite().all()
    assert MoleculeRegressor.load(tmp_path / "run").predict(["CCO"]).shape == (1,)


def test_estimators_refuse_them() -> None:
    given = {"epochs": 1, "model": "gine", "options": {"model.modes": "P"}}
    texts = molecules(8)
    with pytest.raises(ConfigError, match=SAID):
        MoleculeRegressor(**given).fit(texts, list(map(len, texts)))
    with pytest.raises(ConfigError, match=f"MoleculeRegressor has no parameter 'modes'; {SAID}"):
        MoleculeRegressor(model="gine", modes="P")
