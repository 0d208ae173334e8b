"""Tools for directed acyclic graphs in PyG's terms: topological levels, line graphs, multitrees.

Plain functions on ``edge_index``, for layers other than pLSTM too; as transforms in :mod:`plstm_graph.transforms`.
"""

import torch
from torch import Tensor

from plstm_graph import orient
from plstm_graph.errors import CycleError, ShapeError
from plstm_graph.line_dag.pairs import line_pairs
from plstm_graph.line_dag.prune import MAX_EDGES, multitree_pairs
from plstm_graph.orient import check_edge_index, positions


def topological_levels(edge_index: Tensor, num_nodes: int | None = None) -> Tensor:
    """Length of the longest path that ends in each node: what can be updated together, level by level.

    Args:
        edge_index: a DAG, [2, E]; parallel edges count as one.
        num_nodes: N; by default the highest node number plus one.

    Returns:
        [N] int64 on the device of ``edge_index``; sources have level 0, and every edge climbs.

    Raises:
        CycleError: the graph has a directed cycle (a self-loop is one), which the message names.
        ShapeError: no valid ``edge_index``.

    Example:
        >>> topological_levels(torch.tensor([[0, 0, 1, 2], [1, 2, 2, 3]]))
        tensor([0, 1, 2, 3])
    """
    columns, num_nodes = check_edge_index(edge_index, num_nodes)
    src, dst = columns
    level = orient.topological_levels(src, dst, num_nodes)
    if bool((level < 0).any()):
        raise CycleError(f"a directed acyclic graph is needed, but {orient.cycle(columns, level)} is a cycle")
    return level.to(edge_index.device)


def line_graph(edge_index: Tensor, num_nodes: int | None = None) -> tuple[Tensor, Tensor]:
    """The directed line graph: edge a leads to edge b where a ends at the node that b starts from.

    Node i of the line graph is column i of ``edge_index``, so edge features are its node features as they stand, and
    node features belong to its edges by way of the joint. Any directed graph will do, cycles and parallel edges too;
    a column is joined to itself only if it is a self-loop.

    Args:
        edge_index: [2, E].
        num_nodes: N; by default the highest node number plus one.

    Returns:
        The line graph's ``edge_index`` [2, P], sorted by (second row, first row), and the node where each pair meets
        [P].

    Raises:
        ShapeError: no valid ``edge_index``, or more than ``64 * E`` pairs (the message names the hub).

    Example:
        >>> pairs, joint = line_graph(torch.tensor([[0, 1, 1], [1, 2, 3]]))
        >>> pairs
        tensor([[0, 0],
                [1, 2]])
        >>> joint
        tensor([1, 1])
    """
    columns, num_nodes = check_edge_index(edge_index, num_nodes)
    src, dst = columns
    prev, next = line_pairs(src, dst, num_nodes)
    return torch.stack([prev, next]).to(edge_index.device), src[next].to(edge_index.device)


def to_multitree(edge_index: Tensor, num_nodes: int | None = None) -> Tensor:
    """Which edges to keep so that a DAG becomes a multitree: at most one directed path between any two nodes.

    Edges are visited in topological order of their dst, then of their src (ties by node number); one is kept if and
    only if no node so far reaches both its ends. The result is maximal (any dropped edge would make a second path), a
    multitree is kept whole, and the order of the columns plays no part (of parallel edges the first stays).
    Reachability can shrink: two nodes may lose their only path.

    Args:
        edge_index: a DAG, [2, E].
        num_nodes: N; by default the highest node number plus one.

    Returns:
        Mask of the columns that stay, bool [E].

    Raises:
        CycleError: the graph has a directed cycle (a self-loop is one), which the message names.
        ShapeError: no valid ``edge_index``, or more than 131072 nodes (memory grows with their square).

    Example:
        >>> to_multitree(torch.tensor([[0, 0, 1, 2], [1, 2, 3, 3]]))  # a diamond has two paths from 0 to 3
        tensor([ True,  True,  True, False])
    """
    columns, num_nodes = check_edge_index(edge_index, num_nodes)
    if num_nodes > MAX_EDGES:
        raise ShapeError(f"a multitree is cut out of graphs of at most {MAX_EDGES} nodes, got {num_nodes}; split it")
    level = topological_levels(columns, num_nodes)
    src, dst = positions(level, torch.zeros_like(level))[columns]
    visit = torch.argsort(dst * num_nodes + src, stable=True)
    kept = multitree_pairs(src[visit].tolist(), dst[visit].tolist(), [0, num_nodes])
    mask = torch.tensor(kept, dtype=torch.bool, device="cpu")
    return torch.empty_like(mask).scatter(0, visit, mask).to(edge_index.device)
