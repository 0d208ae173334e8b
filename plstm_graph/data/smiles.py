"""SMILES and what they say: the only module that imports rdkit and ogb, and only when a function is called."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from plstm_graph.errors import DataError, missing_extra
from plstm_graph.io.waiting import tracked

CARBON = 6
_MAP = re.compile(r"(\[[^\[\]]*):\d+\]")


class UnreadableSMILES(DataError):
    """rdkit cannot make a molecule of a text."""


def parse(smiles: str) -> Any:
    """The rdkit ``Mol`` of a SMILES text, without atom-map numbers; rdkit's own log stays silent.

    Map numbers carry no chemistry, but rdkit would rank atoms by them and take atoms that differ in them alone for
    stereocentres: so they are gone before it reads the text.

    Raises:
        UnreadableSMILES: the text is not one valid molecule; the message holds rdkit's reason on one line.
    """
    text = _one_molecule(smiles)
    chem, base = needed("rdkit.Chem"), needed("rdkit.rdBase")
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
    chem, base = needed("rdkit.Chem"), needed("rdkit.rdBase")
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


@lru_cache(maxsize=1 << 17)
def canonical(smiles: str) -> str:
    """One text for all spellings of a molecule: rdkit's canonical SMILES, without atom-map numbers."""
    return str(needed("rdkit.Chem").MolToSmiles(parse(smiles)))


def same_molecules(smiles: Iterable[str]) -> list[int]:
    """Number of each text's molecule, in order of appearance; texts that rdkit cannot read are compared as they are."""
    numbers: dict[str, int] = {}

    def key(text: str) -> str:
        try:
            return canonical(text)
        except UnreadableSMILES:
            return text

    texts = list(smiles)
    work = tracked(texts, f"comparing {len(texts):,} molecules")
    return [numbers.setdefault(key(text), len(numbers)) for text in work]


def scaffold(smiles: str) -> str:
    """Bemis-Murcko scaffold with chirality; the empty text for a molecule without a ring.

    That of the canonical SMILES: what is left of a stereocentre without its substituents depends on the spelling.
    """
    text = canonical(smiles)
    mol = parse(text)
    if any(bond in text for bond in ("->", "<-", "~")):  # rdkit counts no rings that these close
        return str(needed("rdkit.Chem.Scaffolds.MurckoScaffold").MurckoScaffoldSmiles(mol=mol, includeChirality=True))
    return _murcko(mol)


def _murcko(mol: Any) -> str:
    """What ``MurckoScaffoldSmiles`` writes. That looks for the shortest paths between all atoms to find those in a ring
    or between two rings, in time that grows with the cube of their number; what is left of a molecule when its ends are
    taken away, one after the other, is the same."""
    chem = needed("rdkit.Chem")
    orders = chem.GetAdjacencyMatrix(mol, useBO=True)
    neighbours: list[list[int]] = [[] for _ in orders]
    for u, v in np.argwhere(orders).tolist():
        neighbours[u].append(v)
    left = [len(others) for others in neighbours]
    kept = [True] * len(left)
    ends = [atom for atom, count in enumerate(left) if count < 2]
    while ends:
        end = ends.pop()
        kept[end] = False
        for atom in neighbours[end]:
            left[atom] -= 1
            if left[atom] == 1 and kept[atom]:
                ends.append(atom)
    if not any(kept):
        return ""
    mol, unspecified = chem.RWMol(mol), chem.ChiralType.CHI_UNSPECIFIED
    mol.BeginBatchEdit()
    for number in (number for number, inside in enumerate(kept) if not inside):
        for other in (other for other in neighbours[number] if kept[other]):
            if orders[number, other] == 2:  # it stays
                break
            atom = mol.GetAtomWithIdx(other)
            if atom.GetIsAromatic() and (atom.GetAtomicNum() != CARBON or atom.GetFormalCharge() == 1):
                atom.SetNumExplicitHs(1)
            elif atom.GetNoImplicit() or atom.GetChiralTag() != unspecified:
                atom.SetNoImplicit(False)
                atom.SetNumExplicitHs(0)
                atom.SetChiralTag(unspecified)
        else:
            mol.RemoveAtom(number)
    mol.CommitBatchEdit()
    mol.ClearComputedProps()
    mol.UpdatePropertyCache()
    chem.GetSymmSSSR(mol)
    return str(chem.MolToSmiles(mol))


def contrib_folder() -> str:
    """The folder of contributed code and data that the rdkit wheel carries."""
    return str(needed("rdkit.RDConfig").RDContribDir)


def needed(name: str) -> Any:
    """A module of rdkit or ogb.

    Raises:
        DataError: the package is not installed; the message says what to install.
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise DataError(missing_extra(package, "mol")) from error


@contextmanager
def without_version_check() -> Iterator[None]:
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
