"""Training and prediction as scikit-learn's estimators: lists of SMILES in, arrays of numpy out."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted
from torch.nn.functional import one_hot

from plstm_graph.data.dataset import GraphDataset
from plstm_graph.data.molecules import Rejected
from plstm_graph.data.smiles_files import from_smiles
from plstm_graph.errors import CheckpointError, ConfigError, DataError
from plstm_graph.models.ensemble import Ensemble
from plstm_graph.models.graph import GraphModel
from plstm_graph.tasks import Binary, Multiclass, Regression, Task, score
from plstm_graph.train.checkpoint import META, AtomicCheckpointIO, Meta, read
from plstm_graph.train.config import TrainConfig, flat, override
from plstm_graph.train.folders import locate
from plstm_graph.train.infer import answers, embeddings
from plstm_graph.train.restored import check_reads_molecules, restored
from plstm_graph.train.run import fit

NAME, CLASSES = "molecules", "classes"
"""What the data of an estimator are called; and the key of its classes in a checkpoint."""
TOLD = 3
"""Rows that a warning names."""
FIELDS = {
    "model": "model.model",
    "width": "model.width",
    "layers": "model.layers",
    "dropout": "model.dropout",
    "random_state": "seed",
    "device": "accelerator",
}
"""Where a parameter is not called like its field of :class:`plstm_graph.train.TrainConfig`."""


class _OfMolecules(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What both estimators share; see :class:`MoleculeRegressor`."""

    def __init__(
        self,
        *,
        model: str = "plstm",
        width: int | None = None,
        layers: int | None = None,
        dropout: float | None = None,
        epochs: int = 60,
        batch_size: int = 64,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        metric: str | None = None,
        ensemble: int = 1,
        descriptors: Sequence[str] = (),
        validation_fraction: float = 0.1,
        random_state: Any = 0,
        device: str = "auto",
        out: str | PathLike[str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.width = width
        self.layers = layers
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.metric = metric
        self.ensemble = ensemble
        self.descriptors = descriptors
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device
        self.out = out
        self.options = options

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array = True, True, False
        tags.transformer_tags.preserves_dtype = []  # fingerprints are float32
        tags.target_tags.multi_output = tags.target_tags.required = True
        return tags

    # ------------------------------------------------------------------ training

    def fit(self, X: Any, y: Any) -> Self:
        """Train on molecules ``X`` (SMILES) with labels ``y``; rows that are no molecules are told and left out.

        Args:
            X: n texts, as list, array, or column of a table.
            y: [n] or [n, targets], NaN where there is no label.

        Raises:
            ConfigError, DataError: a parameter, a molecule or a label cannot be used.
        """
        texts, targets = as_texts(X), _names(y)
        labels, asked = self._asked(y, targets)
        if len(labels) != len(texts):
            raise DataError(f"X and y must have as many rows, got {len(texts)} and {len(labels)}")
        dataset = from_smiles(texts, labels.tolist(), asked, NAME, where="X")
        self.rejected_ = dataset.rejected
        _tell(dataset.rejected, len(texts), "left out")
        seed = self._seed()
        dataset.parts = _held_out(dataset, self.validation_fraction, seed)
        dataset.default_split = "official"
        config = self._config(seed)
        if self.metric is None:
            config = override(config, {"metric": _defined(dataset)})
        self.learner_, self.metrics_ = fit(config, dataset.with_descriptors(config.descriptors))
        self.learner_.trainer = None  # its loaders hold the data
        self._told()
        return self

    def _asked(self, y: Any, targets: tuple[str, ...]) -> tuple[np.ndarray, Task]:
        """Labels [n, targets] and the task that they ask."""
        raise NotImplementedError

    def _seed(self) -> int:
        given = self.random_state
        return int(given) if isinstance(given, int | np.integer) else int(check_random_state(given).randint(2**31))

    def _config(self, seed: int) -> TrainConfig:
        given = {FIELDS.get(name, name): getattr(self, name) for name in self._fields()}
        values = {name: value for name, value in given.items() if value is not None} | {"seed": seed}
        return override(TrainConfig(), {"data": NAME, **values, **(self.options or {})})

    def _fields(self) -> list[str]:
        return [name for name in self._get_param_names() if name not in ("validation_fraction", "options")]

    def _told(self) -> None:
        """Attributes that follow from the model."""
        self._one_column = len(self.learner_.task.targets) < 2
        model: Any = self.learner_.model
        members = model.members if isinstance(model, Ensemble) else [model]
        self._n_features_out = sum(member.channels for member in members if isinstance(member, GraphModel))

    # ------------------------------------------------------------------ answers

    @property
    def _meta(self) -> Meta:
        return Meta(**(self.learner_.meta or {}))

    def _answers(self, X: Any) -> tuple[np.ndarray, np.ndarray | None, list[Rejected]]:
        """Answers [n, outputs], their spread over an ensemble, and rows that are no molecules, which have NaN."""
        check_is_fitted(self, "learner_")
        found = answers(self.learner_, self._meta, as_texts(X), batch_size=max(256, self.batch_size))
        task, values = self.learner_.task, found.values.double().numpy()
        first, count = len(task.columns) - len(task.outputs), len(task.outputs)  # the class that was chosen comes first
        spread = values[:, first + count :] if found.columns[len(task.columns) :] else None
        return values[:, first : first + count], spread, found.rejected

    def transform(self, X: Any) -> np.ndarray:
        """Learned fingerprints [n, channels]: what the last layers read; NaN for texts that are no molecules."""
        check_is_fitted(self, "learner_")
        found = embeddings(self.learner_, self._meta, as_texts(X), batch_size=max(256, self.batch_size))
        _tell(found.rejected, len(found.smiles), "without a fingerprint")
        return found.values.numpy()

    # ------------------------------------------------------------------ stored

    def _content(self) -> dict[str, Any]:
        check_is_fitted(self, "learner_")
        classes = {CLASSES: self.classes_.tolist()} if hasattr(self, "classes_") else {}
        return {META: self.learner_.meta, "state_dict": self.learner_.state_dict(), **classes}

    def save(self, path: str | PathLike[str]) -> None:
        """Write a checkpoint, as ``plstm-graph train`` does and every command reads."""
        AtomicCheckpointIO().save_checkpoint(self._content(), path)

    @classmethod
    def load(cls, path: str | PathLike[str], device: str = "auto") -> Self:
        """The estimator of a checkpoint, or of the folder of a run, that was trained here or by ``plstm-graph train``.

        Raises:
            CheckpointError: it cannot be read, or answers another question than this class.
        """
        content = read(path)
        learner, meta = restored(content, locate(path), device)
        check_reads_molecules(meta, path)
        config, usual = flat(meta.train_config), flat(TrainConfig())
        found = cls(device=device)
        names = {FIELDS.get(name, name): name for name in found._fields() if name not in ("device", "out")}
        own = {
            name: config[field]
            for field, name in names.items()
            if field in config and config[field] != usual.get(field)
        }
        known = {*names, "data", "root", "targets", "smiles_column", "task", "split", "accelerator", "out", "budget"}
        more = {name: value for name, value in config.items() if name not in known and value != usual.get(name)}
        found.set_params(**own, options=more or None)
        found.learner_ = learner
        found._check(path)
        found._told()
        if CLASSES in content:
            found.classes_ = np.array(content[CLASSES])
        return found

    def _check(self, path: object) -> None:
        """Raises CheckpointError unless the model answers what this class does."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "learner_" in state:  # a network of Lightning holds on to its trainer
            stream = io.BytesIO()
            torch.save({META: state.pop("learner_").meta, "state_dict": self.learner_.state_dict()}, stream)
            state["checkpoint"] = stream.getvalue()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        stored = state.pop("checkpoint", None)
        super().__setstate__(state)
        if stored is not None:
            content = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
            self.learner_, _ = restored(content, "the pickle", self.device)


class MoleculeRegressor(RegressorMixin, _OfMolecules):
    """Quantities of molecules, learnt from SMILES: an estimator of scikit-learn, alone, in a pipeline or a search.

    Args:
        model: a network, or ``"fingerprint"`` for a random forest; see ``plstm-graph train --help``.
        width, layers, dropout: of the network; its own when not given.
        epochs, batch_size, lr, weight_decay: of the training.
        metric: what validation is judged by, as in ``plstm-graph train``; the usual one that is defined when not given.
        ensemble: networks that answer together; ``predict(X, return_std=True)`` then has their spread.
        descriptors: of molecules, beside the graph: ``"rdkit2d"``, ``"morgan"``, ``"morgan-counts"`` or a CSV file.
        validation_fraction: share of the molecules by which the best epoch is chosen.
        random_state: seed of weights, order of the data, dropout and validation part.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        out: folder for the files of the run, as ``plstm-graph train`` writes them; none without one.
        options: any other of :class:`plstm_graph.train.TrainConfig`, by flat name:
            ``{"model.rwse": 8, "patience": 5}``.

    Attributes:
        metrics_: what ``metrics.json`` holds of the training.
        rejected_: rows of the training that are no molecules or have no label, with reasons.

    Example:
        >>> from plstm_graph import MoleculeRegressor
        >>> smiles, y = ["CO", "CCO", "CCCO", "CCCCO"] * 5, [1.0, 2.0, 3.0, 4.0] * 5
        >>> MoleculeRegressor(epochs=1, width=16, layers=1).fit(smiles, y).predict(["CCN"]).shape
        (1,)
    """

    def _asked(self, y: Any, targets: tuple[str, ...]) -> tuple[np.ndarray, Task]:
        labels = check_array(y, ensure_2d=False, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y")
        labels = _columns(labels)
        return labels, Regression.from_table(targets, labels.tolist(), "y")

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Values [n], or [n, targets] for several; NaN for texts that are no molecules.

        Args:
            X: n texts.
            return_std: give the standard deviation of each over an ensemble as well.
        """
        mean, spread, rejected = self._answers(X)
        _tell(rejected, len(mean), "without a prediction")
        if not return_std:
            return self._shaped(mean)
        if spread is None:
            raise ConfigError("a standard deviation is that of an ensemble; set ensemble=5, say, and fit again")
        return self._shaped(mean), self._shaped(spread)

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0] if self._one_column else values

    def _check(self, path: object) -> None:
        if self.learner_.task.chances or self.learner_.task.name != Regression.name:
            raise CheckpointError(f"{path} answers {self.learner_.task.name!r}; MoleculeClassifier may load it")


class MoleculeClassifier(ClassifierMixin, _OfMolecules):
    """Classes of molecules, learnt from SMILES; arguments as for :class:`MoleculeRegressor`.

    Labels are those of two or more classes, [n], of any kind; or 0 and 1 for each of several targets, [n, targets], NaN
    where there is none.

    Attributes:
        classes_: of one target, in the order of the columns of :meth:`predict_proba`.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _asked(self, y: Any, targets: tuple[str, ...]) -> tuple[np.ndarray, Task]:
        labels = np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] > 1:
            labels = check_array(labels, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y")
            self.__dict__.pop("classes_", None)
            return labels, Binary.from_table(targets, labels.tolist(), "y")
        labels = check_array(labels, ensure_2d=False, dtype=None, input_name="y").ravel()
        check_classification_targets(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"labels must be of two classes at least, got one class: {self.classes_[0]}")
        binary = len(self.classes_) == 2
        asked: Task = Binary(targets) if binary else Multiclass(targets, classes=len(self.classes_))
        return numbers[:, None].astype(np.float64), asked

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities: of each class [n, classes], or of yes for each of several targets [n, targets]."""
        found, _, rejected = self._answers(X)
        _tell(rejected, len(found), "without a prediction")
        return self._shaped(found)

    def _shaped(self, found: np.ndarray) -> np.ndarray:
        return np.concatenate([1 - found, found], 1) if self._one_column and found.shape[1] == 1 else found

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class [n], or 0 and 1 for each of several targets.

        Raises:
            DataError: a text is no molecule, and so of no class.
        """
        found, _, rejected = self._answers(X)
        if rejected:
            first = rejected[0]
            raise DataError(f"row {first.row} is of no class: {first.reason}; leave it out, or use predict_proba")
        if hasattr(self, "classes_"):
            return self.classes_[self._shaped(found).argmax(1)]
        return (found > 0.5).astype(np.int64)

    def _told(self) -> None:
        super()._told()
        task = self.learner_.task
        if self._one_column and not hasattr(self, "classes_"):
            self.classes_ = np.arange(max(2, task.num_outputs))

    def _check(self, path: object) -> None:
        if not self.learner_.task.chances:
            raise CheckpointError(f"{path} answers {self.learner_.task.name!r}; MoleculeRegressor may load it")


def _tell(rejected: Sequence[Rejected], count: int, what: str) -> None:
    """Warn of rows that are no molecules."""
    if rejected:
        some = "; ".join(f"row {row.row}: {row.reason}" for row in rejected[:TOLD])
        warnings.warn(f"{len(rejected)} of {count} molecules are {what}: {some}", stacklevel=3)


def as_texts(X: Any) -> list[str]:
    """SMILES of a list, an array [n] or [n, 1], or a column of a table.

    Raises:
        DataError: none, or of another shape or kind.
    """
    found = np.asarray(X, dtype=object)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise DataError(f"X must be a list of SMILES, [n], got the shape {list(found.shape)}; reshape your data")
    if not len(found):
        raise DataError("X must hold at least one SMILES, got 0 sample(s)")
    return found.tolist()


def _names(y: Any) -> tuple[str, ...]:
    """Names of targets: of the columns of a table, or y, y0, y1, ..."""
    if hasattr(y, "columns"):
        return tuple(map(str, y.columns))
    if y is None:
        raise DataError("requires y to be passed, but the target y is None")
    shape = np.asarray(y).shape
    if len(shape) == 2 and shape[1] > 1:
        return tuple(f"y{k}" for k in range(shape[1]))
    return (str(getattr(y, "name", None) or "y"),)


def _defined(dataset: GraphDataset) -> str:
    """The usual metric, or the next one that says something of so few molecules."""
    valid = dataset.parts["valid"] if dataset.parts else []
    target = torch.cat([dataset.graphs[index].y for index in valid])
    perfect = one_hot(target).float() if dataset.task.exclusive else target.nan_to_num()
    metrics = dataset.task.metrics
    return next((name for name in metrics if not math.isnan(score(name, perfect, target))), metrics[0])


def _columns(labels: np.ndarray) -> np.ndarray:
    return labels[:, None] if labels.ndim == 1 else labels


def _held_out(dataset: GraphDataset, fraction: float, seed: int) -> dict[str, list[int]]:
    """Train and validation: all rows of a molecule in one of them, classes in both alike where there are some."""
    if not 0 < fraction < 1:
        raise ConfigError(f"validation_fraction must be above 0 and below 1 (got {fraction})")
    owners, draw = np.array(dataset.molecules()), np.random.default_rng(seed)
    kinds: dict[Any, list[int]] = {}
    for owner in draw.permutation(owners.max() + 1).tolist():
        y = dataset.graphs[int(np.argmax(owners == owner))].y
        kinds.setdefault(int(y) if dataset.task.chances and y.numel() == 1 else 0, []).append(owner)
    counts = {kind: min(len(group) - 1, max(1, round(fraction * len(group)))) for kind, group in kinds.items()}
    chosen = np.isin(owners, [owner for kind, group in kinds.items() for owner in group[: counts[kind]]])
    if not chosen.any():
        raise DataError(f"training takes 2 different molecules of a class at least, got n_samples = {len(owners)}")
    return {"train": np.flatnonzero(~chosen).tolist(), "valid": np.flatnonzero(chosen).tolist(), "test": []}
