"""Fingerprints, against rdkit's own functions."""

from typing import Any

import numpy as np
import pytest

from plstm_graph.config.models import FINGERPRINTS
from plstm_graph.data.smiles import parse
from plstm_graph.data.vectors import fingerprints
from plstm_graph.errors import ConfigError

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


def test_fingerprints() -> None:
    bits = fingerprints([ASPIRIN, "CCO", "OCC"], bits=512)
    assert bits.shape == (3, 512)
    assert set(np.unique(bits)) == {0, 1}
    assert np.array_equal(bits[1], bits[2])
    assert not np.array_equal(bits[0], bits[1])
    assert fingerprints([]).shape == (0, 2048)
    counts = fingerprints([ASPIRIN, "C1CC"], bits=512, counts=True)
    assert np.array_equal(counts[0] > 0, bits[0] > 0)
    assert counts.max() > 1
    assert not counts[1].any()  # unknown to rdkit


def by_rdkit(kind: str, radius: int, bits: int) -> Any:
    """What rdkit calls these fingerprints, by its older functions where it has some."""
    from rdkit.Chem import AllChem, MACCSkeys, rdFingerprintGenerator

    return {
        "morgan": lambda mol: AllChem.GetMorganFingerprintAsBitVect(mol, radius, nBits=bits),
        "morgan-features": lambda mol: AllChem.GetMorganFingerprintAsBitVect(mol, radius, nBits=bits, useFeatures=True),
        "maccs": MACCSkeys.GenMACCSKeys,
        "atom-pairs": rdFingerprintGenerator.GetAtomPairGenerator(fpSize=bits).GetFingerprint,
        "torsions": rdFingerprintGenerator.GetTopologicalTorsionGenerator(fpSize=bits).GetFingerprint,
    }[kind]


@pytest.mark.parametrize("radius", [1, 3])
@pytest.mark.parametrize("kind", FINGERPRINTS)
def test_every_kind_of_fingerprint_is_rdkits(kind: str, radius: int) -> None:
    texts, bits = [ASPIRIN, "CCO", "c1ccncc1CCN"], 512
    found = fingerprints([*texts, "C1CC"], radius, bits, kind=kind)
    assert found[:-1].tolist() == [list(by_rdkit(kind, radius, bits)(parse(text))) for text in texts]
    assert not found[-1].any()
    if kind == "maccs":
        with pytest.raises(ConfigError, match="not how often"):
            fingerprints(texts, counts=True, kind=kind)
    elif kind.startswith("morgan"):  # the others count in their bits, too
        assert np.array_equal(fingerprints(texts, radius, bits, counts=True, kind=kind) > 0, found[:-1] > 0)


def test_a_fingerprint_that_rdkit_does_not_make() -> None:
    with pytest.raises(ConfigError, match="unknown fingerprint 'ecfp'"):
        fingerprints(["CCO"], kind="ecfp")
