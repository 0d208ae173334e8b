"""What a model reads beside the features of a graph, worked out once per data set."""

from copy import copy

from torch_geometric.data import Data

from plstm_graph.config.architectures import architecture
from plstm_graph.config.models import AnyConfig, ModelConfig
from plstm_graph.data.features import laplacian_eigenvectors, rings
from plstm_graph.data.walks import random_walks
from plstm_graph.io.waiting import told
from plstm_graph.orient import CANONICAL, RANDOM
from plstm_graph.transforms import OrientDAG


def add_encodings(graphs: list[Data], config: AnyConfig) -> list[Data]:
    """What a model needs from each graph, once per data set: encodings and ranks. Graphs that get some are copies.

    The canonical order is that of the ``rank`` a graph comes with, where it has one: data sets store there what is
    canonical for a molecule, or the directions of a native DAG.
    """
    if not isinstance(config, ModelConfig):
        return list(graphs)
    if config.rwse or config.lap_pe or config.rings:
        graphs = [copy(graph) for graph in graphs]
    if config.rwse:
        for graph, walk in zip(graphs, random_walks(graphs, config.rwse), strict=True):
            graph.rwse = walk
    if config.lap_pe:
        for graph in told(graphs, f"encoding {len(graphs):,} graphs"):
            graph.lap_pe = laplacian_eigenvectors(graph.edge_index, graph.num_nodes, config.lap_pe)
    if config.rings:
        for graph in told(graphs, f"finding rings of {len(graphs):,} graphs"):
            graph.ring_nodes, graph.ring_edges = rings(graph.edge_index, graph.num_nodes)
    if architecture(config.model).oriented and config.order != RANDOM:
        orient = OrientDAG(config.order)
        keep = config.order == CANONICAL
        work = told(graphs, f"orienting {len(graphs):,} graphs")
        graphs = [graph if keep and "rank" in graph else orient(graph) for graph in work]
    return graphs
