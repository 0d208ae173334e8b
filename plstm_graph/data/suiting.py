"""Whether graphs that a caller made are what their data set says of them, before a network fails on them."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.data.dataset import GraphDataset
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.splits import PARTS_OF_NODES
from plstm_graph.data.stacked import StackedGraphs, first, values
from plstm_graph.errors import DataError, listed
from plstm_graph.tasks import Task

log = logging.getLogger(__name__)

APART = {"smiles", "rank", "x", "edge_index", "edge_attr", "y"}
"""Attributes that batches do without, that encodings add where they lack, or whose errors say more."""
MASKS = ("train_mask", "val_mask", "test_mask")
"""By which PyG's data sets of one graph name nodes of parts."""


def check_graphs(dataset: GraphDataset) -> None:
    """Compare graphs with the features and the task of their data set, and say what of them is not read.

    Raises:
        DataError: a graph has no ``x``, ``edge_index``, ``edge_attr`` or ``y`` as they say; the message names it.
    """
    features, graphs = dataset.features, dataset.graphs
    if not len(graphs):
        return
    for reason in _reasons(graphs, features, dataset.task):
        raise DataError(f"{dataset.name}, {reason}")
    example = first(graphs)
    if example.get("edge_attr") is not None and not (features.edge_sizes or features.edge_dim):
        log.warning(
            f"edge_attr of {dataset.name} is not read, since its features say that edges have none; give FeatureSpec "
            "edge_dim (numbers) or edge_sizes (categories), or leave edge_attr out"
        )
    if masks := [name for name in MASKS if example.get(name) is not None]:
        log.warning(
            f"{listed(masks)} of {dataset.name} is not read: parts are of whole graphs; "
            + PARTS_OF_NODES.format(dataset.task.missing)
        )


def _reasons(graphs: Sequence[Data], features: FeatureSpec, task: Task) -> Iterator[str]:
    """What is wrong with which graph."""
    if not isinstance(graphs, StackedGraphs):
        wanted = set(graphs[0].keys()) - APART
        for number, graph in enumerate(graphs):
            if lacking := sorted(wanted - set(graph.keys())):
                yield f"graph {number}: there is no {listed(lacking)}, which graph 0 has; give all graphs one or none"
    names = ("x", "edge_index", "edge_attr", "y", "rank")
    for number, (x, columns, edges, y, rank) in enumerate(zip(*(values(graphs, name) for name in names), strict=True)):
        nodes = len(x) if isinstance(x, Tensor) else None  # not known where features say that there are none
        found = (
            _features("x", x, features.node_sizes, features.node_dim, None)
            or _columns(columns, nodes)
            or _features("edge_attr", edges, features.edge_sizes, features.edge_dim, columns.size(1))
            or _rank(rank, nodes)
            or (_labels(y, nodes, task) if task.tabular and nodes is not None else "")
        )
        if found:
            yield f"graph {number}: {found}"


def _features(name: str, given: Any, sizes: tuple[int, ...], dim: int, rows: int | None) -> str:
    """What is wrong with features that are categories of ``sizes``, or ``dim`` numbers."""
    width = len(sizes) or dim
    if not width:
        return ""
    kind, letter = ("whole numbers" if sizes else "floating point"), "N" if rows is None else str(rows)
    wanted = f"{name} must be [{letter}, {width}], {kind}, as the features of the data set say"
    if not isinstance(given, Tensor):
        return f"{wanted}, and there is {'none' if given is None else type(given).__name__}; give all graphs one"
    if given.dtype == torch.bfloat16:
        return f"{name} must not be bfloat16, which numpy lacks; call {name}.float()"
    fits = given.dim() == 2 and given.size(1) == width and rows in (None, given.size(0))
    if fits and not given.is_complex() and given.is_floating_point() != bool(sizes) and given.dtype != torch.bool:
        return "" if bool(given.isfinite().all()) else f"{name} must be finite numbers; fill what is not known"
    hints = [f"call {name}.{'long' if sizes else 'float'}()"] if fits else []
    hints += [f"call {name}.view(-1, 1)"] if given.dim() == width == 1 else []
    hints.append("say otherwise in FeatureSpec (node_sizes, node_dim, edge_sizes, edge_dim)")
    return f"{wanted}, and is {list(given.shape)}, {given.dtype}; {', or '.join(hints)}"


def _columns(given: Any, nodes: int | None) -> str:
    """A node that the graph does not have would be one of the next graph in a batch."""
    if isinstance(given, Tensor) and given.dim() == 2 and given.size(0) == 2 and not given.is_floating_point():
        low, high = (int(end) for end in torch.aminmax(given)) if given.numel() else (0, -1)
        if nodes is None or (low >= 0 and high < nodes):
            return ""
        return f"edge_index must hold numbers of its {nodes} nodes, the rows of x, from 0, and holds {low} to {high}"
    what = f"{list(given.shape)}, {given.dtype}" if isinstance(given, Tensor) else type(given).__name__
    return f"edge_index must be [2, M], whole numbers, and is {what}; without edges give torch.empty(2, 0).long()"


def _rank(rank: Any, nodes: int | None) -> str:
    """One that is too short in one graph and too long in another would fit their batch."""
    if rank is None or nodes is None or (isinstance(rank, Tensor) and rank.shape == (nodes,)):
        return ""
    what = f"is {list(rank.shape)}" if isinstance(rank, Tensor) else f"is {type(rank).__name__}"
    return f"rank must be a tensor [{nodes}], a number for each node, and {what}"


def _labels(y: Any, nodes: int, task: Task) -> str:
    """Their shape but for the number of rows is told by the task."""
    rows = nodes if task.level == "node" else 1
    if not isinstance(y, Tensor) or y.dim() == 0 or y.size(0) == rows:
        return ""
    other = "graph" if task.level == "node" else "node"
    return (
        f"y must have {rows} rows, one a {task.level}, and is {list(y.shape)}; where answers are for each {other}, "
        f"give the task level={other!r}"
    )
