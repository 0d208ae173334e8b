"""Graphs to time on: the molecules of ogbg-molhiv from their raw files, or random ones of the same kind."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plstm_graph.errors import DataError


@dataclass(frozen=True)
class Molecules:
    """Many molecules: ``bonds`` [2, B] number atoms inside their molecule, each bond stands once.

    ``node_ptr`` and ``bond_ptr`` [molecules + 1] say where each molecule starts.
    """

    source: str
    bonds: Tensor
    node_ptr: Tensor
    bond_ptr: Tensor

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


def load_molecules(root: str | None, fallback: int = 2000) -> Molecules:
    """ogbg-molhiv below ``root``; without a root, random graphs with the sizes of drug-like molecules."""
    if root is None:
        return random_molecules(fallback)
    folder = Path(root) / "ogb" / "ogbg_molhiv" / "raw"
    if not folder.is_dir():
        raise DataError(f"no ogb/ogbg_molhiv/raw below {root}; leave out --root to time on random graphs")
    nodes, counts = _read(folder / "num-node-list.csv.gz"), _read(folder / "num-edge-list.csv.gz")
    bonds = _read(folder / "edge.csv.gz").view(-1, 2).t().contiguous()
    molecules = Molecules("ogbg-molhiv", bonds, _pointer(nodes), _pointer(counts))
    if bonds.size(1) != int(molecules.bond_ptr[-1]) or len(nodes) != len(counts):
        raise DataError(
            f"the files in ogbg_molhiv/raw do not fit together: {bonds.size(1)} edges, {int(counts.sum())} announced"
        )
    return molecules


def random_molecules(count: int, seed: int = 0) -> Molecules:
    """Trees of bounded degree with a few ring closures, numbered along their chains; 12 to 40 atoms."""
    rng = np.random.default_rng(seed)
    ends: list[tuple[int, int]] = []
    nodes, counts = [], []
    for _ in range(count):
        size = int(np.clip(rng.normal(25, 6), 12, 40))
        # Mostly the last atom, sometimes a branch a few atoms back: what reading a SMILES gives.
        tree = [(max(0, i - 1 - int(rng.geometric(0.75) - 1)), i) for i in range(1, size)]
        rings = [(max(0, i - int(rng.choice([4, 5]))), i) for i in rng.choice(np.arange(5, size), 3, replace=False)]
        bonds = sorted({*tree, *((int(a), int(b)) for a, b in rings)})
        ends += bonds
        nodes.append(size)
        counts.append(len(bonds))
    pointers = _pointer(torch.tensor(nodes)), _pointer(torch.tensor(counts))
    return Molecules("random graphs", torch.tensor(ends).t().contiguous(), *pointers)


def _pointer(sizes: Tensor) -> Tensor:
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def _read(path: Path) -> Tensor:
    """All whole numbers of a compressed CSV file."""
    text = gzip.decompress(path.read_bytes()).decode().replace("\n", ",").rstrip(",")
    return torch.from_numpy(np.fromstring(text, dtype=np.int64, sep=","))
