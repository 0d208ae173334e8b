"""Encoders: one embedding per column, degrees, random walks, and whole feature specifications."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import AddRandomWalkPE

from plstm_graph.data import molecules
from plstm_graph.data.features import ATOM_SIZES, BOND_SIZES, FeatureSpec, laplacian_eigenvectors
from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.nn.encoders import (
    AtomEncoder,
    BondEncoder,
    CategoricalEncoder,
    DegreeEncoder,
    DescriptorEncoder,
    FeatureEncoder,
    LapPEEncoder,
    RWSEEncoder,
)


def test_sizes_are_those_of_ogb() -> None:
    pytest.importorskip("ogb")
    features = molecules._ogb_features()
    assert list(ATOM_SIZES) == features.get_atom_feature_dims()
    assert list(BOND_SIZES) == features.get_bond_feature_dims()


def test_one_embedding_per_column() -> None:
    encoder = CategoricalEncoder((3, 1, 4), 6)
    assert encoder.embedding.weight.shape == (8, 6)
    tables = encoder.embedding.weight.split([3, 1, 4])
    x = torch.tensor([[2, 0, 3], [0, 0, 0], [1, 0, 2]])
    want = torch.stack([sum(table[i] for table, i in zip(tables, row, strict=True)) for row in x.tolist()])
    torch.testing.assert_close(encoder(x), want)


def test_every_entry_of_a_molecule_vocabulary_has_its_own_row() -> None:
    for encoder, sizes in ((AtomEncoder(4), ATOM_SIZES), (BondEncoder(4), BOND_SIZES)):
        x = torch.zeros(1, len(sizes), dtype=torch.long)
        encoder(x).sum().backward()
        encoder(torch.tensor([sizes]) - 1).sum().backward()
        touched = encoder.embedding.weight.grad.abs().sum(1).gt(0).sum()
        assert touched == 2 * len(sizes) - sum(size == 1 for size in sizes)


def test_start_and_state() -> None:
    encoder = CategoricalEncoder((50,) * 9, 64)
    assert float(encoder(torch.randint(50, (500, 9))).detach().std()) == pytest.approx(1, abs=0.1)
    assert list(encoder.state_dict()) == ["embedding.weight"]
    before = encoder.embedding.weight.detach().clone()
    encoder.reset_parameters()
    assert not torch.equal(encoder.embedding.weight, before)


def test_wrong_number_of_columns() -> None:
    with pytest.raises(ShapeError, match="expected 9 categorical columns, got 3"):
        AtomEncoder(8)(torch.zeros(4, 3, dtype=torch.long))
    with pytest.raises(ShapeError, match="expected 3 categorical columns, got 9"):
        BondEncoder(8)(torch.zeros(4, 9, dtype=torch.long))


def test_no_rows() -> None:
    assert BondEncoder(8)(torch.zeros(0, 3, dtype=torch.long)).shape == (0, 8)
    assert DegreeEncoder(8)(torch.zeros(2, 0, dtype=torch.long), 3).shape == (3, 8)


def test_degree_encoding_depends_on_the_degree_alone() -> None:
    star = torch.tensor([[0, 1, 0, 2, 0, 3, 4, 5], [1, 0, 2, 0, 3, 0, 5, 4]])
    out = DegreeEncoder(8)(star, 7)
    assert torch.equal(out[1], out[4])
    assert not torch.allclose(out[0], out[1])
    assert not torch.allclose(out[6], out[1])


def test_walks_are_return_probabilities() -> None:
    """On a path of three nodes an end comes back in two steps with probability 1/2, the middle surely."""
    path = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
    walks = AddRandomWalkPE(3, attr_name="rwse")(path).rwse
    torch.testing.assert_close(walks, torch.tensor([[0, 0.5, 0], [0, 1, 0], [0, 0.5, 0]]))
    assert RWSEEncoder(3, 8)(walks).shape == (3, 8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("nodes", [0, 1, 2])
def test_walk_encoder_takes_any_number_of_nodes(nodes: int, training: bool) -> None:
    encoder = RWSEEncoder(4, 8).train(training)
    out = encoder(torch.rand(nodes, 4))
    assert out.shape == (nodes, 8)
    assert out.isfinite().all()


def test_eigenvectors_are_those_of_the_normalised_laplacian() -> None:
    """A ring with a tail: no two eigenvalues are equal, so numpy must find the same vectors up to sign."""
    columns = torch.tensor([[0, 1, 1, 2, 2, 3, 1, 4, 4, 5], [1, 0, 2, 1, 3, 2, 4, 1, 5, 4]])
    adjacency = np.zeros((6, 6))
    adjacency[tuple(columns.numpy())] = 1
    adjacency[3, 5] = adjacency[5, 3] = 1  # stored in one direction only
    columns = torch.cat([columns, torch.tensor([[3], [5]])], 1)
    scale = np.diag(adjacency.sum(1) ** -0.5)
    values, vectors = np.linalg.eigh(np.eye(6) - scale @ adjacency @ scale)
    assert np.diff(values).min() > 1e-3
    found = laplacian_eigenvectors(columns, 6, 4).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.abs(found), np.abs(vectors[:, 1:5]), atol=1e-6)
    signs = np.sign((found * vectors[:, 1:5]).sum(0))
    np.testing.assert_allclose(found * signs, vectors[:, 1:5], atol=1e-6)
    assert (found[np.abs(found).argmax(0), range(4)] > 0).all()


@pytest.mark.parametrize("nodes", [0, 1, 2, 3])
def test_eigenvectors_of_small_graphs_are_padded(nodes: int) -> None:
    path = torch.stack([torch.arange(max(nodes - 1, 0)), torch.arange(1, max(nodes, 1))])
    found = laplacian_eigenvectors(path, nodes, 5)
    assert found.shape == (nodes, 5)
    filled = max(nodes - 1, 0)
    torch.testing.assert_close(found[:, :filled].square().sum(0), torch.ones(filled))
    assert not found[:, filled:].any()
    assert not laplacian_eigenvectors(torch.zeros(2, 0, dtype=torch.long), nodes, 5).any()


def test_signs_flip_in_training_one_for_each_graph_and_vector() -> None:
    encoder = LapPEEncoder(3, 3)
    torch.nn.init.eye_(encoder.lin.weight)
    torch.nn.init.zeros_(encoder.lin.bias)
    vectors, batch = torch.rand(40, 3) + 0.1, torch.arange(20).repeat_interleave(2)
    signs = encoder(vectors, batch) / vectors
    assert torch.equal(signs.abs(), torch.ones(40, 3))
    assert torch.equal(signs[::2], signs[1::2])
    assert 5 < (signs[::2] > 0).sum() < 55
    alone = encoder(vectors) / vectors
    assert torch.equal(alone, alone[:1].expand_as(alone))
    assert torch.equal(encoder.eval()(vectors, batch), vectors)


def test_feature_encoder_adds_its_parts() -> None:
    features = FeatureSpec(node_sizes=(4, 2), edge_dim=3)
    encoder = FeatureEncoder(features, 8, rwse=5, lap_pe=2, degrees=True).eval()
    x, edge_index, walks = torch.tensor([[3, 1], [0, 0]]), torch.tensor([[0, 1], [1, 0]]), torch.rand(2, 5)
    vectors = torch.rand(2, 2)
    node, edge = encoder(x, edge_index, torch.rand(2, 3), walks, lap_pe=vectors)
    assert encoder.has_edges
    parts = (encoder.node(x), encoder.rwse(walks), encoder.lap_pe(vectors), encoder.degree(edge_index, 2))
    torch.testing.assert_close(node, sum(parts))
    assert edge.shape == (2, 8)
    assert encoder(x, edge_index, None, walks, lap_pe=vectors)[1] is None
    with pytest.raises(ShapeError, match=r"random-walk.*add_encodings"):
        encoder(x, edge_index, None, None, lap_pe=vectors)
    with pytest.raises(ShapeError, match=r"eigenvectors.*add_encodings"):
        encoder(x, edge_index, None, walks)


def test_float_and_missing_features() -> None:
    encoder = FeatureEncoder(FeatureSpec(node_dim=3), 8)
    node, edge = encoder(torch.rand(4, 3), torch.zeros(2, 0, dtype=torch.long), None, None)
    assert node.shape == (4, 8)
    assert edge is None
    assert not encoder.has_edges
    with pytest.raises(ConfigError, match="constant column"):
        FeatureEncoder(FeatureSpec(), 8)


def test_feature_spec_is_plain() -> None:
    spec = FeatureSpec(node_sizes=(3, 4), edge_dim=2)
    assert FeatureSpec(**asdict(spec)) == spec


def test_descriptors_are_scaled_as_in_training_and_never_far_away():
    torch.manual_seed(0)
    rows = torch.stack(
        [
            torch.arange(9.0) * 100,  # a quantity: by the spread of its middle half
            torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 0, 1]),  # yes or no stays 1 or 0
            torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 4, 8]),  # a count: by its largest
            torch.full((9,), 3.0),  # says nothing
            torch.full((9,), float("nan")),  # is not known
        ],
        1,
    )
    encoder = DescriptorEncoder(5, 5)
    encoder.lin.weight.data, encoder.lin.bias.data = torch.eye(5), torch.zeros(5)
    encoder.fit(rows)
    found = encoder(torch.tensor([[400.0, 1, 4, 3, 1], [400.0 + 400 / 1.349, 0, 0, 4, 0], [1e30, 1e30, -1e30, 1, 2]]))
    assert torch.allclose(found[0], torch.tensor([0, 1, 0.5, 0, 0]))
    assert torch.allclose(found[1], torch.tensor([1.0, 0, 0, 0, 0]))
    assert found[2].tolist() == [5, 5, -5, 0, 0]
    assert encoder(torch.full((1, 5), float("nan"))).tolist() == [[0.0] * 5]
    narrow = DescriptorEncoder(5, 5)
    narrow.BLOCK = 9  # a column at a time
    narrow.fit(rows)
    assert torch.equal(narrow.factor, encoder.factor)
    assert torch.equal(narrow.middle, encoder.middle)
    with pytest.raises(ShapeError, match="expected 5 descriptors, got 4"):
        encoder(torch.zeros(1, 4))
