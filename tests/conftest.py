"""Fixtures shared by the whole suite."""

import os
import sys
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import pytest
import torch
from interpreted import hasten

PICTURES_LOOKED_AT = {
    "test_depth",
    "test_distance",
    "test_draw_runs",
    "test_gallery",
    "test_report",
    "test_train_explained",
    "test_train_images",
    "test_train_page",
    "test_train_run",
}
DATA_VARIABLE = "PLSTM_GRAPH_DATA"

# Without a GPU, kernels are tested under Triton's interpreter. That has to be on before anything imports triton, as
# PyTorch Geometric does, and before any test is collected.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
# cuBLAS is deterministic only with a workspace of its own.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def nothing_shared() -> None:
    """No test gets a line graph that layers of another one have left."""
    sharing = sys.modules.get("plstm_graph.line_dag.sharing")
    if sharing is not None:
        sharing._kept.clear()


@pytest.fixture(autouse=True)
def interpreter(monkeypatch) -> None:
    """Off, as for a user: tensors on the CPU get no kernels, but in tests/ops/triton."""
    if find_spec("triton"):
        monkeypatch.setattr("plstm_graph.ops.triton.operator.INTERPRETED", False)


@pytest.fixture(autouse=True)
def empty_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most trainings leave empty pictures: laying them out takes longer than the training."""
    from plstm_graph.draw import style
    from plstm_graph.io.files import atomic_write

    def save(figure: Any, out: Any, whole: Any = style.save) -> None:
        if not isinstance(out, str | PathLike):  # of a page
            whole(figure, out)
            return
        with atomic_write(out) as temp:
            temp.touch()

    if request.module.__name__ not in PICTURES_LOOKED_AT:
        monkeypatch.setattr(style, "save", save)


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request) -> str:
    """Type of each device of this machine."""
    return request.param


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Workers of pytest-xdist share the cores; more threads each would only fight."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def quick_interpreter() -> None:
    if find_spec("triton") and not torch.cuda.is_available():
        hasten()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with public benchmark files (TUDataset/NAME/raw, ...); tests that need it are skipped without one."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get(DATA_VARIABLE, beside))
    if not folder.is_dir():
        pytest.skip(f"no public data: set {DATA_VARIABLE} to a folder that holds TUDataset/")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "plstm_graph"
