"""Graph models on padded tensors, in plain torch operations of known shapes: what ``torch.export`` can write down.

A batch of G graphs is padded to n nodes and M columns. Each graph gets one more node, which padding refers to, and two
more edges, between which the pairs that do not exist are put. All that remains is a batch of ordinary graphs with
sizes known from the shapes, so the trained modules run on it as they are.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch_geometric.data import Batch, Data

from plstm_graph.config.architectures import architecture
from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.line_dag import LineDAG
from plstm_graph.line_dag.derived import Average, Known
from plstm_graph.line_dag.topology import Levels, Topology
from plstm_graph.models.graph import GraphModel
from plstm_graph.nn.conv import PLSTMConv
from plstm_graph.orient import RANDOM


class Padded(NamedTuple):
    """G graphs of at most n nodes and M columns of ``edge_index``, as plain tensors; what lies beyond is not looked at.

    Attributes:
        x: node features, [G, n, F].
        edge_index: columns as PyG stores them, nodes numbered from 0 in each graph, int64 [G, 2, M].
        edge_attr: edge features, [G, M, D]; D is 0 where there are none.
        rank: edges run from lower to higher rank, int64 [G, n].
        num_nodes, num_edges: nodes and columns of each graph, int64 [G].
    """

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    rank: Tensor
    num_nodes: Tensor
    num_edges: Tensor

    @classmethod
    def from_data_list(cls, graphs: Sequence[Data]) -> "Padded":
        """Pad graphs that have ``x``, ``edge_index`` and, if the model wants them, ``edge_attr`` and ``rank``.

        Without a ``rank`` nodes are ranked by their numbers.

        Raises:
            ShapeError: no graph, or one without nodes.
        """
        if not graphs or not all(graph.num_nodes for graph in graphs):
            raise ShapeError(f"padding needs graphs with at least one node each, got {len(graphs)} graphs")
        nodes = max(graph.num_nodes for graph in graphs)
        columns = max(1, *(graph.num_edges for graph in graphs))

        def fill(x: Tensor, size: int) -> Tensor:
            return pad(x, [0, 0] * (x.dim() - 1) + [0, size - x.size(0)])

        def rank(graph: Data) -> Tensor:
            stored = graph.get("rank")
            return torch.arange(graph.num_nodes) if stored is None else stored

        def attributes(graph: Data) -> Tensor:
            stored = graph.get("edge_attr")
            if stored is None:
                return torch.zeros(graph.num_edges, 0)
            return stored.unsqueeze(1) if stored.dim() == 1 else stored

        return cls(
            torch.stack([fill(graph.x, nodes) for graph in graphs]),
            torch.stack([fill(graph.edge_index.t(), columns).t() for graph in graphs]),
            torch.stack([fill(attributes(graph), columns) for graph in graphs]),
            torch.stack([fill(rank(graph), nodes) for graph in graphs]),
            torch.tensor([graph.num_nodes for graph in graphs]),
            torch.tensor([graph.num_edges for graph in graphs]),
        )


class PaddedModel(nn.Module):
    """A graph model that reads :class:`Padded` tensors and gives what the model gives for the graphs, [G, outputs].

    Runs in the dense form of the operator whatever the model's backend; random-walk encodings are computed here.

    Args:
        model: trained; copied, and set to evaluation.

    Raises:
        ConfigError: GPS, random orientations, Laplacian eigenvectors, rings and descriptors take more.

    Example:
        >>> from torch_geometric.data import Data
        >>> from plstm_graph.data.features import FeatureSpec
        >>> from plstm_graph.models.graph import GraphModel
        >>> from plstm_graph.config.models import ModelConfig
        >>> model = PaddedModel(GraphModel(FeatureSpec(node_dim=3), 2, ModelConfig(width=8, layers=1)))
        >>> chain = Data(x=torch.randn(3, 3), edge_index=torch.tensor([[0, 1], [1, 2]]))
        >>> model(*Padded.from_data_list([chain, chain])).shape
        torch.Size([2, 2])
    """

    def __init__(self, model: GraphModel) -> None:
        super().__init__()
        config = model.config
        what = {
            f"model {config.model!r}": not architecture(config.model).padded,
            "order 'random'": config.order == RANDOM,
            "lap_pe": config.lap_pe > 0,
            "rings": config.rings,
            "descriptors": model.descriptors is not None,
        }
        for name in (name for name, chosen in what.items() if chosen):
            raise ConfigError(f"a model with {name} cannot run on padded tensors; train one without to export it")
        self.model = deepcopy(model).eval()
        convs = [module for module in self.model.modules() if isinstance(module, PLSTMConv)]
        for conv in convs:
            conv.backend = "dense"
        self._prunes = any(conv.mode == "D" for conv in convs)
        self._reads_dag = self.model.order is not None
        self._rwse = config.rwse

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor,
        rank: Tensor,
        num_nodes: Tensor,
        num_edges: Tensor,
    ) -> Tensor:
        """See :class:`Padded` for the shapes."""
        graphs, nodes, _ = x.shape
        columns = edge_index.size(2)
        device = x.device
        node = torch.arange(nodes + 1, device=device)  # the last one is what padding refers to
        is_node = node < num_nodes.unsqueeze(1)
        is_column = torch.arange(columns, device=device) < num_edges.unsqueeze(1)
        edge_index = torch.where(is_column.unsqueeze(1), edge_index, nodes)
        graph = torch.arange(graphs, device=device).unsqueeze(1)
        union = edge_index + graph.unsqueeze(1) * (nodes + 1)
        batch = Batch(
            x=pad(torch.where(is_node[:, :-1].unsqueeze(2), x, 0), [0, 0, 0, 1]).flatten(0, 1),
            edge_index=union.transpose(0, 1).flatten(1),
            batch=torch.where(is_node, graph, graphs).flatten(),  # nodes that are none are a graph of their own
        )
        if edge_attr.size(2):
            batch.edge_attr = torch.where(is_column.unsqueeze(2), edge_attr, 0).flatten(0, 1)
        if self._rwse:
            batch.rwse = _walk_encoding(edge_index, nodes + 1, self._rwse).flatten(0, 1)
        if self._reads_dag:
            batch.line_dag = line_dag(edge_index, pad(rank, [0, 1]), is_node, prune=self._prunes)
        batch._num_graphs = graphs + 1
        return self.model(batch)[:-1]


def _walk_encoding(edge_index: Tensor, nodes: int, steps: int) -> Tensor:
    """Return probabilities as in PyG's ``AddRandomWalkPE``, [G, 2, M] -> [G, nodes, steps]."""
    graphs = edge_index.size(0)
    row, column = edge_index.unbind(1)
    graph = torch.arange(graphs, device=row.device).unsqueeze(1).expand_as(row)
    ones = torch.ones_like(row, dtype=torch.get_default_dtype())
    degree = ones.new_zeros(graphs, nodes).scatter_add(1, row, ones).clamp(min=1)
    step = ones.new_zeros(graphs, nodes, nodes).index_put((graph, row, column), 1 / degree.gather(1, row))
    walked, returns = step, [step.diagonal(dim1=1, dim2=2)]
    for _ in range(steps - 1):
        walked = walked @ step
        returns.append(walked.diagonal(dim1=1, dim2=2))
    return torch.stack(returns, -1)


def line_dag(edge_index: Tensor, rank: Tensor, is_node: Tensor, *, prune: bool) -> LineDAG:
    """The line graph of padded graphs with sizes that the shapes tell, for the dense form of the operator.

    Equal to :meth:`LineDAG.from_edge_index` but for edges between the last node of a graph and itself, and pairs
    between such edges: these stand where an edge or a pair might be. The last node has to be none (``is_node``).

    Args:
        edge_index: [G, 2, M], nodes numbered in each graph; padding refers to the last node.
        rank: [G, n].
        is_node: which rows are nodes, bool [G, n].
        prune: provide the view of D mode.
    """
    graphs, nodes = rank.shape
    columns = edge_index.size(2)
    device = rank.device
    none = nodes - 1
    rank = torch.where(is_node, rank, torch.iinfo(torch.long).max)
    node_at = rank.argsort(dim=1, stable=True)
    position = node_at.argsort(dim=1)
    ends = position.gather(1, edge_index.flatten(1)).view_as(edge_index)
    low, high = ends.amin(1), ends.amax(1)

    def behind(end: Tensor, count: int) -> Tensor:
        return pad(end - none, [0, count]) + none  # a fill value would have to be known before it is exported

    # One slot per column, in topological order; the columns of an edge share its first, the others stay empty.
    big = nodes * nodes
    key, at = torch.where(low < high, low * nodes + high, big).sort(dim=1, stable=True)
    number = torch.arange(columns, device=device)
    filled = (key < big) & ((key != key.roll(1, 1)) | (number == 0))
    place = torch.where(filled, key, 0)
    src = torch.where(filled, node_at.gather(1, place // nodes), none)
    dst = torch.where(filled, node_at.gather(1, place % nodes), none)
    slot = torch.where(filled, number, 0).cummax(1).values
    slot = torch.where(key < big, slot, columns)  # a self-loop becomes no edge
    slot = torch.empty_like(slot).scatter(1, at, slot)
    along = edge_index[:, 0] == behind(src, 1).gather(1, slot)

    # A pair that is none leads from one of the two edges behind the slots to the other.
    real = (dst.unsqueeze(1) == src.unsqueeze(2)) & filled.unsqueeze(1) & filled.unsqueeze(2)  # [G, next, prev]
    kept = _multitree(real) if prune else real
    slots = columns + 2
    first_node = torch.arange(graphs + 1, device=device) * nodes
    first_edge = torch.arange(graphs + 1, device=device) * slots
    node_offset, edge_offset = first_node[:-1].unsqueeze(1), first_edge[:-1].unsqueeze(1)

    def pairs(exists: Tensor) -> tuple[Tensor, Tensor]:
        prev = torch.where(exists, number, columns)
        next = torch.where(exists, number.unsqueeze(1), columns + 1)
        return tuple((end + edge_offset.unsqueeze(2)).flatten() for end in (prev, next))  # type: ignore[return-value]

    prev, next = pairs(real)
    src, dst = ((behind(end, 2) + node_offset).flatten() for end in (src, dst))
    edges = graphs * slots

    def average(runs: Tensor) -> Average:
        has = torch.zeros_like(pad(slot, [0, 2])).scatter_add(1, slot, runs.long()) > 0
        chosen = (slot < columns) & (runs | ~has.gather(1, slot))
        edge = (torch.where(chosen, slot, columns) + edge_offset).flatten()
        count = torch.zeros_like(src).index_add(0, edge, torch.ones_like(edge)).clamp(min=1)
        return Average(torch.arange(edge.size(0), device=device), edge, count)

    ends = torch.cat([src, dst])
    # What a LineDAG would work out in shapes that depend on the data is told here.
    known: Known = {
        "levels": Levels(torch.zeros_like(src), 1),
        "node_graph": torch.arange(graphs, device=device).repeat_interleave(nodes, output_size=graphs * nodes),
        "edge_graph": torch.arange(graphs, device=device).repeat_interleave(slots, output_size=edges),
        "degree": torch.zeros_like(first_node[:1]).expand(graphs * nodes).index_add(0, ends, torch.ones_like(ends)),
        "averages": (average(along), average(~along)),
    }
    if prune:
        known["pruned_pairs"] = pairs(kept)
    topology = Topology(
        *(src, dst, prev, next),
        *((slot + edge_offset).flatten(), along.flatten(), first_node, first_edge),
        num_nodes=graphs * nodes,
        max_nodes=nodes,
        max_edges=slots,
        merged=True,
    )
    return LineDAG.of(topology, **known)


def _multitree(real: Tensor) -> Tensor:
    """Choose the pairs that stay, as ``multitree_pairs`` in ``line_dag/prune.py``, bool [G, M, M] (next, prev)."""
    graphs, size, _ = real.shape
    waiting = real.flatten(1)
    order = waiting.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    count = waiting.sum(1)
    ancestors = torch.eye(size, dtype=torch.bool, device=real.device).expand(graphs, -1, -1).clone()

    def unfinished(turn: Tensor, ancestors: Tensor, kept: Tensor, order: Tensor, count: Tensor) -> Tensor:
        return (turn < count).any()

    def visit(turn: Tensor, ancestors: Tensor, kept: Tensor, order: Tensor, count: Tensor) -> tuple[Tensor, ...]:
        pair = order.index_select(1, turn.view(1)).view(-1)
        graph, next, prev = torch.arange(pair.size(0), device=pair.device), pair // size, pair % size
        above, own = ancestors[graph, prev], ancestors[graph, next]
        keeps = ~(above & own).any(1) & (turn < count)
        ancestors = ancestors.index_put((graph, next), own | (above & keeps.unsqueeze(1)))
        kept = kept.scatter(1, pair.unsqueeze(1), keeps.unsqueeze(1))
        return turn + 1, ancestors, kept, order.clone(), count.clone()

    turn = torch.zeros((), dtype=torch.long, device=real.device)
    state: tuple[Tensor, ...] = (turn, ancestors, torch.zeros_like(waiting), order, count)
    if torch.compiler.is_compiling():
        state = torch.while_loop(unfinished, visit, state)
    else:
        while bool(unfinished(*state)):
            state = visit(*state)
    return state[2].view_as(real)
