"""What pLSTM is compared with: stacks of one-hop layers, and models with a state of their own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GIN, AntiSymmetricConv, GCNConv, GINConv, GINEConv, GPSConv
from torch_geometric.utils import scatter

from plstm_graph.config.models import ModelConfig
from plstm_graph.errors import ConfigError, unknown
from plstm_graph.nn.block import PLSTMBlock
from plstm_graph.nn.directed import DirectedMessages
from plstm_graph.nn.jumping import last_norm
from plstm_graph.nn.norm import norm_layer
from plstm_graph.nn.onehop import EVOLVING, check_heads, first_states, gat, gine, local_branch
from plstm_graph.nn.virtual import VirtualNode

# ---------------------------------------------------------------------- stacks


class ConvStack(nn.Module):
    """Blocks of one-hop layers: embedding, blocks with norm, residual and feed-forward as pLSTM's, a last norm.

    Args:
        config: width, layers, heads, norm, expansion, dropout, virtual_node, jk.
        edge_dim: width of the edge features, or None.
        conv: name in :data:`LOCALS`, or ``"gps"``: GPSConv, which brings its own norms, residuals and feed-forward.

    Edge features reach a layer that does not read any as their mean over the columns that end in a node.

    Shapes: x [N, width], edge_index [2, M], edge_attr [M, edge_dim] -> [N, width].
    """

    def __init__(self, config: ModelConfig, edge_dim: int | None, conv: str) -> None:
        super().__init__()
        self.embed = nn.Linear(config.width, config.width)
        self.edge_states = first_states(conv, edge_dim, config.width)
        self.blocks = nn.ModuleList(
            _block(config, edge_dim, conv, last=number == config.layers - 1) for number in range(config.layers)
        )
        self.norm, self._jumps = last_norm(config.jk, config.norm, config.width, config.layers)
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
        if self.edge_states is not None:
            edge_attr = self.edge_states(edge_attr, edge_index)
        state = self.virtual.start(batch, batch_size) if self.virtual else None
        states = [x]
        for number, block in enumerate(self.blocks):
            if self.virtual and state is not None:
                x = self.virtual.add(x, state, batch)
            arguments = {} if edge_attr is None else {"edge_attr": edge_attr}
            found = block(x, edge_index, **arguments, **({"batch": batch} if isinstance(block, GPSConv) else {}))
            x, edge_attr = found if getattr(block, "evolves", False) else (found, edge_attr)
            if self.virtual and state is not None:
                state = self.virtual.update(number, x, state, batch)
            states.append(x)
        return self.norm(states if self._jumps else x)


def _block(config: ModelConfig, edge_dim: int | None, conv: str, *, last: bool) -> nn.Module:
    width = config.width
    if conv == "gps":
        check_heads(width, config.heads)
        norm, norm_kwargs = _pyg_norm(config)
        local = gine(width, edge_dim)
        return GPSConv(width, local, config.heads, config.dropout, act="gelu", norm=norm, norm_kwargs=norm_kwargs)
    options: Any = {"norm": config.norm, "dropout": config.dropout}
    if conv == "gat":
        layer: nn.Module | None = gat(width, edge_dim, config.heads)
    else:
        layer = local_branch(conv, width, edge_dim, **options, last=last)
    return PLSTMBlock(width, mode=None, local=layer, expansion=config.expansion, **options)


def _check_layers(config: ModelConfig) -> None:
    if not config.layers:
        raise ConfigError(f"model {config.model!r} needs 1 layer at least, which reads the nodes (got 0)")


def _pyg_norm(config: ModelConfig) -> tuple[str | None, dict[str, bool] | None]:
    """Name and arguments of PyG's own norm."""
    norms = {"batch": "BatchNorm", "layer": "LayerNorm", "none": None}
    if config.norm not in norms:
        raise ConfigError(unknown(f"norm of model {config.model!r}", config.norm, norms))
    # One atom is a batch, too.
    return norms[config.norm], {"allow_single_element": True} if config.norm == "batch" else None


def gin(config: ModelConfig, edge_dim: int | None) -> nn.Module:
    """PyG's GIN with jumping knowledge, as the paper compares with: it reads no edge features."""
    refuse(config, "virtual_node")  # jumping knowledge is its own
    _check_layers(config)
    norm, norm_kwargs = _pyg_norm(config)
    return GIN(
        *(config.width, config.width, config.layers),
        dropout=config.dropout,
        norm=norm,
        norm_kwargs=norm_kwargs,
        jk="cat",
    )


# ---------------------------------------------------------------------- models with a state of their own


class DMPNN(DirectedMessages):
    """:class:`DirectedMessages` as a model of its own: a norm of its output, weights shared by all steps.

    Args:
        config: width, layers (the first reads the atoms, each further one is a message), dropout, norm (of the output).
        edge_dim: width of the edge features, or None.

    Shapes: x [N, width], edge_index [2, M], edge_attr [M, edge_dim] -> [N, width].
    """

    def __init__(self, config: ModelConfig, edge_dim: int | None) -> None:
        refuse(config, "virtual_node", "jk")
        _check_layers(config)
        super().__init__(config.width, edge_dim, config.layers, config.dropout)
        self.norm = norm_layer(config.norm, config.width)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """[N, width] -> [N, width]"""
        return self.norm(super().forward(x, edge_index, edge_attr))


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
        refuse(config, "virtual_node", "jk")
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


class ADGN(nn.Module):
    """PyG's AntiSymmetricConv, one step a layer with weights that all share: a message passing that may be deep.

    Args:
        config: width, layers (steps), dropout and norm (of the output).
        edge_dim: width of the edge features, or None.

    Shapes: x [N, width], edge_index [2, M], edge_attr [M, edge_dim] -> [N, width].

    Reference: Gravina et al. 2023, "Anti-symmetric DGN: a stable architecture for deep graph networks".
    """

    def __init__(self, config: ModelConfig, edge_dim: int | None) -> None:
        super().__init__()
        refuse(config, "virtual_node", "jk")
        width = config.width
        self.embed = nn.Linear(width, width)
        message = gine(width, edge_dim) if edge_dim else GCNConv(width, width, bias=False)
        self.steps = AntiSymmetricConv(width, message, config.layers)
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
        arguments = {"edge_attr": edge_attr} if isinstance(self.steps.phi, GINEConv) else {}
        return self.norm(self.dropout(self.steps(self.embed(x), edge_index, **arguments)))


def _stack(conv: str, **fixed: bool) -> Callable[[ModelConfig, int | None], nn.Module]:
    def build(config: ModelConfig, edge_dim: int | None) -> nn.Module:
        return ConvStack(replace(config, **fixed) if fixed else config, edge_dim, conv)  # type: ignore[arg-type]

    return build


gine_stack, gcn_stack, gat_stack, gatedgcn_stack, gps = map(_stack, ("gine", "gcn", "gat", "gatedgcn", "gps"))
gatedgcn_edges_stack = _stack(EVOLVING)
gin_virtual = _stack("gine", virtual_node=True)


def refuse(config: ModelConfig, *names: str) -> None:
    """Raise ConfigError for options that a model does not have and that are not at their defaults."""
    plain = ModelConfig()
    for name in names:
        if getattr(config, name) != getattr(plain, name):
            raise ConfigError(f"model {config.model!r} takes no {name.replace('_', ' ')}; leave out {name}")
