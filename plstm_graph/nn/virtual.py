"""A virtual node: one more node of each graph, joined to all others."""

import torch
from torch import Tensor, nn
from torch_geometric.nn.inits import reset
from torch_geometric.utils import scatter

from plstm_graph.nn.encoders import count_graphs
from plstm_graph.nn.norm import norm_layer


class VirtualNode(nn.Module):
    """Read by every node before each layer of a stack, updated from the sum of all nodes after each but the last.

    Args:
        channels: width of the node features.
        num_layers: layers of the stack.
        norm: of the updates, as for :class:`PLSTMBlock`.
        dropout: of the updates.

    Call :meth:`start` for the first state, :meth:`add` before and :meth:`update` after each layer.

    Reference: Gilmer et al. 2017, section 5.2; updated as in the baselines of OGB (Hu et al. 2020).
    """

    def __init__(self, channels: int, num_layers: int, norm: str = "batch", dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(1, channels))
        self.updates = nn.ModuleList(
            nn.Sequential(
                norm_layer(norm, channels, rows="graphs"),
                nn.Linear(channels, 2 * channels),
                nn.GELU(),
                nn.Linear(2 * channels, channels),
                nn.Dropout(dropout),
            )
            for _ in range(num_layers - 1)
        )

    def reset_parameters(self) -> None:
        """Zero at first, and fresh updates."""
        nn.init.zeros_(self.first)
        reset(self.updates)

    def start(self, batch: Tensor | None, num_graphs: int | None) -> Tensor:
        """State before the first layer, [graphs, channels]; without ``batch`` all nodes are one graph."""
        return self.first.expand(count_graphs(batch, num_graphs), -1)

    def add(self, x: Tensor, state: Tensor, batch: Tensor | None) -> Tensor:
        """Every node reads its graph's state, [N, channels]."""
        return x + (state if batch is None else state.index_select(0, batch))

    def update(self, layer: int, x: Tensor, state: Tensor, batch: Tensor | None) -> Tensor:
        """State after ``layer`` from the nodes it left, [graphs, channels]."""
        if layer >= len(self.updates):
            return state
        total = x.sum(0, keepdim=True) if batch is None else scatter(x, batch, dim_size=state.size(0), reduce="sum")
        return state + self.updates[layer](state + total)
