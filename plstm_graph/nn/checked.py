"""Check that a line graph is that of what a layer reads: once, by whoever gets it first, or builds it."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import is_sparse, to_edge_index

from plstm_graph.errors import ShapeError
from plstm_graph.line_dag import LineDAG
from plstm_graph.line_dag.sharing import shared


class CheckedDAG(LineDAG):
    """A line graph that has been compared with its graph by the stack that hands it to its layers."""


def checked(x: Tensor, edge_index: Any, dag: LineDAG) -> CheckedDAG:
    """Check the line graph that a caller gave, see :func:`check_dag`, unless that has been done."""
    if isinstance(dag, CheckedDAG):
        return dag
    check_dag(x, edge_index, dag)
    return CheckedDAG.view(dag.derived)


def built(
    x: Tensor, edge_index: Any, order: str | Tensor, batch: Tensor | None = None, owner: Any = None
) -> CheckedDAG:
    """The line graph that a caller did not give, see :func:`plstm_graph.line_dag.sharing.shared`."""
    if edge_index is None:
        raise ShapeError("edge_index is None; give it [2, M], or the dag that was built from it")
    if isinstance(edge_index, Tensor) and edge_index.device != x.device:
        raise ShapeError(f"edge_index is on {edge_index.device}, x on {x.device}; move both to one device")
    return CheckedDAG.view(shared(edge_index, x.size(0), order, batch, owner).derived)


def check_dag(x: Tensor, edge_index: Any, dag: LineDAG) -> None:
    """Raise ShapeError unless ``dag`` is the plain line graph of the nodes in ``x``, on its device.

    An ``edge_index`` must be what ``dag`` was built from, see :meth:`LineDAG.check_edge_index`: a layer reads the dag
    alone, so that a change since would change nothing without a word, or send edge features to other edges. Of a sparse
    adjacency the edges are compared.
    """
    if dag.pruned or dag.reversed:
        raise ShapeError("layers take the plain dag and derive their own view from mode and reverse")
    if dag.num_nodes != x.size(0):
        raise ShapeError(
            f"the dag has {dag.num_nodes} nodes, but x has {x.size(0)} rows; was it built from this graph?"
        )
    if dag.src.device != x.device:
        raise ShapeError(f"the dag is on {dag.src.device}, x on {x.device}; move it with dag.to(x.device)")
    if is_sparse(edge_index):
        dag.check_edges(to_edge_index(edge_index)[0].flip(0))
    elif isinstance(edge_index, Tensor) and edge_index.layout == torch.strided:
        dag.check_edge_index(edge_index)
