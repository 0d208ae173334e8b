"""Graphs one after the other, and back."""

import torch
from torch_geometric.data import Data

from plstm_graph.data import smiles_to_data
from plstm_graph.data.stacked import Stacked


def test_there_and_back() -> None:
    graphs = [smiles_to_data(text) for text in ("CCO", "C", "c1ccccc1")]  # one without an edge
    for number, graph in enumerate(graphs):
        graph.y = torch.tensor([[number, 0.5]])
    found = Stacked(**Stacked.of(graphs).plain()).graphs()
    for graph, other in zip(graphs, found, strict=True):
        assert set(graph.keys()) == set(other.keys())
        for key in ("x", "edge_index", "edge_attr", "y", "rank"):
            assert torch.equal(graph[key], other[key])
        assert graph.smiles == other.smiles


def test_what_graphs_do_not_have_stays_out() -> None:
    (graph,) = Stacked.of([Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]]))]).graphs()
    assert sorted(graph.keys()) == ["edge_index", "x"]
