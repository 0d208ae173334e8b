"""Canonical ranks: of molecules by rdkit, else by Weisfeiler-Lehman colours."""

import logging

import pytest
import torch
from torch_geometric.data import Batch, Data

from plstm_graph.canonical import canonical_rank, weisfeiler_lehman_rank
from plstm_graph.data import smiles_to_data
from plstm_graph.errors import DataError
from plstm_graph.transforms import OrientDAG


def chain() -> Data:
    return Data(edge_index=torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]), num_nodes=6)


def test_canonical_rank_of_a_molecule() -> None:
    data = smiles_to_data("OC(=O)c1ccccc1")
    expected = data.rank
    del data.rank
    assert torch.equal(OrientDAG()(data).rank, expected)
    data.smiles = "CC"
    with pytest.raises(DataError, match="2 atoms, but the graph has 9 nodes"):
        canonical_rank(data)
    batch = Batch.from_data_list([smiles_to_data(text) for text in ("CCO", "C#N")])
    assert torch.equal(OrientDAG()(batch).rank, batch.rank)


def test_fallback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="plstm_graph"):
        OrientDAG()(chain())
    assert "Weisfeiler-Lehman" in caplog.text


def test_a_stored_molecule_that_rdkit_refuses(caplog: pytest.LogCaptureFixture) -> None:
    data = chain()
    want = weisfeiler_lehman_rank(data)
    data.smiles = "CC1CC"
    with caplog.at_level(logging.INFO, logger="plstm_graph"):
        assert torch.equal(OrientDAG()(data).rank, want)
    assert "rdkit cannot read the SMILES 'CC1CC'" in caplog.text


def test_weisfeiler_lehman_is_invariant() -> None:
    """A graph without symmetry: renumbered, or stored another way, every node keeps its rank."""
    columns = torch.tensor([[0, 1, 2, 0, 1, 4, 5], [1, 2, 0, 3, 4, 5, 6]])  # a triangle with unlike tails
    for x in (None, torch.tensor([2.0, 0, 0, 1, 0, 3, 0]).unsqueeze(1)):
        data = Data(edge_index=columns, x=x, num_nodes=7)
        want = weisfeiler_lehman_rank(data)
        assert sorted(want.tolist()) == list(range(7))
        for _ in range(10):
            perm = torch.randperm(7)
            stored = perm[columns][:, torch.randperm(7)]
            flip = torch.rand(7) < 0.5
            stored = torch.where(flip, stored.flip(0), stored)
            stored = torch.cat([stored, stored[:, :3].flip(0), torch.tensor([[2], [2]])], 1)
            moved = None if x is None else torch.empty_like(x).index_copy_(0, perm, x)
            got = weisfeiler_lehman_rank(Data(edge_index=stored, x=moved, num_nodes=7))
            assert torch.equal(got[perm], want)


def test_weisfeiler_lehman_breaks_ties_by_node() -> None:
    ring = Data(edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), num_nodes=4)
    assert weisfeiler_lehman_rank(ring).tolist() == [0, 1, 2, 3]
