"""A line graph never passes for that of another edge_index, whether data carry it or a layer is given it."""

import copy
import gc
import pickle
from collections.abc import Callable

import pytest
import torch
import torch_geometric.transforms as T
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.utils import to_torch_coo_tensor

from plstm_graph import PLSTM, LineDAG, PLSTMBlock, PLSTMConv
from plstm_graph.data import PackedGraphs, smiles_to_data
from plstm_graph.errors import ShapeError
from plstm_graph.line_dag.origin import Origin
from plstm_graph.transforms import AddLineDAG, line_dag

CHAIN = torch.tensor([[2, 0, 1], [3, 1, 2]])
STALE = "built from another edge_index"


def chain() -> Data:
    """0 -> 1 -> 2 -> 3, stored in another order, and as many edges as its line graph has levels."""
    return Data(torch.arange(4.0).view(4, 1), CHAIN.clone(), torch.tensor([[2.0], [0.0], [1.0]]))


CHANGES: dict[str, Callable[[Data], Data]] = {
    "sort": lambda data: data.sort(),
    "coalesce": lambda data: data.coalesce(),
    "RemoveDuplicatedEdges": T.RemoveDuplicatedEdges(),
    "ToUndirected": T.ToUndirected(),
    "ToSparseTensor": T.ToSparseTensor(remove_edge_index=False),
    "ToSparseTensor alone": T.ToSparseTensor(),
    "edge_subgraph": lambda data: data.edge_subgraph(torch.tensor([1, 2, 0])),
    "nodes put into another order": lambda data: data.subgraph(torch.tensor([3, 1, 2, 0])),
    "written to": lambda data: data.edge_index.copy_(CHAIN.flip(1)) is None or data,
    "written to through numpy": lambda data: data.edge_index.numpy().sort(1) or data,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_pyg_does_after_it_is_refused(name: str) -> None:
    data = AddLineDAG("given", prune=True)(chain())
    dag = data.line_dag
    changed = CHANGES[name](data)
    with pytest.raises(ShapeError, match="changed after AddLineDAG; apply it last"):
        _ = changed.line_dag
    with pytest.raises(ShapeError, match="apply it last"):
        _ = Batch.from_data_list([changed, changed]).line_dag
    for layer in (PLSTMConv(1, 2, edge_dim=1), PLSTMBlock(1, 1, directions="along"), PLSTM(1, 2, 1, heads=2)):
        if changed.edge_index is not None:
            with pytest.raises(ShapeError, match="the dag was built from"):
                layer(changed.x, changed.edge_index, dag=dag)


def test_a_trained_model_answers_the_same_or_not_at_all() -> None:
    """Bonds of a molecule in another order, as RemoveDuplicatedEdges leaves them: here 13 of 26 moved."""
    aspirin = smiles_to_data("CC(=O)Oc1ccccc1C(=O)O")
    aspirin.edge_attr = torch.randn(aspirin.num_edges, 3)
    torch.manual_seed(0)
    layer = PLSTMConv(1, 4, edge_dim=3)
    carried = AddLineDAG()(aspirin)
    mixed = carried.edge_subgraph(torch.randperm(aspirin.num_edges))
    for data in (mixed, Batch.from_data_list([carried, mixed])):
        with pytest.raises(ShapeError, match=r"column \d+ was \d+ -> \d+ and is \d+ -> \d+.*apply it last"):
            line_dag(data)
    with pytest.raises(ShapeError, match="apply it last"):
        PackedGraphs.from_data_list([carried, mixed])
    batch = PackedGraphs.from_data_list([carried, AddLineDAG()(aspirin)]).batch([0, 1])
    x = torch.randn(batch.num_nodes, 1)
    assert torch.isfinite(layer(x, batch.edge_index, batch.edge_attr, dag=batch.line_dag)).all()
    with pytest.raises(ShapeError, match=STALE):
        layer(x, batch.edge_index.flip(1), batch.edge_attr, dag=batch.line_dag)


@pytest.mark.parametrize("view", ["plain", "to", "copied", "pickled", "collated"])
def test_compared_with_the_columns_themselves(view: str) -> None:
    edge_index = torch.tensor([[0, 1, 1, 1, 2, 3, 0], [1, 0, 1, 2, 1, 2, 1]])
    dag = LineDAG.from_edge_index(edge_index, 5, order=torch.tensor([2, 0, 3, 1, 4]))
    made = {
        "plain": lambda: dag,
        "to": lambda: dag.apply(torch.clone),
        "copied": lambda: copy.deepcopy(dag),
        "pickled": lambda: pickle.loads(pickle.dumps(dag)),
        "collated": lambda: LineDAG.collate([dag]),
    }[view]()
    loop_elsewhere = edge_index.clone()
    loop_elsewhere[:, 2] = 4
    for reading in (made, made.reverse(), made.prune(), made.prune().reverse()):
        for same in (edge_index, edge_index.clone(), edge_index.int(), loop_elsewhere, EdgeIndex(edge_index)):
            reading.check_edge_index(same)
        for column in range(edge_index.size(1)):
            for row in range(2):
                other = edge_index.clone()
                other[row, column] = 4
                with pytest.raises(ShapeError, match=rf"column {column} was"):
                    reading.check_edge_index(other)
    with pytest.raises(ShapeError, match="built from 7 columns, but edge_index has 6"):
        made.check_edge_index(edge_index[:, 1:])
    with pytest.raises(ShapeError, match=r"must be \[2, M\]"):
        made.check_edge_index(edge_index[0])


def test_a_graph_without_edges() -> None:
    for columns in (torch.empty(2, 0, dtype=torch.long), torch.tensor([[1], [1]])):
        dag = LineDAG.collate([LineDAG.from_edge_index(columns, 2)])
        dag.check_edge_index(columns)
    with pytest.raises(ShapeError, match="column 0 was a self-loop and is 0 -> 1"):
        dag.check_edge_index(torch.tensor([[0], [1]]))


def test_a_sparse_adjacency_must_have_the_same_edges() -> None:
    layer, x = PLSTMConv(1, 2), torch.randn(4, 1)
    dag = LineDAG.from_edge_index(CHAIN, 4)
    want = layer(x, CHAIN, dag=dag)
    assert torch.equal(layer(x, to_torch_coo_tensor(CHAIN, size=4).t(), dag=dag), want)
    for other in (CHAIN[:, 1:], CHAIN.flip(0), torch.cat([CHAIN, torch.tensor([[0], [3]])], 1), CHAIN[:, :0]):
        with pytest.raises(ShapeError, match=STALE):
            layer(x, to_torch_coo_tensor(other, size=4).t(), dag=dag)


def test_another_rank_is_refused() -> None:
    data = chain()
    data.rank = torch.tensor([0, 1, 2, 3])
    attribute = data.clone()
    attribute.line_dag = LineDAG.from_edge_index(data.edge_index, 4, order=data.rank)
    for carried in (AddLineDAG()(data), attribute):
        _ = line_dag(carried)
        carried.rank = torch.tensor([0, 1, 2, 7])  # the same order
        _ = line_dag(carried)
        for other in (torch.tensor([3, 2, 1, 0]), torch.tensor([0, 1])):
            carried.rank = other
            with pytest.raises(ShapeError, match=r"rank.*apply it last"):
                line_dag(carried)
    swapped = Data(edge_index=torch.tensor([[0, 1], [3, 2]]), num_nodes=4)
    carried = AddLineDAG()(swapped)
    carried.rank = torch.tensor([1, 0, 2, 3])  # each edge runs the same way, but they stand in another order
    with pytest.raises(ShapeError, match="another rank"):
        _ = carried.line_dag


def test_on_a_device_a_tensor_is_known_until_it_is_written_to() -> None:
    """What a GPU would have to be asked for is answered by the host: is it this tensor, and as it was?"""
    origin, tensor = Origin(), torch.zeros(2, 3, dtype=torch.long, device="meta")
    assert not origin.holds(tensor)
    origin.note_columns(tensor)
    assert origin.holds(tensor)
    assert not origin.holds(tensor.clone())
    assert not copy.deepcopy(origin).holds(tensor)
    tensor.zero_()
    assert not origin.holds(tensor)
    origin.note_columns(tensor)
    del tensor
    gc.collect()
    assert not any(origin.holds(torch.zeros(2, 3, dtype=torch.long, device="meta")) for _ in range(50))
    with torch.inference_mode():
        silent = torch.zeros(2, 3, dtype=torch.long, device="meta")
        origin.note_columns(silent)
        assert not origin.holds(silent)


def test_packed_batches_ask_no_device_for_anything() -> None:
    packed = PackedGraphs.from_data_list([chain(), chain()]).to("meta")
    batch = packed.batch([0, 1, 1])
    assert batch.line_dag.derived.origin.holds(batch.edge_index)
    batch.edge_index.add_(0)
    assert not batch.line_dag.derived.origin.holds(batch.edge_index)


def test_columns_that_share_memory_with_freed_ones() -> None:
    """A tensor that comes to lie where an older one lay is another one."""
    dag = LineDAG.from_edge_index(CHAIN, 4)
    for _ in range(20):
        edge_index: Tensor = CHAIN.clone()
        dag.check_edge_index(edge_index)
        del edge_index
        with pytest.raises(ShapeError, match=STALE):
            dag.check_edge_index(CHAIN.flip(1).contiguous())
