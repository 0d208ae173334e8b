"""Layers share a line graph, and none ever gets that of other numbers."""

import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch_geometric import EdgeIndex
from torch_geometric.utils import to_torch_coo_tensor

from plstm_graph import PLSTM, LineDAG, PLSTMBlock, PLSTMConv
from plstm_graph.errors import ConfigError
from plstm_graph.line_dag import share_line_graphs, sharing

NODES = 6
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 5, 3]])
OTHER = torch.tensor([[0, 1, 2, 0, 4, 1], [2, 2, 5, 4, 5, 3]])
X = torch.randn(NODES, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    sharing._kept.clear()
    yield
    sharing._kept.clear()
    share_line_graphs(4)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What line graphs have been built from."""
    found: list[Tensor] = []
    build = LineDAG.from_edge_index
    monkeypatch.setattr(LineDAG, "from_edge_index", lambda e, *a, **k: found.append(e.clone()) or build(e, *a, **k))
    return found


def layer(**options) -> PLSTMConv:
    torch.manual_seed(0)
    return PLSTMConv(4, 4, **options)


def alone(conv: PLSTMConv, edge_index: Tensor) -> Tensor:
    """What a layer makes of a graph that nothing else has seen."""
    return conv(X, edge_index, dag=LineDAG.from_edge_index(edge_index.clone(), NODES, order=conv.order))


def test_one_forward_and_its_backward_build_once(builds: list[Tensor]) -> None:
    """Of layers of both modes and directions, of a block and a stack, and of layers that run again going back."""
    edge_index, x = EDGES.clone(), X.clone().requires_grad_()
    layers = [layer(mode=mode, reverse=reverse) for mode in "PD" for reverse in (False, True)]
    out = x
    for conv in (*layers, PLSTMBlock(4, 2), PLSTM(4, 4, 2, heads=2)):
        out = checkpoint(conv, out, edge_index, use_reentrant=False)
    out.sum().backward()
    assert len(builds) == 1


def in_place(edge_index: Tensor) -> Tensor:
    return edge_index.copy_(OTHER)


def past_the_version(edge_index: Tensor) -> Tensor:
    edge_index.data.copy_(OTHER)
    return edge_index


def through_numpy(edge_index: Tensor) -> Tensor:
    edge_index.numpy()[:] = OTHER.numpy()
    return edge_index


def other_memory(edge_index: Tensor) -> Tensor:
    edge_index.data = OTHER.clone()
    return edge_index


def resized(edge_index: Tensor) -> Tensor:
    return edge_index.resize_(2, 5).copy_(OTHER[:, :5])


def a_view(edge_index: Tensor) -> Tensor:
    return edge_index.flip(1)[:, ::2]


def turned(edge_index: Tensor) -> Tensor:
    return edge_index.t().contiguous().view(2, 6)


def freed_and_used_again(edge_index: Tensor) -> Tensor:
    """The very memory of one that is gone."""
    memory = edge_index.numpy()
    del edge_index
    again = torch.from_numpy(memory)
    memory[:] = OTHER.numpy()
    return again


TRICKS: list[Callable[[Tensor], Tensor]] = [
    *(in_place, past_the_version, through_numpy, other_memory, resized, a_view, turned, freed_and_used_again)
]


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("trick", TRICKS)
def test_other_numbers_are_another_graph(trick: Callable[[Tensor], Tensor], inference: bool) -> None:
    conv = layer()
    with torch.inference_mode(inference):
        edge_index = EDGES.clone()
        assert torch.equal(conv(X, edge_index), alone(conv, EDGES))
        edge_index = trick(edge_index)
        want = alone(conv, edge_index)
        assert torch.equal(conv(X, edge_index), want)
        assert not torch.equal(want, alone(conv, EDGES))


def test_changed_between_forward_and_backward() -> None:
    """Gradients are those of the graph that was read."""
    found = []
    for change in (False, True):
        conv, edge_index = layer(), EDGES.clone()
        out = conv(X, edge_index)
        if change:
            edge_index.copy_(OTHER)
            conv(X, edge_index)
        out.square().sum().backward()
        found.append([p.grad for p in conv.parameters()])
    assert all(map(torch.equal, *found))


def test_what_else_a_line_graph_depends_on(builds: list[Tensor]) -> None:
    edge_index = EDGES.clone()
    first = layer()(X, edge_index)
    assert not torch.equal(layer(order="degree")(X, edge_index), first)
    assert torch.equal(layer()(X, edge_index), first)
    rank = torch.arange(NODES).flip(0)
    assert not torch.equal(layer(order=rank)(X, edge_index), first)
    rank.copy_(torch.arange(NODES))
    assert torch.equal(layer(order=rank)(X, edge_index), first)
    assert layer()(torch.cat([X, X]), edge_index).size(0) == 2 * NODES
    batch, stack = torch.zeros(NODES, dtype=torch.long), PLSTM(4, 4, 1, heads=2, virtual_node=True)
    edges = EDGES[:, :2].clone()
    for same in (torch.tensor([0, 0, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 1, 1, 1])):
        batch.copy_(same)
        want = stack.eval()(X, edges, batch=same.clone(), dag=LineDAG.from_edge_index(edges, NODES, batch=same))
        assert torch.equal(stack(X, edges, batch=batch), want)
    assert len(builds) == 9  # two of them for comparison


def test_the_same_numbers_elsewhere_are_the_same_graph(builds: list[Tensor]) -> None:
    edge_index, conv = EDGES.clone(), layer()
    coo = to_torch_coo_tensor(EDGES, size=NODES).t()
    outputs = [conv(X, other) for other in (edge_index, EDGES.clone(), edge_index[:, :], EdgeIndex(edge_index))]
    assert len(builds) == 1
    outputs += [conv(X, coo), conv(X, coo)]
    assert len(builds) <= 2
    assert all(torch.equal(out, outputs[0]) for out in outputs)


def test_another_stream_builds_its_own(builds: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    edge_index = EDGES.clone()
    for stream, count in ((0, 1), (7, 2), (7, 2), (0, 2)):
        monkeypatch.setattr(sharing, "_stream", lambda tensor, stream=stream: stream)
        layer()(X, edge_index)
        assert len(builds) == count


def test_transformed_and_compiled_layers(builds: list[Tensor]) -> None:
    conv, edge_index = layer(backend="scatter"), EDGES.clone()
    want = alone(conv, EDGES)
    many = torch.vmap(lambda x: conv(x, edge_index))(torch.stack([X, X]))
    assert torch.allclose(many, want.expand(2, -1, -1), atol=1e-6)
    torch.func.grad(lambda x: conv(x, edge_index).sum())(X)
    assert len(builds) == 2  # that of ``alone``, and one
    compiled = torch.compile(conv, backend="eager")
    assert torch.allclose(compiled(X, edge_index), want, atol=1e-6)
    edge_index.copy_(OTHER)
    assert torch.allclose(compiled(X, edge_index), alone(conv, OTHER), atol=1e-6)


def test_threads_do_not_get_in_each_others_way() -> None:
    """Replicas of a model run in threads of one process."""
    conv, graphs = layer(), [EDGES, OTHER, EDGES.flip(1), OTHER.flip(1), EDGES[:, 1:], OTHER[:, 1:]]
    want = [alone(conv, graph) for graph in graphs]

    def run(number: int) -> bool:
        graph = graphs[number % 6].clone()
        return all(torch.equal(conv(X, graph), want[number % 6]) for _ in range(3))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(48)))


def test_none_outlives_its_edge_index_and_few_are_kept() -> None:
    conv, edge_index = layer(), EDGES.clone()
    conv(X, edge_index)
    (kept,) = sharing._kept.values()
    dag = weakref.ref(kept.dag)
    del kept
    gc.disable()
    try:
        del edge_index
        assert not sharing._kept
        assert dag() is None
    finally:
        gc.enable()
    alive = [EDGES[:, i:].clone() for i in range(6)]
    for graph in (*alive, alive[3]):
        conv(X, graph)
    assert [kept.numbers[0].size(1) for kept in sharing._kept.values()] == [4, 2, 1, 3]
    share_line_graphs(1)
    assert len(sharing._kept) == 1


def test_switched_off(builds: list[Tensor]) -> None:
    share_line_graphs(0)
    conv, edge_index = layer(), EDGES.clone()
    conv(X, edge_index)
    conv(X, edge_index)
    assert len(builds) == 2
    assert not sharing._kept
    with pytest.raises(ConfigError, match="must be 0 or more, got -1"):
        share_line_graphs(-1)
