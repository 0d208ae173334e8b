"""Fingerprint and random forest, the baseline that every molecular model has to look at.

Fitted by scikit-learn, then kept as plain arrays in a module: so a forest is scored, stored, read without running
code, and asked for predictions by what serves the networks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from plstm_graph.config.models import ForestConfig
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.vectors import fingerprints
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.tasks import Task

AT_ONCE = 256
"""Molecules that walk through all trees at a time."""
SPARSE = 0.08
"""Where a smaller share of the numbers is not zero, trees of classes grow from those alone: the same ones, up to 16
times sooner. Those of quantities would be no faster, and others: sums in another order decide between equal splits."""


class Forest(nn.Module):
    """Trees as arrays; one forest a target, or one for all classes.

    Args:
        config: of the fingerprint and its trees.
        features: of the graphs; it reads none.
        task: regression, yes or no, or classes, of molecules.

    Shapes: a PyG batch of G molecules with ``smiles`` -> [G, outputs]: values, or what a sigmoid or softmax makes the
    forest's probabilities.
    """

    roots: Tensor  # [forests, trees] first node of each tree
    feature: Tensor  # [nodes] bit that is asked for; -1 for a leaf
    threshold: Tensor  # [nodes] up to this to the left
    left: Tensor  # [nodes]
    right: Tensor  # [nodes]
    value: Tensor  # [nodes, values] answer of a leaf

    sized_by_weights = True
    """How many nodes its tables have is known from a checkpoint alone."""

    NAMES = ("roots", "feature", "threshold", "left", "right", "value")

    def __init__(self, config: ForestConfig, features: FeatureSpec, task: Task) -> None:
        super().__init__()
        if task.level != "graph":
            raise ConfigError(f"a fingerprint answers for a molecule, not for each {task.level}; choose a network")
        if config.entropy and not task.chances:
            raise ConfigError("model.entropy is for classes, and these are quantities; leave it out")
        self.config, self.task = config, task
        for name in self.NAMES:
            self.register_buffer(name, torch.empty(0))

    def check(self, graphs: Sequence[Data]) -> None:
        """Raise DataError unless it can read these graphs."""
        smiles_of(graphs)

    def fit(self, graphs: Sequence[Data], seed: int) -> "Forest":
        """Grow the trees on graphs with ``smiles`` and labels; a target's forest leaves out those without its label.

        Raises:
            DataError: no SMILES, or a target without labels.
        """
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        features, target = self.featurise(smiles_of(graphs)).numpy(), torch.cat([graph.y for graph in graphs])
        make = RandomForestClassifier if self.task.chances else RandomForestRegressor
        trees: list[list[Any]] = []
        classes = []
        for number, column in enumerate([target] if target.dim() == 1 else target.T):
            known = self.task.known(column).numpy()
            if not known.any():
                raise DataError(f"target number {number} has no label in the training split; use another split or seed")
            model = make(self.config.trees, **self._growth(), random_state=seed, n_jobs=torch.get_num_threads())
            rows = _columns(features[known]) if self.task.chances else features[known]
            model.fit(rows, column.numpy()[known])
            trees.append([estimator.tree_ for estimator in model.estimators_])
            classes.append(getattr(model, "classes_", None))
        self._take(trees, classes, 0 if target.dim() == 2 else int(target.max()) + 1)
        return self

    def _growth(self) -> dict[str, Any]:
        """How scikit-learn grows trees; what is not said is as usual there."""
        how: dict[str, Any] = {"min_samples_leaf": self.config.min_samples_leaf}
        if self.config.max_features is not None:
            how["max_features"] = self.config.max_features
        if self.config.entropy:
            how["criterion"] = "entropy"
        if getattr(self.task, "balanced", False):
            how["class_weight"] = "balanced"
        return how

    def _take(self, forests: list[list[Any]], classes: list[Any], num_classes: int) -> None:
        """Arrays of scikit-learn's trees, one after the other."""
        trees = [(tree, seen) for forest, seen in zip(forests, classes, strict=True) for tree in forest]
        counts = torch.tensor([tree.node_count for tree, _ in trees])
        first = counts.cumsum(0) - counts
        self.roots = first.view(len(forests), -1)
        shift = torch.repeat_interleave(first, counts)
        gathered = {
            name: torch.from_numpy(np.concatenate([getattr(tree, attribute) for tree, _ in trees]))
            for name, attribute in (
                ("feature", "feature"),
                ("threshold", "threshold"),
                ("left", "children_left"),
                ("right", "children_right"),
            )
        }
        self.feature = gathered["feature"].clamp(min=-1).int()
        self.threshold = gathered["threshold"].float()
        self.left, self.right = ((gathered[side] + shift).int() for side in ("left", "right"))
        self.value = torch.from_numpy(np.concatenate([_answers(*both, num_classes) for both in trees])).float()

    def featurise(self, smiles: Sequence[str]) -> Tensor:
        """[molecules, bits]"""
        chosen = self.config
        how: dict[str, Any] = {"counts": chosen.counts, "kind": chosen.fingerprint}
        return torch.from_numpy(fingerprints(smiles, chosen.radius, chosen.bits, **how))

    def answers(self, features: Tensor) -> Tensor:
        """Values, or probabilities, [molecules, outputs]."""
        return torch.cat([self._walk(rows) for rows in features.split(AT_ONCE)])

    def _walk(self, features: Tensor) -> Tensor:
        """All molecules go down all trees at once, until the last has come to its leaf."""
        forests, trees = self.roots.shape
        node = self.roots.view(1, -1).repeat(len(features), 1)
        while (inner := self.feature[node] >= 0).any():
            row, tree = inner.nonzero(as_tuple=True)
            at = node[row, tree]
            goes_left = features[row, self.feature[at].long()] <= self.threshold[at]
            node[row, tree] = torch.where(goes_left, self.left[at], self.right[at]).long()
        return self.value[node].double().view(len(features), forests, trees, -1).mean(2).flatten(1)

    def forward(self, batch: Data) -> Tensor:
        """[G, outputs]"""
        found = self.answers(self.featurise(smiles_of([batch])).to(self.value.device))
        return self.task.raw(found).float()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """How many nodes there are is known by what is stored alone."""
        for name in self.NAMES:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.value.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def smiles_of(graphs: Sequence[Data]) -> list[str]:
    """Texts of graphs, or of batches.

    Raises:
        DataError: there are none.
    """
    if any("smiles" not in graph for graph in graphs):
        raise DataError("a fingerprint needs molecules, but these graphs have no SMILES; use another model")
    texts = [graph.smiles for graph in graphs]
    return [text for found in texts for text in ([found] if isinstance(found, str) else found)]


def _columns(rows: np.ndarray) -> Any:
    """As trees of classes read them fastest."""
    from scipy.sparse import csc_matrix

    return csc_matrix(rows, dtype=np.float32) if np.count_nonzero(rows) < SPARSE * rows.size else rows


def _answers(tree: Any, classes: Any, num_classes: int) -> np.ndarray:
    """What the leaves of a tree say, [nodes, 1] or [nodes, classes]."""
    value = tree.value[:, 0, :]
    if classes is None:
        return value
    share = value / value.sum(1, keepdims=True)
    if not num_classes:  # a forest that saw one class only has no column for the other
        return share @ (classes == 1).astype(share.dtype)[:, None]
    whole = np.zeros((len(share), num_classes))
    whole[:, classes] = share
    return whole
