"""Kernels run on a GPU, or else under Triton's interpreter (see tests/conftest.py)."""

from importlib import import_module

import pytest
import torch


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
