"""What estimators of molecules share: training, answers, storing."""

import functools
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from os import PathLike
from typing import Any, ParamSpec, Self

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from plstm_graph.config.architectures import check_read, unread
from plstm_graph.data.molecules import CIP, Rejected
from plstm_graph.data.smiles_files import from_smiles
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.estimators.inputs import as_texts, defined, held_out, names_of, tell
from plstm_graph.io.files import expanded
from plstm_graph.models.ensemble import Ensemble
from plstm_graph.models.graph import GraphModel
from plstm_graph.tasks import Task
from plstm_graph.train.answering import Answering
from plstm_graph.train.checkpoint import META, Meta, read
from plstm_graph.train.checkpoint_io import AtomicCheckpointIO
from plstm_graph.train.config import TrainConfig, flat, override
from plstm_graph.train.defaults import FOR_MOLECULES
from plstm_graph.train.folders import locate
from plstm_graph.train.inference.molecules import answers, embeddings
from plstm_graph.train.inference.restored import check_reads_molecules, restored
from plstm_graph.train.run import fit

P = ParamSpec("P")
NAME, CLASSES = "molecules", "classes"
"""What the data of an estimator are called; and the key of its classes in a checkpoint."""
FIELDS = {
    "model": "model.model",
    "width": "model.width",
    "layers": "model.layers",
    "dropout": "model.dropout",
    "random_state": "seed",
    "device": "accelerator",
}
"""Where a parameter is not called like its field of :class:`plstm_graph.train.TrainConfig`."""
OF_FILES = ("data", "root", "targets", "smiles_column", "task", "censored", "split_column", "test_data")
"""Fields that say how files are read; an estimator is given molecules and labels."""
OF_SPLITS = ("split", "split_seed", "fold", "group_repeats")
"""Fields that say how a part to test on is taken away; an estimator is given what it is to learn from."""


def usual(model: str) -> TrainConfig:
    """What an estimator of a model is trained with where nothing else is asked for, but for the name of its data."""
    return override(TrainConfig(), FOR_MOLECULES.get(model, {}) | {"model.model": model})


def _by_name(init: Callable[P, None]) -> Callable[P, None]:
    """An ``__init__`` that refuses in words what it does not take; ``**others`` of its own would hide what it takes."""
    own = [name for name in inspect.signature(init).parameters if name != "self"]

    @functools.wraps(init)
    def checked(*args: P.args, **given: P.kwargs) -> None:
        for name, value in given.items():
            if name not in own:
                hint = _closest(name, value, own, str(given.get("model", "plstm")))
                raise ConfigError(f"{type(args[0]).__name__} has no parameter {name!r}{hint}")
        init(*args, **given)

    return checked


def _closest(name: str, value: object, own: Sequence[str], model: str) -> str:
    """A hint: the parameter that is meant by a name, or the option, as it is given."""
    meant = {each: each for each in own} | {field: each for each, field in FIELDS.items()}
    for field, default in flat(usual(model)).items():
        if field not in (*OF_FILES, *OF_SPLITS):
            # class_weight="balanced" means class_weights=True.
            fits = value if isinstance(value, bool) or not isinstance(default, bool) else True
            meant.setdefault(field.removeprefix("model."), f"options={{{field!r}: {fits!r}}}")
    close = get_close_matches(name.removeprefix("model."), meant, n=1)
    if close and f"model.{close[0]}" in meant[close[0]] and (message := unread(model, close[0])):
        return f"; {message}"
    return f"; did you mean {meant[close[0]]}?" if close else ""


class OfMolecules(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What both estimators share; see :class:`MoleculeRegressor`."""

    @_by_name
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
        texts, targets = as_texts(X), names_of(y)
        labels, asked = self._asked(y, targets)
        if len(labels) != len(texts):
            raise DataError(f"X and y must have as many rows, got {len(texts)} and {len(labels)}")
        seed = self._seed()
        config = self._config(seed)
        if config.out and (folder := expanded(config.out)).is_dir() and any(folder.iterdir()):
            raise ConfigError(f"out {folder} is not empty, as where clones of a search share it; name another, or none")
        dataset = from_smiles(texts, labels.tolist(), asked, NAME, where="X", featuriser=config.featuriser or CIP)
        self.rejected_ = dataset.rejected
        tell(dataset.rejected, len(texts), "left out")
        dataset.parts = held_out(dataset, self.validation_fraction, seed)
        dataset.default_split = "official"
        if self.metric is None:
            config = override(config, {"metric": defined(dataset)})
        learner, self.metrics_ = fit(config, dataset.with_descriptors(config.descriptors))
        learner.trainer = None  # its loaders hold the data
        self.learner_: Answering = learner
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
        values |= self.options or {}
        for name in OF_FILES:
            if name in values:
                raise ConfigError(f"option {name!r} is about files, and X and y are none; leave it out")
        for name in OF_SPLITS:
            if name in values:
                raise ConfigError(
                    f"option {name!r} is about parts, and all of X but validation_fraction is learnt; split X before"
                )
        plain = usual(str(values.get("model.model", "plstm")))
        config = override(plain, {"data": NAME, **values})
        asked = [name.removeprefix("model.") for name in values if name.startswith("model.")]
        check_read(config.model, asked, plain.model)
        return config

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
        tell(found.rejected, len(found.smiles), "without a fingerprint")
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
        config = flat(meta.train_config)
        expected = flat(usual(meta.train_config.model.model))
        found = cls(device=device)
        names = {FIELDS.get(name, name): name for name in found._fields() if name not in ("device", "out")}
        own = {
            name: config[field]
            for field, name in names.items()
            if field in config and config[field] != expected.get(field)
        }
        known = {*names, *OF_FILES, *OF_SPLITS, "accelerator", "out", "budget"}
        more = {name: value for name, value in config.items() if name not in known and value != expected.get(name)}
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
