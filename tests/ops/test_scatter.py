from itertools import pairwise

import pytest
import torch

from plstm_graph.ops import scatter
from plstm_graph.testing import DAGS, LAWS, VIEWS, Inputs, grid_dag, random_dag, random_inputs, transition_matrix


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", ["two diamonds in a row", "complete", "grid", "unlike graphs", "no edge", "no pair"])
def test_solve_is_the_inverse(name, view):
    """(I - T)⁻¹ B, and its adjoint (I - Tᵀ)⁻¹ C̄, against a general dense solver."""
    dag = VIEWS[view](DAGS[name]())
    right = torch.randn(dag.num_edges, 2, 3, dtype=torch.float64, requires_grad=True)
    transition = random_inputs(dag).gates.transition.requires_grad_()
    matrix = torch.eye(dag.num_edges, dtype=torch.float64) - transition_matrix(transition, dag)
    want = torch.linalg.solve(matrix, right.transpose(0, 1)).transpose(0, 1)
    got = scatter.Solve.apply(right, transition, dag)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    weight = torch.randn_like(want)
    got_grads = torch.autograd.grad(got, (right, transition), weight, materialize_grads=True)
    want_grads = torch.autograd.grad(want, (right, transition), weight, materialize_grads=True)
    for g, w in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-10)


def test_solve_without_gradient_for_the_gates():
    dag = grid_dag(2, 3)
    right = torch.ones(dag.num_edges, 1, 1, dtype=torch.float64, requires_grad=True)
    transition = torch.ones(dag.num_pairs, 1, dtype=torch.float64)
    scatter.Solve.apply(right, transition, dag).sum().backward()
    # edges (0,1), (0,3), (1,2), (1,4), (2,5), (3,4), (4,5): how many edges each one reaches, with multiplicity
    assert right.grad.flatten().tolist() == [5, 3, 2, 2, 1, 2, 1]


def largest_saved(run, inputs: Inputs, dag) -> int:
    """Numbers in the largest tensor kept for the backward pass."""
    sizes = [0]

    def pack(x):
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        run(*inputs, dag)
    return max(sizes)


def test_recompute_keeps_no_states(monkeypatch):
    dag = grid_dag(6, 6)
    inputs = Inputs.of([x.requires_grad_() for x in random_inputs(dag, 2, 8, 8).flat()])
    states = dag.num_edges * 2 * 8 * 8
    assert largest_saved(scatter.propagate, inputs, dag) >= states
    assert largest_saved(scatter.propagate_recompute, inputs, dag) < states

    solved = []
    forward = scatter.Solve.forward
    monkeypatch.setattr(scatter.Solve, "forward", staticmethod(lambda *args: (solved.append(1), forward(*args))[1]))
    counts = {}
    for run in (scatter.propagate, scatter.propagate_recompute):
        solved.clear()
        run(*inputs, dag).sum().backward()
        counts[run.__name__] = len(solved)
    assert counts == {"propagate": 2, "propagate_recompute": 3}  # once there, once back, once again


def test_recompute_is_the_same_to_the_last_bit():
    dag = random_dag(6, nodes=9)
    leaves = [x.requires_grad_() for x in random_inputs(dag).flat()]
    for kept, again in zip(
        *(_gradients(run, leaves, dag) for run in (scatter.propagate, scatter.propagate_recompute)), strict=True
    ):
        assert torch.equal(kept, again)


def _gradients(run, leaves, dag):
    return torch.autograd.grad(run(*Inputs.of(leaves), dag).sin().sum(), leaves)


def test_plan_makes_each_level_one_slice():
    for name, dag in {"grid": grid_dag(4, 5), "random": random_dag(2, nodes=10)}.items():
        plan = dag.level_plan
        assert torch.equal(plan.pair.sort().values, torch.arange(dag.num_pairs)), name
        levels = [set(dag.level[plan.next[a:b]].tolist()) for a, b in zip(plan.ptr, plan.ptr[1:], strict=False)]
        assert [len(level) for level in levels] == [1] * len(levels), name
        assert sorted(levels, key=min) == levels, name
        assert plan.ptr[-1] == dag.num_pairs


def _segments(source, pointers, reduce):
    """What torch-scatter's segment_csr does, in a line of Python per segment."""
    assert reduce == "sum"
    ends = pointers.tolist()
    assert ends[0] == 0
    assert ends[-1] == source.size(0)
    return torch.stack([source[a:b].sum(0) for a, b in pairwise(ends)])


@pytest.mark.parametrize("law", LAWS)
def test_laws_hold_with_segment_sums(law, monkeypatch):
    """With torch-scatter where it is installed, and with a stand-in everywhere."""
    monkeypatch.setattr(scatter, "_segment_csr", lambda: _segments)
    LAWS[law]("scatter", dtype=torch.float64, device="cpu")


@pytest.mark.parametrize("law", LAWS)
def test_laws_hold_without_segment_sums(law, monkeypatch):
    monkeypatch.setattr(scatter, "_segment_csr", lambda: None)
    LAWS[law]("scatter", dtype=torch.float64, device="cpu")
