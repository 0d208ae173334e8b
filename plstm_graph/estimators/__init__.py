"""Training and prediction as scikit-learn's estimators: lists of SMILES in, arrays of numpy out."""

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array

from plstm_graph.errors import CheckpointError, ConfigError, DataError
from plstm_graph.estimators.base import OfMolecules
from plstm_graph.estimators.inputs import tell
from plstm_graph.tasks import Binary, Multiclass, Regression, Task

__all__ = ["MoleculeClassifier", "MoleculeRegressor"]


class MoleculeRegressor(RegressorMixin, OfMolecules):
    """Quantities of molecules, learnt from SMILES: an estimator of scikit-learn, alone, in a pipeline or a search.

    Args:
        model: a network, or ``"fingerprint"`` for a random forest; see ``plstm-graph train --help``.
        width, layers, dropout: of the network; its own when not given.
        epochs, batch_size, lr, weight_decay: of the training.
        metric: what validation is judged by, as in ``plstm-graph train``; the usual one that is defined when not given.
        ensemble: networks that answer together; ``predict(X, return_std=True)`` then has their spread.
        descriptors: of molecules, beside the graph: ``"rdkit2d"``, ``"morgan-counts"``, a fingerprint or a CSV file.
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
        labels = labels[:, None] if labels.ndim == 1 else labels
        return labels, Regression.from_table(targets, labels.tolist(), "y")

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Values [n], or [n, targets] for several; NaN for texts that are no molecules.

        Args:
            X: n texts.
            return_std: give the standard deviation of each over an ensemble as well.
        """
        mean, spread, rejected = self._answers(X)
        tell(rejected, len(mean), "without a prediction")
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


class MoleculeClassifier(ClassifierMixin, OfMolecules):
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
            for value in np.unique(labels[~np.isnan(labels)]).tolist():
                if reason := Binary.required(value):
                    raise DataError(f"{reason} in each of several targets, or NaN where there is none, got {value:g}")
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
        tell(rejected, len(found), "without a prediction")
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
