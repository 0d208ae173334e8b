"""Graph models: encoders, a stack that reads nodes and edges, pooling and a head."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import aggr

from plstm_graph.adjacency import wide
from plstm_graph.config.architectures import architecture
from plstm_graph.config.models import ModelConfig
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import ConfigError, DataError, ShapeError, unknown
from plstm_graph.line_dag import LineDAG
from plstm_graph.nn.encoders import DescriptorEncoder, FeatureEncoder
from plstm_graph.nn.norm import norm_layer
from plstm_graph.nn.stack import PLSTM
from plstm_graph.orient import RANDOM
from plstm_graph.tasks import Task
from plstm_graph.transforms import line_dag


def plstm(config: ModelConfig, edge_dim: int | None) -> nn.Module:
    """The stack of pLSTM."""
    return PLSTM(
        *(config.width, config.width, config.layers),
        dropout=config.dropout,
        heads=config.heads,
        modes=config.modes,
        directions=config.directions,
        edge_dim=edge_dim,
        edge_values=config.edge_values,
        local=config.local,
        norm=config.norm,
        expansion=config.expansion,
        virtual_node=config.virtual_node,
        output_gate=config.output_gate,
        jk=config.jk,
        order=config.order,
        backend=config.backend,
        transition=config.transition,
        output_norm=config.output_norm,
        open_gates=config.open_gates,
        source_bias=config.source_bias,
    )


class Ends(nn.Module):
    """Mean over the sources of a graph, or over its sinks: nodes that no edge enters, or leaves; 0 without any.

    Args:
        row: of the edges: 1 for sources, 0 for sinks.
    """

    def __init__(self, row: int) -> None:
        super().__init__()
        self.row, self.sum = row, aggr.SumAggregation()

    def forward(
        self, x: Tensor, index: Tensor | None = None, dim_size: int | None = None, *, edges: Sequence[Tensor]
    ) -> Tensor:
        """[N, width] -> [G, width]; ``edges``: src and dst nodes, [E] each."""
        end = x.new_ones(x.size(0), 1).index_fill(0, edges[self.row], 0)
        total = self.sum(torch.cat([x * end, end], 1), index, dim_size=dim_size)
        return total[:, :-1] / total[:, -1:].clamp(min=1)


POOLINGS: dict[str, Callable[[int], aggr.Aggregation | Ends]] = {
    "mean": lambda width: aggr.MeanAggregation(),
    "sum": lambda width: aggr.SumAggregation(),
    "max": lambda width: aggr.MaxAggregation(),
    "attention": lambda width: aggr.AttentionalAggregation(nn.Linear(width, 1)),
    "sources": lambda width: Ends(1),
    "sinks": lambda width: Ends(0),
}
"""Poolings by name, for a width: a mean weighted by attention, one of the plain ones, or the ends of a DAG."""


def _pooled(
    pooling: nn.Module, x: Tensor, index: Tensor | None, dim_size: int | None, edges: Sequence[Tensor]
) -> Tensor:
    extra = {"edges": edges} if isinstance(pooling, Ends | Joined) else {}
    return pooling(x, index, dim_size=dim_size, **extra)


class Joined(nn.Module):
    """Several poolings side by side, [N, width] -> [G, width of all]."""

    def __init__(self, names: Sequence[str], width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(POOLINGS[name](width) for name in names)

    def forward(
        self, x: Tensor, index: Tensor | None = None, dim_size: int | None = None, *, edges: Sequence[Tensor]
    ) -> Tensor:
        """``index`` [N] says which graph a node is of; ``edges``: src and dst nodes, [E] each."""
        return torch.cat([_pooled(part, x, index, dim_size, edges) for part in self.parts], -1)


class EdgeReadout(nn.Module):
    """Mean over the edges of a graph of what their ends and features say, [N, width] -> [G, width]."""

    def __init__(self, width: int, edge_dim: int | None) -> None:
        super().__init__()
        self.ends = nn.Linear(2 * width, width)
        self.content = nn.Linear(edge_dim, width, bias=False) if edge_dim else None
        self.mean = aggr.MeanAggregation()

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None, batch: Tensor | None, size: int | None
    ) -> Tensor:
        """``edge_attr`` [M, edge_dim], ``batch`` [N]; ``size`` is the number of graphs."""
        src, dst = edge_index
        found = self.ends(torch.cat([x.index_select(0, src), x.index_select(0, dst)], -1))
        if self.content is not None and edge_attr is not None:
            found = found + self.content(edge_attr)
        graph = torch.zeros_like(src) if batch is None else batch.index_select(0, src)
        return self.mean(found.relu(), graph, dim_size=size or 1)


class BothWays(nn.Module):
    """Edges as they are stored and turned round, each with a learned vector that says which.

    Shapes: edge_index [2, M], edge_attr [M, width] or None -> [2, 2 M] and [2 M, width].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.way = nn.Parameter(torch.randn(2, width))

    def forward(self, edge_index: Tensor, edge_attr: Tensor | None) -> tuple[Tensor, Tensor]:
        """All columns along, then all against."""
        way = self.way.unsqueeze(1).expand(-1, edge_index.size(1), -1)
        way = way if edge_attr is None else way + edge_attr
        return torch.cat([edge_index, edge_index.flip(0)], 1), way.flatten(0, 1)


class EveryNode(nn.Module):
    """In place of a pooling where every node has an answer."""

    def forward(self, x: Tensor, index: Tensor | None = None, dim_size: int | None = None) -> Tensor:
        """[N, width] as it is."""
        return x


class GraphModel(nn.Module):
    """Encode nodes and edges, run a node model, pool, predict.

    Args:
        features: what the data set stores.
        num_outputs: outputs per answer.
        config: see :class:`ModelConfig`.
        level: ``"graph"``, an answer a graph, or ``"node"``, one a node, without pooling.

    Shapes: a PyG batch of G graphs and N nodes, or one graph (prepared by ``add_encodings``) -> [G, num_outputs], or
    [N, num_outputs].
    """

    def __init__(
        self, features: FeatureSpec, num_outputs: int, config: ModelConfig | None = None, *, level: str = "graph"
    ) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        kind = architecture(config.model)
        poolings = config.pooling.split("+")
        for name in poolings:
            if name not in POOLINGS:
                raise ConfigError(unknown("pooling", name, POOLINGS))
        if config.test_orientations < 1:
            raise ConfigError(f"test_orientations must be at least 1, got {config.test_orientations}")
        if not config.edge_features:
            features = replace(features, edge_sizes=(), edge_dim=0)
        self.encoder = FeatureEncoder(
            *(features, config.width),
            rwse=config.rwse,
            lap_pe=config.lap_pe,
            degrees=config.degrees,
            rings=config.rings,
        )
        edge_dim = config.width if self.encoder.has_edges else None
        self.both_ways = BothWays(config.width) if config.both_ways else None
        if config.both_ways and kind.oriented:
            raise ConfigError(f"model {config.model!r} has directions of its own; leave out both_ways")
        self.stack = kind.stacked(config, config.width if config.both_ways else edge_dim)
        self.order = config.order if kind.oriented else None
        whole = level == "graph"
        single = POOLINGS[poolings[0]](config.width) if len(poolings) == 1 else Joined(poolings, config.width)
        self.pool = single if whole else EveryNode()
        self.edge_readout = EdgeReadout(config.width, edge_dim) if config.edge_readout and whole else None
        self.descriptors = DescriptorEncoder(features.descriptors, config.width) if features.descriptors else None
        if self.descriptors is not None and not whole:
            raise ConfigError(f"descriptors are of a molecule, and this task asks about each {level}; leave them out")
        joined = len(poolings) if whole else 1
        width = config.width * (joined + sum(part is not None for part in (self.edge_readout, self.descriptors)))
        self.channels = width
        """What the head reads, and :meth:`embed` gives."""
        layers: list[nn.Module] = []
        for _ in range(config.head_layers - 1):
            layers.append(nn.Linear(width, config.width))
            if config.head_norm != "none":
                layers.append(norm_layer(config.head_norm, config.width, rows="graphs" if whole else "nodes"))
            layers += [nn.GELU(), nn.Dropout(config.dropout)]
            width = config.width
        self.head = nn.Sequential(*layers, nn.Linear(width, num_outputs))
        self.orientation = 0
        """With order ``"random"``: seed of the orientations of this epoch. A trainer sets it."""

    def forward(self, data: Data) -> Tensor:
        """[G, num_outputs], or [N, num_outputs]"""
        found = [self.head(read) for read in self._read(data)]
        return found[0] if len(found) == 1 else torch.stack(found).mean(0)

    def embed(self, data: Data) -> Tensor:
        """What the head reads of each graph, [G, channels], or of each node."""
        found = list(self._read(data))
        return found[0] if len(found) == 1 else torch.stack(found).mean(0)

    def _read(self, data: Data) -> Iterator[Tensor]:
        """Pooled nodes, edges and descriptors side by side, once for each reading."""
        batch = data.get("batch")
        size = data.num_graphs if isinstance(data, Batch) else None  # graphs without nodes count, too
        x, edge_attr = self.encoder(
            *(data.x, data.edge_index, data.get("edge_attr"), data.get("rwse")),
            lap_pe=data.get("lap_pe"),
            rings=(data.get("ring_nodes"), data.get("ring_edges")),
            batch=batch,
            num_graphs=size,
        )
        for arguments in self._readings(data):
            if isinstance(self.stack, PLSTM):
                self.stack.prepare_dag(arguments["dag"])
            columns, attributes = wide(data.edge_index), edge_attr
            if self.both_ways is not None:
                columns, attributes = self.both_ways(columns, attributes)
            read = self.stack(x, columns, edge_attr=attributes, batch=batch, batch_size=size, **arguments)
            dag = arguments.get("dag")
            edges = data.edge_index if dag is None else (dag.src, dag.dst)
            parts = [_pooled(self.pool, read, batch, size, edges)]
            if self.edge_readout is not None:
                parts.append(self.edge_readout(read, data.edge_index, edge_attr, batch, size))
            if self.descriptors is not None:
                parts.append(self.descriptors(self._described(data)))
            yield torch.cat(parts, -1) if parts[1:] else parts[0]

    def _described(self, data: Data) -> Tensor:
        if "descriptors" not in data:
            raise ShapeError("the model reads descriptors, and these graphs have none: load the data with descriptors")
        return data.descriptors

    def _readings(self, data: Data) -> Iterator[dict[str, LineDAG]]:
        """The line graphs to read: one, but for random orientations outside of training."""
        if self.order is None:
            yield {}
        elif self.order != RANDOM:
            yield {"dag": line_dag(data, self.order)}
        else:
            for seed in [self.orientation] if self.training else range(self.config.test_orientations):
                batch = data.get("batch")
                batch = data.edge_index.new_zeros(data.num_nodes) if batch is None else batch
                yield {
                    "dag": LineDAG.from_edge_index(
                        data.edge_index, data.num_nodes, order=RANDOM, batch=batch, seed=seed
                    )
                }


def build(config: ModelConfig, features: FeatureSpec, task: Task) -> GraphModel:
    """A graph model that answers a task.

    Raises:
        DataError: the data are images.
    """
    if features.image:
        raise DataError(f"model {config.model!r} reads graphs, and these data are images; try --model plstm-vision")
    return GraphModel(features, task.num_outputs, config, level=task.level)
