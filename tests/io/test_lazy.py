"""What loads on first use loads then, and is what it is without."""

import gc
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from small_runs import small_config, write_csv

from plstm_graph.io import lazy
from plstm_graph.io.lazy import is_put_off, quick_start
from plstm_graph.train import predict, train

HEAVY = {
    *("torch._dynamo.config", "torch._meta_registrations", "torch.onnx.ops", "sympy", "numba", "scipy.linalg"),
    *("pandas", "sklearn", "matplotlib", "pytorch_lightning"),
}
"""What trainings need, compilers, loops and tables; together they take longer to import than all the rest."""


@pytest.mark.parametrize("name", ["plstm_graph.data", "plstm_graph.nn"])
def test_a_package_has_the_names_it_lists(name):
    package = import_module(name)
    assert set(package.__all__) == set(package._HOME)
    assert set(package.__all__) <= set(dir(package))
    for each in package.__all__:
        assert getattr(package, each).__doc__
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_what_is_put_off_loads_when_it_is_used(monkeypatch):
    monkeypatch.setattr(lazy, "UNUSED", ("colorsys", "wave"))
    monkeypatch.setitem(sys.modules, "wave", import_module("wave"))
    real, known = sys.modules.pop("colorsys", None), sys.modules["wave"]
    try:
        with quick_start():
            import colorsys

            assert not gc.isenabled()
        assert gc.isenabled()
        assert is_put_off("colorsys")
        assert sys.modules["wave"] is known  # it was there
        assert not hasattr(colorsys, "__file__")  # whoever looks through all modules
        assert is_put_off("colorsys")
        assert colorsys.rgb_to_hsv(1, 0, 0) == (0.0, 1.0, 1)
        assert not is_put_off("colorsys")
        assert import_module("colorsys").__file__
    finally:
        gc.unfreeze()
        sys.modules["colorsys"] = real or import_module("colorsys")


def test_predict_imports_no_more_than_it_needs_and_gives_the_same(tmp_path: Path):
    train(small_config(out=tmp_path / "run", data=write_csv(tmp_path / "a.csv"), targets="y", epochs=1))
    (tmp_path / "in.smi").write_text("CCO\nC1CC\n")
    words = ["--checkpoint", "run", "--input", "in.smi", "--out", "p.csv", "--device", "cpu"]
    command = [sys.executable, "-X", "importtime", "-m", "plstm_graph", "predict", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "torch" in imported
    assert imported & HEAVY == set()
    predict(tmp_path / "run", ["CCO", "C1CC"], device="cpu").write(tmp_path / "q.csv")
    got, want = ((tmp_path / name).read_text().splitlines() for name in ("p.csv", "q.csv"))
    (header, *cells), (as_header, *expected) = ([line.split(",") for line in lines] for lines in (got, want))
    assert (header[2:], cells[1][2:]) == (as_header[1:], expected[1][1:])  # .smi has an id
    assert float(cells[0][2]) == pytest.approx(float(expected[0][1]), rel=1e-5)
