"""Peers mean what ours means."""

import sys
from types import ModuleType

import pytest
import torch
from groups.grids import _chain_leaves, _run_chain
from groups.peers import FLA
from torch import Tensor

from plstm_graph.errors import BackendUnavailable


def test_gated_linear_attention_is_a_chain(monkeypatch):
    """With the recurrence that fla-core documents in place of its kernels, which need a GPU."""

    def recurrence(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float) -> tuple[Tensor, None]:
        state, found = torch.zeros(()), []
        for t in range(q.size(1)):
            state = g[:, t, :, None, None].exp() * state + k[:, t, :, :, None] * v[:, t, :, None, :]
            found.append((scale * q[:, t, :, :, None] * state).sum(-2))
        return torch.stack(found, 1), None

    module = ModuleType("fla.ops.simple_gla")
    module.chunk_simple_gla = recurrence
    for name in ("fla", "fla.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    leaves = _chain_leaves("cpu", 2, 3, 7, 5)
    torch.testing.assert_close(_run_chain(FLA, *leaves), _run_chain("reference", *leaves), rtol=1e-5, atol=1e-5)


def test_what_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "fla.ops.simple_gla", None)
    monkeypatch.setitem(sys.modules, "fla", None)
    with pytest.raises(BackendUnavailable, match="pip install flash-linear-attention"):
        _run_chain(FLA, *_chain_leaves("cpu", 1, 1, 3, 2))
