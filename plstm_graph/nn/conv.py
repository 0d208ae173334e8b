"""Gates from features, and the layer: PLSTMConv, a drop-in for PyG's GATv2Conv that reads along all directed paths."""

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.typing import Adj
from torch_geometric.utils import is_sparse

from plstm_graph.errors import ConfigError, unknown
from plstm_graph.gates import (
    EdgeTerm,
    Gate,
    Gates,
    NodeTerm,
    activate,
    check_mode,
    check_transition,
    initial_gate_bias,
    view,
)
from plstm_graph.line_dag import LineDAG
from plstm_graph.nn.checked import built, check_nodes, checked, edges_read, from_sparse, width_read
from plstm_graph.nn.dropin import (
    LAYER,
    LAYER_CALL,
    NoMessages,
    check_inputs,
    check_widths,
    refuse_arguments,
    refuse_options,
)
from plstm_graph.nn.linear import EdgeLinear, NodeLinear
from plstm_graph.nn.norm import OUTPUT_NORMS, MultiHeadRMSNorm
from plstm_graph.ops import chunkwise, propagate
from plstm_graph.ops.compiled import HOMES
from plstm_graph.ops.dispatch import COMPILED, check_backend, compiled_backend
from plstm_graph.ops.functional import transforming
from plstm_graph.ops.layer import Inputs, Setting, layer
from plstm_graph.orient import check_order


class PLSTMConv(NoMessages):
    r"""The pLSTM layer for graphs: every node reads every node that a directed path joins to it, in one layer.

    .. math::
        C_e = s_e \, k_{src(e)} \otimes v_{src(e)} + \sum_{p:\, next(p)=e} t_p \, C_{prev(p)}, \qquad
        y_n = \sum_{e:\, dst(e)=n} m_e \, q_n^\top C_e + d_n \, (q_n \cdot k_n) \, v_n

    The graph is oriented by ``order``; queries, keys and values are linear maps of the node features; source
    :math:`s`, mark :math:`m` and direct :math:`d` are sigmoids and the transition :math:`t` a tanh of linear maps of
    the nodes and edges that they join. Each head is RMS-normalised, then heads are concatenated or averaged.

    Args:
        in_channels: width of the node features; -1 to read it off the first input.
        out_channels: V, width of a head.
        heads: H.
        concat: concatenate the heads (H · V outputs) or average them (V outputs).
        mode: ``"P"`` (propagation: all pairs, normalised as eq. 9) or ``"D"`` (distribution: pruned to a multitree).
        reverse: read against the edges. One layer reads one direction; use two for both.
        edge_dim: width of the edge features, which enter the gates; -1 to read it off the first input. None or 0: no
            edge features.
        key_channels: K, width of queries and keys; default ``out_channels``.
        order: orientation when no ``dag`` is given to ``forward``; see :meth:`LineDAG.from_edge_index`.
        bias: biases of the projections and of the output (gates always have theirs).
        backend: see :func:`plstm_graph.propagate`. Second derivatives need ``"scatter"`` or ``"dense"``.
        transition: ``"tanh"``, or ``"saturating"``, whose sources can be exactly 0 and transitions exactly 1: for
            graphs where what matters is far away along directed paths. See
            :func:`plstm_graph.gates.activate_transition`.
        output_norm: ``"rms"``, of every head; ``"soft"``: y / sqrt(mean(y²) + 1), by which small outputs keep their
            size, so that it matters what fades on the way; ``"log"``: every head shrunk to the logarithm of its size,
            by which more stays more; or ``"none"``: a scale alone, so that outputs tell how much arrives over how
            many paths. With the last two the layer runs step by step, not as one kernel.
        open_gates: sources, marks and direct gates begin half open rather than almost closed.
        source_bias: that sources begin with, in place of the usual. At -2 a source of saturating gates has just
            closed, to the digit: then training opens those that are needed, and does not have to close all others.

    Shapes:
        - **input:** node features [N, in_channels], edge_index [2, M] or a sparse adjacency (transposed, as in PyG),
          edge features [M, edge_dim] (optional)
        - **output:** [N, H · out_channels], or [N, out_channels] without ``concat``

    Raises:
        ConfigError: an option of GATv2Conv that has no meaning here, an unknown mode, transition, order, backend or
            norm, or a width that is none.
        ShapeError: bipartite ``x``, or features that do not fit the graph.

    Reference: Pöppel et al. 2025, "pLSTM: parallelizable Linear Source Transition Mark networks", eqs 5, 6 and 9.

    Example:
        >>> conv = PLSTMConv(16, 8, heads=4)
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> conv(torch.randn(3, 16), edge_index).shape
        torch.Size([3, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        mode: str = "P",
        reverse: bool = False,
        edge_dim: int | None = None,
        key_channels: int | None = None,
        order: str = "index",
        bias: bool = True,
        backend: str = "auto",
        transition: str = "tanh",
        output_norm: str = "rms",
        open_gates: bool = False,
        source_bias: float | None = None,
        **unsupported: Any,
    ) -> None:
        check_inputs("PLSTMConv", in_channels, edge_dim)
        refuse_options("PLSTMConv", unsupported, LAYER)
        keys = out_channels if key_channels is None else key_channels
        check_widths(heads=heads, out_channels=out_channels, key_channels=keys)
        check_mode(mode)
        check_transition(transition)
        if output_norm not in OUTPUT_NORMS:
            raise ConfigError(unknown("output norm", output_norm, OUTPUT_NORMS))
        check_order(order)
        check_backend(backend)
        super().__init__(aggr="sum", node_dim=0)
        self.in_channels, self.out_channels, self.heads, self.concat = in_channels, out_channels, heads, concat
        self.mode, self.reverse, self.order, self.backend = mode, reverse, order, backend
        self.transition, self.open_gates, self.source_bias = transition, open_gates, source_bias
        self.edge_dim = edge_dim = edge_dim or None
        self.key_channels = keys

        width = heads * (2 * self.key_channels + out_channels)
        self.lin = NodeLinear(in_channels, width, len(NodeTerm) * heads, bias)
        self.lin_edge = EdgeLinear(edge_dim, len(EdgeTerm) * heads) if edge_dim is not None else None
        self.gate_bias = nn.Parameter(torch.empty(len(Gate), heads))
        self.norm = OUTPUT_NORMS[output_norm](heads, out_channels, self.key_channels)
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels * (heads if concat else 1)))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Projections as in GATv2Conv; gates from the paper's table 5."""
        super().reset_parameters()
        self.lin.reset_parameters()
        self.norm.reset_parameters()
        if self.lin_edge is not None:
            self.lin_edge.reset_parameters()
        with torch.no_grad():
            start = initial_gate_bias(self.heads, self.transition, self.open_gates, self.source_bias)
            self.gate_bias.copy_(start)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @torch.no_grad()
    def close_sources(self, by: float | Tensor) -> None:
        """Lower the biases of sources."""
        self.gate_bias[Gate.SOURCE] -= by

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_attr: Tensor | None = None,
        *,
        dag: LineDAG | None = None,
        **unsupported: Any,
    ) -> Tensor:
        """Run the layer.

        Args:
            x: node features, [N, in_channels].
            edge_index: [2, M] or a sparse adjacency. Once ``dag`` is given, it is only compared with what that was
                built from; None will do.
            edge_attr: edge features, [M, edge_dim] or [M].
            dag: plain line graph (neither pruned nor reversed: the layer takes the view it needs). If not given it is
                built from ``edge_index``, once for all layers that are called with the same numbers, see
                :func:`plstm_graph.line_dag.share_line_graphs`.
            unsupported: what else PyG's layers are called with (``edge_weight``, ...), None or refused by name.

        Returns:
            [N, heads * out_channels], or [N, out_channels] without ``concat``.
        """
        refuse_arguments("PLSTMConv", unsupported, LAYER_CALL)
        check_nodes(x, width_read(self.lin, self.in_channels), self.lin)
        given = edge_index
        if is_sparse(edge_index):
            edge_index, edge_attr = from_sparse(edge_index, x, edge_attr, self.edge_dim, dag)
        dag = built(x, edge_index, self.order, owner=given) if dag is None else checked(x, given, dag)
        dag = view(dag, self.mode, self.reverse)
        backend = self._as_one(x, dag)
        if backend is not None:
            return self._layer(backend, x, edge_attr, dag)
        projected, node_terms = self.lin(x)
        query, key, value = self._vectors(projected)
        gates = self._gates(node_terms, edge_attr, dag)
        if self.explain:
            gates = self._mask(gates, dag)
        out = self.norm(propagate(query, key, value, gates, dag, backend=self.backend))
        out = out.flatten(1) if self.concat else out.mean(1)
        return out if self.bias is None else out + self.bias

    def _vectors(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys [N, H, K], values [N, H, V]."""
        widths = [self.key_channels, self.key_channels, self.out_channels]
        return projected.view(-1, self.heads, sum(widths)).split(widths, -1)

    def _as_one(self, x: Tensor, dag: LineDAG) -> str | None:
        """The backend that runs all of the layer as one, if none of its parts was replaced or is being watched, nor is
        the layer transformed by torch.func."""
        if self.explain or transforming():
            return None
        backend = compiled_backend(self.backend, x.device)
        shape = self.heads, self.key_channels, self.out_channels
        if backend is None or (self.backend == "auto" and chunkwise.serves(dag, x.device.type, shape)):
            return None
        lin_edge = self.lin_edge
        plain = untouched(self.lin, NodeLinear) and untouched(self.norm, MultiHeadRMSNorm)
        return backend if plain and (lin_edge is None or untouched(lin_edge, EdgeLinear)) else None

    def _layer(self, backend: str, x: Tensor, edge_attr: Tensor | None, dag: LineDAG) -> Tensor:
        """All of the layer in kernels of its own, see ``ops/layer.py``."""
        lin, norm, lin_edge = self.lin, self.norm, None
        assert isinstance(norm, MultiHeadRMSNorm)
        if edge_attr is not None:
            edge_attr, edge_map = self._edge_map(edge_attr)
            lin_edge = edge_map.weight
            dag.check_columns(edge_attr)
            edge_attr = dag.gather_edges(edge_attr) if dag.merged else edge_attr
        setting = Setting(
            *(backend, self.heads, self.key_channels, self.mode, self.transition),
            *(dag.reversed, dag.merged, norm.eps, self.concat),
        )
        inputs = Inputs(x, edge_attr, lin.weight, lin.bias, lin_edge, self.gate_bias, norm.weight, self.bias)
        return layer(setting, inputs, dag.plan(HOMES[backend].served(self.key_channels, self.out_channels)))

    def _gates(self, node_terms: Tensor, edge_attr: Tensor | None, dag: LineDAG) -> Gates:
        """Linear maps per node and per edge first, added after gathering: nothing of size [P, features] exists."""
        source_src, source_dst, mark_src, mark_dst, tail, joint, head, direct = node_terms.chunk(len(NodeTerm), -1)
        # In the order of EdgeTerm. Of a transition, tail and joint are the ends of prev, joint and head those of next.
        at_src = [source_src, mark_src, tail, joint]
        at_dst = [source_dst, mark_dst, torch.zeros_like(head), head]
        per_edge = torch.cat(at_src, -1).index_select(0, dag.src) + torch.cat(at_dst, -1).index_select(0, dag.dst)
        if edge_attr is not None:
            edge_attr, lin_edge = self._edge_map(edge_attr)
            per_edge = per_edge + dag.gather_edges(lin_edge(edge_attr))
        source, mark, as_prev, as_next = per_edge.chunk(len(EdgeTerm), -1)
        transition = as_prev.index_select(0, dag.prev) + as_next.index_select(0, dag.next)
        raw = source, transition, mark, direct
        biased = Gates(*(gate + bias for gate, bias in zip(raw, self.gate_bias, strict=True)))
        return activate(biased, dag, self.mode, self.transition)

    def prepare_dag(self, dag: LineDAG) -> None:
        """Make the view and the tables of ``dag`` that the layer reads, where compiled code must find them made."""
        read = view(dag, self.mode, self.reverse)
        home = HOMES.get(COMPILED.get(dag.src.device.type, "") if self.backend == "auto" else self.backend)
        if home is not None:
            read.prepare_reading(home.served(self.key_channels, self.out_channels))

    def _edge_map(self, edge_attr: Tensor) -> tuple[Tensor, EdgeLinear]:
        """Edge features [M, edge_dim] and their linear map; refused by a layer that has none."""
        edge_attr = edges_read(edge_attr, self.lin_edge, self.edge_dim)
        assert self.lin_edge is not None
        return edge_attr, self.lin_edge

    def _mask(self, gates: Gates, dag: LineDAG) -> Gates:
        """An Explainer's mask: on source and on the transition into each edge, so each path carries each mask once."""
        mask = dag.gather_edges(self.column_mask()).unsqueeze(-1)
        return gates._replace(source=gates.source * mask, transition=gates.transition * mask.index_select(0, dag.next))

    def column_mask(self) -> Tensor:
        """The Explainer's mask, one weight per column of ``edge_index``, [M]."""
        if self._edge_mask is None:
            raise ConfigError(
                "explain is on, but no edge mask was set: pLSTM carries states along paths, so it has no messages that "
                "GraphMaskExplainer could replace; use an algorithm that masks edges or features (GNNExplainer, "
                "CaptumExplainer, PGExplainer for whole graphs), or plstm_graph.models.explain; clear_masks(model) of "
                "torch_geometric.explain.algorithm.utils turns explain off"
            )
        return self._edge_mask.sigmoid() if self._apply_sigmoid else self._edge_mask

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"


def untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Tell whether a module is of this very kind and no hook wants to see it run (as that of a lazy one does)."""
    return type(module) is kind and not (
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
