"""Orient: rank the nodes of each graph, then point every edge from lower to higher rank."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plstm_graph.errors import ConfigError, CycleError, ShapeError, unknown

GIVEN, CANONICAL, RANDOM = "given", "canonical", "random"
MAX_NODES = 2**31 - 1
"""Tables for kernels are int32, and a pair of node numbers has to fit into one int64."""

NO_NUMBERS = (
    "on meta, where tensors hold no numbers, and how a line graph is read depends on them; a model may be made there, "
    "but give it a device with model.to_empty(device=...) before it is called"
)
"""What is said of a graph on such a device."""


def whole_columns(edge_index: Tensor) -> Tensor:
    """``edge_index`` [2, M] as int64, once it is known to be dense and to hold integers."""
    if not isinstance(edge_index, Tensor):
        raise ShapeError(f"edge_index must be a tensor [2, M], got {type(edge_index).__name__}")
    if edge_index.layout != torch.strided:
        raise ShapeError("edge_index must be a dense tensor [2, M]; layers and stacks take a sparse adjacency as well")
    whole = not (edge_index.is_floating_point() or edge_index.is_complex() or edge_index.dtype == torch.bool)
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or not whole:
        raise ShapeError(
            f"edge_index must be an integer tensor [2, M], got {edge_index.dtype} {list(edge_index.shape)}"
        )
    if edge_index.is_meta:
        raise ShapeError(f"edge_index is {NO_NUMBERS}")
    if torch._C._functorch.is_batchedtensor(edge_index):
        raise ShapeError(
            "torch.func.vmap cannot map over edge_index, since every graph has a line graph of its own size; put the "
            "graphs side by side, as PyG's Batch does, or map over x alone"
        )
    return bare(edge_index).detach().long()


def bare(tensor: Any) -> Any:
    """Of PyG's EdgeIndex the tensor."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor


def span_of(columns: Tensor) -> Tensor:
    """Lowest and highest node number, [2]; 0 and -1 where there is none."""
    return torch.stack(torch.aminmax(columns)) if columns.numel() else columns.new_tensor([0, -1])


def check_range(low: int, high: int, num_nodes: int) -> None:
    """Raise ShapeError unless the lowest and the highest node number fit so many nodes, and they fit the tables."""
    if low < 0 or high >= num_nodes:
        raise ShapeError(
            f"edge_index must hold node numbers 0 to {num_nodes - 1}, got {low} to {high}; "
            "check num_nodes and the offsets of the batch"
        )
    if num_nodes > MAX_NODES:
        raise ShapeError(
            f"a graph or batch may have up to {MAX_NODES} nodes, got {num_nodes}; renumber the nodes from 0"
        )


def check_edge_index(edge_index: Tensor, num_nodes: int | None) -> tuple[Tensor, int]:
    """``edge_index`` on the host as int64, and the number of nodes, once both are known to be in range."""
    edge_index = whole_columns(edge_index).cpu()
    low, high = span_of(edge_index).tolist()
    num_nodes = high + 1 if num_nodes is None else num_nodes
    check_range(low, high, num_nodes)
    return edge_index, num_nodes


def check_batch(batch: Tensor, edge_index: Tensor, span: Tensor, num_nodes: int) -> int:
    """Raise ShapeError unless ``batch`` [N] gives the graph of each node, in order, and no edge joins two of them.

    ``span``: see :func:`span_of`; node numbers are to be in range. Returns the number of graphs.
    """
    if batch.shape != (num_nodes,) or batch.dtype != torch.long:
        raise ShapeError(f"batch must be an int64 tensor [{num_nodes}], got {batch.dtype} {list(batch.shape)}")
    falls = (batch[1:] < batch[:-1]).any() | (batch[:1] < 0).any()
    joins = (batch[edge_index[0]] != batch[edge_index[1]]).any()
    last = batch[-1:] if num_nodes else batch.new_tensor([-1])
    low, high, falling, joined, last = torch.cat([span, torch.stack([falls, joins]), last]).tolist()
    check_range(low, high, num_nodes)
    if falling:
        raise ShapeError("batch must be sorted and not negative: all nodes of a graph stand together, as PyG batches")
    if joined:
        raise ShapeError("an edge joins two graphs of the batch; check the offsets of edge_index")
    return last + 1


def pieces(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Graph of each node, [N], where graphs are the pieces of the node numbering that no edge crosses.

    They are found by a cumulative sum over the ends of the edges.
    """
    low, high = torch.minimum(*edge_index), torch.maximum(*edge_index)
    opened = edge_index.new_zeros(num_nodes)
    opened.index_add_(0, low, torch.ones_like(low)).index_add_(0, high, torch.ones_like(high), alpha=-1)
    closed = opened.cumsum(0) == 0
    return closed.cumsum(0) - closed.long()


def _index(edge_index: Tensor, graph: Tensor, seed: int) -> Tensor:
    return torch.arange(graph.numel(), device=graph.device)


def _degree(edge_index: Tensor, graph: Tensor, seed: int) -> Tensor:
    """High degree first. Neighbours are counted once however often their edge is stored."""
    low, high = torch.minimum(*edge_index), torch.maximum(*edge_index)
    pairs, column = torch.sort(low * graph.numel() + high)
    counts = (low != high)[column].long()
    counts[1:] *= pairs[1:] != pairs[:-1]
    degree = torch.zeros_like(graph).index_add_(0, low[column], counts).index_add_(0, high[column], counts)
    return -degree


def _mix(x: Tensor) -> Tensor:
    """Scatter the bits: the splitmix64 finaliser on int64 (products wrap around, masks make shifts logical)."""
    for shift, mask, factor in ((30, 0x3FFFFFFFF, -0x40A7B892E31B1A47), (27, 0x1FFFFFFFFF, -0x6B2FB644ECCEEE15)):
        x = (x ^ ((x >> shift) & mask)) * factor
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _random(edge_index: Tensor, graph: Tensor, seed: int) -> Tensor:
    """Hash of (seed, the graph's own edges, node): drawn per graph, yet the same graph is ranked alike in any batch."""
    first = torch.searchsorted(graph, graph)
    size = torch.searchsorted(graph, graph, right=True) - first
    local = torch.arange(graph.numel(), device=graph.device) - first
    low, high = torch.minimum(*local[edge_index]), torch.maximum(*local[edge_index])
    hashes = _mix(_mix(low) + high).masked_fill(low == high, 0)
    fingerprint = _mix(size + 1).index_add(0, first[edge_index[0]], hashes)
    return _mix(_mix(_mix(fingerprint)[first] + _mix(torch.tensor(seed, device="cpu"))) + local)


def _search(edge_index: Tensor, graph: Tensor, depth_first: bool) -> Tensor:
    """Visiting number of a search that starts at the lowest node of each component, neighbours in node order. It runs
    on the host."""
    num_nodes = graph.numel()
    neighbours: list[set[int]] = [set() for _ in range(num_nodes)]
    for u, v in edge_index.t().tolist():
        neighbours[u].add(v)
        neighbours[v].add(u)
    rank = [-1] * num_nodes
    visited = 0
    for root in range(num_nodes):
        waiting = deque([root])
        while waiting:
            node = waiting.pop() if depth_first else waiting.popleft()
            if rank[node] >= 0:
                continue
            rank[node], visited = visited, visited + 1
            waiting.extend(sorted(neighbours[node], reverse=depth_first))
    return torch.tensor(rank, dtype=torch.long, device="cpu").to(graph.device)


ORDERS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "index": _index,
    "bfs": lambda edge_index, graph, seed: _search(edge_index, graph, depth_first=False),
    "dfs": lambda edge_index, graph, seed: _search(edge_index, graph, depth_first=True),
    "degree": _degree,
    RANDOM: _random,
}


SEARCHES = ("canonical-bfs", "canonical-dfs", "canonical-center")
"""Searches that do not depend on how the nodes are numbered: see :func:`search_rank`."""


def search_rank(edge_index: Tensor, rank: Tensor, order: str) -> Tensor:
    """Visiting number of a search through one graph that only looks at ``rank``, [N].

    ``"canonical-bfs"`` and ``"canonical-dfs"`` start in each component at an end of its diameter (a node of largest
    eccentricity), so that paths become long; ``"canonical-center"`` is a breadth-first search from a node of smallest
    eccentricity. Of several such nodes, and of several neighbours, those of lowest rank come first.

    Args:
        edge_index: [2, M] without self-loops; read as undirected. The work grows with N · M.
        rank: a permutation of 0 to N - 1 that belongs to the graph, as rdkit's canonical ranks, [N].
        order: one of :data:`SEARCHES`.
    """
    rank = rank.argsort(stable=True).argsort()
    place = rank.tolist()
    neighbours: list[set[int]] = [set() for _ in place]
    for u, v in rank[edge_index].t().tolist():  # from here on a node is its rank
        neighbours[u].add(v)
        neighbours[v].add(u)
    found = [_eccentricity(neighbours, node) for node in range(len(place))]
    sign = 1 if order == "canonical-center" else -1
    starts: dict[int, tuple[int, int]] = {}
    for node, (eccentricity, lowest) in enumerate(found):  # a component is told by its lowest node
        starts[lowest] = min(starts.get(lowest, (sign * eccentricity, node)), (sign * eccentricity, node))
    first = {node for _, node in starts.values()}
    visited = [*sorted(first), *(node for node in range(len(place)) if node not in first)]
    number = {node: index for index, node in enumerate(visited)}
    relabel = torch.tensor([number[node] for node in place], dtype=torch.long, device="cpu")
    whole = torch.zeros_like(relabel)
    return _search(relabel[edge_index], whole, depth_first=order == "canonical-dfs")[relabel]


def _eccentricity(neighbours: list[set[int]], node: int) -> tuple[int, int]:
    """Distance to the farthest node of its component, and the lowest node there is in it."""
    seen, front, steps = {node}, neighbours[node], 0
    while front:
        steps += 1
        seen |= front
        front = set().union(*(neighbours[other] for other in front)) - seen
    return steps, min(seen)


ON_THE_HOST = ("bfs", "dfs", GIVEN)
"""Orders that one node after the other is found for."""


def check_order(order: str | Tensor) -> None:
    """Raise ConfigError unless ``order`` is a rank tensor or the name of an order."""
    if not isinstance(order, str | Tensor):
        raise ConfigError(
            f"order must be a name or a rank tensor [N], got {type(order).__name__}; "
            "ranks in other forms become one by torch.as_tensor(order)"
        )
    names = (*ORDERS, GIVEN, CANONICAL, *SEARCHES)
    if isinstance(order, str) and order not in names:
        raise ConfigError(unknown("order", order, names))


def rank_nodes(edge_index: Tensor, graph: Tensor, order: str | Tensor, seed: int = 0) -> Tensor:
    """Rank of every node, [N]: edges will run from lower to higher rank, ties by node number.

    It stays on the device, but for searches and ``"given"``, which are done on the host.

    Args:
        edge_index: [2, M]; self-loops do not count.
        graph: graph of each node, in order, [N].
        order: a name in :data:`ORDERS`, ``"given"``, or a rank tensor [N].
        seed: for ``"random"``.

    Raises:
        CycleError: ``order="given"`` and the edges contain a directed cycle.
        ConfigError: unknown order, or ``"canonical"``, which needs the molecule.
    """
    check_order(order)
    num_nodes = graph.numel()
    if isinstance(order, Tensor):
        if order.shape != (num_nodes,):
            raise ShapeError(f"a rank tensor must have one entry per node, [{num_nodes}], got {list(order.shape)}")
        if order.is_floating_point() and bool(order.isnan().any()):
            raise ShapeError("a rank tensor must not contain NaN")
        return order.detach().to(graph.device)
    if order in (CANONICAL, *SEARCHES):
        raise ConfigError(
            f"order {order!r} needs the molecule: apply plstm_graph.transforms.OrientDAG({order!r}) to the data "
            "and pass order=data.rank, or a dag built from it"
        )
    if order == GIVEN:
        return _given(edge_index.cpu(), num_nodes).to(graph.device)
    return ORDERS[order](edge_index, graph, seed)


def _given(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Levels, if there are no cycles."""
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    level = topological_levels(edge_index[0], edge_index[1], num_nodes)
    if bool((level < 0).any()):
        raise CycleError(
            f"order 'given' needs a directed acyclic graph, but {cycle(edge_index, level)} is a cycle; "
            "use another order for undirected graphs (both directions stored count as a cycle)"
        )
    return level


def in_order(rank: Tensor, graph: Tensor) -> Tensor:
    """Nodes by (graph, rank, node), [N]; ``graph`` of each node, in order."""
    by_rank = torch.sort(rank, stable=True).indices
    return by_rank[torch.sort(graph[by_rank], stable=True).indices]


def positions(rank: Tensor, graph: Tensor) -> Tensor:
    """Position of every node in the order (graph, rank, node), a permutation of 0 to N-1, [N]."""
    return inverse(in_order(rank, graph))


def inverse(order: Tensor) -> Tensor:
    """The place of each number in a permutation of 0 to N-1, [N]."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))


def topological_levels(src: Tensor, dst: Tensor, num_nodes: int) -> Tensor:
    """Length of the longest path that ends in each node, [N]; -1 for nodes on or behind a directed cycle.

    Kahn's algorithm by whole levels: each edge is touched once, so deep graphs cost no more than flat ones.
    """
    tails, heads = src.cpu().numpy(), dst.cpu().numpy()
    by_tail = np.argsort(tails, kind="stable")
    heads = heads[by_tail]
    out_degree = np.bincount(tails, minlength=num_nodes)
    first = np.concatenate([[0], np.cumsum(out_degree)[:-1]]) if num_nodes else out_degree
    waiting = np.bincount(heads, minlength=num_nodes)
    level = np.full(num_nodes, -1, dtype=np.int64)
    slot = np.empty(num_nodes, dtype=np.int64)
    frontier, depth = np.flatnonzero(waiting == 0), 0
    while frontier.size:
        level[frontier] = depth
        degree = out_degree[frontier]
        ends = np.cumsum(degree)
        reached = heads[np.arange(ends[-1]) + np.repeat(first[frontier] - ends + degree, degree)]
        np.subtract.at(waiting, reached, 1)
        ready = reached[waiting[reached] == 0]
        slot[ready] = np.arange(ready.size)  # a node reached by several edges of this level counts once
        frontier, depth = ready[slot[ready] == np.arange(ready.size)], depth + 1
    return torch.from_numpy(level)


def cycle(edge_index: Tensor, level: Tensor) -> str:
    """Nodes of a directed cycle, for a message. Walks against the edges among nodes without a level until one repeats.

    ``level`` as from :func:`topological_levels`.
    """
    left = (level < 0).tolist()
    before = {v: u for u, v in edge_index.t().tolist() if left[u] and left[v]}
    path: list[int] = []
    node = next(iter(before))
    while node not in path:
        path.append(node)
        node = before[node]
    found = [node, *reversed(path[path.index(node) :])]
    return " -> ".join(map(str, found[:12])) + (" -> ..." if len(found) > 12 else "")
