"""Prune a line graph to a multitree: at most one directed path between any two edges (D mode)."""

from collections.abc import Sequence
from itertools import pairwise

from plstm_graph.errors import ShapeError

MAX_EDGES = 131_072
"""Largest graph that is pruned: the ancestor sets of E edges take up to E²/16 bytes, here about 1 GB."""


def multitree_pairs(prev: Sequence[int], next: Sequence[int], edge_ptr: Sequence[int]) -> list[bool]:
    """Choose the line pairs to keep so that no two edges are joined by more than one path, [P].

    Edges are visited in order; a pair is kept if and only if no edge reaches (or is) both its prev and its next so
    far. The result is maximal, a multitree is kept whole, and the order of the caller's columns plays no part.
    Reachability can shrink: an edge may lose its only path to another one. Of a molecule's pairs about 5 % go by order
    ``index`` or ``bfs``, next to none by the canonical one, whose paths are short (nav17: none).

    Args:
        prev, next: the pairs, sorted by next and then prev; prev < next (edges in topological order).
        edge_ptr: first edge of each graph and the number of edges at the end. The pairs of a graph stay inside it.

    Raises:
        ShapeError: a graph has more than ``MAX_EDGES`` edges.
    """
    widest = max((end - start for start, end in pairwise(edge_ptr)), default=0)
    if widest > MAX_EDGES:
        raise ShapeError(
            f"D mode prunes graphs of at most {MAX_EDGES} edges (memory grows with their square), got {widest}; "
            "use mode='P' for this graph"
        )
    # Python integers are the bit sets: bit i is edge i of the same graph.
    ancestors = [1 << i for start, end in pairwise(edge_ptr) for i in range(end - start)]
    kept = []
    for tail, head in zip(prev, next, strict=True):
        disjoint = not ancestors[tail] & ancestors[head]
        if disjoint:
            ancestors[head] |= ancestors[tail]
        kept.append(disjoint)
    return kept
