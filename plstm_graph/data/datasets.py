"""A name or a CSV file becomes graphs, a task, a metric and a split: ``load("nav17")``, ``load("my.csv", ...)``."""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch_geometric.data import Data

from plstm_graph.data import tu
from plstm_graph.data.molecules import Rejected, contrib_folder, read_molecules
from plstm_graph.data.splits import Split, make_split
from plstm_graph.data.tables import Table, read_smiles, read_table
from plstm_graph.errors import ConfigError, DataError, unknown
from plstm_graph.nn.encoders import ATOM_SIZES, BOND_SIZES, FeatureSpec
from plstm_graph.nn.model import ModelConfig, prepare

METRICS = {"regression": "r2", "binary": "rocauc", "multiclass": "accuracy"}  # tasks, and how each is scored
MOLECULE = FeatureSpec(node_sizes=ATOM_SIZES, edge_sizes=BOND_SIZES)


@dataclass
class GraphDataset:
    """Graphs with labels, and what a trainer has to know about them.

    Attributes:
        graphs: PyG ``Data`` with ``x``, ``edge_index``, ``y`` (float [1, targets] with NaN for a missing label, or the
            class as int64 [1] when ``task`` is ``"multiclass"``) and, where the set has them, ``edge_attr``;
            molecules also carry ``smiles`` and ``rank``.
        task: ``"regression"``, ``"binary"`` (one yes or no a target) or ``"multiclass"``.
        num_outputs: number of targets, or of classes when ``task`` is ``"multiclass"``.
        rejected: rows of the file that are not among ``graphs``, each with a reason.
    """

    name: str
    graphs: list[Data]
    task: str
    metric: str
    targets: tuple[str, ...]
    num_outputs: int
    features: FeatureSpec
    rejected: list[Rejected] = field(default_factory=list)
    default_split: str = "random"

    def split(self, kind: str | None = None, seed: int = 0, fold: int = 0) -> Split:
        """Indices of ``train``, ``valid`` and ``test``; see :func:`plstm_graph.data.splits.make_split`."""
        return make_split(kind or self.default_split, self.graphs, self.task, seed=seed, fold=fold)

    def prepared(self, model: ModelConfig, chosen: Sequence[int] | None = None) -> list[Data]:
        """The graphs, or those chosen by number, with all that a model reads; see ``nn.model.prepare``."""
        return prepare(self.graphs if chosen is None else [self.graphs[number] for number in chosen], model)


@dataclass(frozen=True)
class DatasetInfo:
    """A row of the table of data sets; ``loader`` gets this row and the root folder."""

    name: str
    graphs: int
    task: str
    metric: str
    split: str
    licence: str
    source: str
    loader: Callable[["DatasetInfo", str | Path | None], GraphDataset]


def load(
    name: str,
    *,
    root: str | Path | None = None,
    targets: Sequence[str] | None = None,
    smiles_column: str | None = None,
    task: str | None = None,
) -> GraphDataset:
    """Load a data set of ``DATASETS`` by name, or by path a CSV file of molecules or a file of prepared data.

    Args:
        name: a key of ``DATASETS`` (case does not matter) or the path of a file (``.pt`` for prepared data).
        root: folder with public data (``TUDataset/NAME/raw``), never written to; without it, what is not embedded is
            downloaded into a cache. Only for names.
        targets, smiles_column: columns of a CSV file.
        task: ``"regression"``, ``"binary"`` or ``"multiclass"`` for a CSV file; by default binary if all labels are 0
            or 1, else regression.

    Raises:
        DataError: unknown name; the file or its columns cannot be used.
        ConfigError: an option that does not apply, unknown task.
    """
    info = DATASETS.get(name) or {key.casefold(): row for key, row in DATASETS.items()}.get(name.casefold())
    given = {"targets": targets, "smiles_column": smiles_column, "task": task}
    wrong = [option for option, value in given.items() if value]
    if info is not None:
        if wrong:
            raise ConfigError(f"{', '.join(wrong)} can only be chosen for a CSV file; {info.name} brings its own")
        return info.loader(info, root)
    path = Path(name)
    if path.suffix == ".pt":
        from plstm_graph.data.prepared import read_prepared  # which is made of what stands here

        if wrong:
            raise ConfigError(f"{', '.join(wrong)} can only be chosen for a CSV file; {path.name} brings its own")
        return read_prepared(path)
    if path.suffix.lower() in (".smi", ".smiles"):
        raise DataError(f"{path.name} has no labels to train on; give a CSV file with a SMILES and a target column")
    if path.suffix or path.exists():
        return load_csv(path, targets or (), smiles_column, task)
    raise DataError(f"{unknown('data set', name, DATASETS)}; or give the path of a .csv file")


def load_csv(
    path: str | Path, targets: Sequence[str], smiles_column: str | None = None, task: str | None = None
) -> GraphDataset:
    """Molecules and labels of a CSV file; see :func:`load`. Rows that cannot be used are in ``rejected``."""
    if task is not None and task not in METRICS:
        raise ConfigError(unknown("task", task, METRICS))
    table = read_table(path)
    texts, labels = table.smiles(smiles_column), table.labels(targets)
    task = task or ("binary" if all(_is(row, (0, 1)) for row in labels) else "regression")
    num_outputs = _check_labels(table, targets, labels, task)

    molecules, rejected = read_molecules(texts)
    graphs = []
    for row, graph in molecules:
        label = labels[row - 1]
        if all(math.isnan(value) for value in label):
            rejected.append(Rejected(row, texts[row - 1], f"no label in {', '.join(targets)}"))
            continue
        graph.y = torch.tensor([label], dtype=torch.float) if task != "multiclass" else torch.tensor([int(label[0])])
        graphs.append(graph)
    rejected.sort()
    if not graphs:
        first = rejected[0]
        raise DataError(
            f"{table.path.name}: none of the {len(texts)} rows can be used; row {first.row}: {first.reason}"
        )
    return GraphDataset(
        table.path.stem, graphs, task, METRICS[task], tuple(targets), num_outputs, MOLECULE, rejected, "random"
    )


def _is(labels: Sequence[float], allowed: Sequence[int]) -> bool:
    return all(math.isnan(value) or value in allowed for value in labels)


def _check_labels(table: Table, targets: Sequence[str], labels: list[list[float]], task: str) -> int:
    """Number of outputs a model needs, after a check that the labels suit the task."""
    where = table.path.name
    if task == "multiclass":
        if len(targets) != 1:
            raise DataError(f"multiclass needs exactly one target column of {where}, got {', '.join(targets)}")
        present = {row[0] for row in labels if not math.isnan(row[0])}
        if present != set(range(len(present))) or len(present) < 2:
            some = ", ".join(f"{value:g}" for value in sorted(present)[:5])
            raise DataError(f"{where}: multiclass labels must be 0, 1, ... without gaps, got {some}, ...")
        return len(present)
    if task == "binary":
        for row, label in enumerate(labels, start=1):
            if not _is(label, (0, 1)):
                raise DataError(f"{where}, row {row} (header not counted): a binary label must be 0 or 1, got {label}")
    return len(targets)


def _load_nav17(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """The molecules of ChEMBL document CHEMBL2321810 that the rdkit wheel carries, with their measured pIC50.

    ``CHEMBL2321810.smi`` (SMILES, id) and ``CHEMBL2321810_act.csv`` (id, activity) have the same 1,017 ids, each once,
    and no structure stands there twice (canonical SMILES). The activity is -log10 of IC50 in mol/l, 4.27 to 9.22 with
    mean 6.55 and standard deviation 1.09: inhibitors (aryl sulfonamides) of the sodium channel Nav1.7.
    """
    folder = Path(contrib_folder()) / "FreeWilson" / "data"
    files = folder / "CHEMBL2321810.smi", folder / "CHEMBL2321810_act.csv"
    try:
        molecules = [line.split() for line in files[0].read_text().splitlines() if line.strip()]
        activity = {name: float(value) for name, value in list(csv.reader(files[1].read_text().splitlines()))[1:]}
    except (OSError, ValueError) as error:
        raise DataError(
            f"this rdkit does not carry nav17 in {folder} ({error}); install its wheel from PyPI"
        ) from error
    graphs, rejected = read_molecules(smiles for smiles, _ in molecules)
    for row, graph in graphs:
        graph.y = torch.tensor([[activity[molecules[row - 1][1]]]], dtype=torch.float)
    found = [graph for _, graph in graphs]
    _check_count(info, len(found))
    return GraphDataset(info.name, found, info.task, info.metric, ("pIC50",), 1, MOLECULE, rejected, info.split)


def _load_tu(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    data = tu.read(tu.find(info.name, root), info.name)
    _check_count(info, len(data.graphs))
    features = FeatureSpec(node_sizes=data.node_sizes, edge_sizes=data.edge_sizes)
    return GraphDataset(
        info.name, data.graphs, info.task, info.metric, ("class",), data.num_classes, features, [], info.split
    )


def _check_count(info: DatasetInfo, count: int) -> None:
    if count != info.graphs:
        raise DataError(
            f"{info.name} must have {info.graphs} graphs, got {count}: its files are not the published ones"
        )


def _tu_row(name: str, graphs: int) -> DatasetInfo:
    return DatasetInfo(
        name, graphs, "multiclass", "accuracy", "folds", "none stated", "TU Dortmund, Morris et al. 2020", _load_tu
    )


TUDATASETS = {
    "MUTAG": 188,
    "PTC_FM": 349,
    "ENZYMES": 600,
    "PROTEINS": 1113,
    "AIDS": 2000,
    "NCI1": 4110,
    "Mutagenicity": 4337,
    "IMDB-BINARY": 1000,
}

DATASETS: dict[str, DatasetInfo] = {
    "nav17": DatasetInfo(
        "nav17",
        1017,
        "regression",
        "r2",
        "random",
        "BSD-3-Clause (rdkit), data CC BY-SA 3.0 (ChEMBL)",
        "rdkit Contrib/FreeWilson, ChEMBL document CHEMBL2321810",
        _load_nav17,
    ),
    **{name: _tu_row(name, graphs) for name, graphs in TUDATASETS.items()},
}

__all__ = ["DATASETS", "METRICS", "TUDATASETS", "DatasetInfo", "GraphDataset", "load", "load_csv", "read_smiles"]
