"""Kernels run on a GPU, or else under Triton's interpreter (see tests/conftest.py)."""

import pytest
import torch


@pytest.fixture(autouse=True)
def interpreter() -> None:
    """On, if there is no GPU."""


@pytest.fixture(autouse=True)
def filled(monkeypatch):
    """Memory that nothing has written to is NaN."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
