"""Peers mean what ours means."""

import sys
from types import ModuleType

import pytest
import torch
from groups.grids import _chain_leaves, _run_chain
from groups.peers import FLA
from torch import Tensor

from plstm_graph.errors import BackendUnavailable


@pytest.mark.parametrize("name", FLA)
def test_gated_linear_attention_is_a_chain(name, monkeypatch):
    """With the recurrence that fla-core documents in place of its kernels, which need a GPU."""

    def recurrence(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float) -> tuple[Tensor, None]:
        state, found = torch.zeros(()), []
        for t in range(q.size(1)):
            gate = g[:, t, :, :, None] if g.dim() == 4 else g[:, t, :, None, None]
            state = gate.exp() * state + k[:, t, :, :, None] * v[:, t, :, None, :]
            found.append((scale * q[:, t, :, :, None] * state).sum(-2))
        return torch.stack(found, 1), None

    module = ModuleType(f"fla.ops.{FLA[name]}")
    setattr(module, f"chunk_{FLA[name]}", recurrence)
    for package in ("fla", "fla.ops"):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    leaves = _chain_leaves("cpu", 2, 3, 7, 5)
    torch.testing.assert_close(_run_chain(name, *leaves), _run_chain("reference", *leaves), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FLA)
def test_what_is_not_installed_is_left_out(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "fla", None)
    with pytest.raises(BackendUnavailable, match="pip install flash-linear-attention"):
        _run_chain(name, *_chain_leaves("cpu", 1, 1, 3, 2))
