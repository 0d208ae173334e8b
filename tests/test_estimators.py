"""Estimators of scikit-learn: their own checks, searches, and checkpoints of the command line."""

import inspect
import pickle
import re
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, validate_data
from small_runs import molecules, small_config, write_csv
from torch_geometric.data import Data

from plstm_graph import MoleculeClassifier, MoleculeRegressor
from plstm_graph.errors import CheckpointError, ConfigError, DataError
from plstm_graph.estimators.base import OF_FILES, OF_SPLITS
from plstm_graph.estimators.inputs import held_out
from plstm_graph.tasks import Binary
from plstm_graph.train import embed, predict, train
from plstm_graph.train.inference.restored import restore

SMALL: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 64,
    "width": 4,
    "layers": 1,
    "device": "cpu",
    "options": {"model.heads": 2, "model.rwse": 0, "model.head_layers": 1},
}
SMILES = molecules(24)
SIZES = [float(len(text)) for text in SMILES]
AROMATIC = ["ring" if "c" in text else "chain" for text in SMILES]


class _OfNumbers:
    """scikit-learn's checks give tables of numbers, which become molecules here; nothing else is changed."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        for kind in (tags.classifier_tags, tags.regressor_tags):
            if kind is not None:
                kind.poor_score = True  # after one epoch
        return tags

    def _molecules(self, X: Any, **how: Any) -> list[str]:
        if isinstance(X, list) and isinstance(X[0], str):  # a method of ours that calls another
            return X
        X = validate_data(self, X, dtype=np.float64, **how)
        steps = np.abs(np.rint(4 * X[:, 0])).astype(int) % 40, np.abs(np.rint(X[:, -1])).astype(int) % 4
        return ["C" * (1 + length) + "NOFS"[kind] for length, kind in zip(*steps, strict=True)]

    def fit(self, X: Any, y: Any) -> Any:
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        return super().fit(self._molecules(X), y)  # type: ignore[misc]


def _answered(name: str) -> Any:
    def method(self: Any, X: Any) -> Any:
        check_is_fitted(self, "learner_")
        return getattr(super(_OfNumbers, self), name)(self._molecules(X, reset=False))

    return method


class RegressorOfNumbers(_OfNumbers, MoleculeRegressor):
    predict, transform = _answered("predict"), _answered("transform")


class ClassifierOfNumbers(_OfNumbers, MoleculeClassifier):
    predict, transform, predict_proba = map(_answered, ("predict", "transform", "predict_proba"))


def checks():
    for kind in (RegressorOfNumbers, ClassifierOfNumbers):
        yield from estimator_checks_generator(kind(**SMALL))


def name(value: Any) -> str:
    """Of a check and its estimator, for the reports of pytest."""
    return getattr(getattr(value, "func", value), "__name__", type(value).__name__)


@pytest.mark.parametrize(("estimator", "check"), list(checks()), ids=name)
def test_scikit_learns_own_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.fixture(scope="module")
def regressor() -> MoleculeRegressor:
    return MoleculeRegressor(**SMALL).fit(SMILES, SIZES)


def test_searches_and_pipelines_take_them(regressor):
    found = GridSearchCV(MoleculeRegressor(**SMALL), {"width": [2, 4]}, cv=2).fit(SMILES, SIZES)
    assert found.best_params_["width"] in (2, 4)
    assert found.predict(np.array(SMILES[:3])).shape == (3,)
    assert cross_val_score(MoleculeClassifier(**SMALL), SMILES, AROMATIC, cv=2).shape == (2,)
    copy = clone(regressor)
    assert copy.get_params() == regressor.get_params()
    assert not hasattr(copy, "learner_")


def test_a_fit_is_a_training_of_the_command_line(tmp_path, regressor):
    """Saved, loaded, pickled, and by the functions behind the commands: the same numbers to the last bit."""
    path = tmp_path / "model.ckpt"
    regressor.save(path)
    expected = regressor.predict(SMILES)
    assert np.array_equal(predict(path, SMILES).values[:, 0].numpy(), expected)
    assert np.array_equal(embed(path, SMILES).values.numpy(), regressor.transform(SMILES))
    for copy in (MoleculeRegressor.load(path, "cpu"), pickle.loads(pickle.dumps(regressor))):
        assert np.array_equal(copy.predict(SMILES), expected)
        assert copy.get_params()["width"] == 4
        assert copy.get_params()["options"] == SMALL["options"]
    with pytest.raises(CheckpointError, match="MoleculeRegressor may load it"):
        MoleculeClassifier.load(path)


@pytest.mark.parametrize("name", ["model.ckpt", "~/of/mine.ckpt"])
def test_a_name_alone_and_the_home_folder_are_places_to_save(tmp_path, monkeypatch, regressor, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    regressor.save(name)
    assert np.array_equal(MoleculeRegressor.load(name, "cpu").predict(SMILES), regressor.predict(SMILES))
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("values", "virtual_node"),
    [({}, True), ({"model": "gine"}, False), ({"options": {"model.virtual_node": False}}, False)],
)
def test_it_begins_with_what_the_command_line_does(values, virtual_node):
    assert MoleculeRegressor(**values)._config(0).model.virtual_node is virtual_node


def test_runs_of_the_command_line_are_loaded(tmp_path):
    config = small_config(
        data=write_csv(tmp_path / "a.csv", task="binary"), targets="y", epochs=1, out=tmp_path / "run"
    )
    train(config)
    found = MoleculeClassifier.load(tmp_path / "run")
    chances = found.predict_proba(SMILES)
    assert np.array_equal(chances[:, 1], predict(tmp_path / "run", SMILES).values[:, 0].double().numpy())
    assert np.array_equal(found.predict(SMILES), (chances[:, 1] > 0.5).astype(int))


def test_names_of_classes_stay(tmp_path):
    found = MoleculeClassifier(**SMALL).fit(SMILES, AROMATIC)
    found.save(tmp_path / "model.ckpt")
    loaded = MoleculeClassifier.load(tmp_path / "model.ckpt")
    assert set(found.predict(SMILES)) <= {"ring", "chain"}
    assert loaded.predict(SMILES).tolist() == found.predict(SMILES).tolist()


def test_what_is_no_molecule_is_said(regressor):
    with pytest.warns(UserWarning, match="1 of 2 molecules are without a prediction: row 2"):
        assert np.isnan(regressor.predict(["CCO", "C1CC"])).tolist() == [False, True]
    with pytest.warns(UserWarning, match="1 of 25 molecules are left out: row 25"):
        found = MoleculeClassifier(**SMALL).fit([*SMILES, "C1CC"], [*AROMATIC, "ring"])
    assert [row.row for row in found.rejected_] == [25]
    with pytest.raises(DataError, match="row 1 is of no class"):
        found.predict(["C1CC"])


def test_an_ensemble_has_a_spread(regressor):
    both = np.stack([SIZES, SIZES]).T
    both[3, 1] = np.nan
    found = MoleculeRegressor(**SMALL, ensemble=2).fit(SMILES, both)
    mean, deviation = found.predict(SMILES[:5], return_std=True)
    assert mean.shape == deviation.shape == (5, 2)
    assert (deviation > 0).all()
    assert found.transform(SMILES[:5]).shape == (5, 8)
    assert list(found.get_feature_names_out())[-1] == "moleculeregressor7"
    with pytest.raises(ConfigError, match="set ensemble=5"):
        regressor.predict(SMILES, return_std=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"modes": "D"}, "has no parameter 'modes'; did you mean options={'model.modes': 'D'}?"),
        ({"model.mode": "D"}, "has no parameter 'model.mode'; did you mean options={'model.modes': 'D'}?"),
        ({"patiense": 5}, "has no parameter 'patiense'; did you mean options={'patience': 5}?"),
        ({"widht": 8}, "has no parameter 'widht'; did you mean width?"),
        ({"seed": 1}, "has no parameter 'seed'; did you mean random_state?"),
        ({"model": "fingerprint", "tree": 9}, "has no parameter 'tree'; did you mean options={'model.trees': 9}?"),
        (
            {"class_weight": "balanced"},
            "has no parameter 'class_weight'; did you mean options={'class_weights': True}?",
        ),
        ({"qqq": 1}, "has no parameter 'qqq'"),
    ],
    ids=str,
)
def test_a_parameter_that_is_none_is_told_with_the_closest(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(f'MoleculeRegressor {message}')}$"):
        MoleculeRegressor(**given)
    assert "options" in inspect.signature(MoleculeRegressor).parameters


@pytest.mark.parametrize("name", OF_FILES)
def test_options_about_files_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"option '{name}' is about files"):
        MoleculeRegressor(**SMALL | {"options": {name: "a"}}).fit(SMILES, SIZES)
    with pytest.raises(ConfigError) as met:
        MoleculeRegressor(**{name: "a"})
    assert f"'{name}':" not in str(met.value)  # nor are they the hint


@pytest.mark.parametrize("name", OF_SPLITS)
def test_no_part_of_X_is_taken_away_to_be_tested(name: str) -> None:
    with pytest.raises(ConfigError, match=f"option '{name}' is about parts"):
        MoleculeRegressor(**SMALL | {"options": {name: 1}}).fit(SMILES, SIZES)
    with pytest.raises(ConfigError) as met:
        MoleculeRegressor(**{name: 1})
    assert f"'{name}':" not in str(met.value)


def test_one_folder_is_not_for_two_fits(tmp_path: Path) -> None:
    found = MoleculeRegressor(**SMALL, out=tmp_path / "run").fit(SMILES, SIZES)
    with pytest.raises(ConfigError, match="is not empty, as where clones of a search share it; name another, or none"):
        clone(found).fit(SMILES, SIZES)


def test_each_of_several_targets_is_yes_or_no() -> None:
    for wrong in (-1.0, 0.5):
        with pytest.raises(DataError, match=f"must be 0 or 1 in each of several targets, .* got {wrong:g}"):
            MoleculeClassifier(**SMALL).fit(SMILES, [[1.0, wrong if size % 2 else np.nan] for size in SIZES])


def test_molecules_are_read_as_asked(tmp_path: Path) -> None:
    train(
        small_config(
            out=tmp_path / "run", data=write_csv(tmp_path / "a.csv"), targets="y", split_seed=3, censored=True, epochs=1
        )
    )
    assert not {*OF_SPLITS, *OF_FILES} & MoleculeRegressor.load(tmp_path / "run").options.keys()
    found = MoleculeRegressor(**SMALL | {"options": SMALL["options"] | {"featuriser": "ogb-molecule"}})
    found.fit(SMILES, SIZES).save(tmp_path / "a.ckpt")
    assert restore(tmp_path / "a.ckpt", "cpu")[1].featuriser == "ogb-molecule"


def test_the_work_of_holding_out_grows_with_the_molecules() -> None:
    """16 times as many take about 16 times as long, and not 256 times."""

    def seconds(count: int) -> float:
        graphs = [Data(y=torch.tensor([[label]])) for label in (0.0, 1.0)] * (count // 2)
        owners = (np.arange(count) // 2).tolist()
        dataset = SimpleNamespace(graphs=graphs, task=Binary(("y",)), molecules=lambda: owners)
        start = time.process_time()
        parts = held_out(dataset, 0.25, 0)  # type: ignore[arg-type]
        taken = time.process_time() - start
        assert sorted(parts["train"] + parts["valid"]) == list(range(count))
        assert not {owners[row] for row in parts["train"]} & {owners[row] for row in parts["valid"]}
        return taken

    few = min(seconds(10_000) for _ in range(3))
    assert seconds(160_000) < 48 * few
