"""Molecules as graphs."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch_geometric.data import Data

from plstm_graph.data.features import ATOM_SIZES, BOND_SIZES
from plstm_graph.data.smiles import needed, parse, without_version_check
from plstm_graph.data.stacked import Stacked
from plstm_graph.errors import DataError
from plstm_graph.io.waiting import tracked

CIP, OGB = "cip-molecule", "ogb-molecule"
FEATURISERS = (CIP, OGB)
"""How a SMILES becomes a graph: OGB's features as they are, or with CIP labels in place of OGB's chirality tags, which
follow the order of neighbours in the SMILES."""
CIP_LABELS = {"R": 1, "S": 2, "r": 3, "s": 4}
"""Categories of the chirality column; 0 for an atom without a label. OGB's are unspecified, CW, CCW, other, misc."""
CHIRALITY = 1
"""Column of ``x``."""
AT_ONCE = 4096
"""Molecules that are lists of numbers at a time, on the way to tensors."""


class Rejected(NamedTuple):
    """A row of a file that did not become a graph.

    ``row`` counts data rows from 1 (a header is not counted), ``text`` is the SMILES as written, ``id`` what the file
    calls the row, where it has a column for that.
    """

    row: int
    text: str
    reason: str
    id: str = ""


def smiles_to_data(smiles: str, featuriser: str = CIP) -> Data:
    """One molecule as a graph: the features and the order of edges of ``ogb.utils.smiles2graph``.

    With ``"cip-molecule"`` the chirality of an atom is its CIP label (see :data:`CIP_LABELS`; Hanson et al. 2018, as in
    rdkit), which no spelling changes; with ``"ogb-molecule"`` it is OGB's tag, and the graph equals OGB's.

    Returns:
        Data with ``x`` [N, 9] and ``edge_attr`` [2B, 3] (categories, int64), ``edge_index`` [2, 2B] (each of the B
        bonds as two neighbouring columns, one a direction), ``smiles`` as given and ``rank`` [N], rdkit's canonical
        rank of every atom, ties broken.

    Raises:
        DataError: see :func:`~plstm_graph.data.smiles.parse`; also a bond that OGB's vocabulary lacks (an atropisomer).
    """
    return _graphs([_numbers(smiles, featuriser)])[0]


class _Numbers(NamedTuple):
    """A molecule as lists: features of its atoms, ends of its bonds one way and the other, their features, ranks."""

    smiles: str
    atoms: list[list[int]]
    ends: list[tuple[int, int]]
    bonds: list[list[int]]
    rank: Sequence[int]


def _numbers(smiles: str, featuriser: str) -> _Numbers:
    mol = parse(smiles)
    # By number: rdkit's own iterators look up every atom and bond several times.
    atoms = [mol.GetAtomWithIdx(number) for number in range(mol.GetNumAtoms())]
    bonds = [mol.GetBondWithIdx(number) for number in range(mol.GetNumBonds())]
    features = [_atom_features(atom) for atom in atoms]
    if featuriser == CIP and any(row[CHIRALITY] for row in features):
        labels = (CIP_LABELS.get(label, 0) for label in _cip_labels(mol, atoms))
        features = [
            [*row[:CHIRALITY], label, *row[CHIRALITY + 1 :]] for row, label in zip(features, labels, strict=True)
        ]
    along = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in bonds]
    return _Numbers(
        smiles,
        features,
        [ends for u, v in along for ends in ((u, v), (v, u))],
        [row for bond in bonds for row in 2 * [_bond_features(bond, smiles)]],
        _ranks(mol),
    )


def _graphs(molecules: Sequence[_Numbers]) -> list[Data]:
    """Graphs whose tensors are views of a few for all: a tensor for each takes longer than what rdkit does."""

    def stacked(parts: Iterable[Sequence[Any]], *width: int) -> torch.Tensor:
        return torch.from_numpy(np.array(list(chain.from_iterable(parts)), dtype=np.int64).reshape(-1, *width))

    smiles, atoms, ends, bonds, rank = zip(*molecules, strict=True)
    return (
        Stacked(
            nodes=torch.tensor([len(each) for each in atoms]),
            columns=torch.tensor([len(each) for each in ends]),
            x=stacked(atoms, len(ATOM_SIZES)),
            edge_index=stacked(ends, 2).t().contiguous(),
            edge_attr=stacked(bonds, len(BOND_SIZES)),
            rank=stacked(rank),
            smiles=list(smiles),
        )
        .graphs()
        .cut()
    )


def _cip_labels(mol: Any, atoms: Sequence[Any]) -> list[str]:
    """R, S, r or s of every atom; the empty text without a label. Only atoms with a chirality tag have any."""
    with suppress(RuntimeError):  # too many paths to follow: rdkit's older labels, made on reading, stay
        needed("rdkit.Chem.rdCIPLabeler").AssignCIPLabels(mol)
    return [atom.GetProp("_CIPCode") if atom.HasProp("_CIPCode") else "" for atom in atoms]


def from_mol_block(text: str) -> tuple[str, str, dict[str, str]]:
    """Canonical SMILES, title and properties of one record of an SD file.

    Of a structure that rdkit refuses the SMILES is what is written there, faults and all; empty where it is unreadable.
    """
    chem, base = needed("rdkit.Chem"), needed("rdkit.rdBase")
    supplier = chem.SDMolSupplier()
    with base.BlockLogs():
        for sanitize in (True, False):
            supplier.SetData(text, sanitize=sanitize)
            mol = supplier[0] if len(supplier) else None
            if mol is not None:
                break
    if mol is None:
        return "", text.partition("\n")[0].strip(), {}
    values = {str(name): str(mol.GetProp(name)) for name in mol.GetPropNames()}
    title = mol.GetProp("_Name").strip() if mol.HasProp("_Name") else ""
    return str(chem.MolToSmiles(mol)), title, values


def read_molecules(texts: Iterable[str], featuriser: str = CIP) -> tuple[list[tuple[int, Data]], list[Rejected]]:
    """Graphs of the texts that can be read, each with its row (from 1), and the rows that cannot, with the reason."""
    needed("rdkit.Chem"), _ogb_features()  # a missing package is an error, not a reason to reject every row
    graphs: list[tuple[int, Data]] = []
    rejected: list[Rejected] = []
    read: dict[int, _Numbers] = {}
    texts = list(texts)
    for row, text in enumerate(tracked(texts, f"reading {len(texts):,} molecules"), start=1):
        try:
            read[row] = _numbers(text, featuriser)
        except DataError as error:
            rejected.append(Rejected(row, text, str(error)))
        if read and (len(read) == AT_ONCE or row == len(texts)):
            graphs += zip(read, _graphs([*read.values()]), strict=True)
            read = {}
    return graphs, rejected


def canonical_rank(smiles: str) -> torch.Tensor:
    """Canonical rank of every atom by rdkit, ties broken: a permutation of 0 to N - 1 as int64, [N]."""
    return torch.tensor(_ranks(parse(smiles)))


def element(number: int) -> str:
    """Symbol of the element of an atomic number."""
    return str(needed("rdkit.Chem").GetPeriodicTable().GetElementSymbol(number))


def _ranks(mol: Any) -> list[int]:
    return list(needed("rdkit.Chem").CanonicalRankAtoms(mol, breakTies=True))


_known_atoms: dict[tuple[Any, ...], list[int]] = {}
_known_bonds: dict[tuple[Any, ...], list[int]] = {}
"""OGB's features of all kinds of atoms and bonds met so far, some hundred: it looks each number up in a list."""


def _atom_features(atom: Any) -> list[int]:
    kind = (
        *(atom.GetAtomicNum(), atom.GetChiralTag(), atom.GetTotalDegree(), atom.GetFormalCharge()),
        *(atom.GetTotalNumHs(), atom.GetNumRadicalElectrons(), atom.GetHybridization()),
        *(atom.GetIsAromatic(), atom.IsInRing()),
    )
    if kind not in _known_atoms:
        _known_atoms[kind] = list(_ogb_features().atom_to_feature_vector(atom))
    return _known_atoms[kind]


def _bond_features(bond: Any, smiles: str) -> list[int]:
    kind = bond.GetBondType(), bond.GetStereo(), bond.GetIsConjugated()
    try:
        if kind not in _known_bonds:
            _known_bonds[kind] = list(_ogb_features().bond_to_feature_vector(bond))
        return _known_bonds[kind]
    except ValueError as error:
        raise DataError(f"a bond of {smiles!r} has stereo {bond.GetStereo()}, which OGB's features lack") from error


@cache
def _ogb_features() -> Any:
    with without_version_check():
        return needed("ogb.utils.features")
