"""Stack: blocks into a node model (PLSTM), and with encoders, pooling and a head into a graph model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GIN, GINConv, GINEConv, aggr
from torch_geometric.nn.inits import reset
from torch_geometric.transforms import AddRandomWalkPE

from plstm_graph.errors import ConfigError, unknown
from plstm_graph.gates import check_mode
from plstm_graph.line_dag import LineDAG
from plstm_graph.nn.block import PLSTMBlock, edge_content, norm_layer
from plstm_graph.nn.conv import check_dag
from plstm_graph.nn.encoders import FeatureEncoder, FeatureSpec
from plstm_graph.orient import CANONICAL
from plstm_graph.transforms import OrientDAG, line_dag


def gine(channels: int, edge_dim: int | None) -> nn.Module:
    """GINEConv with a two-layer perceptron, the local branch used throughout; GINConv without edge features."""
    perceptron = nn.Sequential(nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels))
    if not edge_dim:
        return GINConv(perceptron, train_eps=True)
    return GINEConv(perceptron, train_eps=True, edge_dim=edge_dim)


LOCALS: dict[str, Callable[[int, int | None], nn.Module] | None] = {"none": None, "gine": gine}
"""Local branches by name: (channels, edge_dim) -> conv."""


class PLSTM(nn.Module):
    """A stack of :class:`PLSTMBlock`, called like PyG's ``BasicGNN`` (GCN, GAT, ...).

    The line graph is built once per call and shared by all layers.

    Args:
        in_channels: width of the node features, or -1 to read it off the first input.
        hidden_channels: width of all blocks.
        num_layers: number of blocks.
        out_channels: width of a final linear map, or None for ``hidden_channels`` without one.
        dropout: in every block.
        heads: heads of a block, all directions together.
        modes: modes of the blocks, repeated as needed: ``"PD"`` alternates.
        directions, edge_dim, norm, expansion, order, backend: as for :class:`PLSTMBlock`.
        local: local branch of every block: a name in :data:`LOCALS` or a function (channels, edge_dim) -> conv.
            With ``modes="-"`` the local branch stands alone.

    Shapes: x [N, in_channels], edge_index [2, M], edge_attr [M, edge_dim] -> [N, out_channels].

    Example:
        >>> model = PLSTM(16, 32, num_layers=2, out_channels=5, heads=4)
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> model(torch.randn(3, 16), edge_index).shape
        torch.Size([3, 5])
    """

    supports_edge_weight = False
    supports_edge_attr = True

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        out_channels: int | None = None,
        dropout: float = 0.0,
        *,
        heads: int = 4,
        modes: str = "PD",
        directions: str = "both",
        edge_dim: int | None = None,
        local: str | Callable[[int, int | None], nn.Module] | None = None,
        norm: str = "batch",
        expansion: float = 2.0,
        order: str = "index",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.in_channels, self.hidden_channels, self.num_layers = in_channels, hidden_channels, num_layers
        self.out_channels = hidden_channels if out_channels is None else out_channels
        self.order = order
        make_local = _local(local)
        self.embed = nn.LazyLinear(hidden_channels) if in_channels == -1 else nn.Linear(in_channels, hidden_channels)
        patterns = _modes(modes, num_layers)
        self._reads_dag = any(mode is not None for mode in patterns)
        self.blocks = nn.ModuleList(
            PLSTMBlock(
                *(hidden_channels, heads, mode),
                directions=directions,
                edge_dim=edge_dim,
                local=make_local(hidden_channels, edge_dim) if make_local else None,
                norm=norm,
                expansion=expansion,
                dropout=dropout,
                order=order,
                backend=backend,
            )
            for mode in patterns
        )
        self.norm = norm_layer(norm, hidden_channels)
        self.lin = nn.Linear(hidden_channels, out_channels) if out_channels is not None else None

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in self.children():
            reset(module)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        batch_size: int | None = None,
        *,
        dag: LineDAG | None = None,
    ) -> Tensor:
        """[N, in_channels] -> [N, out_channels]; arguments as for PyG's ``BasicGNN``, and the plain ``dag``."""
        if edge_weight is not None:
            raise ConfigError("PLSTM takes no edge_weight; pass weights as edge_attr [M, 1] with edge_dim=1")
        if dag is None and self._reads_dag:
            dag = LineDAG.from_edge_index(edge_index, x.size(0), order=self.order, batch=batch)
        x = self.embed(x)
        content = None
        if dag is not None:
            check_dag(x, dag)
        reads_content = any(block.content is not None for block in self.blocks)
        if reads_content and dag is not None and edge_attr is not None and edge_attr.dim() == 2:
            content = edge_content(edge_attr, dag)
        for block in self.blocks:
            x = block(x, edge_index, edge_attr, dag=dag, content=content)
        x = self.norm(x)
        return x if self.lin is None else self.lin(x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, num_layers={self.num_layers})"


def _modes(pattern: str, num_layers: int) -> list[str | None]:
    if not pattern:
        raise ConfigError("modes must name at least one mode, for example 'PD'")
    for mode in pattern.replace("-", ""):
        check_mode(mode)
    return [None if (mode := pattern[i % len(pattern)]) == "-" else mode for i in range(num_layers)]


def _local(local: Any) -> Any:
    if local is None or callable(local):
        return local
    if local not in LOCALS:
        raise ConfigError(unknown("local branch", local, LOCALS))
    return LOCALS[local]


@dataclass(frozen=True)
class ModelConfig:
    """Everything that shapes a graph model; plain values, so that it fits a command line and a checkpoint.

    Args:
        model: ``"plstm"``, ``"gine"`` (the same blocks with the local branch alone) or ``"gin"`` (PyG's GIN).
        width, layers, heads, modes, directions, norm, expansion, dropout, order: as for :class:`PLSTM`.
        local: ``"gine"`` or ``"none"``.
        pooling: ``"mean"``, ``"sum"`` or ``"max"`` over the nodes of a graph.
        walks: steps of the random-walk encoding, 0 for none.
        degrees: add the sinusoidal degree encoding.
        head_layers: layers of the perceptron behind the pooling.
        backend: of the operator.
    """

    model: str = "plstm"
    width: int = 64
    layers: int = 4
    heads: int = 8
    modes: str = "PD"
    directions: str = "both"
    local: str = "gine"
    norm: str = "batch"
    expansion: float = 2.0
    dropout: float = 0.2
    order: str = "canonical"
    pooling: str = "mean"
    walks: int = 16
    degrees: bool = False
    head_layers: int = 2
    backend: str = "auto"


def _plstm(config: ModelConfig, edge_dim: int | None, modes: str, local: str) -> nn.Module:
    return PLSTM(
        *(config.width, config.width, config.layers),
        dropout=config.dropout,
        heads=config.heads,
        modes=modes,
        directions=config.directions,
        edge_dim=edge_dim,
        local=local,
        norm=config.norm,
        expansion=config.expansion,
        order=config.order if config.order != CANONICAL else "index",
        backend=config.backend,
    )


def _gin(config: ModelConfig, edge_dim: int | None) -> nn.Module:
    norms = {"batch": "BatchNorm", "layer": "LayerNorm", "none": None}
    if config.norm not in norms:
        raise ConfigError(unknown("norm of model 'gin'", config.norm, norms))
    norm = norms[config.norm]
    single = {"allow_single_element": True} if norm == "BatchNorm" else None  # one atom is a batch, too
    return GIN(
        *(config.width, config.width, config.layers), dropout=config.dropout, norm=norm, norm_kwargs=single, jk="cat"
    )


MODELS: dict[str, Callable[[ModelConfig, int | None], nn.Module]] = {
    "plstm": lambda config, edge_dim: _plstm(config, edge_dim, config.modes, config.local),
    "gine": lambda config, edge_dim: _plstm(config, edge_dim, "-", "gine"),
    "gin": _gin,
}
"""Node models by name: (config, edge_dim) -> module called like a ``BasicGNN``."""

POOLINGS = {"mean": aggr.MeanAggregation, "sum": aggr.SumAggregation, "max": aggr.MaxAggregation}


class GraphModel(nn.Module):
    """Encode nodes and edges, run a node model, pool, predict.

    Args:
        features: what the data set stores.
        num_outputs: outputs per graph.
        config: see :class:`ModelConfig`.

    Shapes: a PyG batch of G graphs, or one graph (prepared by :func:`prepare`) -> [G, num_outputs].
    """

    def __init__(self, features: FeatureSpec, num_outputs: int, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        for kind, name, choices in (("model", config.model, MODELS), ("pooling", config.pooling, POOLINGS)):
            if name not in choices:
                raise ConfigError(unknown(kind, name, choices))
        self.encoder = FeatureEncoder(features, config.width, walks=config.walks, degrees=config.degrees)
        edge_dim = config.width if self.encoder.has_edges else None
        self.stack = MODELS[config.model](config, edge_dim)
        self.pool = POOLINGS[config.pooling]()
        layers: list[nn.Module] = []
        for _ in range(config.head_layers - 1):
            layers += [nn.Linear(config.width, config.width), nn.GELU(), nn.Dropout(config.dropout)]
        self.head = nn.Sequential(*layers, nn.Linear(config.width, num_outputs))

    def forward(self, data: Data) -> Tensor:
        """[G, num_outputs]"""
        x, edge_attr = self.encoder(data.x, data.edge_index, data.get("edge_attr"), data.get("pe"))
        arguments: dict[str, Any] = {}
        if isinstance(self.stack, PLSTM):
            arguments = {"edge_attr": edge_attr}
            if self.config.model == "plstm":
                arguments["dag"] = line_dag(data, self.config.order)
        x = self.stack(x, data.edge_index, **arguments)
        size = data.num_graphs if isinstance(data, Batch) else None  # graphs without nodes count, too
        return self.head(self.pool(x, data.get("batch"), dim_size=size))


def prepare(graphs: list[Data], config: ModelConfig, *, walked: int = 0, ranked: str | None = None) -> list[Data]:
    """What a model needs from each graph, once per data set: encodings and ranks. Returns new Data objects.

    ``walked`` is for how many steps the graphs have walks already, ``ranked`` the order of their ranks.
    """
    if config.walks > walked:
        walk = AddRandomWalkPE(config.walks, attr_name="pe")
        graphs = [walk(graph) if graph.num_edges else _no_walk(graph, config.walks) for graph in graphs]
    if config.model == "plstm" and config.order != ranked:
        orient = OrientDAG(config.order)
        graphs = [orient(graph) for graph in graphs]
    return graphs


def _no_walk(graph: Data, steps: int) -> Data:
    """A graph without edges has no walk; PyG's transform would fail on it."""
    graph = graph.clone()
    graph.pe = torch.zeros(graph.num_nodes, steps)
    return graph
