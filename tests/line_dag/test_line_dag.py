import gc
import pickle
import weakref
from collections.abc import Iterator
from copy import deepcopy

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from plstm_graph import LineDAG
from plstm_graph.errors import CycleError, ShapeError
from plstm_graph.line_dag.plan import Plan
from plstm_graph.line_dag.topology import Levels, Topology
from plstm_graph.ops.flat import places
from plstm_graph.testing import DAGS, VIEWS, grid_dag, random_dag

FEW = settings(max_examples=60, deadline=None, derandomize=True)
TENSORS = ("src", "dst", "prev", "next", "level", "graph_ptr", "edge_ptr")
SIZES = ("num_nodes", "num_edges", "num_pairs", "num_graphs", "num_levels", "max_nodes", "max_edges")


def columns(*edges: tuple[int, int]) -> torch.Tensor:
    return torch.tensor(edges, dtype=torch.long).view(-1, 2).t()


def same(one: LineDAG, two: LineDAG, *more: str) -> None:
    for name in (*TENSORS, *more):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    for name in (*SIZES, "merged", "reversed", "pruned"):
        assert getattr(one, name) == getattr(two, name), name


graphs = st.integers(1, 7).flatmap(
    lambda n: st.tuples(
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=14), st.permutations(range(n))
    )
)


# ---------------------------------------------------------------------- build


@FEW
@given(graphs)
def test_equals_the_definition(case):
    """Edges, pairs, levels, columns and averages against plain Python sets and loops."""
    edges, rank = case
    n = len(rank)
    dag = LineDAG.from_edge_index(
        columns(*edges), n, order=torch.tensor(rank), batch=torch.zeros(n, dtype=torch.long)
    ).validate()
    oriented = {(u, v) if rank[u] < rank[v] else (v, u) for u, v in edges if u != v}
    ends = sorted(oriented, key=lambda e: (rank[e[0]], rank[e[1]]))
    assert list(zip(dag.src.tolist(), dag.dst.tolist(), strict=True)) == ends
    pairs = [(a, b) for b, f in enumerate(ends) for a, e in enumerate(ends) if e[1] == f[0]]
    assert list(zip(dag.prev.tolist(), dag.next.tolist(), strict=True)) == pairs
    level: list[int] = []
    for b in range(len(ends)):
        level.append(max([level[a] + 1 for a, c in pairs if c == b], default=0))
    assert dag.level.tolist() == level
    assert dag.num_levels == max(level, default=-1) + 1

    number = {e: i for i, e in enumerate(ends)}
    assert dag.column.tolist() == [number.get((u, v), number.get((v, u), -1)) for u, v in edges]
    rows = torch.arange(len(edges), dtype=torch.float64).view(-1, 1) ** 2
    for view, flip in ((dag, False), (dag.reverse(), True)):
        along = [[i for i, e in enumerate(edges) if e == (end[::-1] if flip else end)] for end in ends]
        against = [[i for i, e in enumerate(edges) if e == (end if flip else end[::-1])] for end in ends]
        used = [a or b for a, b in zip(along, against, strict=True)]
        assert view.edge_id.tolist() == [ids[0] for ids in used]
        assert view.edge_id_reverse.tolist() == [(b or a)[0] for a, b in zip(along, against, strict=True)]
        mean = [rows[ids].mean(0).item() for ids in used]
        assert view.gather_edges(rows)[:, 0].tolist() == pytest.approx(mean)


def test_hand_made_line_graph():
    # 0 -> 1 -> 3, 0 -> 2 -> 3, 3 -> 4, given by pairs that point anywhere
    dag = LineDAG.from_edge_index(columns((1, 0), (2, 0), (4, 3), (3, 1), (2, 3)))
    assert (dag.src.tolist(), dag.dst.tolist()) == ([0, 0, 1, 2, 3], [1, 2, 3, 3, 4])
    assert (dag.prev.tolist(), dag.next.tolist()) == ([0, 1, 2, 3], [2, 3, 4, 4])
    assert dag.level.tolist() == [0, 0, 1, 1, 2]
    assert dag.edge_id.tolist() == [0, 1, 3, 4, 2]
    assert [getattr(dag, size) for size in SIZES] == [5, 5, 4, 1, 3, 5, 5]


@pytest.mark.parametrize(
    "order", ["index", "bfs", "dfs", "degree", "random", "given", torch.tensor([3, 0, 2, 1, 5, 4])]
)
def test_permuting_columns_changes_no_bit(order):
    """With edge attributes, duplicates and, for undirected orders, both directions stored."""
    edges = columns((0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (4, 5), (2, 5), (0, 1))
    edges = edges if isinstance(order, str) and order == "given" else torch.cat([edges, edges.flip(0)], 1)
    # sums of these are exact in any order, so that averages can be compared bit by bit
    attributes = torch.randint(-8, 8, (edges.size(1), 3)).double()
    plain = LineDAG.from_edge_index(edges, order=order)
    for _ in range(5):
        shuffle = torch.randperm(edges.size(1))
        other = LineDAG.from_edge_index(edges[:, shuffle], order=order)
        same(plain, other)
        for view in VIEWS.values():
            got, want = view(other).gather_edges(attributes[shuffle]), view(plain).gather_edges(attributes)
            assert torch.equal(got, want)


# ---------------------------------------------------------------------- columns of the caller


def test_ring_closure_stored_once_against_the_rank_is_kept():
    """Raw molecule files store the bond that closes a ring as (5, 0)."""
    ring = columns((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0))
    dag = LineDAG.from_edge_index(ring)
    assert dag.num_edges == 6
    edge = list(zip(dag.src.tolist(), dag.dst.tolist(), strict=True)).index((0, 5))
    assert dag.edge_id[edge] == dag.edge_id_reverse[edge] == 5
    assert torch.equal(dag.gather_edges(torch.arange(6) * 10), dag.edge_id * 10)


def test_both_directions_serve_the_two_readings():
    """The reading along an edge takes the column that runs along it, the reversed one the other column."""
    dag = LineDAG.from_edge_index(columns((1, 0), (0, 1), (1, 2), (2, 1)))
    attributes = torch.tensor([10.0, 1.0, 12.0, 21.0])
    assert dag.edge_id.tolist() == dag.reverse().edge_id_reverse.tolist() == [1, 2]
    assert dag.edge_id_reverse.tolist() == dag.reverse().edge_id.tolist() == [0, 3]
    assert dag.gather_edges(attributes).tolist() == [1, 12]
    assert dag.reverse().gather_edges(attributes).tolist() == [10, 21]
    assert not dag.merged


def test_duplicates_are_averaged_and_self_loops_dropped():
    dag = LineDAG.from_edge_index(columns((1, 1), (0, 1), (1, 0), (0, 1), (2, 1), (2, 1), (0, 0)))
    assert (dag.src.tolist(), dag.dst.tolist()) == ([0, 1], [1, 2])
    assert dag.merged
    attributes = torch.tensor([[99.0], [2.0], [7.0], [4.0], [10.0], [20.0], [99.0]])
    assert dag.gather_edges(attributes).tolist() == [[3], [15]]  # (0,1): columns 1 and 3; (1,2): both run against it
    assert dag.reverse().gather_edges(attributes).tolist() == [[7], [15]]
    assert dag.column.tolist() == [-1, 0, 0, 0, 1, 1, -1]


def test_only_self_loops_leave_no_edge():
    dag = LineDAG.from_edge_index(columns((0, 0), (2, 2)), 3).validate()
    assert (dag.num_edges, dag.num_pairs, dag.num_levels) == (0, 0, 0)
    assert dag.gather_edges(torch.ones(2, 4)).shape == (0, 4)


def test_attributes_of_another_graph_are_refused():
    with pytest.raises(ShapeError, match="one row per column of edge_index is needed, 12, got 3; was the dag built"):
        LineDAG.from_edge_index(torch.cat([columns(*((i, i + 1) for i in range(6)))] * 2, 1)).gather_edges(
            torch.ones(3)
        )


def test_gather_passes_gradients_to_every_merged_column():
    dag = LineDAG.from_edge_index(columns((0, 1), (0, 1), (1, 2)))
    attributes = torch.ones(3, 2, requires_grad=True)
    dag.gather_edges(attributes).sum().backward()
    assert attributes.grad[:, 0].tolist() == [0.5, 0.5, 1]


# ---------------------------------------------------------------------- views


@pytest.mark.parametrize("name", DAGS)
def test_views(name):
    dag = DAGS[name]()
    for view in VIEWS.values():
        view(dag).validate()
        same(view(dag), view(dag).reverse().reverse(), "edge_id", "edge_id_reverse", "column_along")
    back = dag.reverse()
    assert torch.equal(back.src, dag.dst)
    assert torch.equal(back.dst, dag.src)
    assert torch.equal(back.prev, dag.next)
    assert torch.equal(back.next, dag.prev)
    same(dag.prune().reverse(), dag.reverse().prune(), "edge_id")
    same(dag.prune().reverse().prune(), dag.reverse().prune())
    same(dag.prune().reverse().reverse(), dag.prune())


@pytest.mark.parametrize("name", ["grid", "unlike graphs", "complete"])
def test_pruning_first_from_either_side_keeps_the_same_pairs(name):
    """Each view is built anew here, so that nothing is shared between them."""
    build = DAGS[name]
    same(build().prune().reverse(), build().reverse().prune())
    assert build().prune().num_pairs < build().num_pairs


def test_views_are_computed_once():
    dag = grid_dag(3, 3)
    assert dag.prune().prev is not dag.prev
    assert dag.reverse().level is dag.reverse().level
    assert dag.reverse().reverse().level is dag.level
    plan = dag.prune().reverse().level_plan
    assert dag.reverse().prune().level_plan is plan
    assert dag.prune().level_plan is not plan
    assert dag.level_plan is not dag.prune().level_plan


def test_it_is_immutable():
    dag = grid_dag(2, 3)
    for name in ("src", "level", "num_nodes", "reversed", "derived", "edge_id", "anything"):
        with pytest.raises(AttributeError):
            setattr(dag, name, getattr(dag, name, None))
    before = {name: getattr(dag, name).clone() for name in TENSORS}
    _ = dag.prepare().prune().reverse().level_plan, dag.reverse().chunk_plan(4)
    assert all(torch.equal(getattr(dag, name), tensor) for name, tensor in before.items())


def test_what_is_worked_out_lives_as_long_as_the_line_graph():
    """Without a cycle of references: a GPU's memory is free at once, not when the garbage collector runs."""
    dag = grid_dag(3, 3).prepare()
    _ = dag.level_plan, dag.prune().reverse().chunk_plan(4)
    alive = weakref.ref(dag.derived)
    gc.disable()
    try:
        del dag
        assert alive() is None
    finally:
        gc.enable()


def test_kept_pairs_can_be_handed_over():
    kept = torch.tensor([0, 2])
    dag = LineDAG.of(grid_dag(2, 3).lines, kept=kept)
    assert torch.equal(dag.prune().prev, dag.prev[kept])


# ---------------------------------------------------------------------- batches


def parts() -> list[tuple[torch.Tensor, int]]:
    """Columns and sizes, among them a graph without edges and one without nodes."""
    loops = columns((0, 0), (1, 0), (0, 1), (0, 1), (2, 1))
    ring = columns((0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (2, 2))
    path = columns(*((i, i + 1) for i in range(5)))
    return [(loops, 3), (columns(), 2), (path, 6), (columns(), 0), (ring, 4)]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("order", ["index", "bfs", "degree", "random"])
def test_collate_equals_building_from_the_union(order, view):
    sizes = [n for _, n in parts()]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    union = torch.cat([e + start for (e, _), start in zip(parts(), starts, strict=True)], 1)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    whole = VIEWS[view](LineDAG.from_edge_index(union, sum(sizes), order=order, batch=batch))
    singles = [LineDAG.from_edge_index(e, n, order=order, batch=torch.zeros(n, dtype=torch.long)) for e, n in parts()]
    # a graph of no node knows nothing of its batch: it is a graph all the same
    singles[3] = _empty()
    for together in (
        LineDAG.collate([VIEWS[view](dag) for dag in singles]),
        VIEWS[view](LineDAG.collate(singles)),
    ):
        together.validate()
        same(together, whole, "column", "column_along", "edge_id", "edge_id_reverse", "edge_graph", "node_graph")
        rows = torch.randint(-8, 8, (union.size(1), 2)).double()
        assert torch.equal(together.gather_edges(rows), whole.gather_edges(rows))


def _empty() -> LineDAG:
    """One graph without nodes."""
    none = torch.zeros(0, dtype=torch.long)
    pointer = torch.zeros(2, dtype=torch.long)
    arrays = dict.fromkeys(("src", "dst", "prev", "next", "column"), none)
    return LineDAG.of(Topology.of(**arrays, column_along=none.bool(), graph_ptr=pointer, edge_ptr=pointer))


def test_collate_keeps_the_views_that_all_parts_have():
    """Compiled code must find them made."""
    parts = [LineDAG.from_edge_index(torch.tensor([[0, 1, 0, 2], [1, 2, 2, 3]])) for _ in range(3)]
    for dag in parts:
        _ = dag.prune().prev
    _ = parts[0].reverse().prev
    assert LineDAG.collate(parts).derived.views == {(False, False), (False, True)}


def test_collate_lifts_shallow_reversed_graphs():
    """Levels of a reversed graph count down; in a batch they stay valid and aligned with the deepest graph."""
    deep, flat = grid_dag(1, 6).reverse(), grid_dag(1, 2).reverse()
    whole = LineDAG.collate([flat, deep]).validate()
    assert whole.level.tolist() == [4, 4, 3, 2, 1, 0]
    assert whole.reverse().level.tolist() == [0, 0, 1, 2, 3, 4]


def test_collate_errors():
    dag = grid_dag(2, 2)
    with pytest.raises(ShapeError, match="at least one"):
        LineDAG.collate([])
    with pytest.raises(ShapeError, match="LineDAGs of one view"):
        LineDAG.collate([dag, dag.reverse()])
    with pytest.raises(ShapeError, match="LineDAGs of one view"):
        LineDAG.collate([dag, dag.prune()])


def test_owners():
    dag = DAGS["empty graph in the batch"]()
    assert dag.node_graph.tolist() == [0, 0, 0, 2, 2, 2]
    assert dag.edge_graph.tolist() == [0, 0, 2, 2, 2]


# ---------------------------------------------------------------------- devices, checks, networkx


def test_to_moves_everything_that_is_known():
    dag = grid_dag(3, 3)
    assert dag.to("cpu") is dag
    computed = (dag.level_plan, dag.prune().level_plan, dag.edge_id, dag.edge_graph, dag.reverse().level)
    assert computed
    away = dag.to("meta")
    assert all(getattr(away, name).device.type == "meta" for name in (*TENSORS, "column", "column_along"))
    assert away.level_plan.ptr == dag.level_plan.ptr
    assert away.level_plan.prev.device.type == "meta"
    assert away.prune().level_plan.next.shape == dag.prune().level_plan.next.shape
    assert away.reverse().level.device.type == "meta"
    assert dag.level_plan.prev.device.type == "cpu"


def test_data_moves_it_by_every_name(monkeypatch):
    """PyG calls the method of that name, and leaves what has none where it was without a word."""
    dag = grid_dag(3, 3)
    assert dag.cpu() is dag
    calls = []
    monkeypatch.setattr(LineDAG, "to", lambda self, device, non_blocking=False: calls.append((device, non_blocking)))
    data = Data(line_dag=dag)
    data.clone().cpu()
    data.clone().cuda()
    data.clone().cuda(1, non_blocking=True)
    dag.cuda(None)
    assert [(str(device), wait) for device, wait in calls] == [
        ("cpu", False),
        ("cuda", False),
        ("1", True),
        ("cuda", False),
    ]


def held(value) -> Iterator[torch.Tensor]:
    """All tensors but the sizes of a plan, which are for the host."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from held(tuple(value.values()))
    elif isinstance(value, tuple):
        for part in value._replace(host=()) if isinstance(value, Plan) else value:
            yield from held(part)


def test_pin_memory_pins_everything_that_is_known(monkeypatch):
    dag = grid_dag(3, 3).prepare()
    assert dag.level_plan
    pinned = set()
    copy = torch.Tensor.clone

    def pin(tensor):
        made = copy(tensor)
        pinned.add(made.data_ptr())
        return made

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    away = Data(line_dag=dag).pin_memory().line_dag
    same(away, dag)
    assert away.level_plan.ptr == dag.level_plan.ptr
    tensors = list(held(vars(away.derived)))
    assert len(tensors) > 4 * len(TENSORS)
    assert all(tensor.data_ptr() in pinned for tensor in tensors if tensor.numel())
    assert away.derived.views == dag.derived.views


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dst": torch.tensor([1])}, "src and dst have one entry per edge"),
        ({"next": torch.tensor([1])}, "prev and next have one entry per pair"),
        ({"src": torch.tensor([0, 1, 9])}, r"end points lie in 0..N-1"),
        ({"prev": torch.tensor([0, -1])}, r"pairs lie in 0..E-1"),
        ({"column": torch.tensor([0, 1, 3])}, r"columns lie in -1..E-1"),
        ({"graph_ptr": torch.tensor([0, 3])}, "graph_ptr ends with N"),
        ({"edge_ptr": torch.tensor([0, 2])}, "edge_ptr ends with E"),
        ({"prev": torch.tensor([1, 0])}, "pairs meet at a node"),
        ({"src": torch.tensor([0, 2, 2]), "dst": torch.tensor([1, 1, 3])}, "pairs meet"),
        ({"prev": torch.tensor([1, 0]), "next": torch.tensor([2, 1])}, "pairs are sorted"),
        ({"prev": torch.tensor([1, 1]), "next": torch.tensor([0, 2])}, "edges stand in topological order"),
        ({"edge_ptr": torch.tensor([0, 1, 3]), "graph_ptr": torch.tensor([0, 4, 4])}, "edges stand graph by graph"),
        ({"level": torch.tensor([0, 0, 1])}, "every pair climbs a level"),
        ({"level": torch.tensor([-1, 1, 3])}, r"levels lie in 0..num_levels-1"),
        ({"graph_ptr": torch.tensor([0, 2, 4])}, "no edge joins two graphs"),
    ],
)
def test_validate_names_what_is_broken(changes, message):
    dag = grid_dag(1, 4)
    known = {"levels": Levels.of(changes.pop("level"))} if "level" in changes else {}
    wrong = LineDAG.of(dag.lines._replace(**changes), **known)
    with pytest.raises(ShapeError, match=f"not a line graph of a DAG; broken: .*{message}"):
        wrong.validate()


def test_too_many_pairs_name_the_hub():
    """Node 300 of 601 has 300 neighbours on either side: 90,000 pairs for 600 edges."""
    star = torch.stack([torch.full((600,), 300), torch.cat([torch.arange(300), torch.arange(301, 601)])])
    with pytest.raises(ShapeError, match=r"90000 pairs for 600 .* node 300 alone joins 300 arriving with 300 leaving"):
        LineDAG.from_edge_index(star)
    assert LineDAG.from_edge_index(star, order="degree").num_pairs == 0  # the likely fix of the message


def test_too_many_pairs_of_a_dense_graph_have_no_hub_to_blame():
    everyone = torch.triu_indices(300, 300, 1)
    with pytest.raises(ShapeError, match="The graph is dense: split or sparsify it"):
        LineDAG.from_edge_index(everyone)


def test_what_is_made_while_evaluating_serves_training():
    dag = random_dag(1, nodes=8)
    with torch.inference_mode():
        made = [LineDAG.from_edge_index(torch.stack([dag.src, dag.dst]), dag.num_nodes), LineDAG.collate([dag, dag])]
        for one in made:
            assert not one.prune().level_plan.pair.is_inference()
            assert not one.reverse().edge_id.is_inference()


def test_pairs_up_to_the_limit_are_allowed():
    neighbours = torch.cat([torch.arange(128), torch.arange(129, 257)])
    star = torch.stack([torch.full((256,), 128), neighbours])
    assert LineDAG.from_edge_index(star).num_pairs == 64 * 256


@pytest.mark.parametrize("name", DAGS)
def test_networkx_there_and_back(name):
    dag = DAGS[name]()
    graph = dag.to_networkx()
    assert list(graph) == list(range(dag.num_nodes))
    assert nx.is_directed_acyclic_graph(graph)
    again = LineDAG.from_networkx(graph)
    assert set(again.to_networkx().edges) == set(graph.edges)
    line = dag.to_networkx(line=True)
    assert set(line) == set(graph.edges)
    assert set(line.edges) == set(nx.line_graph(graph).edges)
    assert all(line.nodes[a]["level"] < line.nodes[b]["level"] for a, b in line.edges)


def test_from_networkx_numbers_nodes_in_the_order_of_the_graph():
    graph = nx.Graph([("c", "a"), ("a", "b"), ("b", "c")])
    dag = LineDAG.from_networkx(graph)
    assert sorted(zip(dag.src.tolist(), dag.dst.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]
    directed = LineDAG.from_networkx(nx.DiGraph([("c", "a"), ("b", "a"), ("b", "c")]))
    assert set(zip(directed.src.tolist(), directed.dst.tolist(), strict=True)) == {(0, 1), (2, 1), (2, 0)}
    by_degree = LineDAG.from_networkx(nx.star_graph(3), order=torch.tensor([9, 0, 1, 2]))
    assert by_degree.dst.tolist() == [0, 0, 0]
    with pytest.raises(CycleError):
        LineDAG.from_networkx(nx.DiGraph([(0, 1), (1, 0)]))


def test_line_graph_of_a_pruned_view_has_its_pairs_only():
    dag = grid_dag(3, 3)
    assert dag.prune().to_networkx(line=True).number_of_edges() == dag.prune().num_pairs < dag.num_pairs


def test_networkx_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "networkx", None)
    with pytest.raises(ImportError, match="networkx is not installed; pip install"):
        random_dag(0).to_networkx()


@pytest.mark.parametrize("order", ["index", "bfs", "dfs", "degree", "random", torch.tensor([3, 1, 0, 2])], ids=str)
def test_another_default_device_changes_nothing(order):
    """What is computed on the host stays there; tensors without numbers would not."""
    columns = torch.tensor([[0, 1, 1, 2, 2, 3, 0, 3], [1, 0, 2, 1, 3, 2, 3, 0]])
    with torch.device("meta"):
        dag = LineDAG.from_edge_index(columns, 4, order=order).prepare()
        both = LineDAG.collate([dag, dag])
    plain = LineDAG.from_edge_index(columns, 4, order=order)
    for got, want in ((dag, plain), (dag.prune(), plain.prune()), (both, LineDAG.collate([plain, plain]))):
        assert torch.equal(got.src, want.src)
        assert torch.equal(got.prev, want.prev)
        assert all(torch.equal(a, b) for a, b in zip(got.plan(4), want.plan(4), strict=True))


def test_a_plan_travels_without_what_was_worked_out_from_it() -> None:
    """To a worker or a file: what was worked out belongs to one backend of one process."""
    plan = DAGS["diamond"]().plan(4)
    places(plan, 2)
    assert plan.places
    for copy in (pickle.loads(pickle.dumps(plan)), deepcopy(plan)):
        assert not copy.places
        assert all(torch.equal(a, b) for a, b in zip(copy, plan, strict=True))


def test_it_reads_as_its_sizes_and_view() -> None:
    dag = LineDAG.from_edge_index(torch.tensor([[0, 1, 3], [1, 2, 4]]), 5)
    assert repr(dag) == "LineDAG(num_graphs=2, num_nodes=5, num_edges=3, num_pairs=1)"
    assert repr(dag.reverse().prune()).endswith("num_pairs=1, reversed=True, pruned=True)")
