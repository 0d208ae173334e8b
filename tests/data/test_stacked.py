"""Graphs one after the other, and back; what a stack gives without being cut is what a list of its graphs gives."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from plstm_graph.config.models import ModelConfig
from plstm_graph.data import PackedGraphs, smiles_to_data
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.examples import Graphs, digests_of, take
from plstm_graph.data.stacked import Stacked, StackedGraphs, joined, values, with_attributes

CHOSEN = [2, 0, 2, 1]


@pytest.fixture(params=["graphs", "nodes"])
def stack(request: pytest.FixtureRequest) -> StackedGraphs:
    """With labels of graphs or of nodes."""
    graphs = [smiles_to_data(text) for text in ("CCO", "C", "c1ccccc1")]  # one without an edge
    for number, graph in enumerate(graphs):
        graph.y = torch.tensor([[number, 0.5]]) if request.param == "graphs" else 0.5 * torch.arange(graph.num_nodes)
    return Stacked(**Stacked.of(graphs).plain()).graphs()


def listed(stack: Sequence[Data]) -> Graphs:
    """Its graphs one by one; the stack stays one."""
    return Graphs(take(stack, range(len(stack))))


def equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


def check_equal(one: Data, other: Data) -> None:
    """Attribute by attribute, in order; of batches also by what takes them apart."""
    assert list(one.keys()) == list(other.keys())
    assert all(equal(one[key], other[key]) for key in one.keys())  # noqa: SIM118
    if isinstance(one, Batch):
        assert all(equal(one._slice_dict[key], other._slice_dict[key]) for key in one._slice_dict)
        assert all(equal(one._inc_dict[key], other._inc_dict[key]) for key in one._inc_dict)
        for part, its in zip(one.to_data_list(), other.to_data_list(), strict=True):
            check_equal(part, its)


def test_there_and_back() -> None:
    graphs = [smiles_to_data(text) for text in ("CCO", "C", "c1ccccc1")]
    for graph, other in zip(graphs, Stacked.of(graphs).graphs(), strict=True):
        assert set(graph.keys()) == set(other.keys())
        assert all(equal(graph[key], other[key]) for key in graph.keys())  # noqa: SIM118


def test_what_graphs_do_not_have_stays_out() -> None:
    (graph,) = Stacked.of([Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]]))]).graphs()
    assert sorted(graph.keys()) == ["edge_index", "x"]


def test_batches_digests_and_parts_are_those_of_a_list(stack: StackedGraphs) -> None:
    graphs = listed(stack)
    check_equal(stack.batch(CHOSEN), graphs.batch(CHOSEN))
    check_equal(stack.union(), Batch.from_data_list(graphs))
    assert stack.digests == digests_of(graphs)
    assert (len(stack), stack.nbytes) == (3, graphs.nbytes)
    assert equal(stack.y, graphs.y)
    assert equal(joined(stack, "x"), joined(graphs, "x"))
    assert values(stack, "smiles") == values(graphs, "smiles")
    check_equal(stack.first(), graphs[0])
    assert stack.parts is not None
    for one, other in zip(take(stack, CHOSEN), take(graphs, CHOSEN), strict=True):
        check_equal(one, other)


def test_encoded_and_packed_it_is_the_list_encoded_and_packed(stack: StackedGraphs) -> None:
    config = ModelConfig(rwse=3, lap_pe=2, rings=True)
    described = with_attributes(stack, {"descriptors": torch.arange(6.0).view(3, 2).split(1)})
    graphs = add_encodings(listed(described), config)
    encoded = add_encodings(described, config)
    assert isinstance(encoded, StackedGraphs)
    assert encoded.digests == digests_of(graphs) != stack.digests
    packed, old = (PackedGraphs.from_data_list(each, order="canonical") for each in (encoded, graphs))
    assert encoded.parts is not None
    assert packed.digest == old.digest
    assert np.array_equal(packed.sizes, old.sizes)
    assert packed.lines is not None
    assert old.lines is not None
    for name, (value, kind) in old.lines.tables.items():
        assert equal(packed.lines.tables[name].value, value)
        assert packed.lines.tables[name].kind == kind
    batches = [each.batch(CHOSEN) for each in (packed, old)]
    for batch in batches:
        del batch["line_dag"]
    check_equal(*batches)


def test_once_looked_into_it_is_a_list_whose_graphs_may_change(stack: StackedGraphs) -> None:
    before, digests = stack.batch([0, 1]), stack.digests
    stack[1].x = stack[1].x + 1
    assert stack.parts is None
    assert stack.digests == digests_of(list(stack)) != digests
    assert torch.equal(stack.batch([0, 1]).x, torch.cat([before.x[:3], before.x[3:] + 1]))
    assert torch.equal(stack.union().x, joined(stack, "x"))
    assert stack.nbytes == listed(stack).nbytes
    assert take(stack, [1])[0] is stack[1]
    assert add_encodings(stack, ModelConfig(rwse=3))[1].rwse.shape == (1, 3)
