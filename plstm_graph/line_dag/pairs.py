"""Pairs of edges that meet at a node, and their groupings: the tensor work behind LineDAG."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.io.lazy import COMPILER, is_put_off

MAX_PAIRS_PER_EDGE = 64
"""A line graph may have at most this many pairs per edge; a hub of degree d in mid-order alone makes about d²/4."""

ON_THE_HOST = (
    "a line graph has sizes that depend on the edges, so torch.compile(fullgraph=True) and "
    "torch.export need it ready: build dag = LineDAG.from_edge_index(...).prepare() outside and pass dag=dag (which "
    "torch.export takes as an attribute of a module, for that graph alone; for all graphs see plstm-graph export)"
)


def on_the_host(build: Callable[..., Any]) -> Callable[..., Any]:
    """A function that compiled code calls as it stands, and that what has to be one graph refuses in one sentence."""

    @wraps(build)
    def built(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():  # torch.export runs it on tensors that hold nothing
            raise ConfigError(ON_THE_HOST)
        return build(*args, **kwargs)

    return untraced(built)


def untraced(build: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but torch.export may run it, on tensors that it does not know."""
    if is_put_off(COMPILER):  # nothing is compiled in this process, and to tell the compiler would load it
        return build
    try:
        return torch.compiler.disable(build, reason=ON_THE_HOST)
    except TypeError:  # torch 2.6 takes no reason
        return torch.compiler.disable(build)


class LevelPlan(NamedTuple):
    """Pairs sorted by the level of their next edge, then by that edge: levels and edges are contiguous slices."""

    pair: Tensor  # [P] position in the line graph's own order
    prev: Tensor  # [P]
    next: Tensor  # [P]
    ptr: tuple[int, ...]  # slices of the levels, on the host; levels without pairs are left out
    head: Tensor  # [Q] every edge that some pair enters
    head_ptr: tuple[int, ...]  # slices of the levels in ``head``, on the host
    run: Tensor  # [Q+1] first pair of each head, and P


def check_pairs(count: int, src: Tensor, dst: Tensor, node_at: Tensor | None = None) -> None:
    """Raise ShapeError where there are too many pairs for these edges. ``node_at``: what nodes are called outside."""
    if count <= MAX_PAIRS_PER_EDGE * src.numel():
        return
    arriving, leaving = torch.bincount(dst), torch.bincount(src)
    both = min(arriving.numel(), leaving.numel())
    hub = int((arriving[:both] * leaving[:both]).argmax())
    joined, joining = int(arriving[hub]), int(leaving[hub])
    crowded = 2 * joined * joining > count
    advice = "Use order='degree', which ranks hubs first" if crowded else "The graph is dense: split or sparsify it"
    raise ShapeError(
        f"the line graph would have {count} pairs for {src.numel()} edges, more than {MAX_PAIRS_PER_EDGE} each; "
        f"node {hub if node_at is None else int(node_at[hub])} alone joins {joined} arriving with {joining} leaving "
        f"edges. {advice}"
    )


def line_pairs(src: Tensor, dst: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """All pairs of edges with ``dst[prev] == src[next]``, sorted by (next, prev), [P] each."""
    arriving = torch.bincount(dst, minlength=num_nodes)
    choices = arriving[src]
    count = int(choices.sum())
    check_pairs(count, src, dst)
    by_head = torch.sort(dst, stable=True).indices
    first = arriving.cumsum(0) - arriving
    start = torch.cat([choices.new_zeros(1), choices.cumsum(0)])
    next = owners(start, count)
    turn = torch.arange(count, device=src.device) - start[next]
    return by_head[first[src[next]] + turn], next


def level_plan(level: Tensor, prev: Tensor, next: Tensor, num_levels: int) -> LevelPlan:
    """Sort the pairs by level and edge (one synchronisation on a GPU)."""
    pair = torch.sort(level[next] * level.numel() + next, stable=True).indices
    prev, next = prev[pair], next[pair]
    head, length = torch.unique_consecutive(next, return_counts=True)
    run = torch.cat([length.new_zeros(1), length.cumsum(0)])
    sizes = torch.stack([torch.bincount(level[edges], minlength=num_levels) for edges in (next, head)])
    pairs, heads = sizes[:, sizes[0] > 0].cumsum(1).tolist() if next.numel() else ([], [])
    return LevelPlan(pair, prev, next, (0, *pairs), head, (0, *heads), run)


def owners(ptr: Tensor, size: int) -> Tensor:
    """Group of each of ``size`` members, from the groups' pointers; asks a GPU for nothing."""
    # Not torch.repeat_interleave, which wakes up all threads of the host for a few numbers.
    starts = ptr[1:-1]
    return ptr.new_zeros(size + 1).index_add_(0, starts, torch.ones_like(starts)).cumsum(0)[:size]


class Groups(NamedTuple):
    """Members of each of n groups in order: pointers [n+1] into a list of member numbers."""

    ptr: Tensor
    members: Tensor


def grouped(owner: Tensor, size: int) -> Groups:
    """Members of each of ``size`` groups, by the group that owns each."""
    owners, members = torch.sort(owner, stable=True)
    return Groups(torch.searchsorted(owners, torch.arange(size + 1, device=owner.device)), members)


class Meetings(NamedTuple):
    """Which edges meet at which nodes, and which pairs at which edges: edges that leave and that arrive at each node,
    pairs that enter and that leave each edge."""

    leaving: Groups
    arriving: Groups
    entering: Groups
    exiting: Groups


def within(values: Tensor, size: int) -> bool:
    """Tell whether all values lie in 0 to size-1."""
    return values.numel() == 0 or (int(values.min()) >= 0 and int(values.max()) < size)
