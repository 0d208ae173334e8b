"""Flat drawings of molecules by rdkit: where atoms and bonds are, or the picture itself."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from plstm_graph.data.smiles import needed, parse

BOND, LETTER = 18, 9
"""Of drawings, in pixels: length of a bond where there is room, and the least height of a letter."""


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


def layout(smiles: str) -> Layout:
    """Where to draw atoms and bonds of a molecule; atoms in the order of :func:`smiles_to_data`, aromatic order 1.5."""
    mol = parse(smiles)
    needed("rdkit.Chem.rdDepictor").Compute2DCoords(mol)
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), bond.GetBondTypeAsDouble()) for bond in mol.GetBonds()]
    atoms = list(mol.GetAtoms())
    places, symbols = mol.GetConformer().GetPositions()[:, :2], [_symbol(atom) for atom in atoms]
    hydrogens = [0 if atom.GetAtomicNum() == 6 else int(atom.GetTotalNumHs()) for atom in atoms]
    return Layout(places, symbols, bonds, hydrogens, _wedges(mol))


def _wedges(mol: Any) -> dict[tuple[int, int], bool]:
    chem = needed("rdkit.Chem")
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
    drawing = needed("rdkit.Chem.Draw.rdMolDraw2D")
    canvas = drawing.MolDraw2DSVG(width, height)
    options = canvas.drawOptions()
    options.clearBackground = False
    options.fixedBondLength, options.minFontSize = BOND, LETTER  # all of one size; what is larger is made to fit
    number = needed("rdkit.Chem").GetPeriodicTable().GetAtomicNumber
    options.updateAtomPalette({number(symbol): colour for symbol, colour in (colours or {}).items()})
    drawing.PrepareAndDrawMolecule(canvas, mol)
    canvas.FinishDrawing()
    return str(canvas.GetDrawingText())
