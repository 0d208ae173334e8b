"""Every backend passes every law."""

import pytest
import torch
from backends import HERE, every

from plstm_graph.ops import BACKENDS
from plstm_graph.testing import LAWS, VIEWS, Inputs, random_dag, random_inputs

# On a GPU edge by edge takes minutes, and recomputing states differs in nothing from the CPU.
PLACES = [place for place in HERE if place not in (("reference", "cuda"), ("scatter_recompute", "cuda"))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("law", LAWS)
@every(*PLACES)
def test_law(backend, device, law, dtype):
    LAWS[law](backend, dtype=dtype, device=device)


@every(*PLACES)
def test_law_as_a_plain_function(backend, device):
    """Without the checks and casts of ``propagate`` around it."""
    LAWS["equals_oracle"](BACKENDS[backend], device=device)


def _small(view: str, device: str = "cpu") -> tuple:
    dag = VIEWS[view](random_dag(11, nodes=5, density=0.7).to(device))
    inputs = random_inputs(dag, heads=2, key_width=2, value_width=1, device=device)
    return dag, [x.requires_grad_() for x in inputs.flat()]


@pytest.mark.parametrize("view", VIEWS)
@every()
def test_gradcheck(backend, device, view):
    dag, leaves = _small(view, device)
    assert torch.autograd.gradcheck(lambda *flat: BACKENDS[backend](*Inputs.of(flat), dag), leaves)


@pytest.mark.parametrize("view", ["plain", "pruned and reversed"])
@pytest.mark.parametrize("backend", ["scatter", "scatter_recompute"])
def test_gradgradcheck(backend, view):
    dag, leaves = _small(view)
    assert torch.autograd.gradgradcheck(lambda *flat: BACKENDS[backend](*Inputs.of(flat), dag), leaves)


@every()
def test_only_some_inputs_need_a_gradient(backend, device):
    """As with a frozen encoder: the gradient asked for is the same, and the others are not made."""
    dag = random_dag(2).to(device)
    inputs = random_inputs(dag, device=device)
    everything = [x.clone().requires_grad_() for x in inputs.flat()]
    wanted = torch.autograd.grad(BACKENDS[backend](*Inputs.of(everything), dag).sum(), everything)
    for i, want in enumerate(wanted):
        flat = [x.clone().requires_grad_(i == j) for j, x in enumerate(inputs.flat())]
        BACKENDS[backend](*Inputs.of(flat), dag).sum().backward()
        torch.testing.assert_close(flat[i].grad, want, rtol=1e-12, atol=1e-12)
        assert all(x.grad is None for j, x in enumerate(flat) if j != i)


def test_memory_of_nan_is_on(device):
    assert torch.empty(8, device=device).isnan().all()
