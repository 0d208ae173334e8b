"""The gating matrix G of eq. 7: how much each node reaches each other node of its graph."""

import torch
from torch import Tensor

from plstm_graph.errors import BackendUnavailable
from plstm_graph.gates import Gates, check_gates
from plstm_graph.line_dag.dag import LineDAG, check_line_dag

MAX_BYTES = 2**31
"""Largest padded working set, 2 GiB."""


def padded_bytes(dag: LineDAG, heads: int, itemsize: int) -> int:
    """Bytes that :func:`influence` takes for its padded matrices (I - T, sources, marks and their products)."""
    n, e = dag.max_nodes, dag.max_edges
    return dag.num_graphs * heads * itemsize * (e * e + 3 * e * n + n * n)


def influence(gates: Gates, dag: LineDAG) -> tuple[Tensor, Tensor]:
    """How much node m reaches node n through all paths: eq. 7, padded to the largest graph.

    ``G[n, m] = Σ mark · (I - T)⁻¹ · source`` over the edges that arrive at n and leave m, and ``direct`` on the
    diagonal; the output of :func:`plstm_graph.propagate` is ``((Q Kᵀ) ⊙ G) V`` graph by graph. One batched
    triangular solve: edges stand in topological order.

    Args:
        gates: of ``dag``; source and mark [E, H], transition [P, H], direct [N, H].
        dag: line graph as it is read, G graphs of at most n nodes.

    Returns:
        The matrices [G, H, n, n], in float32 at least, and which rows are nodes, bool [G, n].

    Raises:
        ShapeError: the gates do not fit the dag.
        BackendUnavailable: the padded matrices would exceed ``MAX_BYTES`` (2 GiB).
    """
    check_line_dag(dag)
    check_gates(gates, dag, gates.source.size(-1))
    dtype = torch.float64 if gates.source.dtype == torch.float64 else torch.float32
    with torch.autocast(gates.source.device.type, enabled=False):
        return _influence(Gates(*(gate.to(dtype) for gate in gates)), dag)


def _influence(gates: Gates, dag: LineDAG) -> tuple[Tensor, Tensor]:
    heads, size = gates.source.size(1), gates.source.element_size()
    needed = padded_bytes(dag, heads, size)
    if needed > MAX_BYTES:
        raise BackendUnavailable(
            f"the gating matrices of {dag.num_graphs} graphs of up to {dag.max_nodes} nodes and {dag.max_edges} edges "
            f"need {needed / 2**30:.1f} GiB, more than the limit of {MAX_BYTES / 2**30:.0f}; "
            "use backend='scatter', or fewer or smaller graphs"
        )
    count, n, e = dag.num_graphs, dag.max_nodes, dag.max_edges
    node, edge, graph = *local_numbers(dag), dag.edge_graph
    leaves, arrives = node[dag.src], node[dag.dst]

    source = gates.source.new_zeros(count, e, n, heads).index_put((graph, edge, leaves), gates.source)
    mark = gates.mark.new_zeros(count, n, e, heads).index_put((graph, arrives, edge), gates.mark)
    minus = gates.transition.new_zeros(count, e, e, heads)
    minus = minus.index_put((graph[dag.next], edge[dag.next], edge[dag.prev]), -gates.transition)
    reach = torch.linalg.solve_triangular(
        minus.permute(0, 3, 1, 2), source.permute(0, 3, 1, 2), upper=dag.reversed, unitriangular=True
    )
    direct = gates.direct.new_zeros(count, n, heads).index_put((dag.node_graph, node), gates.direct)
    matrix = mark.permute(0, 3, 1, 2) @ reach + torch.diag_embed(direct.transpose(1, 2))
    return matrix, torch.arange(n, device=node.device) < dag.graph_ptr.diff().unsqueeze(-1)


def local_numbers(dag: LineDAG) -> tuple[Tensor, Tensor]:
    """Number of each node and of each edge within its own graph, [N] and [E]."""
    node = torch.arange(dag.num_nodes, device=dag.src.device) - dag.graph_ptr[dag.node_graph]
    edge = torch.arange(dag.num_edges, device=dag.src.device) - dag.edge_ptr[dag.edge_graph]
    return node, edge
