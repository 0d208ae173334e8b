"""Planted explanations: molecules whose label counts a group, so that the atoms that matter are known."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.data import GraphDataset
from plstm_graph.data.dataset import MOLECULE
from plstm_graph.data.molecules import read_molecules
from plstm_graph.data.smiles import contrib_folder
from plstm_graph.errors import DataError
from plstm_graph.tasks import Regression

# As OGB's features count them: elements by atomic number less one, bonds by type.
CARBON, NITROGEN, OXYGEN = 5, 6, 7
SINGLE, DOUBLE = 0, 1


def carbonyls(graph: Data) -> list[list[int]]:
    """Atoms of every C=O."""
    return [list(ends) for ends in _bonds(graph, CARBON, DOUBLE, OXYGEN)]


def amides(graph: Data) -> list[list[int]]:
    """Atoms of every C(=O)N, one group for each C=O with a nitrogen beside it."""
    nitrogens: dict[int, list[int]] = {}
    for carbon, nitrogen in _bonds(graph, CARBON, SINGLE, NITROGEN):
        nitrogens.setdefault(carbon, []).append(nitrogen)
    return [[*group, *nitrogens[group[0]]] for group in carbonyls(graph) if group[0] in nitrogens]


GROUPS: dict[str, Callable[[Data], list[list[int]]]] = {"carbonyls": carbonyls, "amides": amides}


def _bonds(graph: Data, first: int, kind: int, second: int) -> list[tuple[int, int]]:
    src, dst = graph.edge_index
    hit = (graph.x[src, 0] == first) & (graph.edge_attr[:, 0] == kind) & (graph.x[dst, 0] == second)
    return list(zip(src[hit].tolist(), dst[hit].tolist(), strict=True))


def nci(count: int) -> list[str]:
    """The first SMILES of the National Cancer Institute's open structures, of which the rdkit wheel carries 5,000."""
    path = Path(contrib_folder()).parent / "Data" / "NCI" / "first_5K.smi"
    try:
        return [line.split()[0] for line in path.read_text().splitlines() if line.strip()][:count]
    except OSError as error:
        raise DataError(f"this rdkit does not carry {path.name} ({error}); install its wheel from PyPI") from error


def planted(smiles: Iterable[str], group: str) -> GraphDataset:
    """A regression of how many groups a molecule has; molecules of 2 to 40 atoms."""
    graphs = [graph for _, graph in read_molecules(smiles)[0] if 2 <= graph.num_nodes <= 40]
    for graph in graphs:
        graph.y = torch.tensor([[float(len(GROUPS[group](graph)))]])
    return GraphDataset(group, graphs, Regression(("count",), "mae"), MOLECULE, [], "random")


def truth(graph: Data, group: str) -> Tensor:
    """Whether an atom belongs to a group, bool [N]."""
    found = torch.zeros(graph.num_nodes, dtype=torch.bool)
    found[[atom for atoms in GROUPS[group](graph) for atom in atoms]] = True
    return found


def auc(scores: Tensor, positive: Tensor) -> float:
    """Probability that a positive atom has a larger score than another one; ties count half."""
    difference = scores[positive].unsqueeze(1) - scores[~positive]
    return float(((difference > 0).double() + (difference == 0).double() / 2).mean())
