"""What node and edge features of a data set look like, and encodings that are worked out from a graph alone."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.utils import get_laplacian, to_undirected

ATOM_SIZES = (119, 5, 12, 12, 10, 6, 6, 2, 2)
"""Vocabulary sizes of OGB's nine atom features (``ogb.utils.features.get_atom_feature_dims``)."""

BOND_SIZES = (5, 6, 2)
"""Vocabulary sizes of OGB's three bond features."""


@dataclass(frozen=True)
class FeatureSpec:
    """What node and edge features of a data set look like.

    Args:
        node_sizes: vocabulary sizes of categorical node columns; empty where node features are floats.
        edge_sizes: the same for edge columns.
        node_dim: width of float node features (0: none).
        edge_dim: width of float edge features (0: none).
    """

    node_sizes: tuple[int, ...] = ()
    edge_sizes: tuple[int, ...] = ()
    node_dim: int = 0
    edge_dim: int = 0


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
