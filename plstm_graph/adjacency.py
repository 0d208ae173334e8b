"""Sparse adjacencies as PyG has them, transposed, taken as columns of ``edge_index``."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import to_edge_index


def sparse_columns(adjacency: Any) -> tuple[Tensor, Tensor]:
    """Columns [2, M] of a transposed sparse adjacency, and its values [M, ...].

    What stands twice at one place is added up, as a matrix means it. PyG takes any COO tensor for coalesced, and marks
    it so: whatever reads the caller's tensor next would go wrong, and gradients of values do not pass.
    """
    if isinstance(adjacency, Tensor) and adjacency.layout == torch.sparse_coo:
        adjacency = adjacency.coalesce()
        return adjacency.indices().flip(0), adjacency.values()
    columns, values = to_edge_index(adjacency)
    return columns.flip(0), values
