"""Kernels run on a GPU, or else under Triton's interpreter (see tests/conftest.py)."""

import pytest


@pytest.fixture(autouse=True)
def interpreter() -> None:
    """On, if there is no GPU."""
