"""The definition is PLSTMConv._gates, of node terms; a layer whose edge weights are identities takes edge terms, too.

Triton's kernels and numba's loops keep the same contract.
"""

import pytest
import torch
from flat_gates import fold
from torch import Tensor

pytest.importorskip("triton")

from plstm_graph import LineDAG, PLSTMConv
from plstm_graph.gates import LEAK, TRANSITIONS, Gates, normalize_transition, view
from plstm_graph.line_dag.plan import Plan
from plstm_graph.ops.flat import GATES, GRADIENTS, Setting, unfold
from plstm_graph.ops.triton.gates import TILE, backward_gates, forward_gates
from plstm_graph.ops.triton.sums import SUM_ROWS
from plstm_graph.testing import DAGS, grid_dag, random_dag

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


pytestmark = pytest.mark.usefixtures("backend")
OF_A_BACKEND = "gates", ("forward_gates", "backward_gates")  # see conftest.py


EXACT = {"rtol": 0, "atol": 1e-10}
SINGLE = {"rtol": 1e-5, "atol": 2e-6}


def terms_of(dag: LineDAG, heads: int, features: bool, dtype=torch.float64) -> list[Tensor | None]:
    """Node terms, edge terms and bias, large enough for normalised and for free columns."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64).to(DEVICE, dtype)  # the same numbers on every device

    edge_terms = normal(dag.column.numel(), 4 * heads) if features else None
    return [0.7 * normal(dag.num_nodes, 8 * heads), edge_terms, normal(4, heads)]


def reference(terms, dag: LineDAG, mode: str, transition: str) -> Gates:
    """Gates of a layer of plain PyTorch. ``dag``: as it is read."""
    node_terms, edge_terms, bias = terms
    heads = bias.size(1)
    conv = PLSTMConv(8 * heads, 1, heads, mode=mode, edge_dim=4 * heads, transition=transition).to(bias)
    with torch.no_grad():
        conv.lin_edge.weight.copy_(torch.eye(4 * heads))
    del conv.gate_bias
    conv.gate_bias = bias
    return conv._gates(node_terms, edge_terms, dag)


def gates_of(
    terms, plan: Plan, mode: str, reversed: bool, gathered: bool = False, transition: str = "tanh"
) -> tuple[Gates, Tensor]:
    """Gates and what stands behind them, from the kernel."""
    setting = Setting("triton", terms[2].size(1), 1, mode, transition, reversed, gathered)
    return unfold(forward_gates(*terms, plan, setting), plan, setting.heads)


def gradients_of(
    gates: tuple[Tensor, ...],
    grads: Gates,
    plan: Plan,
    mode: str,
    reversed: bool,
    like: list[Tensor | None],
    gathered: bool = False,
    transition: str = "tanh",
) -> list[Tensor | None]:
    """Of the linear terms, which are ``like`` these, and the bias, from the kernels."""
    node_terms, edge_terms = like
    heads = node_terms.size(1) // 8
    others = torch.randn(node_terms.size(0), 70, device=DEVICE, dtype=node_terms.dtype)  # columns before the terms
    d_joined = torch.cat([others, torch.full_like(node_terms, torch.nan)], 1)
    d_edge = None if edge_terms is None else torch.zeros_like(edge_terms, memory_format=torch.contiguous_format)
    given = fold(gates, plan, GATES), fold(grads, plan, GRADIENTS)
    setting = Setting("triton", heads, 1, mode, transition, reversed, gathered)
    parts = torch.rand(3 * SUM_ROWS + 1, 40, device=DEVICE, dtype=given[0].dtype)
    sums, total = backward_gates(*given, plan, setting, d_joined, d_edge, parts)
    assert torch.equal(d_joined[:, :70], others)
    torch.testing.assert_close(total, parts.sum(0), **SINGLE)
    torch.testing.assert_close(sums[4 * heads :], others.to(sums.dtype).sum(0), **SINGLE)
    return [d_joined[:, 70:], d_edge, sums[: 4 * heads].view(4, heads)]


def fused(terms, dag: LineDAG, mode: str, gradient, transition: str = "tanh") -> tuple[Gates, list[Tensor | None]]:
    """Gates and the gradients of the terms from the kernels. ``gradient``: gates to gradients of theirs."""
    node_terms, edge_terms, bias = terms
    plan, gathered = dag.plan(2), edge_terms is not None and dag.merged
    if gathered:
        edge_terms = dag.gather_edges(edge_terms).detach().requires_grad_(edge_terms.requires_grad)
    with torch.no_grad():
        gates, total = gates_of((node_terms, edge_terms, bias), plan, mode, dag.reversed, gathered, transition)
        d_node, d_edge, d_bias = gradients_of(
            *((*gates, total), gradient(gates), plan, mode, dag.reversed, [node_terms, edge_terms], gathered),
            transition,
        )
    if gathered:
        given = terms[1].detach().requires_grad_()
        (d_edge,) = torch.autograd.grad(dag.gather_edges(given), given, d_edge)
    return gates, [d_node, d_edge, d_bias]


def weights(gates: Gates) -> Gates:
    """Gradients that differ from row to row and head to head."""
    generator = torch.Generator().manual_seed(1)
    return Gates(*(torch.randn(g.shape, generator=generator, dtype=torch.float64).to(g) for g in gates))


def check(dag: LineDAG, mode: str, heads: int, features: bool, transition: str = "tanh") -> None:
    terms = terms_of(dag, heads, features)
    leaves = [t if t is None else t.clone().requires_grad_() for t in terms]
    right = reference(leaves, dag, mode, transition)
    gates, gradients = fused(terms, dag, mode, weights, transition)
    for name, gate, expected in zip(Gates._fields, gates, right, strict=True):
        torch.testing.assert_close(gate, expected.detach(), **EXACT, msg=lambda text, name=name: f"{name}: {text}")
    loss = sum((w * g).sum() for w, g in zip(weights(right), right, strict=True))
    loss.backward()
    for leaf, gradient in zip(leaves, gradients, strict=True):
        assert (leaf is None) == (gradient is None)
        if leaf is not None:
            expected = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            torch.testing.assert_close(gradient, expected, **EXACT)


DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["along", "against"])
MODES = pytest.mark.parametrize("mode", ["P", "D"])


def all_dags() -> LineDAG:
    return LineDAG.collate([make() for name, make in DAGS.items() if name != "many graphs"]).to(DEVICE)


@DIRECTIONS
@MODES
@pytest.mark.parametrize(("heads", "features"), [(1, True), (3, False), (8, True)])
def test_all_dags_in_one_batch(heads, features, mode, reverse):
    """Several programs, whose rows belong to unlike graphs."""
    batch = all_dags()
    assert heads < 8 or batch.num_nodes > 3 * TILE // heads
    check(view(batch, mode, reverse), mode, heads, features)


@DIRECTIONS
@MODES
def test_saturating_gates(mode, reverse):
    """Some are cut off at either end, and some are not; gradients leak through those that are."""
    dag = view(all_dags(), mode, reverse)
    check(dag, mode, 3, True, "saturating")
    terms = terms_of(dag, 3, False)
    (source, transition, *_), _ = gates_of(terms, dag.plan(2), "D", reverse, transition="saturating")
    for gate, lowest in ((source, 0), (transition, -1)):
        sizes = [(gate == lowest).sum(), (gate == 1).sum(), ((gate > lowest) & (gate < 1)).sum()]
        assert min(sizes) > 5, sizes


@pytest.mark.parametrize(("dtype", "pairs"), [(torch.float32, 41), (torch.float64, 49)], ids=str)
def test_a_normalised_gate_that_was_cut_off(dtype, pairs):
    """It leaks, though a 41st times 41 is not 1."""
    like = {"dtype": dtype, "device": DEVICE}
    dag = LineDAG.from_edge_index(columns((0, 1), *((1, 2 + i) for i in range(pairs))))
    terms = [torch.zeros(dag.num_nodes, 8, **like), None, torch.full((4, 1), 2.0, **like)]
    gates, total = gates_of(terms, dag.plan(2), "P", False, transition="saturating")
    assert total.max() == pairs
    assert (gates.transition * pairs < 1).all()
    grads = Gates(*(torch.zeros_like(gate) for gate in gates))
    grads.transition[0] = pairs
    d_node, *_ = gradients_of(*((*gates, total), grads, dag.plan(2), "P", False, terms[:2]), transition="saturating")
    want = torch.full_like(d_node[2:, 6], -LEAK / pairs)
    want[0] += LEAK
    torch.testing.assert_close(d_node[2:, 6], want, rtol=0, atol=4 * torch.finfo(dtype).eps)


@MODES
@pytest.mark.parametrize("name", ["no node", "no edge", "one edge", "no pair"])
def test_alone(name, mode):
    for reverse, features in ((False, True), (True, True), (False, False)):
        check(view(DAGS[name]().to(DEVICE), mode, reverse), mode, heads=2, features=features)


@DIRECTIONS
@pytest.mark.parametrize("heads", [100, TILE + 1])
def test_many_heads(heads, reverse):
    check(view(random_dag(3, nodes=4, density=0.8).to(DEVICE), "P", reverse), "P", heads, features=True)


def columns(*pairs: tuple[int, int]) -> Tensor:
    return torch.tensor(pairs, device=DEVICE).t()


both_ways = columns((0, 1), (1, 0), (2, 1), (1, 2), (1, 3), (3, 1), (3, 4), (4, 3))
COLUMNS = {
    "both ways": both_ways,
    "both ways and loops": torch.cat([columns((2, 2), (4, 4)), both_ways], 1),
    "as many columns as edges": columns((1, 0), (1, 2), (4, 1)),
    "as many columns as edges but for a loop": columns((1, 0), (1, 2), (3, 3), (4, 1)),
    "some one way": columns((0, 1), (1, 0), (2, 1), (1, 3), (3, 4), (4, 3)),
    "duplicates": torch.cat([both_ways, both_ways[:, :3], columns((3, 3))], 1),
    "duplicates, one way": columns((0, 1), (0, 1), (1, 2), (1, 2), (2, 3), (1, 4)),
}


@DIRECTIONS
@pytest.mark.parametrize("name", COLUMNS)
def test_columns(name, reverse):
    dag = LineDAG.from_edge_index(COLUMNS[name], 5)
    assert dag.merged == name.startswith("duplicates")
    check(view(dag, "P", reverse), "P", heads=2, features=True)


@MODES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_lower_precision(dtype, mode):
    """Sums run in float32, so nothing but the terms and their gradients are rounded."""
    dag = view(random_dag(2, nodes=8, density=0.5).to(DEVICE), mode, True)
    terms = terms_of(dag, 4, True, dtype)
    gates, gradients = fused(terms, dag, mode, weights)
    exact, right = fused([t.double() for t in terms], dag, mode, weights)
    for gate, expected in zip(gates, exact, strict=True):
        assert gate.dtype == torch.float32
        torch.testing.assert_close(gate.double(), expected, **SINGLE)
    for gradient, expected, of in zip(gradients, right, (dtype, dtype, torch.float32), strict=True):
        assert gradient.dtype == of
        # one rounding at the end; the interpreter does not round bfloat16 but cuts it off
        half = of != torch.float32
        rounding = half * torch.finfo(of).eps * (1 if of == torch.bfloat16 and DEVICE == "cpu" else 0.5)
        torch.testing.assert_close(gradient.double(), expected, rtol=2e-5 + rounding, atol=2e-5)


def test_one_float64_term_makes_float64_gates():
    dag = DAGS["diamond"]().to(DEVICE)
    for wide in range(3):
        terms = [t.double() if i == wide else t for i, t in enumerate(terms_of(dag, 1, True, torch.float32))]
        gates, total = gates_of(terms, dag.plan(2), "P", False)
        assert {g.dtype for g in (*gates, total)} == {torch.float64}


def test_total_is_what_the_normalisation_divides_by():
    dag = view(DAGS["complete"]().to(DEVICE), "P", True)
    terms = terms_of(dag, 2, True)
    gates, total = gates_of(terms, dag.plan(2), "P", True)
    free, _ = gates_of(terms, dag.plan(2), "D", True)
    expected = torch.zeros_like(total).index_add(0, dag.prev, free.transition.abs())
    torch.testing.assert_close(total, expected, **EXACT)
    assert (total > 1).any()
    assert (total < 1).any()
    torch.testing.assert_close(gates.transition * total.clamp(min=1)[dag.prev], free.transition, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradient_through_the_normalisation(dtype):
    """Σ|tanh| below, at and above 1, where clamp starts to pass the gradient; both signs; zeros. All sums are exact."""
    sizes = [(0.5, -0.25), (0.5, -0.5), (-0.75, -0.25), (0.75, 0.5), (-1, 0.5), (0, 1), (0, 0.75), (0, 0)]
    like = {"dtype": dtype, "device": DEVICE}
    # one graph for each case: one prev, two pairs
    dag = LineDAG.collate([LineDAG.from_edge_index(columns((0, 1), (1, 2), (1, 3))) for _ in sizes])
    tanh = torch.tensor(sizes, **like).view(-1, 1).requires_grad_()
    transition = normalize_transition(tanh, dag)
    gradient = torch.tensor([2.0, 3.0], **like).repeat(len(sizes)).view(-1, 1)
    transition.backward(gradient)
    raw = (tanh.grad * (1 - tanh.detach() ** 2)).view(len(sizes), 2)

    def zeros(rows: int, width: int = 1) -> Tensor:
        return torch.zeros(len(sizes), rows, width, **like)

    edge_gate, node_gate, total = zeros(3).flatten(0, 1), zeros(4).flatten(0, 1), zeros(3)
    total[:, 0] = torch.tensor(sizes, **like).abs().sum(1, keepdim=True)
    gates = Gates(edge_gate + 0.5, transition.detach(), edge_gate + 0.5, node_gate + 0.5)
    grads = Gates(edge_gate, gradient, edge_gate, node_gate)
    terms = [zeros(4, 8).flatten(0, 1), zeros(3, 4).flatten(0, 1)]
    d_node, d_edge, d_bias = gradients_of((*gates, total.flatten(0, 1)), grads, dag.plan(2), "P", False, terms)
    at_node, at_edge, at_bias = zeros(4, 8), zeros(3, 4), torch.zeros(4, 1, **like)
    at_node[:, 0, 4] = at_node[:, 1, 5] = at_edge[:, 0, 2] = raw.sum(1)  # tail, joint and prev of both pairs
    at_node[:, 2:, 6] = at_edge[:, 1:, 3] = raw  # head and next of each
    at_bias[1] = raw.sum()
    tolerance = {"rtol": 0, "atol": 4e-6 if dtype == torch.float32 else 1e-13}
    torch.testing.assert_close(d_node, at_node.flatten(0, 1), **tolerance)
    torch.testing.assert_close(d_edge, at_edge.flatten(0, 1), **tolerance)
    torch.testing.assert_close(d_bias, at_bias, **tolerance)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_tanh_and_sigmoid_over_their_range(dtype):
    """Relative precision near zero too, where the sign of a transition decides on its part in the normalisation."""
    sizes = torch.cat([torch.logspace(-30, 3, 200, dtype=torch.float64), torch.tensor([0.0, 0.099, 0.1, 0.101])])
    raw = torch.cat([sizes, -sizes]).to(DEVICE, dtype).view(1, -1)
    heads = raw.numel()
    dag = LineDAG.from_edge_index(columns((0, 1), (1, 2)))
    node_terms = torch.zeros(3, 8 * heads, dtype=dtype, device=DEVICE)
    gates, _ = gates_of((node_terms, None, raw.expand(4, -1).contiguous()), dag.plan(2), "D", False)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-14
    torch.testing.assert_close(gates.transition.double(), raw.double().tanh(), rtol=tolerance, atol=0)
    tiny = 0 if dtype == torch.float64 else 1e-37  # where a GPU knows no denormal numbers
    for gate in (gates.source, gates.mark, gates.direct):
        torch.testing.assert_close(gate.double(), raw.double().sigmoid().expand_as(gate), rtol=tolerance, atol=tiny)


@DIRECTIONS
def test_a_graph_does_not_feel_its_batch(reverse):
    """Bit for bit, though the batch moves it to other programs and beside longer lists."""
    before, dag, after = grid_dag(1, 5), random_dag(7, nodes=6, density=0.6), DAGS["star"]()
    batch = LineDAG.collate([before, dag, after])
    heads = 40  # four rows a program

    def own(rows: Tensor, size: str) -> Tensor:
        first, count = (d.column.numel() if size == "columns" else getattr(d, size) for d in (before, dag))
        return rows[first : first + count]

    def run(terms, dag, gradient):
        return fused(terms, view(dag.to(DEVICE), "P", reverse), "P", gradient)

    sizes = Gates("num_edges", "num_pairs", "num_edges", "num_nodes")
    terms = terms_of(batch, heads, True, torch.float32)
    gates, (d_node, d_edge, _) = run(terms, batch, weights)
    part = [own(terms[0], "num_nodes"), own(terms[1], "columns"), terms[2]]
    grads = Gates(*(own(g, size) for g, size in zip(weights(gates), sizes, strict=True)))
    own_gates, (own_node, own_edge, _) = run(part, dag, lambda _: grads)
    for gate, expected, size in zip(own_gates, gates, sizes, strict=True):
        assert torch.equal(gate, own(expected, size))
    assert torch.equal(own_node, own(d_node, "num_nodes"))
    assert torch.equal(own_edge, own(d_edge, "columns"))


def test_rows_of_wider_terms_need_no_copy():
    dag = DAGS["ring with a short cut"]().to(DEVICE)
    terms = terms_of(dag, 2, True)
    wide = [torch.cat([torch.full_like(t[:, :5], torch.nan), t], 1)[:, 5:] for t in terms[:2]]
    assert not wide[0].is_contiguous()
    transposed = [t.t().contiguous().t() for t in terms[:2]]
    right, _ = gates_of(terms, dag.plan(2), "P", False)
    for given in (wide, transposed):
        gates, _ = gates_of((*given, terms[2]), dag.plan(2), "P", False)
        assert all(torch.equal(a, b) for a, b in zip(gates, right, strict=True))


def test_a_nan_stays_in_its_list():
    """A NaN transition spoils the pairs that it is normalised with, and no others; no NaN turns into a number."""
    dag = LineDAG.from_edge_index(columns((0, 1), (1, 2), (1, 3), (2, 4)))  # pairs (0, 1), (0, 2), (1, 3)
    terms = terms_of(dag, 1, False)
    terms[0][2, 6] = torch.nan  # as the head of pair (0, 1)
    for transition in TRANSITIONS:
        gates, _ = gates_of(terms, dag.plan(2), "P", False, transition=transition)
        assert gates.transition.isnan().view(-1).tolist() == [True, True, False]
        assert not any(g.isnan().any() for g in (gates.source, gates.mark, gates.direct))
