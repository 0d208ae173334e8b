"""Line graphs built by sorts and sums equal, number by number, those that plain loops make."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plstm_graph.line_dag import LineDAG
from plstm_graph.line_dag.building import build
from plstm_graph.line_dag.derived import Derived
from plstm_graph.line_dag.plan import TILES, Graph, Host, size_class
from plstm_graph.orient import rank_nodes

FEW = settings(max_examples=60, deadline=None, derandomize=True)


def columns(*edges: tuple[int, int]) -> Tensor:
    return torch.tensor(edges, dtype=torch.long).view(-1, 2).t()


def plain(edge_index: Tensor, nodes: int, graph: list[int], rank: list[float]) -> dict[str, list]:
    """All arrays by loops, straight from what they are said to be."""
    key = [(graph[node], rank[node], node) for node in range(nodes)]
    pairs = [(min(u, v, key=key.__getitem__), max(u, v, key=key.__getitem__)) for u, v in edge_index.t().tolist()]
    edges = sorted({(u, v) for u, v in pairs if u != v}, key=lambda edge: (key[edge[0]], key[edge[1]]))
    number = {edge: i for i, edge in enumerate(edges)}
    graphs = range(max(graph, default=-1) + 1)
    met = [(a, b) for b, (u, _) in enumerate(edges) for a, (_, v) in enumerate(edges) if v == u]
    runs = [
        (number.get(pair, -1), pair == tuple(column))
        for pair, column in zip(pairs, edge_index.t().tolist(), strict=True)
    ]

    def first(edge: int, along: bool) -> int:
        own = [i for i, run in enumerate(runs) if run == (edge, along)]
        return (own or [i for i, run in enumerate(runs) if run[0] == edge])[0]

    def listed(owners: list[int], size: int) -> tuple[list[int], list[int], list[int]]:
        members = sorted(range(len(owners)), key=lambda i: (owners[i], i))
        counts = [owners.count(i) for i in range(size)]
        return [sum(counts[:i]) for i in range(size)], counts, members

    (src, dst), (prev, next) = ([[x[i] for x in some] for i in (0, 1)] for some in (edges, met))
    arriving, leaving = listed(dst, nodes), listed(src, nodes)
    entering, exiting = listed(next, len(edges)), listed(prev, len(edges))
    edge_graph, pair_graph = [graph[u] for u in src], [graph[src[e]] for e in next]
    by_next, by_prev = entering[2], exiting[2]
    return {
        **{"src": src, "dst": dst, "prev": prev, "next": next},
        "column": [edge for edge, _ in runs],
        "column_along": [along and edge >= 0 for edge, along in runs],
        "graph_ptr": [sum(g < i for g in graph) for i in [*graphs, len(graphs)]],
        "edge_ptr": [sum(g < i for g in edge_graph) for i in [*graphs, len(graphs)]],
        "num_nodes": nodes,
        "max_nodes": max((graph.count(g) for g in graphs), default=0),
        "max_edges": max((edge_graph.count(g) for g in graphs), default=0),
        "merged": len(set(runs) - {(-1, True)}) < sum(edge >= 0 for edge, _ in runs),
        "graphs": [x for owners in (graph, edge_graph, pair_graph) for x in listed(owners, len(graphs))[:2]],
        "nodes": [*arriving[:2], *leaving[:2]],
        "edges": [
            *(src, dst, *entering[:2], *exiting[:2], arriving[2], leaving[2]),
            *([first(edge, along) for edge in range(len(edges))] for along in (True, False)),
        ],
        "pairs": [
            *(by_next, [prev[i] for i in by_next], [next[i] for i in by_next]),
            *(by_prev, [next[i] for i in by_prev], [prev[i] for i in by_prev]),
        ],
    }


def check(edge_index: Tensor, nodes: int, order: str | Tensor = "index", batch: Tensor | None = None) -> None:
    open_after = [not any(min(u, v) <= node < max(u, v) for u, v in edge_index.t().tolist()) for node in range(nodes)]
    graph = batch.tolist() if batch is not None else [sum(open_after[:node]) for node in range(nodes)]
    rank = rank_nodes(edge_index, torch.tensor(graph, dtype=torch.long), order, 3).tolist()
    want = plain(edge_index, nodes, graph, rank)
    topology, known = build(edge_index, nodes, order, batch, 3, tables=True)
    found = topology._asdict() | known["tables"][False]._asdict()
    for name, value in want.items():
        got = found[name].tolist() if isinstance(found[name], Tensor) else found[name]
        assert got == value, name
    later = Derived(topology).table(False)  # the same without what was known
    for name, table, other in zip(later._fields, known["tables"][False], later, strict=True):
        assert torch.equal(table, other), name
        assert table.dtype == other.dtype, name


ORDERS = ["index", "degree", "random", "bfs", "rank"]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, int, Tensor | None]:
    """Columns with self-loops and duplicates in both directions, isolated nodes, empty graphs; batch or not."""
    sizes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    edges, start = [], 0
    for size in sizes:
        ends = st.integers(start, start + size - 1) if size else st.nothing()
        edges += draw(st.lists(st.tuples(ends, ends), max_size=7 if size else 0))
        start += size
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)) if draw(st.booleans()) else None
    return columns(*draw(st.permutations(edges))), start, batch


@FEW
@given(cases(), st.sampled_from(ORDERS), st.data())
def test_equals_plain_loops(case, order, data):
    edge_index, nodes, batch = case
    ranks = st.lists(st.integers(0, 3), min_size=nodes, max_size=nodes)
    check(edge_index, nodes, torch.tensor(data.draw(ranks), dtype=torch.long) if order == "rank" else order, batch)


def test_given_keeps_directions():
    check(columns((3, 1), (1, 0), (3, 0), (3, 1), (4, 2)), 6, "given")
    check(columns((3, 1), (1, 0), (4, 2)), 6, "given", torch.tensor([0, 0, 0, 0, 0, 1]) * 0)


def test_graphs_of_every_class_have_their_room():
    """Of a chain of n nodes with n - 1 edges n decides."""
    sizes = [20, 60, 100, 250, 300, 3, 64, 32]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    chains = [torch.stack([torch.arange(n - 1), torch.arange(1, n)]) for n in sizes]
    edges = torch.cat([start + chain for start, chain in zip(starts, chains, strict=True)], 1)
    _, known = build(edges, sum(sizes), tables=True)
    plan = known["tables"][False]
    classes = [sum(n > tile for tile in TILES) for n in sizes]
    assert size_class(torch.tensor(sizes), torch.tensor(sizes) - 1).tolist() == classes
    units = [[1, 2, 4, 8, 0][c] * ((n - 1) + n * (1 + (c > 0))) for n, c in zip(sizes, classes, strict=True)]
    order = sorted(range(len(sizes)), key=lambda g: (classes[g], sizes[g], g))
    assert plan.work[0].tolist() == order
    assert plan.work[1].tolist() == [sum(units[g] for g in order[:i]) for i in range(len(order))]
    rows = {Host.GRAPHS: [1] * 8, Host.NODES: sizes, Host.EDGES: [n - 1 for n in sizes], Host.ROOM: units}
    for row, each in rows.items():
        of_class = [sum(x for x, c in zip(each, classes, strict=True) if c == i) for i in range(5)]
        assert plan.host[row].tolist() == of_class
    assert plan.graphs[Graph.NODES].tolist() == sizes


def test_levels_of_a_deep_graph() -> None:
    nodes = torch.arange(100_000)
    dag = LineDAG.from_edge_index(torch.stack([nodes[:-1], nodes[1:]]))
    assert torch.equal(dag.level, nodes[:-1])
