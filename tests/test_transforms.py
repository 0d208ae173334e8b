"""OrientDAG and AddLineDAG: functional, and the same in a batch, taken out of it again, or built from the union."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData, InMemoryDataset
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import BaseTransform, Compose, RemoveIsolatedNodes, ToSparseTensor, ToUndirected

from plstm_graph import LineDAG
from plstm_graph.errors import ConfigError, DataError, ShapeError
from plstm_graph.line_dag import derived
from plstm_graph.orient import ORDERS
from plstm_graph.transforms import (
    AddLineDAG,
    DirectedLineGraph,
    LineDAGData,
    OrientDAG,
    ToMultitree,
    line_dag,
)

TENSORS = ("src", "dst", "prev", "next", "level", "column", "graph_ptr", "edge_ptr")
SIZES = ("num_nodes", "num_levels", "max_nodes", "max_edges", "merged")


def graph(nodes: int, *columns: tuple[int, int], **more: Tensor) -> Data:
    edge_index = torch.tensor(columns, dtype=torch.long).view(-1, 2).t().contiguous()
    return Data(x=torch.randn(nodes, 2), edge_index=edge_index, **more)


GRAPHS: dict[str, Callable[[], Data]] = {
    "ring with a cross-bar": lambda: graph(5, (0, 1), (1, 2), (2, 3), (2, 0), (3, 1), (1, 3), (4, 3)),
    "self-loops and duplicates": lambda: graph(4, (1, 1), (0, 1), (1, 0), (0, 1), (3, 3), (2, 1), (2, 1)),
    "no edge": lambda: graph(3),
    "no node": lambda: graph(0),
    "one node with a loop": lambda: graph(1, (0, 0)),
    "chain": lambda: graph(6, *((i, i + 1) for i in range(5))),
}


def same(got: LineDAG, want: LineDAG) -> None:
    got.validate()
    for name in TENSORS if want.num_nodes else TENSORS[:-2]:  # a batch vector without nodes shows no graph
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    plain = want.column >= 0  # a self-loop runs neither along nor against an edge
    assert torch.equal(got.column_along[plain], want.column_along[plain])
    for name in SIZES:
        assert getattr(got, name) == getattr(want, name), name
    for side in (got.prune().prev, got.prune().next), (got.reverse().prune().prev, got.reverse().prune().next):
        assert all(part.numel() <= got.num_pairs for part in side)
    assert torch.equal(got.prune().prev, want.prune().prev)
    assert torch.equal(got.prune().next, want.prune().next)


def snapshot(data: Data) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in data.to_dict().items()}


def batches() -> dict[str, list[Data]]:
    every = [make() for make in GRAPHS.values()]
    return {
        "all": every,
        "empty ones first": [every[3], every[2], *every],
        "only without edges": [every[2], every[3], every[4]],
        "one": every[:1],
        "one, empty": [every[3]],
        "the same twice": [every[1], every[1]],
    }


# ---------------------------------------------------------------------- AddLineDAG


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_carries_the_line_graph(name: str, prune: bool, order: str) -> None:
    data = GRAPHS[name]()
    before = snapshot(data)
    stored = AddLineDAG(order, prune)(data)
    zeros = torch.zeros(data.num_nodes, dtype=torch.long)
    same(stored.line_dag, LineDAG.from_edge_index(data.edge_index, data.num_nodes, order=order, batch=zeros))
    assert type(data) is Data
    assert set(data.keys()) == set(before)
    assert all(torch.equal(data[key], value) for key, value in before.items())
    assert all(torch.equal(stored[key], value) for key, value in before.items())
    assert ("dag_kept" in stored.line_graph) == prune


@pytest.mark.parametrize("name", batches())
@pytest.mark.parametrize("prune", [False, True])
def test_a_batch_equals_the_union(name: str, prune: bool) -> None:
    graphs = batches()[name]
    union = Batch.from_data_list(graphs)
    batch = Batch.from_data_list([AddLineDAG(prune=prune)(g) for g in graphs])
    want = LineDAG.from_edge_index(union.edge_index, union.num_nodes, batch=union.batch)
    assert batch.num_graphs == len(graphs)
    got = batch.line_dag
    # Graphs without nodes at the end are counted by the batch, but cannot be seen in the batch vector.
    trailing = len(graphs) - want.num_graphs
    if trailing:
        assert torch.equal(got.graph_ptr[: want.graph_ptr.numel()], want.graph_ptr)
        want = LineDAG.collate([line_dag(AddLineDAG()(g)) for g in graphs])
    same(got, want)
    for dag in (got, got.reverse()):
        columns = torch.arange(union.num_edges, dtype=torch.float64)
        other = want if dag is got else want.reverse()
        torch.testing.assert_close(dag.gather_edges(columns), other.gather_edges(columns))


@pytest.mark.parametrize("prune", [False, True])
def test_taken_out_of_a_batch(prune: bool) -> None:
    stored = [AddLineDAG(prune=prune)(make()) for make in GRAPHS.values()]
    batch = Batch.from_data_list(stored)
    for i, original in enumerate(stored):
        for taken in (batch[i], batch.to_data_list()[i], batch.get_example(i)):
            assert isinstance(taken, LineDAGData)
            assert set(taken.keys()) == set(original.keys())
            for found, want in ((taken.to_dict(), original.to_dict()), (taken.line_graph, original.line_graph)):
                assert all(torch.equal(found[key], value) for key, value in want.items() if key != "line_graph")
            same(taken.line_dag, original.line_dag)
    again = Batch.from_data_list(batch[[4, 0, 1]])
    same(again.line_dag, Batch.from_data_list([stored[4], stored[0], stored[1]]).line_dag)


def test_a_batch_that_was_pruned_remembers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch.from_data_list([AddLineDAG(prune=True)(make()) for make in GRAPHS.values()])

    def fail(*pairs: object) -> list[bool]:
        raise AssertionError("pruned again")

    monkeypatch.setattr(derived, "multitree_pairs", fail)
    dag = batch.line_dag
    assert dag.prune().num_pairs < dag.num_pairs
    assert dag.reverse().prune().num_pairs == dag.prune().num_pairs


def test_transforms_take_batches() -> None:
    graphs = batches()["all"]
    batch = Batch.from_data_list(graphs)
    ranked = OrientDAG("degree")(batch)
    stored = AddLineDAG(prune=True)(ranked)
    assert stored.num_graphs == len(graphs)
    assert "rank" not in batch
    single = [AddLineDAG(prune=True)(OrientDAG("degree")(g)) for g in graphs]
    same(stored.line_dag, Batch.from_data_list(single).line_dag)
    assert isinstance(stored[1], LineDAGData)


def test_several_types_of_nodes_are_refused() -> None:
    data = HeteroData(atom={"x": torch.zeros(2, 3)}, bond={"x": torch.zeros(1, 3)})
    for transform in (OrientDAG(), AddLineDAG()):
        with pytest.raises(DataError, match=f"{type(transform).__name__} takes graphs of one type of nodes"):
            transform(data)


@pytest.mark.parametrize(
    "data", [Data(), Data(torch.randn(3, 2)), ToSparseTensor(layout=torch.sparse_csr)(graph(3, (0, 1)))]
)
def test_a_graph_without_edge_index_is_named(data: Data) -> None:
    for transform in (OrientDAG(), AddLineDAG(), DirectedLineGraph(), ToMultitree()):
        with pytest.raises(DataError, match=f"{type(transform).__name__} needs edge_index, which this graph lacks"):
            transform(data)


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader(workers: int) -> None:
    stored = [AddLineDAG(prune=True)(make()) for make in GRAPHS.values()]
    loader = DataLoader(stored, batch_size=3, num_workers=workers)
    for i, batch in enumerate(loader):
        same(batch.line_dag, Batch.from_data_list(stored[3 * i : 3 * i + 3]).line_dag)


def test_pyg_loads_a_stored_data_set_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """PyG reads what it stored with ``weights_only``, and asks for an issue where a class is not known to be safe."""
    graphs = [AddLineDAG(prune=True)(make()) for make in GRAPHS.values()]
    InMemoryDataset.save(graphs, str(tmp_path / "graphs.pt"))
    torch.load(tmp_path / "graphs.pt", weights_only=True)
    stored = InMemoryDataset(str(tmp_path))
    stored.load(str(tmp_path / "graphs.pt"), LineDAGData)
    for data, want in zip(stored, graphs, strict=True):
        assert data.line_dag.src.tolist() == want.line_dag.src.tolist()
    assert not [each for each in recwarn if "Weights only load failed" in str(each.message)]


def test_to_and_clone() -> None:
    data = AddLineDAG(prune=True)(GRAPHS["ring with a cross-bar"]())
    batch = Batch.from_data_list([data, data])
    for copy in (batch.to("cpu"), batch.clone(), batch.contiguous()):
        same(copy.line_dag, batch.line_dag)
    cloned = data.clone()
    cloned.line_graph["dag_src"] += 1
    assert not torch.equal(cloned.line_graph["dag_src"], data.line_graph["dag_src"])
    elsewhere = batch.clone().to("meta")
    assert all(tensor.device.type == "meta" for tensor in elsewhere.line_graph.values())


def test_a_rank_goes_first_and_a_second_call_replaces() -> None:
    data = GRAPHS["chain"]()
    turned = data.clone()
    turned.rank = torch.arange(6).flip(0)
    assert torch.equal(AddLineDAG("index")(turned).line_dag.src, torch.arange(5, 0, -1))
    stored = AddLineDAG("index", prune=True)(data)
    stored.rank = turned.rank
    again = AddLineDAG("index")(stored)
    assert torch.equal(again.line_dag.src, torch.arange(5, 0, -1))
    assert "dag_kept" not in again.line_graph


def test_graphs_without_features_keep_their_number_of_nodes() -> None:
    data = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=4)
    stored = AddLineDAG()(data)
    assert stored.line_dag.num_nodes == 4
    batch = Batch.from_data_list([stored, stored])
    assert batch.line_dag.num_nodes == 8
    assert batch.line_dag.src.tolist() == [0, 4]
    assert batch[1].num_nodes == 4


CHANGES: dict[str, Callable[[Data], Data]] = {
    "fewer nodes": RemoveIsolatedNodes(),
    "more columns": ToUndirected(),
    "subgraph": lambda data: data.subgraph(torch.tensor([0, 1, 2])),
    "columns dropped": lambda data: data.edge_subgraph(torch.tensor([True, False])),
    "another edge_index": lambda data: data.update({"edge_index": torch.tensor([[1], [2]])}),
    "one more node": lambda data: data.update({"x": torch.randn(5, 2)}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_graph_that_was_changed_later_is_refused(name: str) -> None:
    """Node 0 stands alone: without it, the end points of a stale line graph would reach into the next graph."""
    data = graph(4, (1, 2), (2, 3))
    changed = CHANGES[name](AddLineDAG(prune=True)(data))
    whole = AddLineDAG(prune=True)(data)
    for parts in ([changed, whole], [whole, changed], [changed]):
        with pytest.raises(ShapeError, match="changed after AddLineDAG; apply it last"):
            _ = Batch.from_data_list(parts).line_dag
    with pytest.raises(ShapeError, match="changed after AddLineDAG; apply it last"):
        _ = changed.line_dag
    same(AddLineDAG()(changed).line_dag, AddLineDAG()(CHANGES[name](data.clone())).line_dag)


def test_a_batch_that_was_changed_is_refused() -> None:
    batch = Batch.from_data_list([AddLineDAG()(graph(4, (1, 2), (2, 3))) for _ in range(2)])
    changed = batch.edge_subgraph(torch.tensor([True, False, True, True]))
    with pytest.raises(ShapeError, match="does not fit 8 nodes and 3 columns"):
        _ = changed.line_dag
    assert batch.line_dag.num_edges == 4


def test_errors_inside_the_property_keep_their_words() -> None:
    """PyG turns an AttributeError of a property into 'object has no attribute line_dag'."""
    for data in (LineDAGData(x=torch.randn(2, 1), dag_src=torch.zeros(1)), LineDAGData()):
        with pytest.raises(DataError, match="apply AddLineDAG again"):
            _ = data.line_dag
    stored = AddLineDAG()(GRAPHS["chain"]())
    stored.line_graph["dag_src"] = None
    with pytest.raises(DataError, match=r"cannot be read.*'NoneType'.*apply AddLineDAG again"):
        _ = stored.line_dag


@pytest.mark.parametrize("transform", [AddLineDAG(), OrientDAG("index"), DirectedLineGraph(), ToMultitree()])
def test_a_line_dag_of_another_order_is_dropped(transform: BaseTransform) -> None:
    data = graph(4, (0, 1), (1, 2), (1, 3))
    data.line_dag = LineDAG.from_edge_index(data.edge_index, 4, order="degree")
    made = transform(data)
    assert "line_dag" in data
    assert "line_dag" not in made.to_dict()
    if not isinstance(transform, DirectedLineGraph):
        del data.line_dag
        want = LineDAG.from_edge_index(data.edge_index, 4, batch=torch.zeros(4, dtype=torch.long))
        same(line_dag(made), want)


def test_another_kind_of_data_stays_what_it_is() -> None:
    class Molecule(Data):
        pass

    made = OrientDAG("degree")(Molecule(edge_index=torch.tensor([[0], [1]]), num_nodes=2))
    assert type(made) is Molecule


def test_directed_line_graph_keeps_what_is_no_tensor() -> None:
    data = AddLineDAG()(graph(4, (0, 1), (1, 2), y=torch.ones(1)))
    data.update({"count": 7, "weight": 0.5, "name": "chain", "other": torch.ones(4)})
    data.num_nodes = 4
    made = DirectedLineGraph()(data)
    assert type(made) is Data
    assert made.num_nodes == 2
    assert (made.count, made.weight, made.name, made.y.item()) == (7, 0.5, "chain", 1)
    assert set(made.to_dict()) - {"x", "edge_attr"} == {"edge_index", "num_nodes", "y", "count", "weight", "name"}


def test_line_dag_finds_or_builds() -> None:
    data = GRAPHS["chain"]()
    carried = LineDAG.from_edge_index(data.edge_index, 6, order="degree")
    with_attribute = data.clone()
    with_attribute.line_dag = carried
    assert line_dag(with_attribute) is carried
    zeros = torch.zeros(6, dtype=torch.long)
    same(line_dag(data, "degree"), LineDAG.from_edge_index(data.edge_index, 6, order="degree", batch=zeros))
    attributes = Batch.from_data_list([with_attribute, with_attribute])
    same(line_dag(attributes), LineDAG.collate([carried, carried]))
    union = Batch.from_data_list([data, data])
    same(line_dag(union), LineDAG.from_edge_index(union.edge_index, 12, batch=union.batch))


# ---------------------------------------------------------------------- OrientDAG


@pytest.mark.parametrize("order", [*ORDERS, "canonical"])
@pytest.mark.parametrize("name", GRAPHS)
def test_writes_a_permutation(name: str, order: str) -> None:
    data = GRAPHS[name]()
    ranked = OrientDAG(order)(data)
    assert "rank" not in data
    assert sorted(ranked.rank.tolist()) == list(range(data.num_nodes))
    if order != "canonical":
        zeros = torch.zeros(data.num_nodes, dtype=torch.long)
        want = LineDAG.from_edge_index(data.edge_index, data.num_nodes, order=order, batch=zeros)
        same(AddLineDAG()(ranked).line_dag, want)


@pytest.mark.parametrize("order", ["degree", "random", "bfs"])
def test_ranks_are_drawn_per_graph(order: str) -> None:
    """A union that PyG did not make: plain data with a batch vector."""
    one = GRAPHS["ring with a cross-bar"]()
    union = Data(
        x=torch.cat([one.x, one.x]),
        edge_index=torch.cat([one.edge_index, one.edge_index + 5], 1),
        batch=torch.tensor([0] * 5 + [1] * 5),
    )
    single = OrientDAG(order)(one).rank
    assert torch.equal(OrientDAG(order)(union).rank, torch.cat([single, single + 5]))


def test_another_orientation_drops_the_line_graph() -> None:
    data = AddLineDAG(order="index")(GRAPHS["chain"]())
    turned = OrientDAG("degree")(data)
    assert not isinstance(turned, LineDAGData)
    assert "line_graph" not in turned
    same(AddLineDAG()(turned).line_dag, AddLineDAG(order="degree")(GRAPHS["chain"]()).line_dag)


def test_given_and_seed() -> None:
    data = graph(4, (3, 1), (1, 0), (0, 2))
    assert OrientDAG("given")(data).rank.tolist() == [2, 1, 3, 0]
    ranks = {tuple(OrientDAG("random", seed)(GRAPHS["chain"]()).rank.tolist()) for seed in range(8)}
    assert len(ranks) > 4


def test_unknown_order() -> None:
    for transform in (OrientDAG, AddLineDAG):
        with pytest.raises(ConfigError, match="did you mean 'canonical'"):
            transform("canonicl")
    with pytest.raises(ConfigError, match="OrientDAG"):
        AddLineDAG("canonical")(GRAPHS["chain"]())
    assert str(OrientDAG("bfs")) == "OrientDAG('bfs')"
    assert str(OrientDAG("random", seed=2)) == "OrientDAG('random', seed=2)"
    assert str(AddLineDAG(prune=True)) == "AddLineDAG('index', prune=True)"


def test_registered_and_composable() -> None:
    data = Compose([OrientDAG("degree"), AddLineDAG(prune=True)])(GRAPHS["chain"]())
    assert isinstance(data, LineDAGData)
    assert "dag_kept" in data.line_graph
