"""Graphs to time on: molecules and circuits (from raw files or a carried file), random molecules and random DAGs."""

from dataclasses import dataclass, field
from pathlib import Path

import carry
import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.data.aiger import Circuit, parse_aiger
from plstm_graph.data.features import ATOM_SIZES, BOND_SIZES
from plstm_graph.errors import DataError


@dataclass(frozen=True)
class Molecules:
    """Many molecules: ``bonds`` [2, B] number atoms inside their molecule, each bond stands once.

    ``node_ptr`` and ``bond_ptr`` [molecules + 1] say where each molecule starts; ``x`` [atoms, 9] and ``edge_attr``
    [B, 3] are OGB's features, ``y`` [molecules, targets] labels of zero and one; ``split`` is 0 for training.
    """

    source: str
    bonds: Tensor
    node_ptr: Tensor
    bond_ptr: Tensor
    x: Tensor
    edge_attr: Tensor
    y: Tensor
    split: Tensor

    def __len__(self) -> int:
        return self.node_ptr.numel() - 1

    @property
    def atoms(self) -> Tensor:
        """Atoms of each molecule."""
        return self.node_ptr.diff()

    def draw(self, count: int, seed: int = 0, atoms: tuple[int, int] = (1, 10**9)) -> list[int]:
        """Numbers of ``count`` molecules at random among those with so many atoms."""
        fitting = torch.nonzero((self.atoms >= atoms[0]) & (self.atoms <= atoms[1])).view(-1)
        if len(fitting) < count:
            raise DataError(
                f"{count} molecules of {atoms[0]} to {atoms[1]} atoms needed, {self.source} has {len(fitting)}"
            )
        order = torch.randperm(len(fitting), generator=torch.Generator().manual_seed(seed))
        return fitting[order[:count]].tolist()

    def batch(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """Disjoint union as PyG's loader makes it: edge_index [2, 2B] with both directions, batch vector [N]."""
        chosen = torch.tensor(numbers)
        sizes = self.atoms[chosen]
        shift = (sizes.cumsum(0) - sizes).tolist()
        starts, ends = self.bond_ptr[chosen].tolist(), self.bond_ptr[chosen + 1].tolist()
        parts = [self.bonds[:, a:b] + up for a, b, up in zip(starts, ends, shift, strict=True)]
        bonds = torch.cat(parts, 1)
        edge_index = torch.stack([bonds, bonds.flip(0)], -1).view(2, -1)
        return edge_index, torch.repeat_interleave(torch.arange(len(numbers)), sizes)

    def data(self, numbers: list[int]) -> list[Data]:
        """Molecules as PyG's data, with features and labels."""
        found = []
        for number in numbers:
            atoms = slice(int(self.node_ptr[number]), int(self.node_ptr[number + 1]))
            bonds = slice(int(self.bond_ptr[number]), int(self.bond_ptr[number + 1]))
            ends = self.bonds[:, bonds]
            found.append(
                Data(
                    x=self.x[atoms].long(),
                    edge_index=torch.stack([ends, ends.flip(0)], -1).view(2, -1),
                    edge_attr=self.edge_attr[bonds].long().repeat_interleave(2, 0),
                    y=self.y[number : number + 1].float(),
                )
            )
        return found


@dataclass
class GraphSets:
    """What there is to time on: small molecules, large ones, and circuits by name."""

    molecules: Molecules
    large: Molecules
    circuits: dict[str, Circuit] = field(default_factory=dict)


def load_sets(root: str | None = None, file: str | None = None, fallback: int = 2000) -> GraphSets:
    """Graphs from a file that ``carry.py`` wrote, or from raw files below ``root``, or so many random molecules."""
    tables: dict[str, carry.Table] = {}
    if file is not None:
        tables = carry.read(Path(file))
    elif root is not None:
        tables = {carry.MOLHIV: carry.molhiv(Path(root)), carry.CIRCUITS: carry.circuits(Path(root))}
    small, large = (tables.get(name) for name in (carry.MOLHIV, carry.PEPTIDES))
    return GraphSets(
        random_molecules(fallback) if small is None else unpacked(carry.MOLHIV, small),
        random_molecules(256, atoms=150, spread=3) if large is None else unpacked(carry.PEPTIDES, large),
        {name: parse_aiger(content.tobytes()) for name, content in tables.get(carry.CIRCUITS, {}).items()},
    )


def unpacked(source: str, table: carry.Table) -> Molecules:
    """Molecules from one of the tables of ``carry.py``."""
    found = {name: torch.from_numpy(column) for name, column in table.items()}
    pointers = _pointer(found["nodes"]), _pointer(found["counts"])
    return Molecules(source, found["bonds"].long(), *pointers, *(found[n] for n in ("x", "edge_attr", "y", "split")))


def random_molecules(count: int, atoms: int = 25, spread: float = 6) -> Molecules:
    """Trees of bounded degree with a few ring closures, numbered along their chains; features at random."""
    rng = np.random.default_rng(0)
    ends: list[tuple[int, int]] = []
    nodes, counts = [], []
    for _ in range(count):
        size = int(np.clip(rng.normal(atoms, spread), atoms // 2, atoms * 8 // 5))
        # Mostly the last atom, sometimes a branch a few atoms back: what reading a SMILES gives.
        tree = [(max(0, i - 1 - int(rng.geometric(0.75) - 1)), i) for i in range(1, size)]
        closures = rng.choice(np.arange(5, size), 3 * size // 25 + 1, replace=False)
        rings = [(max(0, i - int(rng.choice([4, 5]))), i) for i in closures]
        bonds = sorted({*tree, *((int(a), int(b)) for a, b in rings)})
        ends += bonds
        nodes.append(size)
        counts.append(len(bonds))
    x, edge_attr = (
        torch.from_numpy(rng.integers(0, sizes, (rows, len(sizes)), np.uint8))
        for sizes, rows in ((ATOM_SIZES, sum(nodes)), (BOND_SIZES, len(ends)))
    )
    pointers = _pointer(torch.tensor(nodes)), _pointer(torch.tensor(counts))
    y = torch.from_numpy(rng.integers(0, 2, (count, 1), np.uint8))
    split = torch.zeros(count, dtype=torch.uint8)
    return Molecules("random graphs", torch.tensor(ends).t().contiguous(), *pointers, x, edge_attr, y, split)


def layered_edges(edges: int, levels: int) -> tuple[Tensor, int]:
    """About ``edges`` edges of a random DAG, [2, E], and its number of nodes, half of that.

    Nodes stand in ``levels`` ranks of equal width; each reads two different nodes of the rank before its own, so that
    edges run from low to high numbers, the longest path has ``levels - 1`` of them, and there are about 2 E pairs.
    """
    generator = torch.Generator().manual_seed(0)
    width = max(2, edges // 2 // levels)
    shape = (levels - 1, width)
    first = torch.randint(width, shape, generator=generator)
    second = (first + 1 + torch.randint(width - 1, shape, generator=generator)) % width
    start = width * torch.arange(levels - 1).unsqueeze(-1)
    dst = start + width + torch.arange(width)
    src = torch.stack([start + first, start + second], -1)
    return torch.stack([src.reshape(-1), dst.reshape(-1).repeat_interleave(2)]), width * levels


def _pointer(sizes: Tensor) -> Tensor:
    ends = sizes.long().cumsum(0)
    return torch.cat([ends.new_zeros(1), ends])
