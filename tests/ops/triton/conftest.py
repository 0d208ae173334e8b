"""Kernels run on a GPU, or else under Triton's interpreter (see tests/conftest.py)."""

from collections.abc import Iterator
from importlib import import_module

import pytest
import torch
from forms import FORMS

from plstm_graph.line_dag import plan, sharing


@pytest.fixture(autouse=True)
def interpreter() -> None:
    """On, if there is no GPU."""


@pytest.fixture(params=["triton"] if torch.cuda.is_available() else ["triton", "numba"])
def backend(request, monkeypatch) -> str:
    """Each backend whose functions keep one contract: the test module's ``OF_A_BACKEND`` names their file and them."""
    pytest.importorskip(request.param)
    file, names = request.module.OF_A_BACKEND
    found = import_module(f"plstm_graph.ops.{request.param}.{file}")
    for name in names:
        monkeypatch.setattr(request.module, name, getattr(found, name))
    return request.param


@pytest.fixture(params=FORMS)
def form(request, monkeypatch) -> Iterator[str]:
    """Tiles and blocks narrower than a GPU's, so that small graphs fill several, or none that serves any graph. On a
    GPU, as they are."""
    if torch.cuda.is_available():
        yield request.param
        return
    pytest.importorskip("triton")
    import triton.language as tl

    from plstm_graph.ops.triton import call, walk

    tiles, numbers, _, narrow = FORMS[request.param]
    monkeypatch.setattr(plan, "WIDEST", numbers)
    monkeypatch.setattr(plan, "NARROW", narrow)
    monkeypatch.setattr(sharing, "_limit", 0)  # plans are for these tiles alone
    for module in (plan, call):
        monkeypatch.setattr(module, "TILES", tiles)
    monkeypatch.setattr(walk, "UNIT", tl.constexpr(tiles[0]))
    call._form.cache_clear()
    yield request.param
    call._form.cache_clear()
