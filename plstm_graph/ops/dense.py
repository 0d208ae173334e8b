"""Parallel form: one gating matrix per graph, then masked linear attention. For batches of small graphs."""

from torch import Tensor

from plstm_graph.gates import Gates
from plstm_graph.line_dag import LineDAG
from plstm_graph.ops.influence import influence, local_numbers


def propagate(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
    """See :func:`plstm_graph.propagate`. Pads to the largest graph; refuses beyond ``influence.MAX_BYTES``."""
    matrix, _ = influence(gates, dag)
    node, _ = local_numbers(dag)
    slot = dag.node_graph * dag.max_nodes + node

    def pad(x: Tensor) -> Tensor:
        """[N, H, width] -> [G, H, n, width]"""
        wide = x.new_zeros(dag.num_graphs * dag.max_nodes, *x.shape[1:]).index_copy(0, slot, x)
        return wide.view(dag.num_graphs, dag.max_nodes, *x.shape[1:]).transpose(1, 2)

    score = matrix * (pad(query) @ pad(key).transpose(-1, -2))
    output = (score @ pad(value)).transpose(1, 2)
    return output.reshape(-1, *value.shape[1:]).index_select(0, slot)
