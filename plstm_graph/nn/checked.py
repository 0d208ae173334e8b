"""Check what a layer is given: features, and that a line graph is theirs, once, by whoever gets or builds it first."""

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.utils import is_sparse

from plstm_graph.adjacency import sparse_columns
from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.line_dag.dag import LineDAG, check_line_dag
from plstm_graph.line_dag.sharing import shared
from plstm_graph.nn.dropin import ONE_TYPE
from plstm_graph.orient import NO_NUMBERS

CAST = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Dtypes of weights that a product takes as they are."""


def check_nodes(x: Any, channels: int, linear: nn.Module) -> None:
    """Raise ShapeError unless ``x`` is [N, channels] (-1 for any width) and of a dtype that ``linear`` takes."""
    if not isinstance(x, Tensor):
        one = "; pLSTM reads one graph, neither a bipartite pair nor several types of nodes; " + ONE_TYPE
        several = isinstance(x, tuple | list | dict)
        raise ShapeError(f"x must be a tensor [N, in_channels], got {type(x).__name__}{one if several else ''}")
    if x.dim() != 2 or x.size(1) != channels != -1:
        raise ShapeError(f"x must be [N, {channels}], got {list(x.shape)}")
    if not x.is_floating_point():
        raise ShapeError(f"x must be floating point, got {x.dtype}; embed whole numbers first, or call x.float()")
    check_dtype("x", x, linear)


def check_edges(edge_attr: Tensor, channels: int | None, linear: nn.Module) -> None:
    """Raise ShapeError unless ``edge_attr`` is [M, channels] (-1: any width) and of a dtype that ``linear`` takes."""
    if edge_attr.dim() != 2 or edge_attr.size(1) != channels != -1 or not edge_attr.is_floating_point():
        raise ShapeError(
            f"edge_attr must be floating point, [M, {channels}], got {edge_attr.dtype}, "
            f"{list(edge_attr.shape)}; embed whole numbers first, or call edge_attr.float()"
        )
    check_dtype("edge_attr", edge_attr, linear)


def edges_read(edge_attr: Tensor, linear: nn.Module | None, edge_dim: int | None) -> Tensor:
    """Edge features, one number each as one column, checked for the linear map that a layer has for them.

    Raises:
        ConfigError: it has none.
        ShapeError: features of another width or dtype.
    """
    if linear is None:
        width = edge_attr.size(1) if edge_attr.dim() == 2 else 1
        raise ConfigError(
            f"edge_attr was given, but the layer was built without edge_dim; give it edge_dim={width}, or leave "
            "edge_attr out"
        )
    edge_attr = edge_attr.unsqueeze(-1) if edge_attr.dim() == 1 else edge_attr
    check_edges(edge_attr, width_read(linear, edge_dim), linear)
    return edge_attr


def missing_edges(edge_dim: int) -> ShapeError:
    """What is wrong with a call of a local branch without the edge features that it was built for."""
    return ShapeError(
        f"edge_attr [M, {edge_dim}] is missing, which the local branch reads; pass it, or leave edge_dim out"
    )


def check_dtype(name: str, x: Tensor, linear: nn.Module) -> None:
    """Raise ShapeError where a product of ``x`` with the weight of ``linear`` would fail by their dtypes.

    Autocast casts both, but for float64. A weight that is computed, or of no such kind, is not looked at.
    """
    weight = linear._parameters.get("weight")
    if weight is None or x.dtype == weight.dtype or weight.dtype not in CAST:
        return
    wide = torch.float64 in (x.dtype, weight.dtype)
    if wide or x.dtype not in CAST or not torch.is_autocast_enabled(x.device.type):
        raise ShapeError(
            f"{name} must be {weight.dtype}, as the weights that read it, got {x.dtype}; "
            f"call {name}.to({weight.dtype}), or give the layer its dtype: layer.to({x.dtype})"
        )


def width_read(linear: nn.Module, given: Any) -> Any:
    """Width of the features that a linear map reads: a lazy one, ``given`` as -1, knows it once the first have come."""
    return getattr(linear, "in_channels", given)


def from_sparse(
    adjacency: Any, x: Tensor, edge_attr: Tensor | None, edge_dim: int | None, dag: LineDAG | None
) -> tuple[Tensor, Tensor | None]:
    """Columns of a transposed sparse adjacency; its values are the edge features of what reads some (``edge_dim``)."""
    nodes, sizes = x.size(0), [adjacency.size(0), adjacency.size(1)]
    if sizes != [nodes, nodes]:
        raise ShapeError(f"a sparse adjacency must be [{nodes}, {nodes}], since x has {nodes} rows, got {sizes}")
    if edge_attr is not None:
        raise ShapeError("with a sparse adjacency, edge features are its values; do not pass edge_attr as well")
    if dag is not None and edge_dim is not None:
        raise ShapeError("the values of a sparse adjacency have an order of their own; give dag with an edge_index")
    columns, values = sparse_columns(adjacency)
    return columns, values if edge_dim is not None else None


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


def check_dag(x: Tensor, edge_index: Any, dag: Any) -> None:
    """Raise ShapeError unless ``dag`` is the plain line graph of the nodes in ``x``, on its device.

    An ``edge_index`` must be what ``dag`` was built from, see :meth:`LineDAG.check_edge_index`: a layer reads the dag
    alone, so that a change since would change nothing without a word, or send edge features to other edges. Of a sparse
    adjacency the edges are compared.
    """
    check_line_dag(dag)
    if dag.pruned or dag.reversed:
        raise ShapeError("layers take the plain dag and derive their own view from mode and reverse")
    if dag.num_nodes != x.size(0):
        raise ShapeError(
            f"the dag has {dag.num_nodes} nodes, but x has {x.size(0)} rows; was it built from this graph?"
        )
    if dag.src.device != x.device:
        raise ShapeError(f"the dag is on {dag.src.device}, x on {x.device}; move it with dag.to(x.device)")
    if x.is_meta:
        raise ShapeError(f"x and the dag are {NO_NUMBERS}")
    if is_sparse(edge_index):
        dag.check_edges(sparse_columns(edge_index)[0])
    elif isinstance(edge_index, Tensor) and edge_index.layout == torch.strided:
        dag.check_edge_index(edge_index)
