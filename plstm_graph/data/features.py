"""What node and edge features of a data set look like, and encodings that are worked out from a graph alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import get_laplacian, to_undirected

from plstm_graph.errors import count

ATOM_SIZES = (119, 5, 12, 12, 10, 6, 6, 2, 2)
"""Vocabulary sizes of OGB's nine atom features (``ogb.utils.features.get_atom_feature_dims``)."""

BOND_SIZES = (5, 6, 2)
"""Vocabulary sizes of OGB's three bond features."""


@dataclass(frozen=True)
class FeatureSpec:
    """What node and edge features of a data set, or its images, look like.

    Args:
        node_sizes: vocabulary sizes of categorical node columns; empty where node features are floats.
        edge_sizes: the same for edge columns.
        node_dim: width of float node features (0: none).
        edge_dim: width of float edge features (0: none).
        descriptors: columns of the descriptors that whole graphs have (0: none).
        descriptor_names: of those columns, in order; empty where they are not known.
        image: channels, height and width of images; empty for graphs.
        pictures: images are pictures as ``data.pictures`` makes them of files, with its mean and deviation.
    """

    node_sizes: tuple[int, ...] = ()
    edge_sizes: tuple[int, ...] = ()
    node_dim: int = 0
    edge_dim: int = 0
    image: tuple[int, ...] = ()
    descriptors: int = 0
    descriptor_names: tuple[str, ...] = ()
    pictures: bool = False

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> "FeatureSpec":
        """Of its fields as they are stored, lists for tuples."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
        return cls(**fields)

    @property
    def words(self) -> str:
        """What they are, for a message; the size of images and the names of descriptors are left out."""
        if self.image:
            return f"images of {count(self.image[0], 'channel')}"
        if (self.node_sizes, self.edge_sizes) == (ATOM_SIZES, BOND_SIZES) and not self.node_dim + self.edge_dim:
            what = "molecules"
        else:
            nodes, edges = _columns(self.node_sizes, self.node_dim), _columns(self.edge_sizes, self.edge_dim)
            what = f"graphs (nodes: {nodes}; edges: {edges})"
        return what + (f" with {count(self.descriptors, 'descriptor')}" if self.descriptors else "")


def _columns(sizes: tuple[int, ...], width: int) -> str:
    kinds = [f"{count(len(sizes), 'feature')} of {', '.join(map(str, sizes))} kinds"] if sizes else []
    return " and ".join([*kinds, *([count(width, "number")] if width else [])]) or "no features"


RING_SIZES = (8, 5)
"""Vocabulary sizes of a node's two ring features; an edge has the first of them."""


def rings(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """How nodes and edges stand in rings, as categories.

    The size of the smallest ring (0 for none, 1 to 6 for 3 to 8, 7 for more) that an edge is in, [M], and a node,
    with the number of its edges in rings (up to 4), [N, 2].

    Args:
        edge_index: [2, M]; read as undirected. The work grows with the square of the edges in rings: for molecules.
        num_nodes: N.
    """
    neighbours: list[set[int]] = [set() for _ in range(num_nodes)]
    columns = edge_index.t().tolist()
    for u, v in columns:
        if u != v:
            neighbours[u].add(v)
            neighbours[v].add(u)
    size = {(u, v): _smallest_ring(neighbours, u, v) for u in range(num_nodes) for v in neighbours[u] if u < v}
    category = {pair: min(found, 9) - 2 if found else 0 for pair, found in size.items()}
    nodes = torch.zeros(num_nodes, 2, dtype=torch.long)
    for node, others in enumerate(neighbours):
        mine = [found for other in others if (found := category[min(node, other), max(node, other)])]
        nodes[node] = torch.tensor([min(mine, default=0), min(len(mine), 4)])
    return nodes, torch.tensor([category.get((min(u, v), max(u, v)), 0) for u, v in columns], dtype=torch.long)


def _smallest_ring(neighbours: list[set[int]], u: int, v: int) -> int:
    """Size of the smallest ring through an edge, 0 where there is none: a search for v from u by another way."""
    seen, front, steps = {u}, neighbours[u] - {v}, 1
    while front:
        steps += 1
        seen |= front
        if any(v in neighbours[node] for node in front):
            return steps + 1
        front = set().union(*(neighbours[node] for node in front)) - seen
    return 0


def laplacian_eigenvectors(edge_index: Tensor, num_nodes: int, count: int) -> Tensor:
    """Eigenvectors of the symmetric normalised Laplacian without the first, by growing eigenvalue, [N, count] float32.

    What PyG's ``AddLaplacianEigenvectorPE`` computes, for graphs of any size: those with too few nodes are padded with
    zero columns. The entry of largest magnitude is positive in each column; the lowest such node decides ties.

    Args:
        edge_index: [2, M]; read as undirected.
        num_nodes: N; the work grows with its cube.
        count: number of columns.
    """
    found = torch.zeros(num_nodes, count, device="cpu")
    if not edge_index.numel():  # every vector would do
        return found
    columns, weight = get_laplacian(to_undirected(edge_index.cpu()), normalization="sym", num_nodes=num_nodes)
    dense = torch.zeros(num_nodes, num_nodes, dtype=torch.double, device="cpu")
    dense.index_put_((columns[0], columns[1]), weight.double(), accumulate=True)
    vectors = torch.linalg.eigh(dense).eigenvectors[:, 1 : 1 + count]
    # Rounding must not decide between two entries that are equal in magnitude.
    largest = (vectors.abs() > vectors.abs().amax(0) - 1e-6).int().argmax(0)
    vectors = vectors * vectors.gather(0, largest.unsqueeze(0)).sign()
    found[:, : vectors.size(1)] = vectors
    return found
