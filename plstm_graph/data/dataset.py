"""What a data set is: graphs with labels, and the row of the table that says where they come from."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch_geometric.data import Data

from plstm_graph.config.models import AnyConfig
from plstm_graph.data import source as files
from plstm_graph.data.descriptors import Descriptors, check_kinds, describe
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.examples import Digests, Examples, Graphs, Part, take
from plstm_graph.data.features import ATOM_SIZES, BOND_SIZES, FeatureSpec
from plstm_graph.data.molecules import CIP, Rejected
from plstm_graph.data.smiles import same_molecules
from plstm_graph.data.source import Fill
from plstm_graph.data.splits import GROUPED, Split, make_split
from plstm_graph.data.stacked import NODES, Joined, StackedGraphs, first, values, with_attributes
from plstm_graph.errors import DataError, listed
from plstm_graph.io.waiting import named
from plstm_graph.tasks import Task, task_of

MOLECULE = FeatureSpec(node_sizes=ATOM_SIZES, edge_sizes=BOND_SIZES)


@dataclass
class Dataset:
    """Examples of any kind with labels, and what a trainer has to know about them.

    Attributes:
        examples: what models take in batches, for instance :class:`~plstm_graph.data.examples.Arrays`.
        task: what is asked of each example, and so what ``y`` is.
        features: what the examples look like, for models that have to know it to be built.
        rejected: what could not be used, each with a reason.
        parts: the split that was published with them, called "official".
        ids: what they are called, if they are, for instance the paths of files.
    """

    name: str
    examples: Examples
    task: Task
    features: FeatureSpec = field(default_factory=FeatureSpec)
    rejected: list[Rejected] = field(default_factory=list)
    default_split: str = "random"
    parts: Split | None = None
    featuriser: None = None
    reader: None = None
    ids: list[str] = field(default_factory=list)

    @property
    def digests(self) -> Digests:
        """Twelve hex digits that name the examples, wherever they were read."""
        digest = self.examples.digest
        return Digests(digest, digest)

    @property
    def content(self) -> str:
        """Of these, what does not depend on SMILES."""
        return self.digests.content

    def molecules(self) -> None:
        """They are none."""

    def with_descriptors(self, kinds: Sequence[str], trained: FeatureSpec | None = None) -> "Dataset":
        """As it is.

        Raises:
            DataError: some are asked for.
        """
        if kinds:
            raise DataError(f"descriptors are for molecules, and {self.name} has none")
        return self

    def split(self, kind: str | None = None, seed: int = 0, fold: int = 0, *, group_repeats: bool = True) -> Split:
        """Indices of ``train``, ``valid`` and ``test``; see :func:`plstm_graph.data.splits.make_split`."""
        y = self.examples.y.cpu()
        label = Joined(y, torch.ones(len(y), dtype=torch.long))
        rows = StackedGraphs({NODES: label, "y": label})  # a million graphs would take a while
        return make_split(kind or self.default_split, rows, self.task, seed=seed, fold=fold, official=self.parts)

    def numbered_by(self, names: Sequence[str]) -> "Dataset":
        """The same examples with their classes numbered as they stand among ``names``; these data may lack some.

        Raises:
            DataError: a class of these data is not among them.
        """
        own = self.task.class_names
        if not own or own == tuple(names):
            return self
        if more := [name for name in own if name not in names]:
            raise DataError(
                f"{self.name} has the classes {listed(own)}, and the model knows {listed(names)}: {listed(more)} is "
                "unknown to it; rename the folders, move them away, or train on these data"
            )
        examples: Any = self.examples
        y = examples.y.cpu()
        y = torch.tensor([names.index(name) for name in own])[y.clamp(min=0)].where(self.task.known(y), y)
        task = replace(self.task, classes=len(names), names=tuple(names))  # type: ignore[call-arg]
        return replace(self, examples=replace(examples, y=y), task=task)

    def encoded(self, model: AnyConfig, chosen: Sequence[int] | None = None) -> Examples:
        """The examples, or those chosen by number."""
        return self.examples if chosen is None else Part(self.examples, chosen)


@dataclass
class GraphDataset:
    """Graphs with labels, and what a trainer has to know about them.

    Attributes:
        graphs: PyG ``Data`` with ``x``, ``edge_index``, ``y`` and, where the set has them, ``edge_attr``; molecules
            also carry ``smiles``. ``rank`` is the order that belongs to the data, on which a model with order
            ``"canonical"`` relies: rdkit's for molecules, for a native DAG a topological one, so that its directions
            are kept. A list, or what is one from the moment it is looked into.
        task: what is asked of each graph, and so what ``y`` is.
        rejected: rows of the file that are not among ``graphs``, each with a reason.
        parts: the split that was published with the graphs, called "official".
        featuriser: how their SMILES became these graphs, one of ``molecules.FEATURISERS``; None where they are no
            molecules. By default that of :func:`plstm_graph.data.smiles_to_data` for graphs with ``smiles``.
        rows: of the file, one a graph and from 1, as ``rejected`` counts them; empty where graphs have no rows.
        ids: what the file calls them; empty where it has no column for that.
        column: of each graph what the split column says; empty where there is none.
        held_out: so many graphs, the last ones, are the test part of any split.
    """

    name: str
    graphs: Sequence[Data]
    task: Task
    features: FeatureSpec
    rejected: list[Rejected] = field(default_factory=list)
    default_split: str = "random"
    parts: Split | None = None
    featuriser: str | None = None
    rows: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    column: list[str] = field(default_factory=list)
    held_out: int = 0

    def __post_init__(self) -> None:
        if self.featuriser is None and self.graphs and "smiles" in first(self.graphs):
            self.featuriser = CIP

    @property
    def examples(self) -> Graphs | StackedGraphs:
        """The graphs as any other examples."""
        return self.graphs if isinstance(self.graphs, StackedGraphs) else Graphs(self.graphs)

    @property
    def digests(self) -> Digests:
        """Twelve hex digits that name the graphs, wherever they were read, with and without SMILES."""
        return self.examples.digests

    @property
    def content(self) -> str:
        """Of these, what does not depend on SMILES."""
        return self.digests.content

    @property
    def reader(self) -> str | None:
        """By what a SMILES becomes such a graph; None where the graphs carry none."""
        return self.featuriser if self.graphs and "smiles" in first(self.graphs) else None

    def with_descriptors(self, kinds: Sequence[str], trained: FeatureSpec | None = None) -> Self:
        """The same data set, its graphs with ``descriptors`` [1, columns], those of all kinds side by side.

        Args:
            kinds: as for :func:`plstm_graph.data.descriptors.describe`; none leaves the data set as it is.
            trained: features of a training, whose columns are taken by name and in its order.

        Raises:
            ConfigError, DataError: no such kind; the graphs are no molecules; a target is among the columns; one of
                the training is not.
        """
        if not kinds:
            return self
        check_kinds(kinds)
        wanted = trained.descriptor_names if trained else ()
        found = Descriptors.joined(self.describe(kind, wanted) for kind in kinds)
        if trained:
            found = found.like(trained, ", ".join(kinds))
        targets = {name.casefold() for name in self.task.targets}
        if answers := [name for name in found.names if name.casefold() in targets]:
            raise DataError(f"{listed(answers)} is a target and a column of {', '.join(kinds)}; remove it there")
        features = replace(self.features, descriptors=found.rows.size(1), descriptor_names=found.names)
        return replace(
            self, graphs=with_attributes(self.graphs, {"descriptors": found.rows.split(1)}), features=features
        )

    def describe(self, kind: str, wanted: Sequence[str] = ()) -> Descriptors:
        """Descriptors of one kind; see :func:`plstm_graph.data.descriptors.describe`."""
        if None in (texts := values(self.graphs, "smiles")):
            raise DataError(f"{self.name} has no SMILES, so its graphs have no descriptors; leave --descriptors out")
        return describe(kind, texts, wanted)

    def molecules(self) -> list[int] | None:
        """Number of each graph's molecule, equal for all spellings of one; None where not all have ``smiles``."""
        texts = values(self.graphs, "smiles")
        return None if None in texts else same_molecules(texts)

    def split(self, kind: str | None = None, seed: int = 0, fold: int = 0, *, group_repeats: bool = True) -> Split:
        """Indices of ``train``, ``valid`` and ``test``; see :func:`plstm_graph.data.splits.make_split`."""
        kind = kind or self.default_split
        if self.held_out:
            return self._beside_test(self._own().split(kind, seed, fold, group_repeats=group_repeats))
        groups = self.molecules() if group_repeats and kind in GROUPED else None
        how: dict[str, Any] = {"official": self.parts, "groups": groups, "column": self.column}
        return make_split(kind, self.graphs, self.task, seed=seed, fold=fold, **how)

    def _own(self) -> Self:
        """Without the graphs that are held out."""
        count = len(self.graphs) - self.held_out
        return replace(self, graphs=self.graphs[:count], column=self.column[:count], held_out=0)

    def _beside_test(self, split: Split) -> Split:
        """What would have been tested is for training, since other graphs are held out."""
        count = len(self.graphs)
        test = list(range(count - self.held_out, count))
        return {"train": sorted(split["train"] + split["test"]), "valid": split["valid"], "test": test}

    def encoded(self, model: AnyConfig, chosen: Sequence[int] | None = None) -> Sequence[Data]:
        """The graphs, or those chosen by number, with all that a model reads; see ``data.encodings``."""
        graphs = self.graphs if chosen is None else take(self.graphs, chosen)
        with named(f"encoding {len(graphs):,} graphs"):
            return add_encodings(graphs, model)


AnyDataset = Dataset | GraphDataset


@dataclass(frozen=True)
class DatasetInfo:
    """A row of the table of data sets.

    Attributes:
        name: what ``--data`` takes.
        graphs: how many there are; rows of the file for MoleculeNet. None where it is not published.
        task, metric, split: name of the kind of task, what validation is judged by, usual split.
        licence, source, url: of the data; no ``url`` where they are made here.
        places: where raw files may stand below a root folder; in the cache they are at the first of them.
        megabytes: size of the download where known.
        loader: gets this row and the root folder.
        options: what the loader has to know besides; ``featuriser`` where it reads SMILES and another may be chosen.
    """

    name: str
    _: KW_ONLY
    graphs: int | None
    task: str
    metric: str
    split: str
    licence: str
    source: str
    url: str = ""
    places: tuple[str, ...] = ()
    megabytes: float | None = None
    loader: Callable[["DatasetInfo", str | Path | None], AnyDataset]
    options: dict[str, Any] = field(default_factory=dict)

    def present(self, root: str | Path | None = None) -> bool:
        """Whether no download is needed: it comes with a package, or is below ``root`` (without one, in the cache)."""
        return not self.places or files.present(self.places, root) is not None

    def find(self, root: str | Path | None, fill: Fill) -> Path:
        """The raw files; see :func:`plstm_graph.data.source.find`."""
        return files.find(self.name, self.places, root, self.url, fill)

    def check_count(self, count: int) -> None:
        """Raise DataError unless so many graphs were published."""
        if self.graphs is not None and count != self.graphs:
            raise DataError(
                f"{self.name} must have {self.graphs} graphs, got {count}: its files are not the published ones"
            )

    def dataset(
        self,
        graphs: Sequence[Data],
        targets: tuple[str, ...],
        features: FeatureSpec,
        asked: dict[str, Any] | None = None,
        **rest: Any,
    ) -> GraphDataset:
        """A :class:`GraphDataset` with this row's name, task (``asked``: more of its fields), metric and split."""
        task = task_of(self.task)(targets, self.metric, **asked or {})
        return GraphDataset(self.name, graphs, task, features, default_split=self.split, **rest)
