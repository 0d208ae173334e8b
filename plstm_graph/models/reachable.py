"""Networks on DAGs whose attention reads what a directed path joins to a node: a transformer, and FLOWERFormer."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch_geometric.nn import PositionalEncoding
from torch_geometric.utils import to_dense_batch

from plstm_graph.config.models import ModelConfig
from plstm_graph.errors import ConfigError
from plstm_graph.line_dag import LineDAG
from plstm_graph.models.levels import OnDAG
from plstm_graph.nn.block import feed_forward
from plstm_graph.nn.dagnn import LevelGRU, NodeLevels
from plstm_graph.nn.jumping import last_norm
from plstm_graph.nn.norm import norm_layer
from plstm_graph.nn.onehop import check_heads


class Paths(NamedTuple):
    """What all blocks read of a batch of G DAGs, the largest of n nodes.

    ``joined`` [G, n, n]: whether a directed path leads from one node to the other, either way, or they are the same.
    ``depth`` [N]: edges of the longest path to a node. ``batch`` [N]: which graph it is of.
    """

    joined: Tensor
    depth: Tensor
    batch: Tensor


def paths(dag: LineDAG, levels: NodeLevels, batch: Tensor | None, size: int | None) -> Paths:
    """Level by level, so that memory is N · n bytes and time that of the edges, n each.

    Args:
        dag: plain line graph of the whole batch, N nodes.
        levels: of its nodes.
        batch: graph of each node, [N], graphs one after another; one graph when None.
        size: G; at least as many graphs as ``batch`` names.
    """
    nodes = dag.num_nodes
    batch = dag.src.new_zeros(nodes, dtype=torch.long) if batch is None else batch
    counts = torch.bincount(batch, minlength=size or 1)
    most = int(counts.max()) if nodes else 0
    every = torch.arange(nodes, device=batch.device)
    ahead = torch.zeros(nodes, most, dtype=torch.bool, device=batch.device)
    ahead[every, every - (counts.cumsum(0) - counts).index_select(0, batch)] = True
    depth = torch.zeros_like(every)
    for number, (own, _, src, dst) in enumerate(levels.levels):
        heard = torch.zeros(len(own), most, device=batch.device).index_add_(0, dst, ahead[src].float())
        ahead[own] |= heard > 0
        depth[own] = number
    dense, _ = to_dense_batch(ahead, batch, max_num_nodes=most, batch_size=len(counts))
    # Rows of no node read themselves, so that no softmax is empty.
    same = torch.eye(most, dtype=torch.bool, device=batch.device)
    return Paths(dense | dense.mT | same, depth, batch)


class ReachableBlock(nn.Module):
    """Pre-norm block: attention over the nodes that a directed path joins to each, residual, feed-forward.

    With ``flow`` two walks stand beside the attention, as in FLOWERFormer: a :class:`LevelGRU` along the edges, and one
    against them that reads what the first left.

    Shapes: x [N, width] -> [N, width].
    """

    def __init__(self, config: ModelConfig, edge_dim: int | None, flow: bool) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm = norm_layer(config.norm, width)
        self.read, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.walks = nn.ModuleList(LevelGRU(width, edge_dim) for _ in range(2 * flow))
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = feed_forward(width, config.expansion, config.norm, config.dropout)

    def forward(self, x: Tensor, paths: Paths, plans: Sequence[NodeLevels], edges: Sequence[Tensor | None]) -> Tensor:
        """[N, width] -> [N, width]; ``plans`` and ``edges`` [E, edge_dim]: along and against the edges."""
        hidden = self.norm(x)
        mixed = self.project(self._attend(self.read(hidden), paths))
        if len(self.walks):
            read = hidden
            for walk, plan, edge in zip(self.walks, plans, edges, strict=True):
                read = walk(read, plan, edge)
            mixed = mixed + read
        x = x + self.dropout(mixed)
        return x if self.feed_forward is None else x + self.feed_forward(x)

    def _attend(self, read: Tensor, paths: Paths) -> Tensor:
        """Queries, keys and values side by side, [N, 3 width] -> [N, width]."""
        graphs, most = paths.joined.shape[:2]
        dense, real = to_dense_batch(read, paths.batch, max_num_nodes=most, batch_size=graphs)
        query, key, value = dense.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = scaled_dot_product_attention(query, key, value, attn_mask=paths.joined.unsqueeze(1))
        return out.transpose(1, 2).flatten(2)[real]


class Reachable(OnDAG):
    """Blocks of :class:`ReachableBlock`, called like PyG's ``BasicGNN``. A sinusoidal encoding of a node's depth is
    added to what it begins with, and so are the features of the edges that end in it.

    Args:
        config: width (even), layers, heads, expansion, dropout, order, norm, jk.
        edge_dim: width of the edge features, or None.
        flow: walk along and against the edges in every block, too.

    Shapes: x [N, width], edge_index [2, M], edge_attr [M, edge_dim] -> [N, width].

    Reference: Luo et al. 2023, "Transformers over directed acyclic graphs"; Hwang et al. 2024, "FlowerFormer:
    empowering neural architecture encoding using a flow-aware graph transformer".
    """

    def __init__(self, config: ModelConfig, edge_dim: int | None, *, flow: bool) -> None:
        super().__init__(config)
        width = config.width
        check_heads(width, config.heads)
        if width % 2:
            raise ConfigError(f"model {config.model!r} needs an even width, for depths (got {width})")
        self.depth = PositionalEncoding(width)
        self.embed = nn.Linear(width, width)
        self.content = nn.Linear(edge_dim, width, bias=False) if edge_dim else None
        self.blocks = nn.ModuleList(ReachableBlock(config, edge_dim, flow) for _ in range(config.layers))
        self.norm, self._jumps = last_norm(config.jk, config.norm, width, config.layers)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        batch_size: int | None = None,
        *,
        dag: LineDAG | None = None,
    ) -> Tensor:
        """[N, width] -> [N, width]; ``dag`` is the plain line graph."""
        x, dag = self.begun(x, edge_index, edge_attr, batch, dag)
        views = [dag, dag.reverse()]
        plans = [NodeLevels(view) for view in views]
        edges = [None if edge_attr is None else view.gather_edges(edge_attr) for view in views]
        found = paths(dag, plans[0], batch, batch_size)
        x = self.embed(x) + self.depth(found.depth).to(x.dtype)
        states = [x]
        for block in self.blocks:
            x = block(x, found, plans, edges)
            states.append(x)
        return self.norm(states if self._jumps else x)


dag_transformer, flowerformer = partial(Reachable, flow=False), partial(Reachable, flow=True)
