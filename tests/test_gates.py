import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plstm_graph import Gates, LineDAG, PLSTMConv
from plstm_graph.errors import ConfigError
from plstm_graph.gates import (
    DIRECT_BIAS,
    LEAK,
    MARK_BIAS,
    SOURCE_BIAS,
    TRANSITION_BIAS,
    activate,
    activate_source,
    activate_transition,
    check_mode,
    initial_gate_bias,
    normalize_transition,
    view,
)
from plstm_graph.testing import check_propagation, grid_dag, random_dag, random_inputs, transition_matrix

FEW = settings(max_examples=40, deadline=None, derandomize=True)


def raw_gates(dag: LineDAG, dtype=torch.float64, scale=3.0) -> Gates:
    return Gates(*((scale * torch.randn(g.shape, dtype=torch.float64)).to(dtype) for g in random_inputs(dag).gates))


def test_laws_of_p_mode():
    check_propagation()


@FEW
@given(st.integers(0, 10**6), st.floats(0.1, 1), st.floats(0, 20), st.booleans())
def test_columns_never_exceed_one(seed, density, scale, reverse):
    dag = view(random_dag(seed, nodes=7, density=density), "P", reverse)
    transition = activate(raw_gates(dag, scale=scale), dag, "P").transition
    sums = transition_matrix(transition, dag).abs().sum(1)
    assert sums.numel() == 0 or sums.max() <= 1 + 1e-12


def test_normalisation_by_hand():
    # 0 -> 1, then 1 -> 2 and 1 -> 3: the pairs (0, 1) and (0, 2) share their prev
    dag = LineDAG.from_edge_index(torch.tensor([[0, 1, 1], [1, 2, 3]]))
    raw = torch.tensor([[0.75, 0.25], [-0.75, 0.5]])
    assert normalize_transition(raw, dag).tolist() == [[0.5, 0.25], [-0.5, 0.5]]
    # read against the edges the two pairs have different prevs: nothing to share
    assert torch.equal(normalize_transition(raw, dag.reverse()), raw)


def test_on_a_chain_p_equals_d():
    dag = grid_dag(1, 9)
    raw = raw_gates(dag)
    for p, d in zip(activate(raw, dag, "P"), activate(raw, dag.prune(), "D"), strict=True):
        assert torch.equal(p, d)


def test_activations():
    dag = grid_dag(3, 3).prune()
    raw = raw_gates(dag)
    gates = activate(raw, dag, "D")
    expected = (raw.source.sigmoid(), raw.transition.tanh(), raw.mark.sigmoid(), raw.direct.sigmoid())
    for name, got, want in zip(Gates._fields, gates, expected, strict=True):
        assert torch.equal(got, want), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_saturating(dtype):
    """Exactly 0 or 1 from there on, where the gradient leaks; a NaN stays one."""
    raw = torch.tensor([-3.0, -1, -0.5, 0, 0.999, 1, 40, torch.nan], dtype=dtype)
    for activation, at, low, slope in ((activate_transition, raw, -1, 1), (activate_source, 2 * raw, 0, 1 / 4)):
        at = at.clone().requires_grad_()
        found = activation(at, "saturating")
        assert found.dtype == dtype
        assert found[-1].isnan()
        assert torch.equal(found[:-1], (slope * at + (1 + low) / 2)[:-1].clamp(low, 1))
        (got,) = torch.autograd.grad(found[:-1].sum(), at)
        assert got.tolist() == [slope * s for s in (LEAK, LEAK, 1, 1, 1, LEAK, LEAK, 0)]
        assert torch.equal(activation(raw)[:-1], (raw.tanh() if low else raw.sigmoid())[:-1])


def test_saturating_gates_carry_without_loss():
    """Over a chain of 5,000 edges, in both modes; tanh loses all of it. Sources that are shut add nothing."""
    dag = grid_dag(1, 5000)
    raw = Gates(*(torch.full((rows, 1), 3.0) for rows in (dag.num_edges, dag.num_pairs, dag.num_edges, dag.num_nodes)))
    raw = raw._replace(source=-raw.source)
    for mode in "PD":
        gates = activate(raw, dag, mode, "saturating")
        assert (gates.transition.prod(), gates.source.sum()) == (1, 0)
        assert activate(raw, dag, mode).transition.prod() < 1e-9


@pytest.mark.parametrize("mode", ["P", "D"])
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_gates_are_float32_at_least(mode, dtype, expected):
    dag = view(grid_dag(3, 3), mode, reverse=False)
    raw = raw_gates(dag, dtype)
    gates = activate(raw, dag, mode)
    assert {gate.dtype for gate in gates} == {expected}
    wide = activate(Gates(*(gate.to(expected) for gate in raw)), dag, mode)
    assert all(torch.equal(got, want) for got, want in zip(gates, wide, strict=True))


def test_gradient_of_the_normalisation():
    dag = grid_dag(3, 3)
    raw = raw_gates(dag).transition.requires_grad_()
    assert torch.autograd.gradcheck(lambda t: normalize_transition(t.tanh(), dag), raw)


def test_view():
    dag = grid_dag(3, 3)
    assert view(dag, "P", False) is dag
    assert (view(dag, "P", True).reversed, view(dag, "P", True).pruned) == (True, False)
    assert (view(dag, "D", False).reversed, view(dag, "D", False).pruned) == (False, True)
    assert (view(dag, "D", True).reversed, view(dag, "D", True).pruned) == (True, True)


@pytest.mark.parametrize(
    "call", [check_mode, lambda m: view(grid_dag(2, 2), m, False), lambda m: activate((), None, m)]
)
def test_unknown_mode(call):
    with pytest.raises(ConfigError, match="unknown mode 'PD'; choose one of P, D"):
        call("PD")


def test_unknown_transition():
    with pytest.raises(ConfigError, match="unknown transition 'relu'; choose one of tanh, saturating"):
        activate_transition(torch.zeros(1), "relu")


def test_initial_values():
    """Table 5 of the paper; transitions near criticality, spread over the heads."""
    assert (SOURCE_BIAS, MARK_BIAS, DIRECT_BIAS) == (-4, -4, -6)
    source, _, mark, direct = initial_gate_bias(2)
    assert [gate.tolist() for gate in (source, mark, direct)] == [[-4, -4], [-4, -4], [-6, -6]]
    assert initial_gate_bias(1)[1].tolist() == [2.0]
    bias = initial_gate_bias(5)[1]
    assert bias.tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert (bias[0], bias[-1]) == TRANSITION_BIAS
    # half-lives in edges as the comment beside the constant says: 1 / (1 - tanh) from 4 to 200
    reach = 1 / (1 - bias.tanh())
    assert 4 < reach[0] < 5
    assert 195 < reach[-1] < 205


def test_initial_values_of_saturating_gates():
    """Transitions on both sides of where they are cut off; sources where they are not."""
    source, transition, mark, _ = initial_gate_bias(5, "saturating")
    assert transition.min() < 1 < transition.max()
    assert activate_source(source, "saturating").tolist() == mark.sigmoid().tolist() == [0.5] * 5


def test_sources_begin_as_told():
    """At -2 those of saturating gates are 0 to the digit, and the least step opens them; other gates stay."""
    told, usual = PLSTMConv(3, 4, 2, transition="saturating", source_bias=-2), initial_gate_bias(2, "saturating")
    assert torch.equal(told.gate_bias[1:], usual[1:])
    assert activate_source(told.gate_bias[0], "saturating").tolist() == [0, 0]
    assert activate_source(told.gate_bias[0] + 1e-3, "saturating").min() > 0
