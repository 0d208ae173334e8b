"""GatedGCN with edge states: the layer and its stacks against loops over edges, gradients included."""

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks

from plstm_graph import PLSTM, PLSTMBlock
from plstm_graph.config.architectures import architecture
from plstm_graph.config.models import ModelConfig
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.models.graph import GraphModel
from plstm_graph.nn.gated import EdgeStates, GatedEdges

CHANNELS, NODES = 4, 6
COLUMNS = torch.tensor([[0, 1, 1, 2, 2, 0, 3, 3, 1, 1], [1, 0, 2, 1, 0, 2, 3, 2, 2, 4]])
"""A ring stored both ways, a loop, columns one way and one of them twice; nothing arrives at node 5."""


def inputs(width: int | None = CHANNELS) -> tuple[Tensor, Tensor | None]:
    edge_attr = None if width is None else torch.randn(COLUMNS.size(1), width).double().requires_grad_()
    return torch.randn(NODES, CHANNELS).double().requires_grad_(), edge_attr


def shaken(module: nn.Module) -> nn.Module:
    """In double precision, with norms that are not those at the start."""
    module.double()
    with torch.no_grad():
        for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
            tensor.add_(torch.rand_like(tensor) * 0.5)
    return module


def normed(norm: nn.Module, rows: Tensor) -> Tensor:
    """Batch norm from its definition."""
    inner = norm.module
    mean, variance = inner.running_mean, inner.running_var
    if norm.training:
        mean, variance = rows.mean(0), (rows - rows.mean(0)).square().mean(0)
    return (rows - mean) / (variance + inner.eps).sqrt() * inner.weight + inner.bias


def by_loops(layer: GatedEdges, x: Tensor, columns: Tensor, edge_attr: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Nodes, and edge states where they evolve: one edge after the other."""
    weights = zip(layer.nodes.weight.chunk(4), layer.nodes.bias.chunk(4), strict=True)
    (u, u_bias), (v, v_bias), (a, a_bias), (b, b_bias) = weights
    hats = []
    for number, (src, dst) in enumerate(columns.t().tolist()):
        hat = a @ x[dst] + a_bias + b @ x[src] + b_bias
        hats.append(hat if edge_attr is None else hat + layer.edges.weight @ edge_attr[number])
    rows = []
    for node in range(len(x)):
        row, total = (
            u @ x[node] + u_bias,
            sum(
                (torch.sigmoid(hats[number]) for number in range(len(hats)) if columns[1, number] == node),
                torch.zeros(len(u), dtype=x.dtype),
            ),
        )
        for number, (src, dst) in enumerate(columns.t().tolist()):
            if dst == node:
                row = row + torch.sigmoid(hats[number]) / (total + 1e-6) * (v @ x[src] + v_bias)
        rows.append(row)
    nodes = normed(layer.node_norm, torch.stack(rows)).relu()
    if layer.edge_norm is None or edge_attr is None:
        return nodes, None
    return nodes, edge_attr + normed(layer.edge_norm, torch.stack(hats)).relu()


def same_gradients(got: Tensor, want: Tensor, leaves: list[Tensor]) -> None:
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(want)
    one, two = (
        torch.autograd.grad((out * weight).sum(), leaves, allow_unused=True, retain_graph=True) for out in (got, want)
    )
    for first, second in zip(one, two, strict=True):
        assert (first is None) == (second is None)
        if first is not None:
            torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("edge_dim", "evolves"), [(CHANNELS, True), (CHANNELS, False), (3, False), (None, False)])
def test_a_layer_is_the_loop_over_edges(edge_dim: int | None, evolves: bool, training: bool) -> None:
    layer = shaken(GatedEdges(CHANNELS, edge_dim, evolves=evolves)).train(training)
    x, edge_attr = inputs(edge_dim)
    want = by_loops(layer, x, COLUMNS, edge_attr)
    found = layer(x, COLUMNS, edge_attr)
    assert isinstance(found, tuple) == evolves
    got = found if evolves else (found,)
    leaves = [leaf for leaf in (x, edge_attr, *layer.parameters()) if leaf is not None]
    for one, two in zip(got, want, strict=False):
        same_gradients(one, two, leaves)


def test_the_gates_of_a_node_sum_to_one() -> None:
    """Values that are all alike come through as they are, to whatever node something arrives at."""
    layer = GatedEdges(CHANNELS, norm="none").double()
    with torch.no_grad():
        layer.nodes.weight[: 2 * CHANNELS] = 0  # own and value
        layer.nodes.bias[: 2 * CHANNELS] = torch.tensor([0.0, 1.0]).repeat_interleave(CHANNELS)
    want = torch.ones(NODES, CHANNELS).double()
    want[5] = 0
    torch.testing.assert_close(layer(inputs()[0], COLUMNS), want, rtol=0, atol=1e-4)


def stack_by_loops(stack: nn.Module, x: Tensor, edge_attr: Tensor | None) -> Tensor:
    states = stack.edge_states
    x = stack.embed(x)
    edges = states.first.expand(COLUMNS.size(1), -1) if edge_attr is None else states.embed(edge_attr)
    for block in stack.blocks:
        nodes, evolved = by_loops(block.local, block.norm(x), COLUMNS, edges)
        x = x + nodes
        x = x + block.feed_forward(x)
        edges = edges if evolved is None else evolved
    return stack.norm(x)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("edge_dim", [3, None])
@pytest.mark.parametrize("kind", ["model", "local"])
def test_edge_states_go_from_block_to_block(kind: str, edge_dim: int | None, training: bool) -> None:
    """As a model of its own and as the local branch of a stack of pLSTM that has no other layer."""
    if kind == "model":
        config = ModelConfig(model="gatedgcn-edges", width=CHANNELS, layers=3, dropout=0.0)
        stack = architecture("gatedgcn-edges").stacked(config, edge_dim)
    else:
        stack = PLSTM(CHANNELS, CHANNELS, 3, modes="-", local="gatedgcn-edges", edge_dim=edge_dim)
    shaken(stack).train(training)
    x, edge_attr = inputs(edge_dim)
    leaves = [leaf for leaf in (x, edge_attr, *stack.parameters()) if leaf is not None]
    want = stack_by_loops(stack, x, edge_attr)
    same_gradients(stack(x, COLUMNS, edge_attr=edge_attr), want, leaves)
    assert [block.evolves for block in stack.blocks] == [True, True, False]


@pytest.mark.parametrize("edge_dim", [3, None])
def test_gates_of_plstm_read_what_the_block_before_made_of_the_edges(edge_dim: int | None) -> None:
    stack = PLSTM(CHANNELS, CHANNELS, 2, heads=2, local="gatedgcn-edges", edge_dim=edge_dim).double()
    x, edge_attr = inputs(edge_dim)
    read, left = [], []
    for block in stack.blocks:
        block.convs[0].register_forward_pre_hook(lambda _, args: read.append(args[2]))
        block.local.register_forward_hook(lambda _, args, out: left.append(out))
    out = stack(x, COLUMNS, edge_attr=edge_attr)
    assert torch.equal(read[0], stack.edge_states(edge_attr, COLUMNS))
    assert torch.equal(read[1], left[0][1])
    assert isinstance(left[1], Tensor)
    grads = torch.autograd.grad(out.square().sum(), [*stack.parameters()], allow_unused=True)
    unread = {name for (name, _), grad in zip(stack.named_parameters(), grads, strict=True) if grad is None}
    assert not unread


def test_the_order_of_columns_is_of_no_account() -> None:
    layer = shaken(GatedEdges(CHANNELS, CHANNELS, evolves=True))
    x, edge_attr = inputs()
    order = torch.randperm(COLUMNS.size(1))
    nodes, edges = layer(x, COLUMNS, edge_attr)
    moved, shuffled = layer(x, COLUMNS[:, order], edge_attr[order])
    torch.testing.assert_close(moved, nodes)
    torch.testing.assert_close(shuffled, edges[order])


def test_nodes_may_be_renumbered() -> None:
    layer = shaken(GatedEdges(CHANNELS, CHANNELS, evolves=True))
    x, edge_attr = inputs()
    place = torch.randperm(NODES)
    nodes, edges = layer(x, COLUMNS, edge_attr)
    moved, same = layer(x[place.argsort()], place[COLUMNS], edge_attr)
    torch.testing.assert_close(moved[place], nodes)
    torch.testing.assert_close(same, edges)


@pytest.mark.parametrize("columns", [0, 1])
def test_hardly_any_edge_is_no_error(columns: int) -> None:
    stack = PLSTM(CHANNELS, CHANNELS, 2, modes="-", local="gatedgcn-edges", edge_dim=3)
    x = torch.randn(3, CHANNELS, requires_grad=True)
    out = stack(x, COLUMNS[:, :columns], edge_attr=torch.randn(columns, 3))
    out.sum().backward()
    assert out.isfinite().all()
    assert all(tensor.isfinite().all() for tensor in stack.state_dict().values())
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in stack.parameters())


def test_a_masked_edge_is_none() -> None:
    """An Explainer's mask takes the message and its gate away, so that the others share what it had."""
    layer = GatedEdges(CHANNELS, 3).double()
    x, edge_attr = inputs(3)
    mask = torch.ones(COLUMNS.size(1)).double()
    mask[[1, 4]] = 0
    set_masks(layer, mask, COLUMNS, apply_sigmoid=False)
    got = layer(x, COLUMNS, edge_attr)
    clear_masks(layer)
    kept = mask > 0
    torch.testing.assert_close(got, layer(x, COLUMNS[:, kept], edge_attr[kept]))


def test_both_ways_and_no_edge_features() -> None:
    config = ModelConfig(model="gatedgcn-edges", width=8, layers=2, rwse=0, both_ways=True, edge_features=False)
    model = GraphModel(FeatureSpec(node_dim=3, edge_dim=2), 1, config)
    graph = Data(x=torch.randn(4, 3), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]), edge_attr=torch.randn(3, 2))
    assert model(Batch.from_data_list([graph, graph])).isfinite().all()


def test_a_reset_draws_all_anew() -> None:
    stack = PLSTM(CHANNELS, CHANNELS, 2, heads=2, local="gatedgcn-edges")
    before = {name: tensor.clone() for name, tensor in stack.named_parameters()}
    stack.reset_parameters()
    drawn = ("edge_states.first", "blocks.0.local.nodes.weight", "blocks.0.local.edges.weight")
    for name in drawn:
        assert not torch.equal(stack.get_parameter(name), before[name]), name


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="as wide as nodes, got channels=4, edge_dim=3"):
        GatedEdges(4, 3, evolves=True)
    x, columns = torch.randn(NODES, CHANNELS), COLUMNS
    missing = r"edge_attr \[M, 3\] is missing, which the local branch reads"
    for call in (lambda: GatedEdges(4, 3)(x, columns), lambda: EdgeStates(3, 4)(None, columns)):
        with pytest.raises(ShapeError, match=missing):
            call()
    features = torch.randn(COLUMNS.size(1), 3)
    for call in (lambda: GatedEdges(4)(x, columns, features), lambda: EdgeStates(None, 4)(features, columns)):
        with pytest.raises(ConfigError, match="without edge_dim; give it edge_dim=3"):
            call()
    with pytest.raises(ShapeError, match=r"edge_attr must be floating point, \[M, 3\]"):
        EdgeStates(3, 4)(features[:, :2], columns)
    assert EdgeStates(1, 4)(features[:, 0], columns).shape == (COLUMNS.size(1), 4)
    nodes, edges = PLSTMBlock(4, 2, edge_dim=4, local=GatedEdges(4, 4, evolves=True))(
        x, columns, torch.randn(COLUMNS.size(1), 4)
    )
    assert (nodes.shape, edges.shape) == ((NODES, 4), (COLUMNS.size(1), 4))
