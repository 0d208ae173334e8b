"""PLSTMConv: equals loops over edges and pairs, drops in where PyG expects a conv, honours an Explainer's mask."""

import re
from copy import deepcopy
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.explain import Explainer, GNNExplainer, PGExplainer
from torch_geometric.explain.algorithm import GraphMaskExplainer
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks
from torch_geometric.nn import ASAPooling, GCNConv, GPSConv, Linear, MessagePassing, Sequential, summary, to_hetero
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.testing import assert_module

from plstm_graph import PLSTM, Gates, LineDAG, PLSTMBlock, PLSTMConv
from plstm_graph.errors import BackendUnavailable, ConfigError, ShapeError
from plstm_graph.gates import activate, view
from plstm_graph.nn.linear import GATE_STD
from plstm_graph.ops import BACKENDS

# A diamond with a cross-bar and a tail; every edge stored in both directions, columns in no order.
EDGES = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (3, 4)]
COLUMNS = [(3, 1), (0, 1), (2, 0), (1, 0), (2, 3), (4, 3), (1, 2), (0, 2), (3, 2), (1, 3), (2, 1), (3, 4)]
EDGE_INDEX = torch.tensor(COLUMNS).t().contiguous()
# (0, 1) reaches (3, 4) through (1, 3) already, so D mode drops the pair that would make a second path.
DROPPED = ((2, 3), (3, 4))
NODES, FEATURES, EDGE_FEATURES = 5, 3, 2
READINGS = list(product("PD", (False, True)))


def scrambled(module: nn.Module) -> nn.Module:
    """Every parameter random and of size one, so that every gate matters."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(NODES, FEATURES, dtype=torch.float64), torch.randn(len(COLUMNS), EDGE_FEATURES).double()


def line_graph(mode: str, reverse: bool) -> tuple[list[tuple[int, int]], list[tuple[tuple[int, int], ...]]]:
    """Edges and pairs by hand, as they are read."""
    pairs = [(a, b) for a in EDGES for b in EDGES if a[1] == b[0] and not (mode == "D" and (a, b) == DROPPED)]
    if not reverse:
        return EDGES, pairs
    return [e[::-1] for e in EDGES], [(b[::-1], a[::-1]) for a, b in pairs]


def gates_by_hand(conv: PLSTMConv, x: Tensor, edge_attr: Tensor | None) -> list[dict]:
    """Source, transition, mark and direct as dictionaries of [H] tensors, keyed by node numbers."""
    edges, pairs = line_graph(conv.mode, conv.reverse)
    heads = conv.heads
    node = conv.lin.weight[-8 * heads :].split(heads)
    edge = conv.lin_edge.weight.split(heads) if edge_attr is not None else [x.new_zeros(heads, 1)] * 4
    attr = {c: x.new_zeros(1) if edge_attr is None else edge_attr[i] for i, c in enumerate(COLUMNS)}
    b = conv.gate_bias
    source = {(u, v): (node[0] @ x[u] + node[1] @ x[v] + edge[0] @ attr[u, v] + b[0]).sigmoid() for u, v in edges}
    mark = {(u, v): (node[2] @ x[u] + node[3] @ x[v] + edge[1] @ attr[u, v] + b[2]).sigmoid() for u, v in edges}
    transition = {}
    for prev, next in pairs:
        (tail, joint), head = prev, next[1]
        nodes = node[4] @ x[tail] + node[5] @ x[joint] + node[6] @ x[head]
        transition[prev, next] = (nodes + edge[2] @ attr[prev] + edge[3] @ attr[next] + b[1]).tanh()
    if conv.mode == "P":
        total = {
            e: sum((t.abs() for (prev, _), t in transition.items() if prev == e), b.new_zeros(heads)) for e in edges
        }
        transition = {pair: t / total[pair[0]].clamp(min=1) for pair, t in transition.items()}
    direct = {n: (node[7] @ x[n] + b[3]).sigmoid() for n in range(len(x))}
    return [source, transition, mark, direct]


def output_by_hand(conv: PLSTMConv, x: Tensor, edge_attr: Tensor | None) -> Tensor:
    """Eqs 5 and 6 edge by edge, then norm, heads and bias."""
    edges, _ = line_graph(conv.mode, conv.reverse)
    source, transition, mark, direct = gates_by_hand(conv, x, edge_attr)
    heads, keys = conv.heads, conv.key_channels
    rows = []
    for n in range(len(x)):
        projected = conv.lin.weight[: -8 * heads] @ x[n] + (0 if conv.lin.bias is None else conv.lin.bias)
        rows.append(projected.view(heads, -1).split([keys, keys, conv.out_channels], -1))

    def state(edge: tuple[int, int]) -> Tensor:
        _, key, value = rows[edge[0]]
        entering = source[edge][:, None, None] * key[:, :, None] * value[:, None, :]
        carried = [t[:, None, None] * state(prev) for (prev, next), t in transition.items() if next == edge]
        return entering + sum(carried, torch.zeros_like(entering))

    outputs = []
    for n, (query, key, value) in enumerate(rows):
        query = query / keys**0.5
        y = direct[n][:, None] * (query * key).sum(-1, keepdim=True) * value
        for edge in edges:
            if edge[1] == n:
                y = y + mark[edge][:, None] * torch.einsum("hk,hkv->hv", query, state(edge))
        y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * conv.norm.weight
        y = y.reshape(-1) if conv.concat else y.mean(0)
        outputs.append(y if conv.bias is None else y + conv.bias)
    return torch.stack(outputs)


# ---------------------------------------------------------------------- the mathematics


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("with_edges", [False, True])
@pytest.mark.parametrize(("mode", "reverse"), READINGS)
def test_equals_loops(mode: str, reverse: bool, with_edges: bool, backend: str) -> None:
    x, edge_attr = inputs()
    edge_dim = EDGE_FEATURES if with_edges else None
    conv = scrambled(PLSTMConv(FEATURES, 4, 2, True, mode, reverse, edge_dim, key_channels=3, backend=backend))
    attr = edge_attr if with_edges else None
    try:
        out = conv(x, EDGE_INDEX, attr)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    torch.testing.assert_close(out, output_by_hand(conv, x, attr), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("mode", "reverse"), READINGS)
def test_another_default_device_changes_nothing(mode: str, reverse: bool, backend: str) -> None:
    x, edge_attr = inputs()
    conv = scrambled(PLSTMConv(FEATURES, 4, 2, mode=mode, reverse=reverse, edge_dim=EDGE_FEATURES, backend=backend))
    try:
        want = conv(x, EDGE_INDEX, edge_attr)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    x.requires_grad_()
    with torch.device("meta"):
        out = conv(x, EDGE_INDEX, edge_attr)
        out.backward(torch.ones_like(out))
    assert torch.equal(out, want)


@pytest.mark.parametrize(("concat", "bias"), list(product([True, False], repeat=2)))
def test_heads_concatenated_or_averaged(concat: bool, bias: bool) -> None:
    x, _ = inputs()
    conv = scrambled(PLSTMConv(FEATURES, 4, heads=3, concat=concat, bias=bias))
    out = conv(x, EDGE_INDEX)
    assert out.shape == (NODES, 12 if concat else 4)
    torch.testing.assert_close(out, output_by_hand(conv, x, None), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("mode", "reverse"), READINGS)
def test_factorised_gates_equal_one_linear_map(mode: str, reverse: bool) -> None:
    """Projecting nodes and edges first is the same as one linear map of everything that meets at an edge or pair."""
    x, edge_attr = inputs()
    conv = scrambled(PLSTMConv(FEATURES, 4, 2, mode=mode, reverse=reverse, edge_dim=EDGE_FEATURES))
    dag = view(LineDAG.from_edge_index(EDGE_INDEX, NODES), mode, reverse)
    attr = edge_attr[dag.edge_id]
    w, e = conv.lin.weight[-16:].chunk(8), conv.lin_edge.weight.chunk(4)
    at_edge = torch.cat([x[dag.src], x[dag.dst], attr], 1)
    at_pair = [x[dag.src[dag.prev]], x[dag.dst[dag.prev]], x[dag.dst[dag.next]], attr[dag.prev], attr[dag.next]]
    raw = Gates(
        source=at_edge @ torch.cat([w[0], w[1], e[0]], 1).t() + conv.gate_bias[0],
        transition=torch.cat(at_pair, 1) @ torch.cat([w[4], w[5], w[6], e[2], e[3]], 1).t() + conv.gate_bias[1],
        mark=at_edge @ torch.cat([w[2], w[3], e[1]], 1).t() + conv.gate_bias[2],
        direct=x @ w[7].t() + conv.gate_bias[3],
    )
    for got, want in zip(conv._gates(conv.lin(x)[1], edge_attr, dag), activate(raw, dag, mode), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("mode", "reverse"), READINGS)
def test_every_parameter_has_a_gradient(mode: str, reverse: bool) -> None:
    x, edge_attr = inputs()
    conv = scrambled(PLSTMConv(FEATURES, 4, 2, mode=mode, reverse=reverse, edge_dim=EDGE_FEATURES))
    (conv(x, EDGE_INDEX, edge_attr) * torch.randn(NODES, 8)).sum().backward()
    for name, parameter in conv.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.abs().flatten(1).sum(1) if parameter.dim() > 1 else parameter.grad.abs()).gt(0).all(), (
            name
        )


def test_batch_equals_graphs_one_by_one() -> None:
    conv = scrambled(PLSTMConv(FEATURES, 4, 2, edge_dim=EDGE_FEATURES))
    graphs = [inputs() for _ in range(3)]
    columns = torch.cat([EDGE_INDEX + NODES * i for i in range(3)], 1)
    together = conv(torch.cat([x for x, _ in graphs]), columns, torch.cat([a for _, a in graphs]))
    single = torch.cat([conv(x, EDGE_INDEX, attr) for x, attr in graphs])
    torch.testing.assert_close(together, single, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("mode", "reverse"), READINGS)
def test_relabelling_permutes_the_output(mode: str, reverse: bool) -> None:
    x, edge_attr = inputs()
    rank, perm = torch.randperm(NODES), torch.randperm(NODES)
    x2, rank2 = torch.empty_like(x), torch.empty_like(rank)
    x2[perm], rank2[perm] = x, rank
    weights = scrambled(PLSTMConv(FEATURES, 4, 2, mode=mode, reverse=reverse, edge_dim=EDGE_FEATURES)).state_dict()
    outputs = []
    for order, features, columns in ((rank, x, EDGE_INDEX), (rank2, x2, perm[EDGE_INDEX])):
        conv = PLSTMConv(FEATURES, 4, 2, mode=mode, reverse=reverse, edge_dim=EDGE_FEATURES, order=order).double()
        conv.load_state_dict(weights)
        outputs.append(conv(features, columns, edge_attr))
    torch.testing.assert_close(outputs[1][perm], outputs[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("mode", "reverse"), READINGS)
def test_permuting_columns_is_bit_identical(mode: str, reverse: bool) -> None:
    x, edge_attr = inputs()
    conv = scrambled(PLSTMConv(FEATURES, 4, 2, mode=mode, reverse=reverse, edge_dim=EDGE_FEATURES)).float()
    perm = torch.randperm(len(COLUMNS))
    want = conv(x.float(), EDGE_INDEX, edge_attr.float())
    assert torch.equal(conv(x.float(), EDGE_INDEX[:, perm], edge_attr[perm].float()), want)


def test_directions_read_their_own_columns() -> None:
    """Features of the columns that run against the reading direction play no part."""
    x, edge_attr = inputs()
    along = EDGE_INDEX[0] < EDGE_INDEX[1]
    for reverse in (False, True):
        conv = scrambled(PLSTMConv(FEATURES, 4, reverse=reverse, edge_dim=EDGE_FEATURES))
        want = conv(x, EDGE_INDEX, edge_attr)
        read = along != reverse
        assert torch.equal(conv(x, EDGE_INDEX, torch.where(read[:, None], edge_attr, 7.0)), want)
        assert not torch.allclose(conv(x, EDGE_INDEX, torch.where(read[:, None], 7.0, edge_attr)), want)


def test_self_loops_and_duplicates() -> None:
    """A self-loop is the direct path already; duplicate columns count once, attributes averaged."""
    x, edge_attr = inputs()
    conv = scrambled(PLSTMConv(FEATURES, 4, edge_dim=EDGE_FEATURES))
    columns = torch.cat([EDGE_INDEX, EDGE_INDEX, torch.tensor([[2], [2]])], 1)
    attr = torch.cat([edge_attr + 1, edge_attr - 1, torch.full((1, EDGE_FEATURES), 9.0)])
    want = conv(x, EDGE_INDEX, edge_attr)
    torch.testing.assert_close(conv(x, columns, attr), want, rtol=1e-10, atol=1e-10)


# ---------------------------------------------------------------------- constructor and state


def test_reads_like_gatv2conv() -> None:
    conv = PLSTMConv(16, 8, 4, False)
    assert (conv.in_channels, conv.out_channels, conv.heads, conv.concat) == (16, 8, 4, False)
    assert str(conv) == "PLSTMConv(16, 8, heads=4)"
    assert isinstance(conv, MessagePassing)
    assert conv(torch.randn(NODES, 16), EDGE_INDEX).shape == (NODES, 8)


def test_initial_gates_are_those_of_the_paper() -> None:
    conv = PLSTMConv(16, 8, heads=4)
    assert conv.gate_bias[:, 0].tolist() == [-4, 1, -4, -6]
    assert conv.gate_bias[1].tolist() == pytest.approx([1, 5 / 3, 7 / 3, 3])


@pytest.mark.parametrize("copies", [False, True])
def test_lazy_layer_starts_like_an_eager_one(copies: bool) -> None:
    lazy = PLSTMConv(-1, 32, heads=8, edge_dim=-1)
    lazy = deepcopy(lazy) if copies else lazy
    lazy.reset_parameters()  # as BasicGNN does before the first call
    lazy(torch.randn(NODES, 50), EDGE_INDEX, torch.randn(len(COLUMNS), 40))
    eager = PLSTMConv(50, 32, heads=8, edge_dim=40)
    for name, want in eager.state_dict().items():
        got = lazy.state_dict()[name]
        assert got.shape == want.shape
        if name.endswith("weight") and want.dim() == 2 and "norm" not in name:
            assert float(got.std()) == pytest.approx(float(want.std()), rel=0.15), name
    assert float(lazy.lin.weight[-64:].detach().std()) == pytest.approx(GATE_STD * 50**-0.5, rel=0.15)


def test_one_map_is_drawn_like_a_map_for_vectors_and_one_for_gates() -> None:
    """So that a seed stands for the same weights as when there were two."""
    conv = PLSTMConv(6, 4, 2)
    torch.manual_seed(5)
    conv.lin.reset_parameters()
    torch.manual_seed(5)
    vectors = Linear(6, 24, weight_initializer="glorot")
    torch.manual_seed(5)
    vectors.reset_parameters()
    gates = torch.empty(16, 6).normal_(std=GATE_STD * 6**-0.5)
    assert torch.equal(conv.lin.weight, torch.cat([vectors.weight, gates]))
    assert torch.equal(conv.lin.bias, vectors.bias)


def test_lazy_layer_loads_an_eager_state() -> None:
    x = torch.randn(NODES, 6)
    eager, lazy = PLSTMConv(6, 4), PLSTMConv(-1, 4)
    lazy.load_state_dict(eager.state_dict())
    assert torch.equal(lazy(x, EDGE_INDEX), eager(x, EDGE_INDEX))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("mode", "reverse"), READINGS)
def test_state_loads_under_every_backend(mode: str, reverse: bool, backend: str) -> None:
    x, edge_attr = inputs()
    options = {"mode": mode, "reverse": reverse, "edge_dim": EDGE_FEATURES}
    first = scrambled(PLSTMConv(FEATURES, 4, 2, **options))
    want = first(x, EDGE_INDEX, edge_attr)
    conv = PLSTMConv(FEATURES, 4, 2, **options, backend=backend).double()
    conv.load_state_dict(first.state_dict())
    try:
        out = conv(x, EDGE_INDEX, edge_attr)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    torch.testing.assert_close(out, want, rtol=1e-10, atol=1e-10)


def test_reset_draws_anew_and_repeats_after_a_seed() -> None:
    conv = PLSTMConv(6, 4, 2, edge_dim=3)
    torch.manual_seed(5)
    conv.reset_parameters()
    first = {name: tensor.clone() for name, tensor in conv.state_dict().items()}
    conv.reset_parameters()
    for name in ("lin.weight", "lin.bias", "lin_edge.weight"):
        assert not torch.equal(conv.state_dict()[name], first[name]), name
    torch.manual_seed(5)
    conv.reset_parameters()
    assert all(torch.equal(tensor, first[name]) for name, tensor in conv.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"in_channels": (4, 4)}, "bipartite"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"out_channels": 0}, "out_channels must be at least 1, got 0"),
        ({"key_channels": -1}, "key_channels must be at least 1, got -1"),
        ({"heads": 2.0}, r"heads must be a whole number, got 2\.0"),
        ({"in_channels": -3}, "in_channels must be a whole number, or -1 to read it off the first input, got -3"),
        ({"edge_dim": -2}, "edge_dim must be a whole number, or -1 to read it off the first input, got -2"),
        ({"edge_dim": 2.5}, r"edge_dim must be a whole number, .* got 2\.5"),
        ({"add_self_loops": True}, "add_self_loops.*direct gate"),
        ({"dropout": 0.1}, r"dropout.*nn\.Dropout"),
        ({"negative_slope": 0.2}, "negative_slope"),
        ({"share_weights": True}, "share_weights"),
        ({"residual": True}, "residual.*PLSTMBlock"),
        ({"flow": "target_to_source"}, "flow.*reverse=True"),
        ({"aggr": "max"}, "aggr.*added up"),
        ({"hedas": 4}, "hedas.*unknown keyword"),
        ({"mode": "X"}, "unknown mode 'X'"),
        ({"order": "indx"}, "did you mean 'index'"),
        ({"backend": "numbaa"}, "unknown backend 'numbaa'; choose one of auto, .*did you mean 'numba'"),
    ],
)
def test_refusals_by_name(arguments: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        PLSTMConv(**{"in_channels": 4, "out_channels": 4, **arguments})


def test_a_backend_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names count from when they are entered, and what is taken out again is found out in a call."""
    monkeypatch.setitem(BACKENDS, "zero", lambda query, key, value, gates, dag: torch.zeros_like(value))
    conv = PLSTMConv(FEATURES, 4, backend="zero")
    x = torch.randn(NODES, FEATURES)
    assert not (conv(x, EDGE_INDEX) - conv.bias).any()
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="unknown backend 'zero'"):
        conv(x, EDGE_INDEX)


def test_no_edge_features_is_none_or_zero() -> None:
    """``edge_dim=dataset.num_edge_features`` is 0 where a data set has none."""
    conv = PLSTMConv(FEATURES, 4, edge_dim=0)
    assert conv.lin_edge is None
    assert conv(torch.randn(NODES, FEATURES), EDGE_INDEX).shape == (NODES, 4)


# ---------------------------------------------------------------------- input


def test_bad_input_is_refused() -> None:
    x, edge_attr = (tensor.float() for tensor in inputs())
    plain, with_edges = PLSTMConv(FEATURES, 4), PLSTMConv(FEATURES, 4, edge_dim=EDGE_FEATURES)
    dag = LineDAG.from_edge_index(EDGE_INDEX, NODES)
    with pytest.raises(ShapeError, match="bipartite"):
        plain((x, x), EDGE_INDEX)
    for wrong in (x.unsqueeze(1), x[:, 1:]):
        with pytest.raises(ShapeError, match=rf"x must be \[N, {FEATURES}\], got"):
            plain(wrong, EDGE_INDEX)
    with pytest.raises(ShapeError, match="got ndarray"):
        plain(x.numpy(), EDGE_INDEX)
    with pytest.raises(ShapeError, match=r"floating point, got torch.int64; .*x.float\(\)"):
        plain(x.long(), EDGE_INDEX)
    for wrong in (edge_attr[:, 1:], edge_attr.long(), edge_attr.unsqueeze(-1)):
        with pytest.raises(ShapeError, match=rf"edge_attr must be floating point, \[M, {EDGE_FEATURES}\]"):
            with_edges(x, EDGE_INDEX, wrong)
    for wrong in (EDGE_INDEX.tolist(), EDGE_INDEX.numpy()):
        with pytest.raises(ShapeError, match=f"edge_index must be a tensor.*{type(wrong).__name__}"):
            plain(x, wrong)
    for layer in (plain, PLSTMBlock(FEATURES, 1, directions="along"), PLSTM(FEATURES, 4, 1)):
        with pytest.raises(ShapeError, match="edge_index is None; give it"):
            layer(x, None)
        with pytest.raises(ShapeError, match="edge_index is on meta, x on cpu; move both to one device"):
            layer(x, EDGE_INDEX.to("meta"))
    with pytest.raises(ConfigError, match="without edge_dim"):
        plain(x, EDGE_INDEX, edge_attr)
    with pytest.raises(ShapeError, match=str(len(COLUMNS))):
        with_edges(x, EDGE_INDEX, edge_attr[:-1])
    with pytest.raises(ShapeError, match="0 to 4"):
        plain(x, EDGE_INDEX + 1)
    for other in (x[:-1], torch.cat([x, x])):
        with pytest.raises(ShapeError, match="dag has 5 nodes"):
            plain(other, EDGE_INDEX, dag=dag)
    for wrong in (dag.prune(), dag.reverse(), dag.prune().reverse()):
        with pytest.raises(ShapeError, match="plain dag"):
            plain(x, EDGE_INDEX, dag=wrong)
    with pytest.raises(ShapeError, match="dag is on meta, x on cpu"):
        plain(x, EDGE_INDEX, dag=dag.to("meta"))
    for columns in (EDGE_INDEX[:, :0], EDGE_INDEX[:, 1:], torch.cat([EDGE_INDEX, EDGE_INDEX[:, :1]], 1)):
        with pytest.raises(ShapeError, match=f"built from 12 columns, but edge_index has {columns.size(1)}"):
            plain(x, columns, dag=dag)
    adjacency = torch.sparse_coo_tensor(EDGE_INDEX, edge_attr[:, 0], (NODES, NODES)).coalesce()
    with pytest.raises(ShapeError, match="order of their own"):
        PLSTMConv(FEATURES, 4, edge_dim=1)(x, adjacency, dag=dag)
    with pytest.raises(ConfigError, match="OrientDAG"):
        PLSTMConv(FEATURES, 4, order="canonical")(x, EDGE_INDEX)


@pytest.mark.parametrize(("mode", "reverse"), READINGS)
@pytest.mark.parametrize("order", ["index", "degree", "bfs", "dfs", "random"])
def test_a_given_dag_is_the_one_it_builds(mode: str, reverse: bool, order: str) -> None:
    x, edge_attr = inputs()
    conv = scrambled(PLSTMConv(FEATURES, 4, 2, mode=mode, reverse=reverse, edge_dim=EDGE_FEATURES, order=order))
    dag = LineDAG.from_edge_index(EDGE_INDEX, NODES, order=order)
    assert torch.equal(conv(x, EDGE_INDEX, edge_attr, dag=dag), conv(x, EDGE_INDEX, edge_attr))


def test_a_given_dag_goes_with_whatever_it_was_built_from() -> None:
    """Self-loops and duplicates are columns, too; those of a sparse adjacency may have been merged."""
    x, _ = inputs()
    conv = scrambled(PLSTMConv(FEATURES, 4, 2))
    loops = torch.cat([EDGE_INDEX, EDGE_INDEX[:, :3], torch.tensor([[0, 2], [0, 2]])], 1)
    dag = LineDAG.from_edge_index(loops, NODES)
    want = conv(x, loops)
    adjacency = torch.sparse_coo_tensor(loops.flip(0), torch.ones(loops.size(1)), (NODES, NODES)).coalesce()
    for edge_index in (loops, None, adjacency, adjacency.to_sparse_csr()):
        assert torch.equal(conv(x, edge_index, dag=dag), want)
    pair = LineDAG.collate([dag, LineDAG.from_edge_index(EDGE_INDEX, NODES)])
    both = conv(torch.cat([x, x]), torch.cat([loops, EDGE_INDEX + NODES], 1), dag=pair)
    torch.testing.assert_close(both, torch.cat([want, conv(x, EDGE_INDEX)]))


def test_one_dimensional_edge_features() -> None:
    x, edge_attr = inputs()
    conv = scrambled(PLSTMConv(FEATURES, 4, edge_dim=1))
    weight = edge_attr[:, 0]
    assert torch.equal(conv(x, EDGE_INDEX, weight), conv(x, EDGE_INDEX, weight.unsqueeze(-1)))


@pytest.mark.parametrize(("mode", "reverse"), READINGS)
@pytest.mark.parametrize("nodes", [0, 1, 3])
def test_graphs_without_edges(nodes: int, mode: str, reverse: bool) -> None:
    conv = PLSTMConv(FEATURES, 4, 2, mode=mode, reverse=reverse, edge_dim=EDGE_FEATURES)
    nothing = torch.zeros(2, 0, dtype=torch.long)
    out = conv(torch.randn(nodes, FEATURES), nothing, torch.zeros(0, EDGE_FEATURES))
    out.sum().backward()
    assert out.shape == (nodes, 8)
    assert out.isfinite().all()


def test_autocast_keeps_a_float32_state(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
        seen.extend(tensor.dtype for tensor in (query, key, value, *gates))
        return BACKENDS["scatter"](query, key, value, gates, dag)

    monkeypatch.setitem(BACKENDS, "spy", spy)
    conv = PLSTMConv(FEATURES, 4, 2, edge_dim=EDGE_FEATURES, backend="spy")
    x, edge_attr = (tensor.float() for tensor in inputs())
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x, EDGE_INDEX, edge_attr)
    out.float().sum().backward()
    assert set(seen) == {torch.float32}
    assert out.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in conv.parameters())
    torch.testing.assert_close(out.float(), conv(x, EDGE_INDEX, edge_attr), rtol=0.1, atol=0.1)


# ---------------------------------------------------------------------- PyG


@pytest.mark.parametrize(("mode", "reverse"), READINGS)
def test_assert_module(mode: str, reverse: bool) -> None:
    x = torch.randn(NODES, FEATURES)
    conv = PLSTMConv(FEATURES, 4, 2, mode=mode, reverse=reverse)
    assert_module(conv, x, EDGE_INDEX, expected_size=(NODES, 8))
    one_way = EDGE_INDEX[:, EDGE_INDEX[0] > EDGE_INDEX[1]]
    assert_module(conv, x, one_way, expected_size=(NODES, 8))
    conv = PLSTMConv(FEATURES, 4, 2, mode=mode, reverse=reverse, edge_dim=EDGE_FEATURES)
    edge_attr = torch.randn(len(COLUMNS), EDGE_FEATURES)
    assert_module(conv, x, EDGE_INDEX, edge_attr=edge_attr, expected_size=(NODES, 8), test_sparse_layouts=[])


def test_sparse_values_are_edge_features() -> None:
    x, weight = torch.randn(NODES, FEATURES), torch.rand(len(COLUMNS))
    conv = PLSTMConv(FEATURES, 4, edge_dim=1)
    adjacency = torch.sparse_coo_tensor(EDGE_INDEX.flip(0), weight, (NODES, NODES)).coalesce()
    torch.testing.assert_close(conv(x, adjacency), conv(x, EDGE_INDEX, weight))
    with pytest.raises(ShapeError, match="do not pass edge_attr"):
        conv(x, adjacency, weight)


@pytest.mark.parametrize("edge_dim", [None, 1])
@pytest.mark.parametrize("layout", ["coo", "csr", "csc", "SparseTensor"])
def test_sparse_layouts(layout: str, edge_dim: int | None) -> None:
    """Any sparse adjacency, transposed as PyG wants it, is the graph it stands for; its values are edge features."""
    x, weight = torch.randn(NODES, FEATURES), torch.rand(len(COLUMNS))
    conv = PLSTMConv(FEATURES, 4, 2, edge_dim=edge_dim)
    coo = torch.sparse_coo_tensor(EDGE_INDEX.flip(0), weight, (NODES, NODES)).coalesce()
    if layout == "SparseTensor":
        sparse = pytest.importorskip("torch_sparse").SparseTensor
        row, col = EDGE_INDEX
        adjacency = sparse(row=col, col=row, value=weight, sparse_sizes=(NODES, NODES))
    else:
        adjacency = {"coo": coo, "csr": coo.to_sparse_csr(), "csc": coo.to_sparse_csc()}[layout]
    want = conv(x, EDGE_INDEX) if edge_dim is None else conv(x, EDGE_INDEX, weight)
    torch.testing.assert_close(conv(x, adjacency), want)


class Host(BasicGNN):
    """What a user writes to put a conv of their own into PyG's model zoo."""

    supports_edge_weight = False
    supports_edge_attr = True

    def init_conv(self, in_channels: int, out_channels: int, **kwargs: object) -> MessagePassing:
        return PLSTMConv(in_channels, out_channels, **kwargs)


@pytest.mark.parametrize("in_channels", [FEATURES, -1])
def test_in_basic_gnn(in_channels: int) -> None:
    x, edge_attr = torch.randn(NODES, FEATURES), torch.randn(len(COLUMNS), EDGE_FEATURES)
    model = Host(in_channels, 16, num_layers=3, out_channels=2, edge_dim=EDGE_FEATURES, norm="LayerNorm", jk="cat")
    assert model(x, EDGE_INDEX, edge_attr=edge_attr).shape == (NODES, 2)
    model.reset_parameters()
    assert model(x, EDGE_INDEX, edge_attr=edge_attr).isfinite().all()


def test_in_pyg_containers() -> None:
    x = torch.randn(NODES, 8)
    model = Sequential("x, edge_index", [(PLSTMConv(8, 4, 2), "x, edge_index -> x"), nn.ReLU(), nn.Linear(8, 3)])
    assert model(x, EDGE_INDEX).shape == (NODES, 3)
    gps = GPSConv(8, conv=PLSTMConv(8, 4, 2), heads=2)
    assert gps(x, EDGE_INDEX).shape == (NODES, 8)
    gps.reset_parameters()
    table = summary(PLSTMConv(8, 4, 2), x, EDGE_INDEX)
    assert "PLSTMConv" in table


# ---------------------------------------------------------------------- explanations


def masked_path_sum(conv: PLSTMConv, x: Tensor, edge_attr: Tensor, mask: Tensor) -> Tensor:
    """Every path times the masks of its edges, each once; without norm, heads averaged."""
    source, transition, mark, direct = gates_by_hand(conv, x, edge_attr)
    of_column = {column: mask[i] for i, column in enumerate(COLUMNS)}
    query, key, value = conv._vectors(conv.lin(x)[0])
    output = torch.stack([direct[n][:, None] * (query[n] * key[n]).sum(-1, True) * value[n] for n in range(NODES)])
    paths = [(edge, edge, gate * of_column[edge]) for edge, gate in source.items()]
    while paths:
        for first, last, weight in paths:
            start, end = first[0], last[1]
            read = (weight * mark[last] * (query[end] * key[start]).sum(-1))[:, None] * value[start]
            output = output.index_add(0, torch.tensor([end]), read[None])
        paths = [
            (first, next, weight * gate * of_column[next])
            for first, last, weight in paths
            for (prev, next), gate in transition.items()
            if prev == last
        ]
    return output.mean(1)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize(("mode", "reverse"), READINGS)
def test_every_path_carries_each_mask_once(mode: str, reverse: bool, sigmoid: bool) -> None:
    x, edge_attr = inputs()
    options = {"concat": False, "bias": False, "edge_dim": EDGE_FEATURES}
    conv = scrambled(PLSTMConv(FEATURES, 4, 2, mode=mode, reverse=reverse, **options))
    conv.norm = nn.Identity()
    mask = torch.rand(len(COLUMNS), dtype=torch.float64, requires_grad=True)
    set_masks(conv, mask, EDGE_INDEX, apply_sigmoid=sigmoid)
    out = conv(x, EDGE_INDEX, edge_attr)
    want = masked_path_sum(conv, x, edge_attr, mask.sigmoid() if sigmoid else mask)
    torch.testing.assert_close(out, want, rtol=1e-10, atol=1e-10)
    (out * torch.randn_like(out)).sum().backward()
    read = (EDGE_INDEX[0] < EDGE_INDEX[1]) != reverse
    assert torch.equal(mask.grad != 0, read)  # each column acts for the direction it runs in
    assert mask.grad[read].std() > 0
    clear_masks(conv)
    torch.testing.assert_close(conv(x, EDGE_INDEX, edge_attr), masked_path_sum(conv, x, edge_attr, torch.ones(12)))


def test_mask_on_self_loops_and_duplicates() -> None:
    """The mask follows the caller's columns: a self-loop's has no effect, duplicates' are averaged."""
    x, _ = inputs()
    conv = scrambled(PLSTMConv(FEATURES, 4, 2))
    conv.norm = nn.Identity()
    columns = torch.tensor([[0, 1, 1, 1, 2], [1, 1, 2, 2, 3]])
    plain = torch.tensor([[0, 1, 2], [1, 2, 3]])
    set_masks(conv, torch.tensor([0.5, 0.9, 0.2, 0.6, 0.7]).double(), columns, apply_sigmoid=False)
    got = conv(x, columns)
    set_masks(conv, torch.tensor([0.5, 0.4, 0.7]).double(), plain, apply_sigmoid=False)
    torch.testing.assert_close(got, conv(x, plain))


def test_gnn_explainer() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.along, self.against = PLSTMConv(FEATURES, 4, 2), PLSTMConv(FEATURES, 4, 2, reverse=True)
            self.lin = nn.Linear(16, 1)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.lin(torch.cat([conv(x, edge_index) for conv in (self.along, self.against)], -1))

    explainer = Explainer(
        model=Net(),
        algorithm=GNNExplainer(epochs=10, lr=0.1),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    explanation = explainer(torch.randn(NODES, FEATURES), EDGE_INDEX)
    assert explanation.edge_mask.shape == (len(COLUMNS),)
    assert (explanation.edge_mask > 0).all()
    assert explanation.edge_mask.std() > 0
    assert all(not conv.explain for conv in (explainer.model.along, explainer.model.against))


def test_an_explainer_without_edge_masks_is_told_which_algorithms_work() -> None:
    explainer = Explainer(
        model=PLSTMConv(FEATURES, 4, 2),
        algorithm=GraphMaskExplainer(1, epochs=1, log=False),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    with pytest.raises(
        ConfigError, match=r"no messages that GraphMaskExplainer .*GNNExplainer, CaptumExplainer, PGExplainer for"
    ):
        explainer(torch.randn(NODES, FEATURES), EDGE_INDEX)


def test_two_explainers_need_a_copy_each() -> None:
    """PyG's GNNExplainer leaves a mask registered in every layer, its own ones too, which cuts Captum's off."""
    pytest.importorskip("captum")
    from torch_geometric.explain import CaptumExplainer

    def explain(model: nn.Module, algorithm: Any) -> Tensor:
        options = {"mode": "regression", "task_level": "node", "return_type": "raw"}
        explainer = Explainer(model, algorithm, explanation_type="model", edge_mask_type="object", model_config=options)
        return explainer(x, EDGE_INDEX).edge_mask

    x = torch.randn(NODES, FEATURES)
    for model in (PLSTMConv(FEATURES, 1), GCNConv(FEATURES, 1)):
        copied = deepcopy(model)
        explain(model, GNNExplainer(epochs=2))
        with pytest.raises(RuntimeError, match="not have been used in the graph"):
            explain(model, CaptumExplainer("Saliency"))
        assert explain(copied, CaptumExplainer("Saliency")).any()


def test_to_hetero_takes_a_module_that_holds_the_layer() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = PLSTMConv(FEATURES, 4)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index)

    kind = ("a", "to", "a")
    for model in (PLSTMConv(FEATURES, 4), PLSTM(FEATURES, 4, 1)):
        with pytest.raises(ConfigError, match=r"to_hetero.* cannot trace PLSTM.*to_homogeneous"):
            to_hetero(model, (["a"], [kind]))
    found = to_hetero(Net(), (["a"], [kind]))({"a": torch.randn(NODES, FEATURES)}, {kind: EDGE_INDEX})
    assert found["a"].shape == (NODES, 4)


def test_pg_explainer() -> None:
    model, x = PLSTMConv(FEATURES, 4, 2), torch.randn(NODES, FEATURES)
    algorithm = PGExplainer(epochs=2)
    explainer = Explainer(
        model=model,
        algorithm=algorithm,
        explanation_type="phenomenon",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    target = model(x, EDGE_INDEX).detach() + 1
    for epoch in range(2):
        algorithm.train(epoch, model, x, EDGE_INDEX, target=target, index=4)
    assert explainer(x, EDGE_INDEX, target=target, index=4).edge_mask.shape == (len(COLUMNS),)


@pytest.mark.parametrize("method", ["IntegratedGradients", "Saliency"])
def test_captum_explainer(method: str) -> None:
    """Attributions of edges add up (integrated gradients are complete), and an edge nothing passes has none."""
    pytest.importorskip("captum")
    from torch_geometric.explain import CaptumExplainer

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lin = PLSTMConv(FEATURES, 4, 2), nn.Linear(8, 1)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.lin(self.conv(x, edge_index))

    model = scrambled(Net()).float()
    options = {"n_steps": 200} if method == "IntegratedGradients" else {}
    explainer = Explainer(
        model=model,
        algorithm=CaptumExplainer(method, **options),
        explanation_type="model",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    x = torch.randn(NODES, FEATURES)
    mask = explainer(x, EDGE_INDEX, index=torch.tensor([4])).edge_mask
    along = EDGE_INDEX[0] < EDGE_INDEX[1]
    assert (mask[~along] == 0).all()  # one layer reads one direction
    assert (mask[along] != 0).all()  # every edge lies on a path to the last node
    if method == "IntegratedGradients":
        whole = model(x, EDGE_INDEX)[4] - model(x, EDGE_INDEX[:, :0])[4]
        torch.testing.assert_close(mask.sum(), whole.squeeze(), rtol=0.02, atol=1e-3)
    assert not model.conv.explain


def test_hooks_that_would_never_be_called_are_refused() -> None:
    """All that MessagePassing has for the steps of passing messages."""
    names = [name for name in dir(MessagePassing) if re.fullmatch(r"register_\w+_forward_(pre_)?hook", name)]
    assert len(names) == 10
    for name in names:
        with pytest.raises(ConfigError, match=r"passes no messages.*register_forward_hook"):
            getattr(PLSTMConv(4, 2), name)(lambda *_: None)
    calls = []
    conv = PLSTMConv(4, 2)
    conv.register_forward_hook(lambda *_: calls.append(1))
    conv(torch.randn(NODES, 4), EDGE_INDEX)
    assert calls == [1]


@pytest.mark.parametrize(
    "step", ["message", "aggregate", "update", "propagate", "message_and_aggregate", "edge_update"]
)
def test_steps_that_would_never_be_called_are_refused(step: str) -> None:
    """In a subclass's own body, and from a class beside it."""
    mixin = type("Mixin", (), {step: lambda self, *_: None})
    for bases, own in (((PLSTMConv,), vars(mixin)), ((mixin, PLSTMConv), {})):
        with pytest.raises(ConfigError, match=rf"Mine overrides {step}, which .* never calls: .* override forward"):
            type("Mine", bases, {key: value for key, value in own.items() if key == step})
    assert type("Mine", (PLSTMConv,), {"forward": lambda self, x: x})(4, 2)(3) == 3


def test_arguments_of_other_layers_are_none_or_refused_by_name() -> None:
    conv, x = PLSTMConv(4, 2), torch.randn(NODES, 4)
    want = conv(x, EDGE_INDEX)
    weight = torch.ones(EDGE_INDEX.size(1))
    for name, value in {"edge_weight": weight, "size": (NODES, NODES), "return_attention_weights": True}.items():
        assert torch.equal(conv(x, EDGE_INDEX, **{name: None}), want)
        with pytest.raises(ConfigError, match=f"PLSTMConv takes no {name}: "):
            conv(x, EDGE_INDEX, **{name: value})
    with pytest.raises(ConfigError, match="takes no dga: unknown keyword argument"):
        conv(x, EDGE_INDEX, dga=None)
    pooling = ASAPooling(4, ratio=0.5, GNN=PLSTMConv)
    assert pooling(x, EDGE_INDEX)[0].shape == (3, 4)
    with pytest.raises(ConfigError, match=r"edge_weight: pass weights as edge_attr \[M, 1\], with edge_dim=1"):
        pooling(x, EDGE_INDEX, weight)


def test_whole_numbers_as_edge_features_are_refused_with_what_to_do() -> None:
    with pytest.raises(ShapeError, match=r"int64.*embed whole numbers first, or call edge_attr.float\(\)"):
        PLSTMConv(4, 2, edge_dim=3)(torch.randn(NODES, 4), EDGE_INDEX, torch.ones(EDGE_INDEX.size(1), 3).long())


@pytest.mark.parametrize("edge_dim", [None, 1])
def test_a_sparse_adjacency_is_left_as_it_was(edge_dim: int | None) -> None:
    """One that was never coalesced is not marked as if it were, and counts for what it is as a matrix: a sum."""
    x, weight = torch.randn(NODES, FEATURES), torch.rand(len(COLUMNS))
    conv = scrambled(PLSTMConv(FEATURES, 4, edge_dim=edge_dim)).float()
    twice = torch.cat([EDGE_INDEX, EDGE_INDEX], 1).flip(0)
    adjacency = torch.sparse_coo_tensor(twice, torch.cat([weight, 2 * weight]), (NODES, NODES))
    dense = adjacency.to_dense()
    want = conv(x, EDGE_INDEX, None if edge_dim is None else 3 * weight)
    torch.testing.assert_close(conv(x, adjacency), want)
    if edge_dim is None:
        torch.testing.assert_close(conv(x, adjacency, dag=LineDAG.from_edge_index(EDGE_INDEX, NODES)), want)
    assert not adjacency.is_coalesced()
    torch.testing.assert_close(adjacency.to_sparse_csr().to_dense(), dense)


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_gradients_of_the_values_of_a_sparse_adjacency(layout: str) -> None:
    x, conv = torch.randn(NODES, FEATURES), scrambled(PLSTMConv(FEATURES, 4, edge_dim=1)).float()
    grads = []
    for sparse in (False, True):
        weight = torch.linspace(0, 1, len(COLUMNS)).requires_grad_()
        coo = torch.sparse_coo_tensor(EDGE_INDEX.flip(0), weight, (NODES, NODES))
        adjacency = coo if layout == "coo" else coo.to_sparse_csr() if layout == "csr" else coo.to_sparse_csc()
        out = conv(x, adjacency) if sparse else conv(x, EDGE_INDEX, weight)
        grads.append(torch.autograd.grad((out**2).sum(), weight)[0])
    torch.testing.assert_close(grads[1], grads[0])


@pytest.mark.parametrize("sizes", [(NODES, NODES + 3), (NODES + 3, NODES), (NODES + 3, NODES + 3)])
def test_a_sparse_adjacency_of_another_size_is_refused(sizes: tuple[int, int]) -> None:
    """A bipartite one is no graph of these nodes, even where its numbers would do."""
    x, adjacency = torch.randn(NODES, 8), torch.sparse_coo_tensor(EDGE_INDEX, torch.ones(len(COLUMNS)), sizes)
    for layer in (PLSTMConv(8, 4), PLSTMBlock(8), PLSTM(8, 8, 1)):
        with pytest.raises(
            ShapeError, match=rf"must be \[{NODES}, {NODES}\], since x has {NODES} rows, got \[{sizes[0]}"
        ):
            layer(x, adjacency)
