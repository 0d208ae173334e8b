"""Fixtures shared by the whole suite."""

import os
from pathlib import Path

import pytest
import torch

DATA_VARIABLE = "PLSTM_GRAPH_DATA"


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Workers of pytest-xdist share the cores; more threads each would only fight."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with public benchmark files (TUDataset/NAME/raw, ...); tests that need it are skipped without one."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get(DATA_VARIABLE, beside))
    if not folder.is_dir():
        pytest.skip(f"no public data: set {DATA_VARIABLE} to a folder that holds TUDataset/")
    return folder
