"""Build a line graph and its tables by a handful of kernels and two sorts, asking the GPU for sizes once.

The same numbers as :mod:`plstm_graph.line_dag.building` makes of torch's operations, of which there are a hundred more.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from plstm_graph.launch import At, ceil_div, launch
from plstm_graph.line_dag.derived import Known
from plstm_graph.line_dag.pairs import MAX_PAIRS_PER_EDGE
from plstm_graph.line_dag.plan import TILES, Edge, Graph, Host, LargeEdge, LargeLevel, Node, Pair, Plan, Work
from plstm_graph.line_dag.topology import Topology
from plstm_graph.line_dag.triton import columns, lines, tables

BLOCK = 1024
"""Numbers of a program."""
OPTIONS = (("num_warps", 4),)
MOST_COLUMNS, MOST_NODES = 2**25, 2**30
"""Below them, pairs are counted by 32 bits, and keys have 64."""
COUNTERS = columns.CLASSES.value + len(Host) * (len(TILES) + 1)


class _Sizes(NamedTuple):
    """What the host has to know, in the order of the counters of ``columns.py``."""

    wrong: int
    repeated: int
    edges: int
    pairs: int
    graphs: int
    max_nodes: int
    max_edges: int
    told: int
    classes: tuple[int, ...]


class _Ends(NamedTuple):
    """Nodes of each edge, and where its columns begin among the sorted keys, [M], [M] and [M + 1]."""

    src: At
    dst: At
    run: At


class _Met(NamedTuple):
    """First edge that leaves and that arrives at each node, [N + 1]; edges in order of arrival, and the place of each
    among them, [M]; first pair that enters and that exits each edge, [M + 1]; first node and first edge of each graph,
    [N + 1]."""

    leave: At
    arrive: At
    by_dst: At
    place: At
    entering: At
    exiting: At
    first_node: At
    first_edge: At


class _Room:
    """Parts of one tensor, one after the other, each of which begins where kernels read several numbers at once."""

    def __init__(self, sizes: list[int], dtype: torch.dtype, device: torch.device) -> None:
        self.starts = [0]
        for size in sizes:
            self.starts.append(self.starts[-1] + ceil_div(size, 4) * 4)
        self.tensor = torch.empty(self.starts[-1], dtype=dtype, device=device)

    def parts(self) -> list[At]:
        return [At(self.tensor, start) for start in self.starts[:-1]]


def serves(edge_index: Tensor, num_nodes: int) -> bool:
    """Tell whether no number of a graph [2, M] will be too large."""
    return edge_index.size(1) < MOST_COLUMNS and num_nodes < MOST_NODES and edge_index.stride(0) < 2**31


def build(edge_index: Tensor, num_nodes: int, batch: Tensor | None) -> tuple[Topology, Known] | None:
    """Topology and tables of a graph whose nodes stand in order; None if something is not as it should be, or a graph
    of ``batch`` is empty.

    Args:
        edge_index: int64, [2, M].
        num_nodes: N.
        batch: graph of each node, int64, [N]; see :func:`plstm_graph.line_dag.building.build`.
    """
    building = _Building(edge_index, num_nodes, batch)
    sizes = building.lay_out()
    empty = batch is not None and sizes.told != sizes.graphs
    if sizes.wrong or empty or sizes.pairs > MAX_PAIRS_PER_EDGE * sizes.edges:
        return None
    return building.cut(sizes)


class _Building:
    """Tensors that are as long as they may get, until sizes are known."""

    def __init__(self, edge_index: Tensor, num_nodes: int, batch: Tensor | None) -> None:
        self.edge_index = edge_index if edge_index.stride(1) == 1 else edge_index.contiguous()
        self.device = edge_index.device
        self.batch = self.edge_index if batch is None else batch.contiguous()
        self.batched = int(batch is not None)
        self.columns, self.nodes = edge_index.size(1), num_nodes
        self.blocks, self.node_blocks = (ceil_div(size + 1, BLOCK) for size in (self.columns, num_nodes))
        more, nodes = self.columns + 1, num_nodes + 1
        ends, met = 3 * [more], [nodes, nodes, more, more, more, more, nodes, nodes]
        *parts, arriving, arriving_column = _Room([*ends, *met, more, more], torch.int32, self.device).parts()
        self.ends, self.met = _Ends(*parts[:3]), _Met(*parts[3:])
        self.arriving = arriving, arriving_column
        self.column = torch.empty(self.columns, dtype=torch.long, device=self.device)
        self.along = torch.empty(self.columns, dtype=torch.bool, device=self.device)

    def _run(self, kernel: Any, programs: int, tensors: tuple[Any, ...], *numbers: int) -> None:
        launch(kernel, (programs,), tensors, (), numbers, (BLOCK,), OPTIONS)

    def lay_out(self) -> _Sizes:
        """Find everything whose size is bounded, and wait for the sizes."""
        size, nodes, blocks, both = self.columns, self.nodes, self.blocks, max(self.blocks, self.node_blocks)
        room = _Room([COUNTERS, nodes, 2 * blocks, self.node_blocks, 2 * both], torch.long, self.device)
        counters, order, sums, graph_sums, pair_sums = room.parts()
        counted = room.tensor[:COUNTERS].zero_()
        self.order = room.tensor[order.place :]
        ends, met, batch, batched = self.ends, self.met, self.batch, self.batched
        at_nodes, at_edges, graphs = met[:2], met[4:6], met[6:]

        keys = torch.empty(2 * size, dtype=torch.long, device=self.device)
        first = self.edge_index, batch, keys, counters
        self._run(columns.keys, both, first, size, nodes, self.edge_index.stride(0), batched)
        self.keys, self.indices = torch.sort(keys, stable=True)
        self._run(columns.count, 2 * blocks, (self.keys, sums, counters), size, nodes, blocks)
        numbered = self.column, self.along, *ends, *self.arriving
        self._run(columns.number, 2 * blocks, (self.keys, self.indices, sums, counters, *numbered), size, nodes, blocks)

        arrived = ends.src, *self.arriving, self.column, batch, counters
        found = *at_nodes, met.by_dst, met.place, graph_sums
        self._run(lines.meet, both, (*arrived, *found), nodes, size.bit_length(), batched)
        gathered = *ends[:2], *at_nodes, batch, counters, *graphs, graph_sums, pair_sums
        self._run(lines.gather, both, gathered, nodes, both, batched)
        self._run(lines.pair, blocks, (*ends[:2], *at_nodes, counters, pair_sums, *at_edges), both)
        self._run(lines.measure, self.node_blocks, (counters, *graphs, order))
        few = columns.CLASSES.value
        numbers = counted.tolist()
        return _Sizes._make([*numbers[:few], tuple(numbers[few:])])

    def cut(self, sizes: _Sizes) -> tuple[Topology, Known]:
        """All in its true size."""
        nodes, edges, pairs, graphs = self.nodes, sizes.edges, sizes.pairs, sizes.graphs

        def long(size: int) -> Tensor:
            return torch.empty(size, dtype=torch.long, device=self.device)

        def table(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.int32, device=self.device)

        src, dst, prev, next = long(edges), long(edges), long(pairs), long(pairs)
        graph_ptr, edge_ptr = long(graphs + 1), long(graphs + 1)
        plan = Plan(
            graphs=table(len(Graph), graphs),
            nodes=table(len(Node), nodes),
            edges=table(len(Edge), edges),
            pairs=table(len(Pair), pairs),
            work=table(len(Work), graphs),
            host=torch.tensor(sizes.classes, device="cpu").view(len(Host), -1),
            large=torch.zeros(2, len(LargeEdge), dtype=torch.int32, device=self.device),
            levels=torch.zeros(len(LargeLevel), 1, 2, dtype=torch.int32, device=self.device),
        )
        by_size = torch.sort(self.order[:graphs], stable=True).indices
        self._run(
            tables.fill,
            1 + ceil_div(max(nodes, edges, pairs, graphs + 1), BLOCK),
            (
                *(self.keys, self.indices, by_size, *self.ends, *self.met),
                *(src, dst, prev, next, graph_ptr, edge_ptr, *plan[:5]),
            ),
            *(edges, pairs, nodes, graphs, self.columns.bit_length()),
        )
        topology = Topology(
            *(src, dst, prev, next, self.column, self.along, graph_ptr, edge_ptr),
            num_nodes=nodes,
            max_nodes=sizes.max_nodes,
            max_edges=sizes.max_edges,
            merged=sizes.repeated > 0,
        )
        return topology, {"classes": sizes.classes, "tables": {False: plan}}
