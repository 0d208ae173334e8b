"""A packed batch is PyG's batch with its line graph, tensor by tensor, and waits for no device."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader

from plstm_graph.config.models import ModelConfig
from plstm_graph.data import GraphDataset, PackedGraphs, PackedLoader, load
from plstm_graph.data.encodings import add_encodings
from plstm_graph.errors import ConfigError, DataError, ShapeError
from plstm_graph.line_dag import LineDAG
from plstm_graph.line_dag.plan import TILES, Plan
from plstm_graph.line_dag.topology import Topology
from plstm_graph.models.graph import GraphModel
from plstm_graph.transforms import AddLineDAG, line_dag

# ---------------------------------------------------------------------- graphs


class Odd(Data):
    """Attributes that PyG joins in every way it knows."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 3 * self.num_nodes if key == "triple" else super().__inc__(key, value, *args, **kwargs)

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return None if key == "whole" else super().__cat_dim__(key, value, *args, **kwargs)


def graph(nodes: int, columns: int, seed: int, kind: type[Data] = Data) -> Data:
    """Any columns at all: self-loops, duplicates, one direction or both."""
    draw = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(max(nodes, 1), (2, columns if nodes else 0), generator=draw)
    edges = edge_index.size(1)
    return kind(
        x=torch.randn(nodes, 3, generator=draw),
        edge_index=edge_index,
        edge_attr=torch.randn(edges, 2, generator=draw),
        y=torch.randn(1, 2, generator=draw),
        rank=torch.randperm(nodes, generator=draw),
        name=f"graph {seed}",
    )


def odd(nodes: int, columns: int, seed: int) -> Data:
    data = graph(nodes, columns, seed, Odd)
    del data.rank
    data.num_nodes = nodes
    data.face = torch.randint(max(nodes, 1), (3, seed % 4 if nodes else 0))
    data.triple = torch.randint(9, (seed % 3, 3), dtype=torch.int32)
    data.node_index = torch.arange(nodes)
    data.whole = torch.randn(4)
    data.single = torch.tensor(float(seed))
    data.count = seed
    data.tags = ["any", {"thing": seed}]
    return data


SIZES = [(6, 9), (1, 0), (0, 0), (5, 0), (1, 2), (4, 30), (12, 20), (2, 1), (9, 14), (0, 0)]
GRAPHS = [graph(nodes, columns, seed) for seed, (nodes, columns) in enumerate(SIZES)]
ODD = [odd(nodes, columns, seed) for seed, (nodes, columns) in enumerate(SIZES)]
CHOICES = [
    [0],
    [2],
    [2, 9],
    list(range(len(SIZES))),
    list(reversed(range(len(SIZES)))),
    [5, 5, 5],
    [0, 2, 1, 2, 8, 0, 9, 9],
    [9, 2, 6],
    [3, 1, 4],
]


@pytest.fixture(scope="module")
def nav17() -> GraphDataset:
    return load("nav17")


def some(count: int, length: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(count), k=length)


# ---------------------------------------------------------------------- equality


def assert_same(got: Any, want: Any, name: str) -> None:
    if isinstance(want, Tensor):
        assert isinstance(got, Tensor), name
        assert (got.dtype, got.shape) == (want.dtype, want.shape), name
        assert torch.equal(got, want), name
        assert got.is_contiguous() or not want.is_contiguous(), name
    elif isinstance(want, tuple | list):
        assert type(got) is type(want), name
        assert len(got) == len(want), name
        for number, parts in enumerate(zip(got, want, strict=True)):
            assert_same(*parts, f"{name}, {number}")
    else:
        assert got == want, name


def assert_same_data(got: Data, want: Data) -> None:
    keys = set(want.keys()) - {"line_graph"}
    assert set(got.keys()) - {"line_dag"} == keys
    assert type(got) is type(want)
    for key in keys:
        assert_same(got[key], want[key], key)


def assert_same_dag(got: LineDAG, want: LineDAG, prune: bool) -> None:
    got.validate()
    proper = want.column >= 0  # a self-loop runs neither along nor against an edge
    for name in Topology._fields:
        if name == "column_along":
            assert_same(got.column_along[proper], want.column_along[proper], name)
        else:
            assert_same(getattr(got, name), getattr(want, name), name)
    for pruned in (False, True)[: 1 + prune]:
        plan = got.derived.tables[pruned]
        assert isinstance(plan, Plan)
        assert_same(plan, (want.prune() if pruned else want).plan(6), f"plan, pruned: {pruned}")
        assert (got.prune() if pruned else got).plan(6) is plan
    assert_same(vars(got.derived)["edge_ids"], want.derived.edge_ids, "edge ids")
    assert got.derived.knows("kept") == prune
    assert_same(got.kept_pairs, want.kept_pairs, "kept")
    rows = torch.randn(want.column.numel(), 2, dtype=torch.double)
    assert_same(got.gather_edges(rows), want.gather_edges(rows), "gathered")


def assert_same_batch(packed: PackedGraphs, graphs: list[Data], chosen: list[int], order: str = "index") -> None:
    assert packed.lines is not None
    want = Batch.from_data_list([graphs[number] for number in chosen])
    got = packed.batch(chosen)
    assert_same_data(got, want)
    assert got.num_graphs == want.num_graphs == len(chosen)
    for kind in ("_slice_dict", "_inc_dict"):
        for key, value in getattr(want, kind).items():
            assert_same(getattr(got, kind)[key], value, f"{kind}, {key}")
    assert_same_dag(got.line_dag, line_dag(want, order), "kept" in packed.lines.tables)


@pytest.mark.parametrize("chosen", CHOICES, ids=str)
@pytest.mark.parametrize("prune", [False, True])
def test_batches_of_strange_graphs(chosen: list[int], prune: bool) -> None:
    assert_same_batch(PackedGraphs.from_data_list(GRAPHS, prune=prune), GRAPHS, chosen)


@pytest.mark.parametrize("order", ["index", "bfs", "dfs", "degree", "random"])
@pytest.mark.parametrize("chosen", CHOICES[3:6], ids=str)
def test_orders(chosen: list[int], order: str) -> None:
    graphs = [Data(**{key: value for key, value in data.to_dict().items() if key != "rank"}) for data in GRAPHS]
    assert_same_batch(PackedGraphs.from_data_list(graphs, order=order), graphs, chosen, order)


@pytest.mark.parametrize("chosen", CHOICES, ids=str)
def test_attributes_of_every_kind(chosen: list[int]) -> None:
    packed = PackedGraphs.from_data_list(ODD)
    assert_same_batch(packed, ODD, chosen)
    batch = packed.batch(chosen)
    assert batch.num_nodes == sum(SIZES[number][0] for number in chosen)


@pytest.mark.parametrize("graphs", [GRAPHS, ODD], ids=["plain", "odd"])
@pytest.mark.parametrize("chosen", CHOICES, ids=str)
def test_a_batch_comes_apart_again(graphs: list[Data], chosen: list[int]) -> None:
    got = PackedGraphs.from_data_list(graphs).batch(chosen)
    want = Batch.from_data_list([graphs[number] for number in chosen])
    for number, parts in enumerate(zip(got.to_data_list(), want.to_data_list(), strict=True)):
        assert_same_data(*parts)
        assert_same_data(got[number], want[number])


@pytest.mark.parametrize("graphs", [GRAPHS[:1], GRAPHS[2:3], GRAPHS[:2], GRAPHS[8:]], ids=len)
def test_few_graphs(graphs: list[Data]) -> None:
    packed = PackedGraphs.from_data_list(graphs)
    for chosen in ([0], [0, 0], [len(graphs) - 1, 0]):
        assert_same_batch(packed, graphs, chosen)


@pytest.mark.parametrize("name", ["nav17", "MUTAG"])
@pytest.mark.parametrize("prune", [False, True])
def test_real_graphs(name: str, prune: bool, request: pytest.FixtureRequest) -> None:
    if name == "nav17":
        dataset = request.getfixturevalue("nav17")
    else:
        dataset = load(name, root=request.getfixturevalue("shared_data"))
    graphs = add_encodings(dataset.graphs, ModelConfig(rwse=4))
    packed = PackedGraphs.from_data_list(graphs, prune=prune)
    assert len(packed) == len(graphs)
    for seed in range(4):
        assert_same_batch(packed, graphs, some(len(graphs), 1 + 40 * seed, seed))


@pytest.mark.parametrize("chosen", [[1, 0, 2], [2, 1]], ids=str)
def test_graphs_beyond_all_tiles(chosen: list[int]) -> None:
    """Which graphs count as large is found in each batch, for the widths of its layers."""
    graphs = [graph(TILES[-1] + 1, 300, 0), *GRAPHS[:2]]
    assert_same_batch(PackedGraphs.from_data_list(graphs), graphs, chosen)


def test_a_line_graph_that_the_data_carries_is_the_one() -> None:
    graphs = [AddLineDAG("degree")(data) for data in GRAPHS]
    packed = PackedGraphs.from_data_list(graphs)
    for chosen in CHOICES:
        want = Batch.from_data_list([graphs[number] for number in chosen])
        assert_same_data(packed.batch(chosen), want)
        assert torch.equal(packed.batch(chosen).line_dag.prev, want.line_dag.prev)
    with pytest.raises(DataError, match="apply AddLineDAG again"):
        _ = packed.batch([0])[0].line_dag


def test_what_is_left_out() -> None:
    packed = PackedGraphs.from_data_list(GRAPHS, order=None, exclude_keys=["rank", "name"])
    batch = packed.batch([0, 5])
    assert set(batch.keys()) == {"x", "edge_index", "edge_attr", "y", "batch", "ptr"}
    assert batch[1].edge_index.equal(GRAPHS[5].edge_index)
    assert 0 < packed.nbytes < PackedGraphs.from_data_list(GRAPHS, prune=False).nbytes
    assert PackedGraphs.from_data_list(GRAPHS, prune=False).nbytes < PackedGraphs.from_data_list(GRAPHS).nbytes


def test_a_batch_made_while_evaluating_serves_training() -> None:
    with torch.inference_mode():
        batch = PackedGraphs.from_data_list(GRAPHS).batch([0, 6])
    values = [*batch.to_dict().values(), *vars(batch.line_dag).values()]
    assert not any(value.is_inference() for value in values if isinstance(value, Tensor))


# ---------------------------------------------------------------------- cost

VIEWS = {"select", "slice", "split_with_sizes", "unbind", "view", "t", "permute"}


class Watch(TorchDispatchMode):
    """Notes each operation that has to do with the device ``meta``, and lets no result leave it.

    What lies there has no values: whatever would have to read one on the host fails, as it would wait for a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if any(leaf.is_meta for leaf in [*results, *tree_leaves((args, kwargs))] if isinstance(leaf, Tensor)):
            self.names.append(function.overloadpacket.__name__)
            assert all(leaf.is_meta for leaf in results), f"{function} brings something back to the host"
        return result


def test_a_batch_waits_for_nothing_and_takes_few_operations(nav17: GraphDataset) -> None:
    packed = PackedGraphs.from_data_list(add_encodings(nav17.graphs, ModelConfig()), exclude_keys=["smiles"]).to("meta")
    with Watch() as seen:
        batch = packed.batch(some(len(packed), 100, 0))
    assert packed.device == batch.x.device == batch.line_dag.src.device == torch.device("meta")
    assert len([name for name in seen.names if name not in VIEWS]) <= 50
    assert len(seen.names) <= 85
    with Watch() as again:
        packed.batch(some(len(packed), 1000, 1))
    assert again.names == seen.names  # however many graphs


@pytest.mark.parametrize(
    "wait",
    [lambda x: x[x > 0], lambda x: int(x.sum()), lambda x: x.tolist(), lambda x: x.nonzero(), lambda x: x.cpu()],
    ids=["mask", "number", "list", "nonzero", "copy"],
)
def test_the_watch_sees_what_waits(wait: Any) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)), Watch():
        wait(torch.zeros(3, device="meta"))


class Refuse(TorchDispatchMode):
    """No operation that reads values, whatever its tensors."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function.overloadpacket.__name__ not in ("_local_scalar_dense", "nonzero", "masked_select")
        return function(*args, **(kwargs or {}))


def test_nothing_reads_values_on_the_cpu_either() -> None:
    packed = PackedGraphs.from_data_list(GRAPHS)
    with Refuse():
        packed.batch([3, 1, 0, 5])


# ---------------------------------------------------------------------- training


@pytest.mark.parametrize("model", ["plstm", "gin"])
def test_models_cannot_tell(nav17: GraphDataset, model: str) -> None:
    config = ModelConfig(model=model, width=16, layers=2, heads=4, rwse=4, dropout=0.0, modes="PD")
    graphs = add_encodings(nav17.graphs[:60], config)
    packed = PackedGraphs.from_data_list(graphs, order=config.order if model == "plstm" else None)
    network = GraphModel(nav17.features, 1, config)
    chosen = some(60, 24, 1)
    found = []
    for batch in (packed.batch(chosen), Batch.from_data_list([graphs[number] for number in chosen])):
        network.zero_grad()
        output = network(batch)
        (output - batch.y).square().mean().backward()
        found.append([output, *(weight.grad for weight in network.parameters() if weight.grad is not None)])
    for got, want in zip(*found, strict=True):
        assert torch.equal(got, want)


def test_a_batch_that_is_there_is_not_moved() -> None:
    """As a trainer does with every batch."""
    batch = PackedGraphs.from_data_list(GRAPHS).batch([0, 5])
    before = {key: batch[key] for key in batch.keys()}  # noqa: SIM118
    moved = batch.to(torch.device("cpu"), non_blocking=True)
    assert all(moved[key] is value for key, value in before.items() if key != "name")


def test_the_loader_follows_its_sampler() -> None:
    packed = PackedGraphs.from_data_list(ODD)
    backwards: Any = range(9, -1, -1)
    loader = PackedLoader(packed, 4, backwards)
    assert len(loader) == 3
    for _ in range(2):
        assert [batch.count.tolist() for batch in loader] == [[9, 8, 7, 6], [5, 4, 3, 2], [1, 0]]
    for got, want in zip(loader, DataLoader(ODD, 4, sampler=backwards), strict=True):
        assert_same_data(got, want)


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], r"a list of graph numbers, \[B\], got \[0\]"),
        ([[0, 1]], r"got \[1, 2\] of int64"),
        ([0.5], r"got \[1\] of float64"),
        (torch.ones(10, dtype=torch.bool), r"got \[10\] of bool; for a mask take its nonzero places"),
        ([0, 10], r"must be 0 to 9, got 0 to 10; were these indices made for another data set"),
        ([-1], "must be 0 to 9, got -1 to -1"),
    ],
)
def test_wrong_indices(indices: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        PackedGraphs.from_data_list(GRAPHS).batch(indices)


def test_indices_of_every_kind() -> None:
    packed = PackedGraphs.from_data_list(GRAPHS)
    want = packed.batch([3, 4, 5])
    for indices in (range(3, 6), (3, 4, 5), torch.tensor([3, 4, 5]), torch.tensor([3, 4, 5]).numpy()):
        got = packed.batch(indices)
        assert_same(got.x, want.x, "x")
        assert got.name == want.name


def second(**values: Any) -> list[Data]:
    """Two graphs, of which one has other attributes."""
    return [GRAPHS[0], GRAPHS[1].clone().update(values)]


def every(**values: Any) -> list[Data]:
    return [data.clone().update(values) for data in GRAPHS[:3]]


@pytest.mark.parametrize(
    ("graphs", "message"),
    [
        ([], "no graphs to pack"),
        ([GRAPHS[0], HeteroData()], "must be PyG Data objects, got HeteroData as number 1"),
        ([Batch.from_data_list(GRAPHS)], "got DataBatch as number 0"),
        (second(extra=torch.ones(1)), "graphs 0 and 1 differ in extra"),
        (second(x=torch.ones(1, 7)), "do not fit into one batch: Sizes of tensors must match"),
        (every(some={"a": torch.ones(1)}), r"'some' \(dict\) cannot be packed.*exclude_keys"),
        (every(some=[torch.ones(1)]), r"'some' \(list\) cannot be packed"),
        (every(some=torch.eye(2).to_sparse()), r"'some' \(Tensor\) cannot be packed"),
        ([Data(y=torch.ones(1))] * 2, "must tell how many nodes"),
        ([Data(x=torch.ones(1, 1))] * 2, "need edge_index; without it pack with order=None"),
    ],
)
def test_wrong_graphs(graphs: list[Data], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PackedGraphs.from_data_list(graphs)


def test_line_graphs_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="unknown order"):
        PackedGraphs.from_data_list(ODD, order="down")
    with pytest.raises(ShapeError, match="a rank tensor must have one entry per node"):
        PackedGraphs.from_data_list(every(rank=torch.zeros(2)))
