"""Sparse adjacencies as PyG has them, transposed, taken as columns of ``edge_index``, and columns of int32."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import to_edge_index


def wide(columns: Any) -> Any:
    """``edge_index`` in int64 for convolutions of PyG, and anything that is no int32 tensor as it is.

    On a CPU torch's ``gather`` reads expanded int32 indices wrongly, so that messages that PyG sums have wrong
    gradients, without a word.
    """
    return columns.long() if isinstance(columns, Tensor) and columns.dtype == torch.int32 else columns


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
