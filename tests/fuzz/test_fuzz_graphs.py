"""Edge lists, ranks, batch vectors and numbers of nodes, right and wrong: a line graph that holds, or an error."""

from typing import Any

import torch
from fuzzing import fuzz, told
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Batch, Data

from plstm_graph import LineDAG, PLSTMConv
from plstm_graph.errors import PLSTMGraphError
from plstm_graph.transforms import AddLineDAG, OrientDAG

KINDS = st.sampled_from([torch.long] * 6 + [torch.int32, torch.int16, torch.uint8, torch.bool, torch.float32])
ORDERS = ["index", "bfs", "dfs", "degree", "random", "given", "canonical", "", "nonsense"]


@st.composite
def edge_lists(draw: st.DrawFn, high: int = 12, wrong: bool = True) -> Tensor:
    """[2, M]; where ``wrong``, now and then another shape, type or range."""
    low = draw(st.sampled_from([0, 0, 0, 0, -1])) if wrong else 0
    count = draw(st.integers(0, 24))
    numbers = draw(st.lists(st.integers(low, high - 1), min_size=2 * count, max_size=2 * count))
    edges = torch.tensor(numbers, dtype=torch.long).view(2, count)
    if draw(st.booleans()):
        edges = torch.cat([edges, edges.flip(0)], 1)
    if wrong and draw(st.integers(0, 9)) == 0:
        edges = draw(st.sampled_from([edges.view(-1), edges[:1], edges.t(), edges[None], edges * 10**12, edges[:, :0]]))
    return edges.to(draw(KINDS)) if wrong else edges


@st.composite
def orders(draw: st.DrawFn, size: int) -> Any:
    if draw(st.booleans()):
        return draw(st.sampled_from(ORDERS))
    size = max(0, size + draw(st.sampled_from([0, 0, 0, 1, -1])))
    values = [0, 1, 2, 3, -5, 2**40] if draw(st.booleans()) else [0.5, -1.0, float("inf"), float("nan"), 2.0]
    return torch.tensor(draw(st.lists(st.sampled_from(values), min_size=size, max_size=size)))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Tensor, dict[str, Any]]:
    edges = draw(edge_lists())
    num_nodes = draw(st.sampled_from([None, 12, 12, 12, 15, 5, 0, -1]))
    size = num_nodes if num_nodes is not None else int(edges.max()) + 1 if edges.numel() else 0
    size = min(max(size, 0), 1000)
    batch = None
    if draw(st.integers(0, 2)) == 0:
        numbers = draw(
            st.lists(st.integers(-1 if draw(st.integers(0, 5)) == 0 else 0, 3), min_size=size, max_size=size)
        )
        batch = torch.tensor(sorted(numbers) if draw(st.integers(0, 5)) else numbers, dtype=torch.long)
        batch = batch if draw(st.integers(0, 9)) else draw(st.sampled_from([batch.float(), batch[1:], batch[None]]))
        if edges.dim() == 2 and edges.size(0) == 2 and size == 12 and batch.shape == (12,) and draw(st.booleans()):
            inside = edges.long().clamp(0, 11)
            edges = edges[:, batch[inside[0]] == batch[inside[1]]]
    return edges, {"num_nodes": num_nodes, "order": draw(orders(size)), "batch": batch, "seed": draw(st.integers(0, 9))}


def check(dag: LineDAG, edges: Tensor) -> None:
    """The line graph holds in all its views, and every column became the edge between its ends."""
    for view in (dag, dag.reverse(), dag.prune(), dag.prune().reverse()):
        view.validate()
    proper = edges[0] != edges[1]
    assert (dag.column >= 0).equal(proper)
    ends = torch.stack([dag.src, dag.dst])[:, dag.column[proper]]
    assert ends.sort(0).values.equal(edges[:, proper].long().sort(0).values)
    assert dag.column_along[proper].equal(ends[0] == edges[0, proper])
    assert len(set(zip(dag.src.tolist(), dag.dst.tolist(), strict=True))) == dag.num_edges


@fuzz(0.2, graph=graphs())
def test_an_edge_list_is_a_line_graph_or_an_error(graph: tuple[Tensor, dict[str, Any]]) -> None:
    edges, options = graph
    with told():
        check(LineDAG.from_edge_index(edges, **options), edges)


@fuzz(
    0.08,
    edges=edge_lists(),
    nodes=st.sampled_from([12, 12, 12, 13, 5, 0]),
    order=st.sampled_from(ORDERS),
    mode=st.sampled_from("PD"),
    reverse=st.booleans(),
    width=st.sampled_from([None, 2, 2, 3]),
)
def test_a_layer_reads_a_graph_or_refuses_it(
    edges: Tensor, nodes: int, order: str, mode: str, reverse: bool, width: int | None
) -> None:
    attributes = None if width is None or edges.dim() != 2 else torch.ones(edges.size(1), width)
    with told():
        conv = PLSTMConv(4, 2, heads=2, mode=mode, reverse=reverse, order=order, edge_dim=width and 2)
        try:
            found = conv(torch.ones(nodes, 4, requires_grad=True), edges, attributes)
        except RuntimeError as error:  # torch says well enough that widths do not fit
            if isinstance(error, PLSTMGraphError) or width == 3:
                return
            raise
        found.sum().backward()
        assert found.shape == (nodes, 4)
        assert found.isfinite().all()


@fuzz(0.05, lists=st.lists(edge_lists(6, wrong=False), min_size=1, max_size=4), order=st.sampled_from(ORDERS))
def test_transforms_and_batches_agree(lists: list[Tensor], order: str) -> None:
    with told():
        data = [Data(x=torch.arange(6.0).view(6, 1), edge_index=edges) for edges in lists]
        if order != "given":
            data = [OrientDAG(order)(graph) for graph in data]
        batch = Batch.from_data_list([AddLineDAG(order, prune=True)(graph) for graph in data])
        dag = batch.line_dag
        check(dag, batch.edge_index)
        whole = LineDAG.collate([AddLineDAG(order)(graph).line_dag for graph in data])
        for name in ("src", "dst", "prev", "next", "column", "column_along", "graph_ptr", "edge_ptr"):
            assert getattr(dag, name).equal(getattr(whole, name)), name
