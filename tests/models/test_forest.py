"""The forest: scikit-learn's answers from plain arrays, and the same folder, checkpoint and commands as a network."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import molecules, small_config, small_dataset, three_classes
from torch_geometric.data import Batch, Data

from plstm_graph.config.architectures import FINGERPRINT
from plstm_graph.config.models import ForestConfig, ModelConfig
from plstm_graph.data import GraphDataset, fingerprints
from plstm_graph.data.dataset import MOLECULE
from plstm_graph.errors import CheckpointError, ConfigError, DataError
from plstm_graph.models.forest import Forest
from plstm_graph.tasks import Regression
from plstm_graph.train import evaluate, predict, train
from plstm_graph.train.data import labels
from plstm_graph.train.inference.explained import explain
from plstm_graph.train.inference.portable import export

TREES = 7
CONFIG = ForestConfig(trees=TREES, bits=256)


def grown(dataset: GraphDataset, config: ModelConfig = CONFIG) -> Forest:
    return Forest(config, MOLECULE, dataset.task).fit(dataset.graphs, seed=3)


def sklearns(dataset: GraphDataset, config: ModelConfig = CONFIG, column: int | None = None) -> np.ndarray:
    """What a forest of scikit-learn says of all graphs: values, or probabilities of all classes."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    smiles, target = [graph.smiles for graph in dataset.graphs], labels(dataset.graphs)
    features = fingerprints(smiles, config.radius, config.bits, counts=config.counts, kind=config.fingerprint)
    target = target if column is None else target[:, column]
    known = ~target.isnan().numpy()
    make = RandomForestRegressor if not dataset.task.chances else RandomForestClassifier
    how: dict[str, Any] = {"min_samples_leaf": config.min_samples_leaf}
    how |= {} if config.max_features is None else {"max_features": config.max_features}
    how |= {"criterion": "entropy"} if config.entropy else {}
    how |= {"class_weight": "balanced"} if getattr(dataset.task, "balanced", False) else {}
    model = make(config.trees, **how, random_state=3).fit(features[known], target.numpy()[known])
    return model.predict(features) if not dataset.task.chances else model.predict_proba(features)


def tasks(folder: Path, task: str) -> GraphDataset:
    dataset = small_dataset(folder, "binary" if task == "binary" else "regression", ("y", "z"))
    return three_classes(dataset) if task == "multiclass" else dataset


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_arrays_say_what_scikit_learn_says(tmp_path: Path, task: str, counts: bool) -> None:
    dataset, config = tasks(tmp_path, task), replace(CONFIG, counts=counts)
    if task != "multiclass":
        for graph in dataset.graphs[::4]:
            graph.y[0, 1] = math.nan  # another set of molecules for each target
    forest = grown(dataset, config)
    found = forest(Batch.from_data_list(dataset.graphs))
    if task == "multiclass":
        want, found = sklearns(dataset, config), found.softmax(-1)
    elif task == "binary":
        want, found = np.stack([sklearns(dataset, config, i)[:, 1] for i in range(2)], 1), found.sigmoid()
    else:
        want = np.stack([sklearns(dataset, config, i) for i in range(2)], 1)
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-5, atol=1e-6)
    assert forest(dataset.graphs[0]).shape == (1, want.shape[1])  # one graph is a batch, too


@pytest.mark.parametrize("chosen", [{"fingerprint": "maccs"}, {"fingerprint": "atom-pairs", "counts": True}], ids=str)
@pytest.mark.parametrize(
    "growth", [{}, {"max_features": 0.2}, {"min_samples_leaf": 3}, {"entropy": True}, {"balanced": True}], ids=str
)
def test_other_fingerprints_and_other_growth(tmp_path: Path, chosen: dict[str, Any], growth: dict[str, Any]) -> None:
    dataset = tasks(tmp_path, "binary")
    for graph in dataset.graphs[::3]:
        graph.y[0, 0] = 1  # two classes of other sizes, and no rule
    if balanced := growth.get("balanced"):
        dataset = replace(dataset, task=dataset.task.trained_with(None, balanced))
    config = replace(CONFIG, **chosen, **{name: value for name, value in growth.items() if name != "balanced"})
    found = grown(dataset, config)(Batch.from_data_list(dataset.graphs)).sigmoid()[:, 0]
    np.testing.assert_allclose(found.numpy(), sklearns(dataset, config, 0)[:, 1], rtol=1e-5, atol=1e-6)


def test_what_no_forest_can_read_is_refused() -> None:
    for wrong, text in (
        ({"fingerprint": "ecfp"}, "unknown fingerprint 'ecfp'"),
        ({"fingerprint": "maccs", "counts": True}, "leave counts out"),
        ({"max_features": 0.0}, "above 0"),
        ({"max_features": math.nan}, "above 0"),
        ({"min_samples_leaf": 0}, "at least 1"),
    ):
        with pytest.raises(ConfigError, match=text):
            ForestConfig(**wrong)
    with pytest.raises(ConfigError, match="for classes"):
        Forest(ForestConfig(entropy=True), MOLECULE, Regression(("y",)))


def test_a_class_that_training_never_saw(tmp_path: Path) -> None:
    dataset = tasks(tmp_path, "binary")
    for graph in dataset.graphs:
        graph.y[0, 0], graph.y[0, 1] = 1.0, 0.0
    probability = grown(dataset)(Batch.from_data_list(dataset.graphs)).sigmoid()
    assert (probability == torch.tensor([1.0, 0.0])).all()
    classes = three_classes(dataset)
    for graph in classes.graphs:
        graph.y = 2 * (graph.y > 0)
    assert not grown(classes)(Batch.from_data_list(classes.graphs)).softmax(-1)[:, 1].any()


def test_weights_alone_rebuild_a_forest(tmp_path: Path) -> None:
    dataset = tasks(tmp_path, "regression")
    forest, again = grown(dataset), Forest(CONFIG, MOLECULE, dataset.task)
    again.load_state_dict(forest.state_dict())
    batch = Batch.from_data_list(dataset.graphs)
    assert torch.equal(again(batch), forest(batch))
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_state_dict({"roots": forest.roots})


def as_text(metrics: dict[str, Any]) -> str:
    """As the file has it: not every score of four molecules is defined."""
    return json.dumps(metrics, sort_keys=True).replace("NaN", "null")


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_a_run_of_its_own(tmp_path: Path, task: str) -> None:
    dataset, out = tasks(tmp_path, task), tmp_path / "run"
    config = small_config(model_model=FINGERPRINT, model_trees=TREES, out=out, split="random")
    found = train(config, dataset)
    picture = "parity.png" if task == "regression" else "roc.png"
    assert set(os.listdir(out)) == {
        "metrics.json",
        "config.toml",
        "start.json",
        "card.md",
        "predictions.csv",
        "checkpoints",
        picture,
    }
    assert as_text(json.loads((out / "metrics.json").read_text())) == as_text(found)
    assert found["graphs"] == {"train": 32, "valid": 4, "test": 4}
    assert found["train"][dataset.task.metric] > 0.5
    network = train(small_config(out=tmp_path / "network", epochs=1, split="random"), dataset)
    assert found.keys() == network.keys()
    for part in ("train", "valid", "test"):
        again = evaluate(out, dataset, part=part)
        assert {name: again[name] for name in found[part]} == pytest.approx(found[part], nan_ok=True)
    told = predict(out, [*molecules(3), "C1CC"])
    assert told.columns == (["class", "p_0", "p_1", "p_2"] if task == "multiclass" else ["y", "z"])
    assert told.values[3].isnan().all()
    again = train(replace(config, out=None), dataset)
    assert as_text({**again, "minutes": 0, "date": ""}) == as_text({**found, "minutes": 0, "date": ""})


def test_graphs_without_smiles_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    dataset = tasks(tmp_path, "regression")
    for graph in dataset.graphs:
        del graph.smiles
    with pytest.raises(DataError, match="no SMILES"):
        train(small_config(model_model=FINGERPRINT, out=tmp_path / "run"), dataset)
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="no SMILES"):
        Forest(CONFIG, MOLECULE, Regression(("y",)))(Batch.from_data_list([Data(x=torch.zeros(1, 1))]))


def test_a_target_without_labels_in_training(tmp_path: Path) -> None:
    dataset = tasks(tmp_path, "binary")
    for graph in dataset.graphs:
        graph.y[0, 1] = math.nan
    with pytest.raises(DataError, match="target number 1 has no label"):
        grown(dataset)


def test_what_needs_a_network_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no loss to choose"):
        train(small_config(model_model=FINGERPRINT, loss="mae"), small_dataset(tmp_path))
    with pytest.raises(ConfigError, match=r"unknown option 'model\.layers'; choose one of model.model, model.trees"):
        small_config(model_model=FINGERPRINT, model_layers=99)
    train(small_config(model_model=FINGERPRINT, model_trees=2, out=tmp_path / "run"), small_dataset(tmp_path))
    with pytest.raises(CheckpointError, match="holds a forest of fingerprints, no network; use predict or evaluate"):
        explain(tmp_path / "run", "CCO")
    with pytest.raises(CheckpointError, match="holds a forest of fingerprints, no network; use predict or evaluate"):
        export(tmp_path / "run", tmp_path / "x.pt2")
