"""Descriptors of whole molecules, which networks read beside the graph: rdkit's by name, or a table of one's own."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.config.names import DESCRIPTORS
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.smiles import UnreadableSMILES, canonical
from plstm_graph.data.stacked import with_attributes
from plstm_graph.data.tables import MISSING, SMILES_COLUMNS, Table, number, read_rows
from plstm_graph.data.vectors import descriptor_names, fingerprints, rdkit_descriptors
from plstm_graph.errors import ConfigError, DataError, listed, unknown
from plstm_graph.io.files import expanded

log = logging.getLogger(__name__)


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise ConfigError unless each is in ``plstm_graph.config.names.DESCRIPTORS`` or a file, and none comes twice."""
    for kind in kinds:
        if kind in DESCRIPTORS or expanded(kind).is_file():
            continue
        if Path(kind).suffix:
            raise ConfigError(
                f"there is no file {kind}; give --descriptors the file where it is now, or another one with SMILES and "
                "columns of the same names"
            )
        raise ConfigError(f"there is no file {kind}: {unknown('descriptors', Path(kind).name, DESCRIPTORS)}")
    if len(set(kinds)) < len(kinds):
        raise ConfigError(f"descriptors must be named once each (got {', '.join(kinds)})")


class Descriptors(NamedTuple):
    """Columns of numbers, one row a molecule: ``rows`` [molecules, columns] float32, NaN where there is none.

    ``names`` are those of the columns; empty where they are not known, as in what older versions wrote.
    """

    names: tuple[str, ...]
    rows: Tensor

    @classmethod
    def joined(cls, parts: Iterable["Descriptors"]) -> "Descriptors":
        """All columns side by side.

        Raises:
            DataError: two have one name.
        """
        parts = list(parts)
        names = tuple(name for part in parts for name in part.names) if all(part.names for part in parts) else ()
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise DataError(f"two columns of the descriptors are called {listed(twice)}; rename or remove one of each")
        return cls(names, torch.cat([part.rows for part in parts], 1))

    def like(self, features: FeatureSpec, source: str) -> "Descriptors":
        """The columns that a model was trained on, in their order; see :meth:`places`."""
        return self.at(self.places(features, source))

    def at(self, places: Sequence[int]) -> "Descriptors":
        """Some of the columns."""
        return Descriptors(tuple(self.names[place] for place in places if self.names), self.rows[:, list(places)])

    def places(self, features: FeatureSpec, source: str) -> Sequence[int]:
        """Which columns a model was trained on, in its order; others are left out, which the log says.

        Args:
            features: of the training.
            source: where these come from, for the error.

        Raises:
            DataError: one is missing; or names are not known, and the columns are not as many.
        """
        wanted = features.descriptor_names
        if not wanted or not self.names:
            if self.rows.size(1) != features.descriptors:
                raise DataError(
                    f"descriptors {source} have {self.rows.size(1)} columns here and had {features.descriptors} in "
                    "training; bring back that file, or install the version of rdkit that the checkpoint names"
                )
            log.warning(f"descriptors {source}: no names of columns are stored, so they are taken in their order")
            return range(features.descriptors)
        places = {name: place for place, name in enumerate(self.names)}
        missing = [name for name in wanted if name not in places]
        if missing:
            raise DataError(
                f"descriptors {source} lack {len(missing)} of the {len(wanted)} columns of the training: "
                f"{listed(missing)}; name columns as there, or install the version of rdkit that the checkpoint names"
            )
        if more := [name for name in self.names if name not in set(wanted)]:
            log.warning(f"descriptors {source}: not read, since the training had none of that name: {listed(more)}")
        return [places[name] for name in wanted]


def describe(kind: str, smiles: Sequence[str], wanted: Sequence[str] = ()) -> Descriptors:
    """Descriptors of one kind.

    Args:
        kind: one of :data:`plstm_graph.config.names.DESCRIPTORS`, or the path of a CSV file with SMILES (in any
            spelling) and columns of numbers.
        smiles: of the molecules.
        wanted: names of columns that are read from a file even if they hold no number.

    Raises:
        ConfigError, DataError: no such kind; the file cannot be used.
    """
    if kind not in DESCRIPTORS:
        return Lookup([kind], wanted)(smiles)
    if kind == "rdkit2d":
        names = tuple(f"rdkit2d {name}" for name in descriptor_names())
        return Descriptors(names, torch.from_numpy(rdkit_descriptors(smiles).clip(-LARGEST, LARGEST)).float())
    plain = kind.removesuffix("-counts")
    rows = torch.from_numpy(fingerprints(smiles, counts=kind != plain, kind=plain)).float()
    return Descriptors(tuple(f"{kind} {bit}" for bit in range(rows.size(1))), rows)


TOLD = 3
"""Molecules, and cells, that a note names."""
LARGEST = 1e30
"""Of a descriptor, either way: Ipc of a large molecule is beyond any float."""


class _File:
    """A table of descriptors: ``names`` of the columns, ``known`` rows by molecule, and ``absent``, what was asked for
    in vain."""

    def __init__(self, path: Path, wanted: Sequence[str]) -> None:
        table, texts = read_rows(path)
        columns = _columns(table, wanted)
        if not columns:
            raise DataError(f"{path} has no column of numbers beside the SMILES")
        cells = np.array(list(columns.values()), dtype=np.float64).T.clip(-LARGEST, LARGEST).astype(np.float32)
        self.path, self.names, self.absent = path, tuple(columns), list[str]()
        self.known: dict[str, np.ndarray] = {}
        for text, row in zip(texts, cells, strict=True):
            if not np.array_equal(self.known.setdefault(_key(text), row), row, equal_nan=True):
                raise DataError(f"{path} must have one row a molecule, but {text} has two that differ; leave one out")

    def of(self, smiles: Sequence[str]) -> Descriptors:
        """[molecules, columns], NaN for those that are absent."""
        found = [self.known.get(_key(text)) for text in smiles]
        self.absent += [text for text, row in zip(smiles, found, strict=True) if row is None]
        none = np.full(len(self.names), np.nan, np.float32)
        rows = np.array([none if row is None else row for row in found], np.float32)
        return Descriptors(self.names, torch.from_numpy(rows).view(-1, len(none)))


class Lookup:
    """Descriptors of molecules of some kinds, side by side, for any number of calls: files are read once.

    Args:
        kinds: as for :func:`describe`.
        wanted: names of columns, as there.
        features: of a training, whose columns are taken by name and in its order.
        parted: calls are for parts of the molecules, so that whoever made this has to :meth:`check` them all before,
            and to :meth:`tell` behind.

    Raises:
        ConfigError, DataError: as :func:`describe`; a column of the training is missing.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        wanted: Sequence[str] = (),
        features: FeatureSpec | None = None,
        parted: bool = False,
    ) -> None:
        check_kinds(kinds)
        self.kinds, self.parted = tuple(kinds), parted
        wanted = features.descriptor_names if features else wanted
        self.files = {kind: _File(expanded(kind), wanted) for kind in kinds if kind not in DESCRIPTORS}
        self.places = self._all([]).places(features, ", ".join(kinds)) if features else None

    def __call__(self, smiles: Sequence[str]) -> Descriptors:
        """Those of some molecules.

        Raises:
            DataError: as :meth:`check`, unless this is ``parted``.
        """
        if not self.parted:
            self.check(smiles)
        found = self._all(smiles)
        if not self.parted:
            self.tell(self.absent(), len(smiles))
        return found if self.places is None else found.at(self.places)

    def _all(self, smiles: Sequence[str]) -> Descriptors:
        own = (self.files[kind].of(smiles) if kind in self.files else describe(kind, smiles) for kind in self.kinds)
        return Descriptors.joined(own)

    def check(self, smiles: Sequence[str]) -> None:
        """Raise DataError where a file has none of these molecules; texts that are no molecules do not count."""
        for file in self.files.values():
            keys = (_key(text) for text in smiles)
            if not any(key in file.known for key in keys) and (count := sum(map(_is_molecule, smiles))):
                raise DataError(f"none of {count} molecules is in {file.path}; give --descriptors a file that has them")

    def absent(self) -> dict[str, list[str]]:
        """Molecules that were asked for and that a file lacks, by its kind; they are forgotten."""
        found = {kind: file.absent for kind, file in self.files.items()}
        for file in self.files.values():
            file.absent = []
        return found

    def tell(self, absent: Mapping[str, Sequence[str]], asked: int) -> None:
        """Warn of what files lack of so many molecules."""
        for kind, texts in absent.items():
            if texts:
                log.warning(
                    f"{self.files[kind].path.name} lacks {len(texts)} of {asked} molecules ({listed(texts[:TOLD])}, "
                    "...): to the model, their descriptors are the medians of the training"
                )


def _columns(table: Table, wanted: Sequence[str]) -> dict[str, list[float]]:
    """Columns by name: those that are wanted, as their training wrote them, and all others that hold a number."""
    spelled = {name.casefold(): name for name in wanted}
    found: dict[str, list[float]] = {}
    texts: list[str] = []
    for place, name in enumerate(table.columns):
        cells = [row[place] for row in table.rows]
        numbers = [_number(cell) for cell in table.with_points(cells)]
        known = name in wanted or name.casefold() in spelled
        if not known and not any(map(math.isfinite, numbers)):
            texts += [name] if any(cells) and name.casefold() not in SMILES_COLUMNS else []
            continue
        if not name:
            log.warning(f"{table.path}: column {place + 1} has no name, and is not read")
            continue
        name = name if name in wanted else spelled.get(name.casefold(), name)
        if name in found:
            raise DataError(f"{table.path} has two columns named {name!r}; rename one")
        found[name] = numbers
        _tell_missing(table.path.name, name, cells, numbers)
    if texts and not wanted:
        log.warning(f"{table.path.name}: no descriptors, since they hold no numbers: {listed(texts)}")
    return found


def _number(cell: str) -> float:
    value = number(cell)
    return math.nan if value is None or not math.isfinite(value) else value


def _tell_missing(file: str, name: str, cells: Sequence[str], numbers: Sequence[float]) -> None:
    """Cells that are neither numbers nor empty are said: to a model they are medians."""
    odd = [cell for cell, value in zip(cells, numbers, strict=True) if math.isnan(value)]
    if odd := [cell for cell in odd if cell.casefold() not in MISSING]:
        some = listed([*dict.fromkeys(map(repr, odd))][:TOLD])
        log.warning(
            f"{file}, column {name!r}: {len(odd)} of {len(cells)} cells hold no number and are missing: {some}, ..."
        )


def _key(text: str) -> str:
    try:
        return canonical(text)
    except UnreadableSMILES:
        return text.strip()


def _is_molecule(text: str) -> bool:
    try:
        return bool(canonical(text))
    except UnreadableSMILES:
        return False


def with_descriptors(graphs: Sequence[Data], kinds: Sequence[str] | Lookup, features: FeatureSpec) -> Sequence[Data]:
    """Molecules with the descriptors that a trained model reads, found by the names of their columns.

    Args:
        graphs: with ``smiles``.
        kinds: those of its training, or others that hold the same columns; or what looks them up.
        features: of its training.

    Raises:
        DataError: a column is missing.
    """
    if not kinds:
        return graphs
    look = kinds if isinstance(kinds, Lookup) else Lookup(kinds, features=features)
    return with_attributes(graphs, {"descriptors": look([graph.smiles for graph in graphs]).rows.split(1)})
