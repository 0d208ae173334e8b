"""Molecules as rows of numbers: fingerprints, and rdkit's descriptors."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from plstm_graph.config.models import check_fingerprint
from plstm_graph.data.smiles import UnreadableSMILES, canonical, needed, parse

log = logging.getLogger(__name__)

MACCS_BITS = 167
"""Keys are numbered from 1: the first bit is never set."""


def fingerprints(
    smiles: Iterable[str], radius: int = 2, bits: int = 2048, *, counts: bool = False, kind: str = "morgan"
) -> np.ndarray:
    """Fingerprints, a row a molecule, [molecules, bits]: zeros and ones (uint8), or ``counts`` (int32).

    ``kind`` is one of :data:`plstm_graph.config.models.FINGERPRINTS`. Only Morgan's have a radius, and the MACCS keys
    are 167 whatever ``bits`` says. A molecule that rdkit cannot read has a row of zeros; how many goes to the log.

    Raises:
        ConfigError: rdkit makes no such fingerprint.
    """
    check_fingerprint(kind, counts)
    make, bits = _fingerprinter(kind, radius, bits, counts)
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


def _fingerprinter(kind: str, radius: int, bits: int, counts: bool) -> tuple[Callable[[Any], Any], int]:
    """What makes a fingerprint of a ``Mol``, and its number of bits."""
    if kind == "maccs":
        return needed("rdkit.Chem.rdMolDescriptors").GetMACCSKeysFingerprint, MACCS_BITS
    make = needed("rdkit.Chem.rdFingerprintGenerator")
    if kind == "atom-pairs":
        generator = make.GetAtomPairGenerator(fpSize=bits)
    elif kind == "torsions":
        generator = make.GetTopologicalTorsionGenerator(fpSize=bits)
    else:
        atoms = make.GetMorganFeatureAtomInvGen() if kind == "morgan-features" else None
        generator = make.GetMorganGenerator(radius=radius, fpSize=bits, atomInvariantsGenerator=atoms)
    return generator.GetCountFingerprintAsNumPy if counts else generator.GetFingerprintAsNumPy, bits


def rdkit_descriptors(smiles: Iterable[str]) -> np.ndarray:
    """All 2D descriptors of rdkit (``rdkit.Chem.Descriptors``), [molecules, descriptors], NaN where there is none.

    They are those of the canonical SMILES, since some depend on how a molecule was written.
    """
    chem, base, names = needed("rdkit.Chem.Descriptors"), needed("rdkit.rdBase"), descriptor_names()
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
    return [name for name, _ in needed("rdkit.Chem.Descriptors").descList]
