"""One layer of the stack: norm, pLSTM in both reading directions and a local branch, residual, feed-forward."""

import inspect

import torch
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import reset
from torch_geometric.typing import Adj
from torch_geometric.utils import is_sparse

from plstm_graph.adjacency import wide
from plstm_graph.errors import ConfigError, unknown
from plstm_graph.line_dag import LineDAG
from plstm_graph.nn.checked import CheckedDAG, built, check_edges, check_nodes, checked, from_sparse, missing_edges
from plstm_graph.nn.conv import PLSTMConv
from plstm_graph.nn.norm import norm_layer
from plstm_graph.nn.onehop import NEED_EDGES
from plstm_graph.ops.dispatch import check_backend

DIRECTIONS: dict[str, tuple[bool, ...]] = {"both": (False, True), "along": (False,), "against": (True,)}
"""Reading directions of a block, as the ``reverse`` of each of its layers."""


def feed_forward(channels: int, expansion: float, norm: str, dropout: float) -> nn.Sequential | None:
    """What stands behind the mixing of a block, a norm first; None where nothing does."""
    hidden = int(expansion * channels)
    if hidden < 0:
        raise ConfigError(f"expansion must be 0 (no feed-forward layer) or more, got {expansion}")
    if not hidden:
        return None
    return nn.Sequential(
        norm_layer(norm, channels),
        nn.Linear(channels, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, channels),
        nn.Dropout(dropout),
    )


def edge_content(edge_attr: Tensor, dag: LineDAG) -> Tensor:
    """Mean of the features of the edges that touch each node, [M, F] -> [N, F].

    An edge that is stored in both directions has the mean of both columns, however it is read.
    """
    rows = (dag.gather_edges(edge_attr) + dag.reverse().gather_edges(edge_attr)) / 2
    ends = torch.cat([dag.src, dag.dst])
    total = rows.new_zeros(dag.num_nodes, rows.size(1)).index_add(0, ends, torch.cat([rows, rows]))
    return total / dag.degree.clamp(min=1).to(rows.dtype).unsqueeze(-1)


class PLSTMBlock(nn.Module):
    """Pre-norm residual block around :class:`PLSTMConv`: ``x + mix(norm(x))``, then ``x + feed_forward(norm(x))``.

    ``mix`` is the pLSTM layer (both reading directions share the heads, so that they cost what one does), projected,
    plus the output of the local branch. Edge features reach the values too: their mean over the edges that touch a
    node is projected and added to what the pLSTM layer reads.

    Args:
        channels: width of the node features, a multiple of ``heads``.
        heads: number of heads of all directions together.
        mode: ``"P"``, ``"D"``, or None for a block with a local branch only.
        directions: ``"both"``, ``"along"`` or ``"against"`` the edges.
        edge_dim: width of the edge features, or None.
        edge_values: let edge features reach the values, not only the gates.
        local: any PyG conv ``channels -> channels``, or None; called with ``edge_attr`` if it takes that. One that
            evolves edge states, as :class:`GatedEdges` may, returns a pair of nodes and edges.
        norm: ``"batch"``, ``"rms"``, ``"layer"`` or ``"none"``.
        expansion: width of the feed-forward layer over ``channels``; 0 for none.
        dropout: on both branches.
        output_gate: multiply each head's output by a sigmoid of what the block reads, before it is projected (Qiu et
            al. 2025, "Gated attention for large language models").
        order, backend, transition, output_norm, open_gates, source_bias: as for :class:`PLSTMConv`.

    Shapes: x [N, channels], edge_index [2, M], edge_attr [M, edge_dim] or [M] -> [N, channels]; with a local branch
    that evolves edge states a pair of that and [M, channels].

    Reference: block of Pöppel et al. 2025, appendix C; the local branch follows GPS (Rampášek et al. 2022).
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        mode: str | None = "P",
        *,
        directions: str = "both",
        edge_dim: int | None = None,
        edge_values: bool = True,
        local: nn.Module | None = None,
        norm: str = "batch",
        expansion: float = 2.0,
        dropout: float = 0.0,
        output_gate: bool = False,
        order: str = "index",
        backend: str = "auto",
        transition: str = "tanh",
        output_norm: str = "rms",
        open_gates: bool = False,
        source_bias: float | None = None,
    ) -> None:
        super().__init__()
        check_backend(backend)
        if directions not in DIRECTIONS:
            raise ConfigError(unknown("directions", directions, DIRECTIONS))
        if mode is None and local is None:
            raise ConfigError("a block without a mode needs a local branch")
        readings = DIRECTIONS[directions] if mode is not None else ()
        edge_dim = edge_dim or None  # 0 as in dataset.num_edge_features: none
        if readings and (heads < 1 or channels % heads or heads % len(readings)):
            raise ConfigError(
                f"channels must be a multiple of heads, and heads of the {len(readings)} reading directions, "
                f"got channels={channels}, heads={heads}, directions={directions!r}"
            )
        self.channels, self.order, self.edge_dim = channels, order, edge_dim
        self.norm = norm_layer(norm, channels)
        self.convs = nn.ModuleList(
            PLSTMConv(
                *(channels, channels // heads, heads // len(readings)),
                mode=mode or "P",
                reverse=reverse,
                edge_dim=edge_dim,
                order=order,
                backend=backend,
                transition=transition,
                output_norm=output_norm,
                open_gates=open_gates,
                source_bias=source_bias,
            )
            for reverse in readings
        )
        has_content = edge_values and edge_dim is not None and readings
        self.content = Linear(edge_dim, channels, bias=False) if has_content else None
        self.project = nn.Linear(channels, channels) if readings else None
        self.gate = nn.Linear(channels, channels) if readings and output_gate else None
        self.local = local
        self.evolves: bool = getattr(local, "evolves", False)
        """Whether it returns edge states for the next block, too."""
        self._local_edges = local is not None and "edge_attr" in inspect.signature(local.forward).parameters
        self.feed_forward = feed_forward(channels, expansion, norm, dropout)
        self.dropout = nn.Dropout(dropout)

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in self.children():
            reset(module)

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_attr: Tensor | None = None,
        *,
        dag: LineDAG | None = None,
        content: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """[N, channels] -> [N, channels], and edge states [M, channels] where they evolve; ``dag`` as for
        :meth:`PLSTMConv.forward`. ``content``: what :func:`edge_content` makes of ``edge_attr`` and ``dag``,
        [N, edge_dim], where a stack has it already."""
        if self.project is not None and not isinstance(dag, CheckedDAG):  # no stack has checked it
            check_nodes(x, self.channels, self.project)
        given = edge_index
        if is_sparse(edge_index):
            edge_index, edge_attr = from_sparse(edge_index, x, edge_attr, self.edge_dim, dag)
        if dag is not None:
            dag = checked(x, given, dag)
        elif len(self.convs):
            dag = built(x, edge_index, self.order, owner=given)
        if edge_attr is not None and edge_attr.dim() == 1:
            edge_attr = edge_attr.unsqueeze(-1)
        hidden = self.norm(x)
        mixed = torch.zeros_like(x)
        if self.project is not None:
            read = hidden
            if self.content is not None and edge_attr is not None and dag is not None:
                check_edges(edge_attr, self.content.in_channels, self.content)
                if content is None or self.convs[0].explain:
                    content = edge_content(self._masked(edge_attr), dag)
                read = read + self.content(content)
            heads = torch.cat([conv(read, edge_index, edge_attr, dag=dag) for conv in self.convs], -1)
            mixed = self.project(heads if self.gate is None else heads * self.gate(read).sigmoid())
        if self.local is not None:
            if edge_attr is None and self.edge_dim and isinstance(self.local, NEED_EDGES):
                raise missing_edges(self.edge_dim)
            extra = {"edge_attr": edge_attr} if self._local_edges and edge_attr is not None else {}
            found = self.local(hidden, wide(edge_index), **extra)
            nodes, edge_attr = found if self.evolves else (found, edge_attr)
            mixed = mixed + nodes
        x = x + self.dropout(mixed)
        x = x if self.feed_forward is None else x + self.feed_forward(x)
        return (x, edge_attr) if self.evolves and edge_attr is not None else x

    def _masked(self, edge_attr: Tensor) -> Tensor:
        """An Explainer's mask hides the content of an edge, too."""
        conv = self.convs[0]
        assert isinstance(conv, PLSTMConv)
        return edge_attr * conv.column_mask().unsqueeze(-1) if conv.explain else edge_attr
