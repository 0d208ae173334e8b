"""The table of data sets, and how a name or a file becomes graphs: ``load("nav17")``, ``load("my.csv", ...)``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from plstm_graph.config.names import asked_side, check_data_set, folder_prefix, of_pictures
from plstm_graph.data import (
    aiger,
    arrow,
    cifar,
    circuits,
    digits,
    dvae,
    echo,
    image_folder,
    moleculenet,
    nasbench,
    nav17,
    neighbors_match,
    ogbg,
    paths,
    peptides,
    tu,
    zinc,
)
from plstm_graph.data.dataset import AnyDataset, DatasetInfo, GraphDataset
from plstm_graph.data.descriptors import check_kinds
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.molecules import FEATURISERS
from plstm_graph.data.prepared import SUFFIX, read_prepared
from plstm_graph.data.smiles_files import load_csv
from plstm_graph.data.tables import SMI
from plstm_graph.errors import ConfigError, DataError, unknown
from plstm_graph.io.files import expanded, kind
from plstm_graph.tasks import Task

FAMILIES = (
    *(nav17, ogbg, peptides, zinc, moleculenet, tu, dvae, nasbench, circuits, aiger),
    *(paths, neighbors_match, echo, arrow, digits),  # made from a seed, or shipped
    cifar,
)
DATASETS: dict[str, DatasetInfo] = {row.name: row for family in FAMILIES for row in family.SETS}


def reads_smiles(name: str) -> bool:
    """Whether :func:`load` makes graphs from SMILES for a value of ``--data``, so that a featuriser may be chosen."""
    info = _named(name)
    return is_table(name) if info is None else "featuriser" in info.options


def load(
    name: str,
    *,
    root: str | Path | None = None,
    targets: Sequence[str] | None = None,
    smiles_column: str | None = None,
    task: str | Task | None = None,
    featuriser: str | None = None,
    descriptors: Sequence[str] = (),
    trained: FeatureSpec | None = None,
    split_column: str | None = None,
    censored: bool = False,
) -> AnyDataset:
    """Load a data set of ``DATASETS`` by name, or a file by path.

    Args:
        name: a key of ``DATASETS`` (case does not matter), the path of a CSV file of molecules or of
            prepared data (``.pt``), ``images:FOLDER`` (or ``images-64:FOLDER``, of so many pixels) for pictures (see
            ``image_folder.load_folder``), ``aig:FOLDER`` for circuits in binary AIGER files, or any set of the TU
            Dortmund collection by its name, its folder or its zip file (see ``tu.find``).
        root: folder with public data (for instance ``TUDataset/NAME/raw`` and ``ogb/ogbg_molhiv``), never written to;
            without it, what no package carries is downloaded into a cache. Only for names.
        targets, smiles_column: columns of a CSV file.
        task: ``"regression"``, ``"binary"`` or ``"multiclass"`` for a CSV file; by default binary if all labels are 0
            or 1, else regression. Or a task itself, whose classes the file need not all have.
        featuriser: of data that are read from SMILES; see :func:`plstm_graph.data.smiles_to_data`. By default
            ``"cip-molecule"``; graphs that were published as such keep OGB's features.
        descriptors: of whole molecules, for networks to read beside the graph: names in
            ``plstm_graph.config.names.DESCRIPTORS`` or a CSV file with SMILES and numbers; see
            :meth:`GraphDataset.with_descriptors`.
        split_column: of a CSV file: names of parts, or what the splits "group", "group-folds" and "time" go by.
        censored: labels of a CSV file may be bounds, as ``>10``; see :class:`plstm_graph.tasks.Regression`.
        trained: features of a training whose descriptors are wanted, by the names of their columns; pictures become
            images of its size unless another is asked for.

    Raises:
        DataError: unknown name; the file or its columns cannot be used.
        ConfigError: an option that does not apply, unknown task.
    """
    check_kinds(descriptors)
    if featuriser is not None and featuriser not in FEATURISERS:
        raise ConfigError(unknown("featuriser", featuriser, FEATURISERS))
    side = asked_side(name) or (trained.image[-1] if trained and trained.image else None)
    of_tables: dict[str, Any] = {"targets": targets, "smiles_column": smiles_column, "task": task}
    of_tables |= {"featuriser": featuriser, "split_column": split_column, "censored": censored}
    given = {option: value for option, value in of_tables.items() if value}
    return _load(name, None if root is None else expanded(root), given, side).with_descriptors(descriptors, trained)


def _load(name: str, root: Path | None, given: dict[str, Any], side: int | None) -> AnyDataset:
    """``given``: the options of :func:`load_csv` that were chosen; ``side``: of images of pictures."""
    info = _named(name) or tu.find(name, root)
    if info is not None and "featuriser" in info.options and "featuriser" in given:
        info = replace(info, options=info.options | {"featuriser": given.pop("featuriser")})
    path, prefix = expanded(name), folder_prefix(name)
    if given and (info is not None or prefix or kind(path) == SUFFIX):
        own = info.name if info else name if prefix else path.name
        raise ConfigError(f"{', '.join(given)} can only be chosen for a CSV file; {own} brings its own")
    if info is not None:
        return info.loader(info, root)
    if prefix:
        check_data_set(name, root)
        folder = name.removeprefix(prefix)
        return image_folder.load_folder(folder, side) if of_pictures(name) else aiger.load_folder(folder)
    if kind(path) == SUFFIX:
        return read_prepared(path)
    if kind(path) in SMI:
        raise DataError(f"{path.name} has no labels to train on; give a CSV file with a SMILES and a target column")
    check_data_set(name, root)
    if path.is_dir():
        raise DataError(
            f"{path} is a folder without NAME_A.txt, so no data set of the TU collection; give the file with the data, "
            f"or images:{name} for pictures in folders"
        )
    return load_csv(path, **{"targets": ()} | given)


def load_graphs(name: str, **options: Any) -> GraphDataset:
    """As :func:`load`, of data sets that are graphs.

    Raises:
        DataError: also where they are something else, images for instance.
    """
    found = load(name, **options)
    if not isinstance(found, GraphDataset):
        raise DataError(f"{found.name} is no data set of graphs; this is for graphs alone")
    return found


def is_table(name: str) -> bool:
    """Whether :func:`load` reads ``name`` as a table of molecules, whose columns have to be chosen."""
    return not (folder_prefix(name) or _named(name) or tu.find(name, None) or kind(name) == SUFFIX)


def _named(name: str) -> DatasetInfo | None:
    return DATASETS.get(name) or {key.casefold(): row for key, row in DATASETS.items()}.get(name.casefold())
