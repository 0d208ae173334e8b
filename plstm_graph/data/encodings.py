"""What a model reads beside the features of a graph, worked out once per data set."""

from collections.abc import Sequence

from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.config.architectures import architecture
from plstm_graph.config.models import AnyConfig, ModelConfig
from plstm_graph.data.features import laplacian_eigenvectors, rings
from plstm_graph.data.stacked import StackedGraphs, first, sizes, values, with_attributes
from plstm_graph.data.walks import random_walks
from plstm_graph.io.waiting import tracked
from plstm_graph.orient import CANONICAL, RANDOM
from plstm_graph.transforms import OrientDAG


def add_encodings(graphs: Sequence[Data], config: AnyConfig) -> Sequence[Data]:
    """What a model needs from each graph, once per data set: encodings and ranks. Graphs that get some are copies.

    The canonical order is that of the ``rank`` a graph comes with, where it has one: data sets store there what is
    canonical for a molecule, or the directions of a native DAG.
    """
    if not isinstance(config, ModelConfig):
        return graphs
    more: dict[str, Sequence[Tensor]] = {}
    if config.rwse:
        more["rwse"] = random_walks(graphs, config.rwse)
    shapes: list[tuple[Tensor, int]] = []
    if config.lap_pe or config.rings:
        shapes = list(zip(values(graphs, "edge_index"), sizes(graphs), strict=True))
    if config.lap_pe:
        work = tracked(shapes, f"encoding {len(graphs):,} graphs")
        more["lap_pe"] = [laplacian_eigenvectors(*shape, config.lap_pe) for shape in work]
    if config.rings and len(graphs):
        work = tracked(shapes, f"finding rings of {len(graphs):,} graphs")
        more["ring_nodes"], more["ring_edges"] = zip(*(rings(*shape) for shape in work), strict=True)
    graphs = with_attributes(graphs, more) if more else graphs
    if architecture(config.model).oriented and config.order != RANDOM and len(graphs):
        keep = config.order == CANONICAL
        if keep and isinstance(graphs, StackedGraphs) and "rank" in first(graphs):
            return graphs
        orient = OrientDAG(config.order)
        work = tracked(graphs, f"orienting {len(graphs):,} graphs")
        graphs = [graph if keep and "rank" in graph else orient(graph) for graph in work]
    return graphs
