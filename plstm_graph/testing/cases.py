"""Path-sum oracle, tricky DAGs and random inputs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plstm_graph.errors import ShapeError
from plstm_graph.gates import Gates
from plstm_graph.line_dag import LineDAG

MAX_PATHS = 200_000

VIEWS: dict[str, Callable[[LineDAG], LineDAG]] = {
    "plain": lambda dag: dag,
    "pruned": lambda dag: dag.prune(),
    "reversed": lambda dag: dag.reverse(),
    "pruned and reversed": lambda dag: dag.prune().reverse(),
}


class Inputs(NamedTuple):
    """Arguments of a backend but the dag: query, key [N, H, K], value [N, H, V] and gates."""

    query: Tensor
    key: Tensor
    value: Tensor
    gates: Gates

    def flat(self) -> list[Tensor]:
        """The seven tensors in the order of :data:`NAMES`."""
        return [self.query, self.key, self.value, *self.gates]

    @classmethod
    def of(cls, flat: Sequence[Tensor]) -> "Inputs":
        """Inverse of :meth:`flat`."""
        return cls(flat[0], flat[1], flat[2], Gates(*flat[3:]))


NAMES = ("query", "key", "value", *Gates._fields)


def path_sum(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
    """The operator by its meaning: list every path, multiply the gates on it, add up. Exponential; small DAGs only.

    It has the signature of a backend, uses ``src``, ``dst``, ``prev`` and ``next`` only, and shares no recursion with
    any backend: paths are sequences of pairs, found by plain enumeration.

    Raises:
        ShapeError: more than ``MAX_PATHS`` paths of one length (or a cycle).
    """
    following: list[list[tuple[int, int]]] = [[] for _ in range(dag.num_edges)]
    for pair, (prev, next) in enumerate(zip(dag.prev.tolist(), dag.next.tolist(), strict=True)):
        following[prev].append((pair, next))
    output = (gates.direct * (query * key).sum(-1)).unsqueeze(-1) * value  # the path without an edge
    paths: list[tuple[int, tuple[int, ...], int]] = [(edge, (), edge) for edge in range(dag.num_edges)]
    while paths:
        if len(paths) > MAX_PATHS or len(paths[0][1]) >= dag.num_edges:
            raise ShapeError(
                f"path_sum lists every path; this line graph has a cycle or over {MAX_PATHS} of one length"
            )
        first, last = (torch.tensor([path[end] for path in paths], device=value.device) for end in (0, 2))
        pairs = torch.tensor([path[1] for path in paths], dtype=torch.long, device=value.device)
        weight = gates.source[first] * gates.transition[pairs].prod(1) * gates.mark[last]
        start, end = dag.src[first], dag.dst[last]
        term = (weight * (query[end] * key[start]).sum(-1)).unsqueeze(-1) * value[start]
        output = output.index_add(0, end, term)
        paths = [(first, (*pairs, pair), next) for first, pairs, last in paths for pair, next in following[last]]
    return output


def random_dag(seed: int, nodes: int = 7, density: float = 0.4, graphs: int = 1) -> LineDAG:
    """A batch of random graphs under a random order, columns shuffled and pointing either way.

    Args:
        seed: fixes everything.
        nodes: nodes of each graph.
        density: probability that two nodes of a graph are adjacent.
        graphs: how many graphs.
    """
    generator = torch.Generator().manual_seed(seed)
    upper = torch.triu(torch.ones(nodes, nodes), 1).expand(graphs, -1, -1)
    graph, low, high = torch.nonzero(torch.rand(graphs, nodes, nodes, generator=generator) * upper > 1 - density).t()
    flip = torch.rand(low.numel(), generator=generator) < 0.5
    columns = torch.stack([torch.where(flip, high, low), torch.where(flip, low, high)]) + graph * nodes
    columns = columns[:, torch.randperm(columns.size(1), generator=generator)]
    rank = torch.randperm(nodes * graphs, generator=generator)
    batch = torch.arange(graphs).repeat_interleave(nodes)
    return LineDAG.from_edge_index(columns, nodes * graphs, order=rank, batch=batch)


def grid_dag(rows: int, columns: int) -> LineDAG:
    """Node ``i * columns + j`` for each cell, edges to the right and downwards."""
    number = torch.arange(rows * columns).view(rows, columns)
    right = torch.stack([number[:, :-1].reshape(-1), number[:, 1:].reshape(-1)])
    down = torch.stack([number[:-1].reshape(-1), number[1:].reshape(-1)])
    return LineDAG.from_edge_index(torch.cat([right, down], 1), rows * columns)


def _dag(nodes: int, *edges: tuple[int, int], batch: list[int] | None = None) -> LineDAG:
    columns = torch.tensor(edges, dtype=torch.long).view(-1, 2).t()
    return LineDAG.from_edge_index(columns, nodes, batch=None if batch is None else torch.tensor(batch))


DAGS: dict[str, Callable[[], LineDAG]] = {
    "no node": lambda: _dag(0),
    "one node": lambda: _dag(1),
    "no edge": lambda: _dag(3, batch=[0, 0, 0]),
    "one edge": lambda: _dag(2, (0, 1)),
    "no pair": lambda: _dag(5, (0, 1), (0, 4), (2, 4)),
    "isolated nodes": lambda: _dag(7, (1, 3), (3, 5), batch=[0] * 7),
    "chain": lambda: _dag(6, *((i, i + 1) for i in range(5))),
    "diamond": lambda: _dag(4, (0, 1), (0, 2), (1, 3), (2, 3)),
    "two diamonds in a row": lambda: _dag(7, (0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (3, 5), (4, 6), (5, 6)),
    "ring with a short cut": lambda: _dag(6, (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (1, 4)),
    "parallel components": lambda: _dag(8, (0, 4), (4, 6), (1, 5), (5, 7), (0, 2), (2, 6), batch=[0] * 8),
    "star": lambda: _dag(7, *((3, i) for i in range(7) if i != 3)),
    "complete": lambda: _dag(5, *((i, j) for i in range(5) for j in range(i))),
    "grid": lambda: grid_dag(3, 4),
    "random, sparse": lambda: random_dag(1, nodes=12, density=0.15),
    "random, medium": lambda: random_dag(2, nodes=8, density=0.4),
    "random, dense": lambda: random_dag(3, nodes=6, density=0.8),
    "empty graph in the batch": lambda: _dag(6, (0, 1), (1, 2), (3, 4), (4, 5), (3, 5), batch=[0, 0, 0, 2, 2, 2]),
    "unlike graphs": lambda: LineDAG.collate([grid_dag(3, 3), _dag(1), random_dag(4), _dag(0), _dag(2, (1, 0))]),
    "many graphs": lambda: random_dag(5, nodes=6, density=0.3, graphs=60),
}
"""Tricky line graphs by name."""


def random_inputs(
    dag: LineDAG,
    heads: int = 2,
    key_width: int = 3,
    value_width: int = 4,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Inputs:
    """Random inputs whose every entry matters: sizes between .5 and 1, transitions and vectors of either sign."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, signed: bool = True) -> Tensor:
        size = 0.5 + 0.5 * torch.rand(*shape, generator=generator, dtype=torch.float64)
        sign = torch.where(torch.rand(*shape, generator=generator) < 0.5, -1.0, 1.0) if signed else 1.0
        return (size * sign).to(device, dtype)

    nodes, edges, pairs = dag.num_nodes, dag.num_edges, dag.num_pairs
    query, key, value = (draw(nodes, heads, width) for width in (key_width, key_width, value_width))
    source, mark = draw(edges, heads, signed=False), draw(edges, heads, signed=False)
    return Inputs(query, key, value, Gates(source, draw(pairs, heads), mark, draw(nodes, heads, signed=False)))
