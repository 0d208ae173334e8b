"""Molecules as graphs: the only module that imports rdkit and ogb, and only when a function is called."""

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from importlib import import_module
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch_geometric.data import Data

from plstm_graph.data.features import ATOM_SIZES, BOND_SIZES
from plstm_graph.data.stacked import Stacked
from plstm_graph.errors import DataError, missing_extra
from plstm_graph.io.waiting import told

log = logging.getLogger(__name__)

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
BOND, LETTER = 18, 9
"""Of drawings, in pixels: length of a bond where there is room, and the least height of a letter."""
_MAP = re.compile(r"(\[[^\[\]]*):\d+\]")


class UnreadableSMILES(DataError):
    """rdkit cannot make a molecule of a text."""


class Rejected(NamedTuple):
    """A row of a file that did not become a graph.

    ``row`` counts data rows from 1 (a header is not counted), ``text`` is the SMILES as written, ``id`` what the file
    calls the row, where it has a column for that.
    """

    row: int
    text: str
    reason: str
    id: str = ""


class Layout(NamedTuple):
    """A flat drawing: ``coordinates`` [N, 2] in Å, ``symbols`` of the N atoms with their charges, ``bonds`` as (atom,
    atom, order).

    ``hydrogens`` [N] are those of atoms that are not carbon; ``wedges`` are bonds, as (atom, atom) from the narrow end,
    that rise from the paper (True) or go behind it.
    """

    coordinates: np.ndarray
    symbols: list[str]
    bonds: list[tuple[int, int, float]]
    hydrogens: list[int]
    wedges: dict[tuple[int, int], bool]


def parse(smiles: str) -> Any:
    """The rdkit ``Mol`` of a SMILES text, without atom-map numbers; rdkit's own log stays silent.

    Map numbers carry no chemistry, but rdkit would rank atoms by them and take atoms that differ in them alone for
    stereocentres: so they are gone before it reads the text.

    Raises:
        UnreadableSMILES: the text is not one valid molecule; the message holds rdkit's reason on one line.
    """
    text = _one_molecule(smiles)
    chem, base = _import("rdkit.Chem"), _import("rdkit.rdBase")
    structure, *extension = text.split(maxsplit=1)
    with base.BlockLogs():
        mol = chem.MolFromSmiles(" ".join([_MAP.sub(r"\1]", structure), *extension]))
    if mol is None:
        raise UnreadableSMILES(f"rdkit cannot read the SMILES {text!r}: {_reason(text)}")
    if mol.GetNumAtoms() == 0:
        raise UnreadableSMILES(f"the SMILES {text!r} has no atoms")
    if extension and any(atom.GetAtomMapNum() for atom in mol.GetAtoms()):  # CXSMILES has them as properties, too
        for atom in mol.GetAtoms():
            atom.SetAtomMapNum(0)
        chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return mol


@lru_cache(maxsize=1 << 17)
def canonical(smiles: str) -> str:
    """One text for all spellings of a molecule: rdkit's canonical SMILES, without atom-map numbers."""
    return str(_import("rdkit.Chem").MolToSmiles(parse(smiles)))


def same_molecules(smiles: Iterable[str]) -> list[int]:
    """Number of each text's molecule, in order of appearance; texts that rdkit cannot read are compared as they are."""
    numbers: dict[str, int] = {}

    def key(text: str) -> str:
        try:
            return canonical(text)
        except UnreadableSMILES:
            return text

    texts = list(smiles)
    return [numbers.setdefault(key(text), len(numbers)) for text in told(texts, f"comparing {len(texts):,} molecules")]


def smiles_to_data(smiles: str, featuriser: str = CIP) -> Data:
    """One molecule as a graph: the features and the order of edges of ``ogb.utils.smiles2graph``.

    With ``"cip-molecule"`` the chirality of an atom is its CIP label (see :data:`CIP_LABELS`; Hanson et al. 2018, as in
    rdkit), which no spelling changes; with ``"ogb-molecule"`` it is OGB's tag, and the graph equals OGB's.

    Returns:
        Data with ``x`` [N, 9] and ``edge_attr`` [2B, 3] (categories, int64), ``edge_index`` [2, 2B] (each of the B
        bonds as two neighbouring columns, one a direction), ``smiles`` as given and ``rank`` [N], rdkit's canonical
        rank of every atom, ties broken.

    Raises:
        DataError: see :func:`parse`; also a bond that OGB's vocabulary does not know (an atropisomer).
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
        _import("rdkit.Chem.rdCIPLabeler").AssignCIPLabels(mol)
    return [atom.GetProp("_CIPCode") if atom.HasProp("_CIPCode") else "" for atom in atoms]


def from_mol_block(text: str) -> tuple[str, str, dict[str, str]]:
    """Canonical SMILES, title and properties of one record of an SD file.

    Of a structure that rdkit refuses the SMILES is what is written there, faults and all; empty where it is unreadable.
    """
    chem, base = _import("rdkit.Chem"), _import("rdkit.rdBase")
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
    _import("rdkit.Chem"), _ogb_features()  # a missing package is an error, not a reason to reject every row
    graphs: list[tuple[int, Data]] = []
    rejected: list[Rejected] = []
    read: dict[int, _Numbers] = {}
    texts = list(texts)
    for row, text in enumerate(told(texts, f"reading {len(texts):,} molecules"), start=1):
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


def scaffold(smiles: str) -> str:
    """Bemis-Murcko scaffold with chirality; the empty text for a molecule without a ring.

    That of the canonical SMILES: what is left of a stereocentre without its substituents depends on the spelling.
    """
    murcko = _import("rdkit.Chem.Scaffolds.MurckoScaffold")
    return str(murcko.MurckoScaffoldSmiles(mol=parse(canonical(smiles)), includeChirality=True))


def fingerprints(smiles: Iterable[str], radius: int = 2, bits: int = 2048, *, counts: bool = False) -> np.ndarray:
    """Morgan fingerprints, a row a molecule, [molecules, bits]: zeros and ones (uint8), or ``counts`` (int32).

    A molecule that rdkit cannot read has a row of zeros; how many there are goes to the log.
    """
    generator = _import("rdkit.Chem.rdFingerprintGenerator").GetMorganGenerator(radius=radius, fpSize=bits)
    make = generator.GetCountFingerprintAsNumPy if counts else generator.GetFingerprintAsNumPy
    texts = list(smiles)
    rows = np.zeros((len(texts), bits), dtype=np.int32 if counts else np.uint8)
    missed = 0
    for row, text in zip(rows, texts, strict=True):
        try:
            row[:] = make(parse(text))
        except UnreadableSMILES:
            missed += 1
    if missed:
        log.info("%d of %d molecules are unknown to rdkit and have no fingerprint", missed, len(texts))
    return rows


def rdkit_descriptors(smiles: Iterable[str]) -> np.ndarray:
    """All 2D descriptors of rdkit (``rdkit.Chem.Descriptors``), [molecules, descriptors], NaN where there is none.

    They are those of the canonical SMILES, since some depend on how a molecule was written.
    """
    chem, base, names = _import("rdkit.Chem.Descriptors"), _import("rdkit.rdBase"), descriptor_names()
    rows = []
    with base.BlockLogs():
        for text in smiles:
            try:
                found = chem.CalcMolDescriptors(parse(canonical(text)), missingVal=np.nan, silent=True)
            except UnreadableSMILES:
                found = {}
            rows.append([found.get(name, np.nan) for name in names])
    return np.array(rows, dtype=np.float64).reshape(-1, len(names))


def descriptor_names() -> list[str]:
    """What rdkit calls the columns of :func:`rdkit_descriptors`; other versions of it have other ones."""
    return [name for name, _ in _import("rdkit.Chem.Descriptors").descList]


def element(number: int) -> str:
    """Symbol of the element of an atomic number."""
    return str(_import("rdkit.Chem").GetPeriodicTable().GetElementSymbol(number))


def layout(smiles: str) -> Layout:
    """Where to draw atoms and bonds of a molecule; atoms in the order of :func:`smiles_to_data`, aromatic order 1.5."""
    mol = parse(smiles)
    _import("rdkit.Chem.rdDepictor").Compute2DCoords(mol)
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), bond.GetBondTypeAsDouble()) for bond in mol.GetBonds()]
    atoms = list(mol.GetAtoms())
    places, symbols = mol.GetConformer().GetPositions()[:, :2], [_symbol(atom) for atom in atoms]
    hydrogens = [0 if atom.GetAtomicNum() == 6 else int(atom.GetTotalNumHs()) for atom in atoms]
    return Layout(places, symbols, bonds, hydrogens, _wedges(mol))


def _wedges(mol: Any) -> dict[tuple[int, int], bool]:
    chem = _import("rdkit.Chem")
    drawn = chem.Mol(mol)  # a wedge may turn its bond round
    chem.WedgeMolBonds(drawn, drawn.GetConformer())
    up, down = chem.BondDir.BEGINWEDGE, chem.BondDir.BEGINDASH
    return {
        (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()): bond.GetBondDir() == up
        for bond in drawn.GetBonds()
        if bond.GetBondDir() in (up, down)
    }


def _symbol(atom: Any) -> str:
    """Symbol of the element, with its charge: Cl⁻, Ca²⁺."""
    charge = int(atom.GetFormalCharge())
    number = str(abs(charge)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")) if abs(charge) > 1 else ""
    return str(atom.GetSymbol()) + (number + ("⁺" if charge > 0 else "⁻") if charge else "")


def depict(
    smiles: str, width: int = 260, height: int = 190, colours: Mapping[str, tuple[float, float, float]] | None = None
) -> str:
    """A drawing of a molecule as SVG with a transparent background, ``width`` by ``height`` pixels; ``colours``: red,
    green and blue from 0 to 1 of elements in place of rdkit's."""
    mol = parse(smiles)
    drawing = _import("rdkit.Chem.Draw.rdMolDraw2D")
    canvas = drawing.MolDraw2DSVG(width, height)
    options = canvas.drawOptions()
    options.clearBackground = False
    options.fixedBondLength, options.minFontSize = BOND, LETTER  # all of one size; what is larger is made to fit
    number = _import("rdkit.Chem").GetPeriodicTable().GetAtomicNumber
    options.updateAtomPalette({number(symbol): colour for symbol, colour in (colours or {}).items()})
    drawing.PrepareAndDrawMolecule(canvas, mol)
    canvas.FinishDrawing()
    return str(canvas.GetDrawingText())


def contrib_folder() -> str:
    """The folder of contributed code and data that the rdkit wheel carries."""
    return str(_import("rdkit.RDConfig").RDContribDir)


def _ranks(mol: Any) -> list[int]:
    return list(_import("rdkit.Chem").CanonicalRankAtoms(mol, breakTies=True))


def _one_molecule(smiles: str) -> str:
    """The text without surrounding blanks. rdkit takes what follows a blank as a name, so 'CC O' would be ethane."""
    if not isinstance(smiles, str):
        raise UnreadableSMILES(f"a SMILES must be a text, got {type(smiles).__name__}")
    text = smiles.strip()
    if not text:
        raise UnreadableSMILES("the SMILES is empty")
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # what a shell makes of bytes that are not UTF-8
        raise UnreadableSMILES(f"the SMILES {text!a} is not Unicode text")
    rest = text.split(maxsplit=1)[1:]
    if rest and not rest[0].startswith("|"):  # |...| is a CXSMILES extension, which rdkit reads
        raise UnreadableSMILES(
            f"{text!r} is not one SMILES: {rest[0]!r} follows a blank; remove it or move it to a column"
        )
    return text


def _reason(text: str) -> str:
    """Why rdkit refuses a text, on one line."""
    if re.sub("->|<-", "", text).count(">") == 2:  # but for arrows, which are dative bonds
        return "it is a reaction (reactants>agents>products); give one molecule, for example the product"
    chem, base = _import("rdkit.Chem"), _import("rdkit.rdBase")
    with base.BlockLogs():
        mol = chem.MolFromSmiles(text, sanitize=False)
        if mol is not None:
            problems = [problem.Message() for problem in chem.DetectChemistryProblems(mol)]
            return "; ".join(problems) if problems else "the structure cannot be sanitised"
    if not hasattr(base, "CaptureErrorLog"):  # older rdkit: its log is the only source, and cannot be had safely
        return "not a valid SMILES (syntax error, unclosed ring or unknown element)"
    with base.CaptureErrorLog() as capture:
        chem.MolFromSmiles(text, sanitize=False)
    try:
        messages = capture.messages.splitlines()
    except UnicodeDecodeError:  # rdkit shortens a long text between the bytes of a letter
        return "not a valid SMILES (letters beyond ASCII)"
    lines = [line.partition("] ")[2].removeprefix("SMILES Parse Error: ") for line in messages]
    # Of the lines of a syntax error the one with the position says most; other errors have one line.
    where = [line.rstrip(":") for line in lines if line.startswith("check for mistakes")]
    what = [line.partition(" for input:")[0] for line in lines if line]
    return f"syntax error, {where[0]}" if where else (what[0] if what else "not a valid SMILES")


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
    with _no_version_check():
        return _import("ogb.utils.features")


@contextmanager
def _no_version_check() -> Iterator[None]:
    """Import ogb without its thread that asks PyPI for a newer release.

    ``ogb.version`` starts that thread wherever it can import ``outdated`` (which on import asks PyPI about itself as
    well), and no setting of either turns the request off. Both skip it where ``outdated`` is not installed.
    """
    before = {"outdated": sys.modules["outdated"]} if "outdated" in sys.modules else {}
    sys.modules["outdated"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["outdated"]
        sys.modules.update(before)


def _import(name: str) -> Any:
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise DataError(missing_extra(package, "mol")) from error
