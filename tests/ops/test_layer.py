"""A layer as one node of autograd: what its steps in plain PyTorch compute, and nothing that only they can serve."""

from functools import partial
from itertools import product

import pytest
import torch
from backends import HERE, every
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.utils import to_undirected

from plstm_graph import LineDAG, PLSTMConv
from plstm_graph.nn import conv as module
from plstm_graph.nn.norm import MultiHeadRMSNorm
from plstm_graph.ops import layer as fused
from plstm_graph.ops.compiled import HOMES
from plstm_graph.ops.flat import GATES, places

COMPILED_HERE = [place for place in HERE if place[0] in HOMES]
EVERY = every(*COMPILED_HERE)
READINGS = pytest.mark.parametrize(("mode", "reverse"), list(product("PD", (False, True))))
IN, EDGE_IN = 5, 3


def graph(device: str, repeated: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Features, columns in both directions with a self-loop, perhaps some of them twice, and edge features."""
    generator = torch.Generator().manual_seed(0)
    columns = to_undirected(torch.randint(40, (2, 60), generator=generator), num_nodes=40)
    if repeated:
        columns = torch.cat([columns, columns[:, ::3]], 1)
    x = torch.randn(40, IN, generator=generator)
    edge_attr = torch.randn(columns.size(1), EDGE_IN, generator=generator)
    return x.to(device), columns.to(device), edge_attr.to(device)


def build(backend: str, device: str, **options) -> PLSTMConv:
    torch.manual_seed(0)
    conv = PLSTMConv(IN, 4, heads=2, backend=backend, **{"edge_dim": EDGE_IN, **options}).to(device)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return conv


def outcome(conv: nn.Module, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None, run=None) -> list[Tensor]:
    """Output and the gradients of features and weights; ``run`` is the layer with some arguments given."""
    given = [t.detach().clone().requires_grad_() for t in (x, edge_attr) if t is not None]
    out = (run or conv)(given[0], edge_index, *given[1:])
    unused = conv.lin_edge is not None and edge_attr is None
    found = torch.autograd.grad(out.sin().sum(), [*given, *conv.parameters()], allow_unused=unused)
    return [out, *(g for g in found if g is not None)]


def stepwise(conv: PLSTMConv, *given) -> list[Tensor]:
    """The same weights in plain PyTorch."""
    conv.backend, backend = "scatter", conv.backend
    found = outcome(conv, *given)
    conv.backend = backend
    return found


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """Names of the backends that ran a layer as one."""
    calls = []

    def layer(setting, *arguments):
        calls.append(setting.backend)
        return fused.layer(setting, *arguments)

    monkeypatch.setattr(module, "layer", layer)
    return calls


@EVERY
@READINGS
@pytest.mark.parametrize("repeated", [False, True], ids=["simple", "columns twice"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"concat": False},
        {"bias": False},
        {"edge_dim": None, "key_channels": 3},
        {"transition": "saturating", "output_norm": "soft"},
    ],
    ids=str,
)
def test_equals_the_steps(ran, backend, device, mode, reverse, repeated, options):
    """In float64, entry by entry: output and every gradient."""
    conv = build(backend, device, mode=mode, reverse=reverse, **options).double()
    x, edge_index, edge_attr = graph(device, repeated)
    given = x.double(), edge_index, None if conv.lin_edge is None else edge_attr.double()
    for got, want in zip(outcome(conv, *given), stepwise(conv, *given), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert ran == [backend]


@EVERY
@READINGS
@pytest.mark.parametrize("repeated", [False, True], ids=["simple", "columns twice"])
def test_many_nodes(backend, device, mode, reverse, repeated):
    """A batch that fills a GPU: the same as step by step in float64; in float32 the same bits time and again."""
    nodes = 40_000 if device == "cuda" else 200  # graphs of 20 nodes
    generator = torch.Generator().manual_seed(1)
    first = torch.arange(nodes)
    random = torch.stack([first, first // 20 * 20 + torch.randint(20, (nodes,), generator=generator)])
    chain = torch.stack([first, first + 1])[:, first % 20 < 19]
    columns = to_undirected(torch.cat([random, chain], 1), num_nodes=nodes)
    columns = torch.cat([columns, columns[:, ::3]], 1) if repeated else columns
    x = torch.randn(nodes, IN, generator=generator).to(device)
    edge_attr = torch.randn(columns.size(1), EDGE_IN, generator=generator).to(device)
    conv = build(backend, device, mode=mode, reverse=reverse)
    run = partial(conv, dag=LineDAG.from_edge_index(columns, nodes, batch=first // 20).to(device))
    once, again = (outcome(conv, x, columns.to(device), edge_attr, run) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    given = x.double(), columns.to(device), edge_attr.double(), run
    conv.double()
    for got, want in zip(outcome(conv, *given), stepwise(conv, *given), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * want.abs().max().item())


@EVERY
def test_edge_features_may_be_left_out(ran, backend, device):
    conv = build(backend, device).double()
    x, edge_index, _ = graph(device)
    for got, want in zip(
        outcome(conv, x.double(), edge_index, None), stepwise(conv, x.double(), edge_index, None), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert ran == [backend]


@EVERY
def test_auto_runs_it_as_one(ran, backend, device):
    """With all that PyTorch 2.7 and numba bring, nobody has to name a backend."""
    build("auto", device)(*graph(device))
    assert ran == [backend]


@EVERY
def test_twice_through_one_graph(backend, device):
    """What the first backward pass used up is found again, to the same bits."""
    conv = build(backend, device)
    x, edge_index, edge_attr = graph(device)
    loss = conv(x.requires_grad_(), edge_index, edge_attr).sin().sum()
    leaves = [x, *conv.parameters()]
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@EVERY
def test_gradients_of_gradients_are_refused(backend, device):
    """Not taken for zero where the output enters the loss linearly. A graph of the backward pass changes nothing."""
    conv = build(backend, device)
    x, edge_index, edge_attr = graph(device)
    out = conv(x.requires_grad_(), edge_index, edge_attr)
    for loss in (out.sin().sum(), out.sum()):
        (want,) = torch.autograd.grad(loss, x, retain_graph=True)
        (got,) = torch.autograd.grad(loss, x, create_graph=True)
        assert torch.equal(got, want)
        with pytest.raises(RuntimeError, match="no second derivatives; use backend='scatter'"):
            got.pow(2).sum().backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="no second derivatives; use backend='scatter'"):
            torch.autograd.grad(got.pow(2).sum(), x, retain_graph=True)
    again = checkpoint(conv, x, edge_index, edge_attr, use_reentrant=False)  # it gives what was saved but once
    (got,) = torch.autograd.grad(again.sin().sum(), x, create_graph=True)
    torch.testing.assert_close(got, torch.autograd.grad(out.sin().sum(), x, retain_graph=True)[0])
    with pytest.raises(RuntimeError, match="no second derivatives; use backend='scatter'"):
        torch.autograd.grad(got.pow(2).sum(), x)
    for transform in (torch.autograd.functional.hvp, torch.autograd.functional.jvp):
        with pytest.raises(RuntimeError, match="no second derivatives; use backend='scatter'"):
            transform(lambda x: conv(x, edge_index, edge_attr).sum(), x.detach(), x.detach())


@EVERY
def test_maps_of_unequal_dtypes(backend, device):
    """Edges in float64, nodes in float32, as step by step."""
    conv = build(backend, device)
    conv.lin_edge.double()
    x, edge_index, edge_attr = graph(device)
    given = x, edge_index, edge_attr.double()
    for got, want in zip(outcome(conv, *given), stepwise(conv, *given), strict=True):
        assert got.dtype == want.dtype
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@EVERY
def test_only_what_is_asked_for(backend, device):
    """Frozen weights and features without gradient cost none and change nothing for the others."""
    conv = build(backend, device)
    x, edge_index, edge_attr = graph(device)
    _, want, *_ = outcome(conv, x, edge_index, edge_attr)
    conv.requires_grad_(False)
    x.requires_grad_()
    conv(x, edge_index, edge_attr).sin().sum().backward()
    assert torch.equal(x.grad, want)
    assert all(p.grad is None for p in conv.parameters())
    free = conv(x.detach(), edge_index, edge_attr)
    assert not free.requires_grad


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(backend, device, dtype):
    """Linear maps in half precision, gradients in the dtype of what they are of."""
    conv = build(backend, device)
    given = graph(device)
    want = outcome(conv, *given)
    with torch.autocast(device, dtype):
        got = outcome(conv, *given)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.1 * b.detach().abs().max().item())
    with torch.autocast(device, dtype):
        steps = stepwise(conv, *given)
    for a, b in zip(got, steps, strict=True):
        assert a.dtype == b.dtype


@EVERY
def test_autocast_sums_gradients_of_biases_in_float32(backend, device):
    """Over the nodes of a batch they pass what float16 can hold, where no gradient of a node does."""
    conv, copies = build(backend, device, edge_dim=None), 50
    dag = LineDAG.collate(copies * [LineDAG.from_edge_index(graph("cpu")[1], 40)]).to(device)
    x = graph(device)[0].repeat(copies, 1)

    def gradient(factor: float) -> Tensor:
        return torch.autograd.grad(conv(x, None, dag=dag).sin().sum() * factor, conv.lin.bias)[0]

    want = gradient(1.0)
    factor = 1e5 / want.abs().max().item()
    with torch.autocast(device, torch.float16):
        got = gradient(factor)
    assert got.abs().max() > torch.finfo(torch.float16).max
    torch.testing.assert_close(got / factor, want, rtol=0.1, atol=0.1 * want.abs().max().item())


@EVERY
def test_autocast_leaves_float64_alone(backend, device):
    conv = build(backend, device).double()
    x, edge_index, edge_attr = graph(device)
    given = x.double(), edge_index, edge_attr.double()
    want = outcome(conv, *given)
    with torch.autocast(device, torch.bfloat16):
        got = outcome(conv, *given)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@EVERY
@pytest.mark.parametrize("part", ["lin", "lin_edge", "norm"])
def test_parts_that_are_watched_run_one_by_one(ran, backend, device, part):
    """A hook sees its module run, a module of another kind is called."""
    given = graph(device)
    conv = build(backend, device)
    want = conv(*given)
    ran.clear()
    seen = []
    handle = getattr(conv, part).register_forward_hook(lambda *_: seen.append(part))
    torch.testing.assert_close(conv(*given), want, rtol=1e-4, atol=1e-5)
    assert (seen, ran) == ([part], [])
    handle.remove()
    conv(*given)
    assert ran == [backend]

    class Other(type(getattr(conv, part))):
        pass

    getattr(conv, part).__class__ = Other
    torch.testing.assert_close(conv(*given), want, rtol=1e-4, atol=1e-5)
    assert ran == [backend]


@EVERY
def test_weights_under_a_parametrisation(ran, backend, device):
    """Weight norm and the like change what ``weight`` is."""
    conv = build(backend, device)
    given = graph(device)
    nn.utils.parametrizations.weight_norm(conv.lin)
    for got, want in zip(outcome(conv, *given), stepwise(conv, *given), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert ran == []


@EVERY
@pytest.mark.parametrize("name", ["lin.bias", "gate_bias", "norm.weight", "bias"])
def test_parameters_with_gaps(ran, backend, device, name):
    """A parameter may be a slice of another tensor."""
    conv = build(backend, device).double()
    part, _, leaf = name.rpartition(".")
    module = conv.get_submodule(part)
    whole = torch.stack(2 * [getattr(module, leaf).detach()], -1)
    whole[..., 1] = torch.nan
    setattr(module, leaf, nn.Parameter(whole[..., 0]))
    assert not getattr(module, leaf).is_contiguous()
    x, edge_index, edge_attr = graph(device)
    given = x.double(), edge_index, edge_attr.double()
    for got, want in zip(outcome(conv, *given), stepwise(conv, *given), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert ran == [backend]


def test_a_norm_of_ones_own_is_kept():
    conv = PLSTMConv(IN, 4, heads=2)
    conv.norm = nn.Identity()
    x, edge_index, _ = graph("cpu")
    assert not isinstance(conv.norm, MultiHeadRMSNorm)
    assert conv(x, edge_index).shape == (40, 8)


@EVERY
@pytest.mark.parametrize("mode", ["P", "D"])
@pytest.mark.parametrize("by_column", [False, True], ids=["by row", "by column"])
def test_registration(backend, device, mode, by_column):
    """The fake implementations make tensors like the real ones', and no input is written to, however inputs lie."""
    x, edge_index, edge_attr = graph(device)
    conv = build(backend, device, mode=mode)
    dag = LineDAG.from_edge_index(edge_index, 40)
    dag = dag.prune() if mode == "D" else dag
    setting = fused.Setting(backend, 2, 4, mode, "tanh", False, dag.merged, conv.norm.eps, True)
    edge_attr = dag.gather_edges(edge_attr) if dag.merged else edge_attr
    weights = conv.lin.weight, conv.lin.bias, conv.lin_edge.weight
    inputs = [x.detach() for x in (x, edge_attr, *weights, conv.gate_bias, conv.norm.weight, conv.bias)]
    if by_column:  # products take them so, and the layer sees to it that the rest is contiguous
        inputs[:5] = [x if x.dim() == 1 else x.t().contiguous().t() for x in inputs[:5]]
    plan = dag.plan(4)
    given = (*setting, *inputs, list(plan))
    ops = torch.ops.plstm_graph
    output, *kept = ops.layer(*given)
    assert kept[-1].numel() == places(plan, 2)[GATES]
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.layer.default, given, test_utils=checks)
    back = (*given, kept, torch.randn_like(output), [True] * len(inputs))
    torch.library.opcheck(ops.layer_backward.default, back, test_utils=checks)
    assert [g.shape for g in ops.layer_backward(*back)] == [x.shape for x in inputs]
