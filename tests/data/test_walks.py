"""Random-walk encodings of many graphs at once: those of PyG, graph by graph."""

import pytest
import torch
from small_runs import molecules
from torch_geometric.data import Data
from torch_geometric.transforms import AddRandomWalkPE

from plstm_graph.data import smiles_to_data, walks
from plstm_graph.data.walks import random_walks


def graph(nodes: int, *columns: tuple[int, int], **more: torch.Tensor) -> Data:
    edge_index = torch.tensor(columns, dtype=torch.long).view(-1, 2).t().contiguous()
    return Data(edge_index=edge_index, num_nodes=nodes, **more)


CASES = {
    "a molecule": smiles_to_data("CC(=O)Oc1ccccc1C(=O)O"),
    "directed": graph(4, (0, 1), (1, 2), (2, 0), (2, 3)),
    "isolated nodes": graph(5, (1, 2), (2, 1)),
    "a self-loop": graph(3, (0, 0), (0, 1), (1, 0), (1, 2), (2, 1)),
    "a repeated column": graph(3, (0, 1), (0, 1), (1, 0), (1, 2), (2, 1)),
    "weights": graph(3, (0, 1), (1, 0), (1, 2), (2, 1), edge_weight=torch.tensor([1.0, 2.0, 3.0, 0.5])),
    "one node": graph(1, (0, 0)),
}


@pytest.mark.parametrize("dense", [2000, 0])
def test_they_are_those_of_pyg(monkeypatch: pytest.MonkeyPatch, dense: int) -> None:
    """In one batch, and as sparse matrices, which graphs of more than 2,000 nodes take."""
    monkeypatch.setattr(walks, "DENSE", dense)
    want = [AddRandomWalkPE(6, "walks")(case.clone()).walks for case in CASES.values()]
    for name, one, other in zip(CASES, random_walks(list(CASES.values()), 6), want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7, msg=name)


def test_a_graph_without_edges_has_none() -> None:
    found = random_walks([graph(3), CASES["directed"], graph(0)], 2)
    assert [tuple(each.shape) for each in found] == [(3, 2), (4, 2), (0, 2)]
    assert not found[0].any()


def test_groups_do_not_change_them(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [smiles_to_data(text) for text in molecules(20)]
    together = random_walks(graphs, 16)
    monkeypatch.setattr(walks, "ROOM", 300)
    for one, other in zip(random_walks(graphs, 16), together, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("error")
def test_sparse_ones_say_nothing_of_how_torch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "DENSE", 0)
    torch.set_warn_always(True)  # not once a process, in which another test may have been the first
    try:
        random_walks([CASES["a molecule"]], 3)
    finally:
        torch.set_warn_always(False)
