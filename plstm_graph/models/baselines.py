"""What pLSTM is compared with: stacks of one-hop layers, and models with a state of their own."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    GIN,
    GINConv,
    GINEConv,
    GPSConv,
    MessagePassing,
)
from torch_geometric.utils import scatter

from plstm_graph.errors import ConfigError, unknown
from plstm_graph.model_config import ModelConfig
from plstm_graph.nn.block import PLSTMBlock, norm_layer
from plstm_graph.nn.onehop import LOCALS, check_heads, gat, gine
from plstm_graph.nn.virtual import VirtualNode

# ---------------------------------------------------------------------- stacks


class ConvStack(nn.Module):
    """Blocks of one-hop layers: embedding, blocks with norm, residual and feed-forward as pLSTM's, a last norm.

    Args:
        config: width, layers, heads, norm, expansion, dropout, virtual_node.
        edge_dim: width of the edge features, or None.
        conv: name in :data:`LOCALS`, or ``"gps"``: GPSConv, which brings its own norms, residuals and feed-forward.

    Edge features reach a layer that does not read any as their mean over the columns that end in a node.

    Shapes: x [N, width], edge_index [2, M], edge_attr [M, edge_dim] -> [N, width].
    """

    def __init__(self, config: ModelConfig, edge_dim: int | None, conv: str) -> None:
        super().__init__()
        self.embed = nn.Linear(config.width, config.width)
        self.blocks = nn.ModuleList(_block(config, edge_dim, conv) for _ in range(config.layers))
        self.norm = norm_layer(config.norm, config.width)
        self.content = nn.Linear(edge_dim, config.width, bias=False) if edge_dim and conv == "gcn" else None
        self.virtual = (
            VirtualNode(config.width, config.layers, config.norm, config.dropout) if config.virtual_node else None
        )

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """[N, width] -> [N, width]"""
        x = self.embed(x)
        if self.content is not None and edge_attr is not None:
            x = x + self.content(scatter(edge_attr, edge_index[1], dim_size=x.size(0), reduce="mean"))
        state = self.virtual.start(batch, batch_size) if self.virtual else None
        for number, block in enumerate(self.blocks):
            if self.virtual and state is not None:
                x = self.virtual.add(x, state, batch)
            arguments = {} if edge_attr is None else {"edge_attr": edge_attr}
            x = block(x, edge_index, **arguments, **({"batch": batch} if isinstance(block, GPSConv) else {}))
            if self.virtual and state is not None:
                state = self.virtual.update(number, x, state, batch)
        return self.norm(x)


def _block(config: ModelConfig, edge_dim: int | None, conv: str) -> nn.Module:
    width, heads = config.width, config.heads
    if conv == "gps":
        check_heads(width, heads)
        norm, norm_kwargs = _pyg_norm(config)
        local = gine(width, edge_dim)
        return GPSConv(width, local, heads, config.dropout, act="gelu", norm=norm, norm_kwargs=norm_kwargs)
    layer = gat(width, edge_dim, heads) if conv == "gat" else LOCALS[conv](width, edge_dim)  # type: ignore[misc]
    return PLSTMBlock(
        width, mode=None, local=layer, norm=config.norm, expansion=config.expansion, dropout=config.dropout
    )


def _pyg_norm(config: ModelConfig) -> tuple[str | None, dict[str, bool] | None]:
    """Name and arguments of PyG's own norm."""
    norms = {"batch": "BatchNorm", "layer": "LayerNorm", "none": None}
    if config.norm not in norms:
        raise ConfigError(unknown(f"norm of model {config.model!r}", config.norm, norms))
    # One atom is a batch, too.
    return norms[config.norm], {"allow_single_element": True} if config.norm == "batch" else None


def gin(config: ModelConfig, edge_dim: int | None) -> nn.Module:
    """PyG's GIN with jumping knowledge, as the paper compares with: it reads no edge features."""
    _without_virtual(config)
    norm, norm_kwargs = _pyg_norm(config)
    return GIN(
        *(config.width, config.width, config.layers),
        dropout=config.dropout,
        norm=norm,
        norm_kwargs=norm_kwargs,
        jk="cat",
    )


# ---------------------------------------------------------------------- models with a state of their own


class DMPNN(MessagePassing):
    r"""Directed message passing: states live on directed edges, and no message returns on the edge it came by.

    .. math::
        h_{uv} = relu(W_i [x_u, e_{uv}] + W_m \sum_{w \neq v} h_{wu}), \qquad
        y_v = relu(W_o [x_v, \sum_u h_{uv}])

    Weights are shared by all steps and every step starts from the same input, as in Chemprop.

    Args:
        config: width, layers (the first reads the atoms, each further one is a message), dropout, norm (of the output).
        edge_dim: width of the edge features, or None.

    Shapes: x [N, width], edge_index [2, M], edge_attr [M, edge_dim] -> [N, width].

    Reference: Yang et al. 2019, "Analyzing learned molecular representations for property prediction".
    """

    def __init__(self, config: ModelConfig, edge_dim: int | None) -> None:
        super().__init__(aggr="sum")
        width = config.width
        self.input = nn.Linear(width + (edge_dim or 0), width)
        self.pass_on = nn.Linear(width, width)
        self.output = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = norm_layer(config.norm, width)
        self.layers = config.layers

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """[N, width] -> [N, width]"""
        at_src = x.index_select(0, edge_index[0])
        first = self.input(at_src if edge_attr is None else torch.cat([at_src, edge_attr], -1))
        returning = Returning(edge_index, x.size(0))
        state = first.relu()
        for _ in range(self.layers - 1):
            reached = self.propagate(edge_index, state=state, size=(x.size(0), x.size(0)))
            message = reached.index_select(0, edge_index[0]) - returning(state)
            state = self.dropout((first + self.pass_on(message)).relu())
        reached = self.propagate(edge_index, state=state, size=(x.size(0), x.size(0)))
        return self.norm(self.dropout(self.output(torch.cat([x, reached], -1)).relu()))

    def message(self, state: Tensor) -> Tensor:
        """The state of an edge, to its end point."""
        return state


class Returning:
    """For each column of ``edge_index`` the sum of the states of the columns that run against it, [M, F] -> [M, F]."""

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        src, dst = edge_index
        self.pairs, self.pair = torch.unique(src * num_nodes + dst, return_inverse=True)
        against = dst * num_nodes + src
        self.place = torch.searchsorted(self.pairs, against).clamp(max=self.pairs.numel() - 1)
        self.exists = (self.pairs.index_select(0, self.place) == against).unsqueeze(-1)

    def __call__(self, state: Tensor) -> Tensor:
        total = scatter(state, self.pair, dim_size=self.pairs.numel(), reduce="sum")
        return total.index_select(0, self.place) * self.exists


class LSTMGNN(nn.Module):
    """Graph LSTM: an LSTM cell at every node, fed with the mean over its neighbours, one step per layer.

    Args:
        config: width, layers, dropout, norm (of the output).
        edge_dim: width of the edge features, or None.

    Shapes: x [N, width], edge_index [2, M], edge_attr [M, edge_dim] -> [N, width].

    Reference: Liang et al. 2016, "Semantic object parsing with graph LSTM", with one forget gate for all neighbours.
    """

    def __init__(self, config: ModelConfig, edge_dim: int | None) -> None:
        super().__init__()
        width, conv = config.width, GINEConv if edge_dim else GINConv
        extra = {"edge_dim": edge_dim} if edge_dim else {}
        self.convs = nn.ModuleList(conv(nn.Linear(width, width), aggr="mean", **extra) for _ in range(config.layers))
        self.cells = nn.ModuleList(nn.LSTMCell(width, width) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.norm = norm_layer(config.norm, width)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """[N, width] -> [N, width]"""
        cell_state = torch.zeros_like(x)
        for conv, cell in zip(self.convs, self.cells, strict=True):
            arguments = {"edge_attr": edge_attr} if isinstance(conv, GINEConv) else {}
            x, cell_state = cell(self.dropout(conv(x, edge_index, **arguments)), (x, cell_state))
        return self.norm(x)


def _stack(conv: str, **fixed: bool) -> Callable[[ModelConfig, int | None], nn.Module]:
    def build(config: ModelConfig, edge_dim: int | None) -> nn.Module:
        return ConvStack(replace(config, **fixed) if fixed else config, edge_dim, conv)  # type: ignore[arg-type]

    return build


gine_stack, gcn_stack, gat_stack, gatedgcn_stack, gps = map(_stack, ("gine", "gcn", "gat", "gatedgcn", "gps"))
gin_virtual = _stack("gine", virtual_node=True)


def dmpnn(config: ModelConfig, edge_dim: int | None) -> nn.Module:
    """:class:`DMPNN`."""
    _without_virtual(config)
    return DMPNN(config, edge_dim)


def lstm_gnn(config: ModelConfig, edge_dim: int | None) -> nn.Module:
    """:class:`LSTMGNN`."""
    _without_virtual(config)
    return LSTMGNN(config, edge_dim)


def _without_virtual(config: ModelConfig) -> None:
    if config.virtual_node:
        raise ConfigError(f"model {config.model!r} takes no virtual node; leave out virtual_node")
