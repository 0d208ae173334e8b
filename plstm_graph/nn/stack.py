"""PLSTM: blocks stacked into a model of nodes."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn.inits import reset
from torch_geometric.typing import Adj
from torch_geometric.utils import is_sparse

from plstm_graph.errors import ConfigError, unknown
from plstm_graph.gates import check_mode, check_transition
from plstm_graph.line_dag import LineDAG
from plstm_graph.nn.block import PLSTMBlock, edge_content
from plstm_graph.nn.checked import built, check_nodes, checked, from_sparse
from plstm_graph.nn.conv import PLSTMConv
from plstm_graph.nn.dropin import STACK, STACK_CALL, check_inputs, check_widths, refuse_arguments, refuse_options
from plstm_graph.nn.jumping import last_norm
from plstm_graph.nn.onehop import LOCALS, first_states, local_branch
from plstm_graph.nn.virtual import VirtualNode
from plstm_graph.ops.dispatch import check_backend

DIRECTIONS = ("both", "along", "against", "alternating")
"""Reading directions of a stack: those of every block, or along in every even block and against in every odd one."""


class PLSTM(nn.Module):
    """A stack of :class:`PLSTMBlock`, called like PyG's ``BasicGNN`` (GCN, GAT, ...).

    The line graph is built once per call and shared by all layers.

    Args:
        in_channels: width of the node features, or -1 to read it off the first input.
        hidden_channels: width of all blocks.
        num_layers: number of blocks; of none, a baseline, every node is read alone.
        out_channels: width of a final linear map, or None for ``hidden_channels`` without one.
        dropout: in every block.
        heads: heads of a block, all directions together.
        modes: modes of the blocks, repeated as needed: ``"PD"`` alternates.
        directions: as for :class:`PLSTMBlock`, or ``"alternating"``: along the edges in every even block, against
            them in every odd one, with all heads. With ``modes="PD"`` P then always reads along: try ``"PPDD"``.
        edge_dim, edge_values, norm, expansion, order, backend, transition, output_norm, open_gates, source_bias: as
            for :class:`PLSTMBlock`.
        local: local branch of every block: a name in :data:`LOCALS` or a function (channels, edge_dim) -> conv.
            With ``modes="-"`` the local branch stands alone. Beside ``"gatedgcn-edges"`` gates and values of a block
            read the edge states that the block before it left.
        virtual_node: join all nodes of a graph through one more node between the blocks; see :class:`VirtualNode`.
            Without ``batch`` all nodes are one graph to it.
        output_gate: as for :class:`PLSTMBlock`.
        jk: what is read off a node: ``"last"`` or None for the last block, ``"cat"`` for all, see :class:`Jump`.

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
        edge_values: bool = True,
        local: str | Callable[[int, int | None], nn.Module] | None = None,
        norm: str = "batch",
        expansion: float = 2.0,
        virtual_node: bool = False,
        output_gate: bool = False,
        order: str = "index",
        backend: str = "auto",
        transition: str = "tanh",
        output_norm: str = "rms",
        open_gates: bool = False,
        source_bias: float | None = None,
        jk: str | None = None,
        **unsupported: Any,
    ) -> None:
        refuse_options("PLSTM", unsupported, STACK)
        super().__init__()
        check_inputs("PLSTM", in_channels, edge_dim)
        final = 1 if out_channels is None else out_channels
        blocks = num_layers or 1  # none is a baseline: every node is read alone
        check_widths(hidden_channels=hidden_channels, num_layers=blocks, out_channels=final, heads=heads)
        check_backend(backend)
        check_transition(transition)
        if isinstance(local, str) and local not in LOCALS:
            raise ConfigError(unknown("local branch", local, LOCALS))
        self.in_channels, self.hidden_channels, self.num_layers = in_channels, hidden_channels, num_layers
        self.out_channels = hidden_channels if out_channels is None else out_channels
        self.order, self.edge_dim = order, edge_dim or None
        self.edge_states = first_states(local, edge_dim, hidden_channels)
        edge_width = edge_dim if self.edge_states is None else hidden_channels
        self.embed = nn.LazyLinear(hidden_channels) if in_channels == -1 else nn.Linear(in_channels, hidden_channels)
        patterns = _modes(modes, num_layers)
        self._reads_dag = any(mode is not None for mode in patterns)
        self.blocks = nn.ModuleList(
            PLSTMBlock(
                *(hidden_channels, heads, mode),
                directions=direction,
                edge_dim=edge_width,
                edge_values=edge_values,
                local=_local(
                    local, hidden_channels, edge_width, norm=norm, dropout=dropout, last=number == num_layers - 1
                ),
                norm=norm,
                expansion=expansion,
                dropout=dropout,
                output_gate=output_gate,
                order=order,
                backend=backend,
                transition=transition,
                output_norm=output_norm,
                open_gates=open_gates,
                source_bias=source_bias,
            )
            for number, (mode, direction) in enumerate(zip(patterns, _directions(directions, num_layers), strict=True))
        )
        self._reads_content = any(block.content is not None for block in self.blocks)
        self.virtual = VirtualNode(hidden_channels, num_layers, norm, dropout) if virtual_node else None
        self.norm, self._jumps = last_norm(jk, norm, hidden_channels, num_layers)
        self.lin = nn.Linear(hidden_channels, out_channels) if out_channels is not None else None

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in self.children():
            reset(module)

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_weight: Tensor | None = None,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        batch_size: int | None = None,
        *,
        dag: LineDAG | None = None,
        **unsupported: Any,
    ) -> Tensor:
        """[N, in_channels] -> [N, out_channels]; arguments as for PyG's ``BasicGNN``, and the plain ``dag``.

        The values of a sparse adjacency are the edge features of a stack with ``edge_dim``."""
        refuse_arguments("PLSTM", unsupported | {"edge_weight": edge_weight}, STACK_CALL)
        check_nodes(x, self.in_channels, self.embed)
        given = edge_index
        if is_sparse(edge_index):
            edge_index, edge_attr = from_sparse(edge_index, x, edge_attr, self.edge_dim, dag)
        if dag is not None:
            dag = checked(x, given, dag)
        elif self._reads_dag:
            dag = built(x, edge_index, self.order, batch, owner=given)
        x = self.embed(x)
        content = None
        if self.edge_states is not None:
            edge_attr = self.edge_states(edge_attr, edge_index)
        elif self._reads_content and dag is not None and edge_attr is not None and edge_attr.dim() == 2:
            content = edge_content(edge_attr, dag)
        state = self.virtual.start(batch, batch_size) if self.virtual else None
        states = [x]
        for number, block in enumerate(self.blocks):
            if self.virtual and state is not None:
                x = self.virtual.add(x, state, batch)
            found = block(x, edge_index, edge_attr, dag=dag, content=content)
            x, edge_attr = found if block.evolves else (found, edge_attr)
            if self.virtual and state is not None:
                state = self.virtual.update(number, x, state, batch)
            states.append(x)
        x = self.norm(states if self._jumps else x)
        return x if self.lin is None else self.lin(x)

    def prepare_dag(self, dag: LineDAG) -> None:
        """Make what the layers read of ``dag``: after ``compile()`` of this module, call it before each new one."""
        for module in self.modules():
            if isinstance(module, PLSTMConv):
                module.prepare_dag(dag)
        for reading in (dag, dag.reverse()) if self._reads_content else ():
            reading.prepare_reading()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, num_layers={self.num_layers})"


def _modes(pattern: str, num_layers: int) -> list[str | None]:
    if not pattern:
        raise ConfigError("modes must name at least one mode, for example 'PD'")
    for mode in pattern.replace("-", ""):
        check_mode(mode)
    return [None if (mode := pattern[i % len(pattern)]) == "-" else mode for i in range(num_layers)]


def _directions(directions: str, num_layers: int) -> list[str]:
    if directions not in DIRECTIONS:
        raise ConfigError(unknown("directions", directions, DIRECTIONS))
    readings = ("along", "against") if directions == "alternating" else (directions,)
    return [readings[i % len(readings)] for i in range(num_layers)]


def _local(local: Any, channels: int, edge_dim: int | None, **options: Any) -> nn.Module | None:
    if callable(local):
        return local(channels, edge_dim)
    return local_branch(local or "none", channels, edge_dim, **options)
