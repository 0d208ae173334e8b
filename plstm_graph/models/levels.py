"""Networks that walk a DAG level by level, as models: DAGNN and D-VAE's encoder."""

from functools import partial

from torch import Tensor, nn

from plstm_graph.config.models import ModelConfig
from plstm_graph.line_dag import LineDAG
from plstm_graph.models.baselines import refuse
from plstm_graph.nn.dagnn import DAGNN
from plstm_graph.nn.jumping import last_norm


class OnDAG(nn.Module):
    """What networks on DAGs begin with: the line graph, made where none is given, and the features of edges, which are
    added to the node behind them.

    Args:
        config: order.
    """

    content: nn.Module | None
    """[M, edge_dim] -> [M, width]; each network makes it in its turn, on which the weights of a seed depend."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        refuse(config, "virtual_node")
        self.order = config.order

    def begun(
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None, batch: Tensor | None, dag: LineDAG | None
    ) -> tuple[Tensor, LineDAG]:
        """[N, width] -> [N, width], and the plain line graph."""
        if dag is None:
            dag = LineDAG.from_edge_index(edge_index, x.size(0), order=self.order, batch=batch)
        if self.content is not None and edge_attr is not None:
            x = x.index_add(0, dag.dst, self.content(dag.gather_edges(edge_attr)))
        return x, dag


class Levels(OnDAG):
    """:class:`DAGNN` called like PyG's ``BasicGNN``, with dropout between its layers and a last norm.

    Published models read what all layers left at the sinks and sources: ``jk="cat"`` and pooling ``"sources+sinks"``.

    Args:
        config: width, layers, directions, dropout, order, norm (of the output), jk.
        edge_dim: width of the edge features, or None.
        message: as for :class:`DAGNN`.

    A softmax over one predecessor leaves nothing of its edge, so edge features are added to the node behind them, too.

    Shapes: x [N, width], edge_index [2, M], edge_attr [M, edge_dim] -> [N, width].
    """

    def __init__(self, config: ModelConfig, edge_dim: int | None, message: str) -> None:
        super().__init__(config)
        width = config.width
        self.walks = DAGNN(
            *(width, width, config.layers),
            edge_dim=edge_dim,
            directions=config.directions,
            dropout=config.dropout,
            message=message,
        )
        self.content = nn.Linear(edge_dim, width, bias=False) if edge_dim else None
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
        states = self.walks.states(x, dag, edge_attr)
        return self.norm(states if self._jumps else states[-1])


dagnn, dvae = partial(Levels, message="attention"), partial(Levels, message="gated")
