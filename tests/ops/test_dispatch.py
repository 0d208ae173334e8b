import os
import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from backends import HERE, every

from plstm_graph import Gates, propagate
from plstm_graph.errors import BackendUnavailable, ConfigError, ShapeError
from plstm_graph.ops import BACKENDS, choose_backend, compiled, dispatch, influence, selftest
from plstm_graph.testing import DAGS, TOLERANCE, Inputs, grid_dag, random_dag, random_inputs


@pytest.mark.parametrize(
    ("device", "padded", "states", "compiled", "expected"),
    [
        ("cpu", 0, 0, True, "numba"),
        ("cpu", 2**40, 1, True, "numba"),
        ("cuda", 0, 0, True, "triton"),
        ("cuda", 2**40, 1, True, "triton"),
        ("cpu", 200, 100, False, "dense"),
        ("cpu", 201, 100, False, "scatter"),
        ("cuda", 201, 100, False, "scatter"),
        ("cuda", 2**30, 2**40, False, "dense"),
        ("cuda", 2**30 + 1, 2**40, False, "scatter"),  # never more than 1 GiB unasked
        ("mps", 200, 100, False, "dense"),  # nothing is compiled for it
    ],
)
def test_choose_backend(device, padded, states, compiled, expected):
    assert choose_backend(device, padded, states, compiled) == expected
    assert choose_backend(device, padded, states, compiled, deep=True) == "chunkwise"


@pytest.mark.parametrize("other", ["mps", "xpu", "meta"])
def test_nothing_is_compiled_for_other_devices(other):
    assert not dispatch.has_compiled(torch.device(other))


@pytest.fixture
def called(monkeypatch) -> list[str]:
    """Names of the backends that ran."""
    names: list[str] = []
    for name, run in list(BACKENDS.items()):
        monkeypatch.setitem(BACKENDS, name, lambda *args, name=name, run=run: (names.append(name), run(*args))[1])
    return names


@pytest.mark.parametrize(
    ("dag", "widths", "expected"),
    [
        (random_dag(0, nodes=12, density=0.2, graphs=20), (2, 16, 16), "dense"),  # molecules with wide states
        (random_dag(0, nodes=12, density=0.2, graphs=20), (2, 2, 2), "scatter"),  # states smaller than matrices
        (grid_dag(1, 400), (1, 4, 4), "scatter"),  # one long chain
        (grid_dag(20, 20), (1, 4, 4), "scatter"),  # one image
        (random_dag(0, density=0), (2, 3, 4), "scatter"),  # no edge, nothing to solve
    ],
)
def test_auto_weighs_matrices_against_states(monkeypatch, called, dag, widths, expected):
    monkeypatch.setattr(dispatch, "has_compiled", lambda device: False)
    propagate(*random_inputs(dag, *widths), dag)
    assert called == [expected]


@pytest.mark.parametrize("place", [place for place in HERE if place[0] in ("numba", "triton")], ids="-".join)
def test_auto_takes_what_is_compiled(called, place):
    backend, device = place
    dag = random_dag(0).to(device)
    propagate(*random_inputs(dag, device=device), dag)
    assert called == [backend]


def test_a_name_is_taken_at_its_word(called):
    dag = random_dag(0)
    propagate(*random_inputs(dag), dag, backend="reference")
    assert called == ["reference"]


def test_a_backend_of_ones_own(monkeypatch):
    monkeypatch.setitem(BACKENDS, "zero", lambda query, key, value, gates, dag: torch.zeros_like(value))
    dag = random_dag(0)
    assert not propagate(*random_inputs(dag), dag, backend="zero").any()


def test_unknown_backend_names_the_closest():
    dag = random_dag(0)
    with pytest.raises(ConfigError, match=r"unknown backend 'scater'; choose one of auto, .*did you mean 'scatter'"):
        propagate(*random_inputs(dag), dag, backend="scater")


@every()
def test_no_backend_changes_the_number_of_threads_of_torch(backend, device):
    """The suite runs with one thread; a pool that resets it makes all that follows many times slower."""
    dag = random_dag(0).to(device)
    propagate(*random_inputs(dag, device=device), dag, backend=backend)
    assert torch.get_num_threads() == 1


# ---------------------------------------------------------------------- dtypes


def check_half(backend: str, output: torch.Tensor, wide: torch.Tensor) -> None:
    """The output of half precision inputs is that of the same numbers in float32, rounded once. Backends that take
    half precision as it is multiply it on tensor cores, so that theirs is as near as the table of tolerances says."""
    assert output.dtype != wide.dtype
    if backend in compiled.HOMES and compiled.HOMES[backend].half:
        tolerance = TOLERANCE[output.dtype]
        torch.testing.assert_close(output.float(), wide, rtol=tolerance, atol=tolerance)
    else:
        assert torch.equal(output, wide.to(output.dtype))


@every()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_propagated_in_float32(backend, device, dtype):
    dag = random_dag(4, nodes=8).to(device)
    inputs = random_inputs(dag, dtype=dtype, device=device)
    wide = Inputs.of([x.float() for x in inputs.flat()])
    output = propagate(*inputs, dag, backend=backend)
    assert output.dtype == dtype
    check_half(backend, output, propagate(*wide, dag, backend=backend))


@every()
def test_float32_queries_of_half_precision_values_stay_float32(backend, device):
    """Where float16 could not hold them."""
    dag = random_dag(4, nodes=8).to(device)
    query, key, value, gates = random_inputs(dag, dtype=torch.float32, device=device)
    output = propagate(1e5 * query, 1e-5 * key, value.half(), gates, dag, backend=backend)
    assert output.dtype == torch.float16
    want = propagate(query, key, value.half().float(), gates, dag, backend=backend)
    torch.testing.assert_close(output.float(), want, rtol=2e-3, atol=2e-3)


@every()
def test_float32_gates_of_half_precision_values_stay_float32(backend, device):
    """As a layer under autocast calls it: the output has the dtype of the values, the gates lose nothing."""
    dag = random_dag(4, nodes=8).to(device)
    query, key, value, gates = random_inputs(dag, dtype=torch.float32, device=device)
    low = [x.bfloat16() for x in (query, key, value)]
    output = propagate(*low, gates, dag, backend=backend)
    assert output.dtype == torch.bfloat16
    check_half(backend, output, propagate(*(x.float() for x in low), gates, dag, backend=backend))


@every()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_changes_no_bit(backend, device, dtype):
    dag = random_dag(4, nodes=8).to(device)
    inputs = random_inputs(dag, dtype=dtype, device=device)

    def results(under_autocast: bool) -> list[torch.Tensor]:
        leaves = [x.clone().requires_grad_() for x in inputs.flat()]
        with torch.autocast(device, torch.bfloat16, enabled=under_autocast):
            output = propagate(*Inputs.of(leaves), dag, backend=backend)
        output.sin().sum().backward()
        return [output, *(x.grad for x in leaves)]

    for under, plain in zip(results(True), results(False), strict=True):
        assert under.dtype == dtype
        assert torch.equal(under, plain)


# ---------------------------------------------------------------------- input checks


def shapes(**changes):
    """Arguments of ``propagate`` with some of them replaced by a function of the right ones."""
    dag = random_dag(0)
    inputs = dict(zip(("query", "key", "value", *Gates._fields), random_inputs(dag).flat(), strict=True))
    inputs |= {name: change(inputs[name]) for name, change in changes.items()}
    return Inputs.of(list(inputs.values())), dag


def cut(x):
    return x[:-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": lambda x: x[0]}, r"query and key must be \[N, H, K\]"),
        ({"query": lambda x: x[..., 1:]}, r"got \[7, 2, 2\], \[7, 2, 3\] and \[7, 2, 4\]"),
        ({"value": lambda x: x[0]}, r"value \[N, H, V\]"),
        ({"value": lambda x: x[:, 1:]}, r"value \[N, H, V\]"),
        ({"query": cut, "key": cut, "value": cut}, "the dag has 7 nodes, but query, key and value have 6"),
        ({"source": cut}, r"gate source must be \[6, 2\] for this dag, got \[5, 2\]"),
        ({"transition": cut}, "gate transition must be .* was it rebuilt, pruned or reordered"),
        ({"mark": lambda x: x[:, :1]}, r"gate mark must be \[6, 2\] for this dag, got \[6, 1\]"),
        ({"direct": lambda x: x[:, 0]}, r"gate direct must be \[7, 2\] for this dag, got \[7\]"),
        ({"mark": lambda x: x.to("meta")}, "gate mark is on meta, the dag on cpu"),
        ({"value": lambda x: x.long()}, r"value must be floating point, got torch.int64; call value.float\(\)"),
        ({"query": lambda x: x.bool(), "key": lambda x: x.bool()}, "query must be floating point, got torch.bool"),
    ],
)
def test_wrong_shapes(changes, message):
    inputs, dag = shapes(**changes)
    with pytest.raises(ShapeError, match=message):
        propagate(*inputs, dag)


def test_what_is_no_line_graph_is_named():
    inputs, _ = shapes()
    for call in (lambda dag: propagate(*inputs, dag), lambda dag: influence(inputs.gates, dag)):
        with pytest.raises(ShapeError, match="dag must be a LineDAG, got str; make one with"):
            call("x")


def test_gates_computed_before_the_dag_was_pruned():
    dag = grid_dag(3, 3)
    with pytest.raises(ShapeError, match=r"gate transition .* was it rebuilt, pruned"):
        propagate(*random_inputs(dag), dag.prune())


def test_dag_on_another_device():
    dag = random_dag(0)
    with pytest.raises(ShapeError, match="the dag is on meta, value on cpu; move both"):
        propagate(*random_inputs(dag), dag.to("meta"))


def test_query_on_another_device():
    dag = random_dag(0)
    inputs = random_inputs(dag)
    with pytest.raises(ShapeError, match="query is on meta, value on cpu; move both"):
        propagate(inputs.query.to("meta"), inputs.key, inputs.value, inputs.gates, dag)


# ---------------------------------------------------------------------- backends that cannot run

NUMBA = pytest.mark.skipif(find_spec("numba") is None, reason="needs numba")
TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")


def without(monkeypatch, package: str, error: ImportError) -> None:
    """As if importing the modules of a compiled backend raised ``error``."""

    def load(name):
        if package in name.split("."):
            raise error
        return import_module(name)

    monkeypatch.setattr(compiled, "import_module", load)
    monkeypatch.setattr(compiled, "load", compiled.load.__wrapped__)


def test_numba_missing_names_the_extra_and_a_way_out(monkeypatch):
    dag = DAGS["diamond"]()
    without(monkeypatch, "numba", ModuleNotFoundError("No module named 'numba'", name="numba"))
    with pytest.raises(BackendUnavailable, match=r"'numba' cannot run: .*plstm-graph\[cpu\].*use 'auto' or 'scatter'"):
        propagate(*random_inputs(dag), dag, backend="numba")
    assert not dispatch.has_compiled(torch.device("cpu"))
    propagate(*random_inputs(dag), dag)


def test_triton_missing_says_where_it_comes_from_and_a_way_out(monkeypatch):
    dag = DAGS["diamond"]()
    without(monkeypatch, "triton", ModuleNotFoundError("No module named 'triton'", name="triton"))
    with pytest.raises(BackendUnavailable, match=r"triton is not installed \(.*CUDA.*\); use 'auto' or 'scatter'"):
        propagate(*random_inputs(dag), dag, backend="triton")
    assert not dispatch.has_compiled(torch.device("cuda"))


@pytest.fixture
def gpu(monkeypatch, cache):
    """As if the GPU were of some compute capability and had some driver, in a process that knows nothing yet. Called
    anew, it is another process on the same machine. Runs of the self-test are counted."""
    pytest.importorskip("triton")
    from plstm_graph.ops.triton import operator

    runs = []

    def appear(*capability, driver="12080", wrong=""):
        facts = {"device": "NVIDIA Some GPU", "capability": str(capability), "driver": driver}
        monkeypatch.setattr(operator, "_capability", lambda device: capability)
        monkeypatch.setattr(operator, "_facts", lambda device: facts)
        monkeypatch.setattr(selftest, "_found", {})
        monkeypatch.setattr(selftest, "run", lambda name, device: runs.append(name) or wrong)
        return runs

    operator._why_not.cache_clear()
    yield appear
    operator._why_not.cache_clear()


CUDA = torch.device("cuda")


def test_kernels_run_unasked_where_they_have_been_tried(gpu, recwarn):
    runs = gpu(9, 0)
    assert dispatch.has_compiled(CUDA)
    assert not runs
    assert not recwarn


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (10, 0), (12, 0)])
def test_elsewhere_they_run_unasked_after_a_test_of_themselves(gpu, recwarn, capability):
    """Once for each device and driver, whatever the number of processes."""
    for driver, count in (("12080", 1), ("12080", 1), ("13000", 2)):
        runs = gpu(*capability, driver=driver)
        assert dispatch.has_compiled(CUDA)
        assert dispatch.has_compiled(CUDA)
        assert len(runs) == count
    assert not recwarn


def test_kernels_that_fail_their_test_wait_to_be_named(gpu, cache):
    wrong = "gradient of lin of a layer in mode P and torch.float32 is off by 3.0e-01, 1e-04 is allowed"
    for process in range(2):
        runs = gpu(8, 6, wrong=wrong)
        with pytest.warns(UserWarning, match="failed its self-test on NVIDIA Some GPU.*gradient of lin.*delete"):
            assert not dispatch.has_compiled(CUDA)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # once is enough
            assert not dispatch.has_compiled(CUDA)
        assert len(runs) == 1, process
    assert dispatch.compiled_backend("triton", CUDA) == "triton"
    (stored,) = (cache / "self-tests").iterdir()
    stored.unlink()
    gpu(8, 6)
    assert dispatch.has_compiled(CUDA)
    stored.write_text("{")  # half a file is none
    assert len(gpu(8, 6)) == 2
    assert dispatch.has_compiled(CUDA)


def test_a_cache_that_cannot_be_written_costs_a_test_in_each_process(gpu, cache):
    cache.parent.mkdir()
    cache.write_text("no folder")
    for count in (1, 2):
        runs = gpu(8, 9)
        with pytest.warns(UserWarning, match="every process tests 'triton' anew, since .* cannot be written"):
            assert dispatch.has_compiled(CUDA)
        assert len(runs) == count


def test_kernels_refuse_rocm_by_name(gpu, monkeypatch):
    runs = gpu(9, 0)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not dispatch.has_compiled(CUDA)
    assert not runs
    assert "built for AMD's (ROCm 6.4)" in compiled.unavailable("triton", CUDA)


def test_kernels_refuse_old_gpus(gpu):
    gpu(7, 5)
    assert dispatch.compiled_backend("triton", torch.device("cuda")) is None
    assert "need compute capability 8.0 or later" in compiled.unavailable("triton", torch.device("cuda"))


def test_numba_that_does_not_load_says_why(monkeypatch):
    dag = DAGS["diamond"]()
    without(monkeypatch, "numba", ImportError("Numba needs NumPy 2.4 or less"))
    message = r"numba does not load: Numba needs NumPy 2.4 or less; .*use 'auto' or 'scatter'"
    with pytest.raises(BackendUnavailable, match=message):
        propagate(*random_inputs(dag), dag, backend="numba")
    propagate(*random_inputs(dag), dag)


@NUMBA
def test_numba_in_a_forked_child_gives_way(monkeypatch, called):
    """Its threads stay behind; OpenMP would end the child."""
    dag = DAGS["diamond"]()
    propagate(*random_inputs(dag), dag, backend="numba")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(BackendUnavailable, match="before this process was forked"):
        propagate(*random_inputs(dag), dag, backend="numba")
    propagate(*random_inputs(dag), dag)
    assert called[-1] != "numba"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_loader_worker_runs_the_layer():
    script = """
import torch
from plstm_graph import PLSTMConv
conv, x, edges = PLSTMConv(4, 4), torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]])
want = conv(x, edges)
run = lambda _: conv(x, edges).detach()
loader = torch.utils.data.DataLoader([0], num_workers=1, collate_fn=run, multiprocessing_context="fork", timeout=60)
torch.testing.assert_close(next(iter(loader)), want)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "2", "TRITON_INTERPRET": "0"}
    assert subprocess.run([sys.executable, "-c", script], env=environment, timeout=120).returncode == 0


@NUMBA
def test_numba_without_openmp_serves_threads_in_turns():
    script = """
import threading, numba, torch
from plstm_graph import LineDAG, propagate
from plstm_graph.testing import random_inputs
at = torch.arange(255)
dag = LineDAG.from_edge_index(torch.stack([at, at + 1]), 256)
inputs = random_inputs(dag, heads=8)
want = propagate(*inputs, dag, backend="scatter")
start, right = threading.Barrier(4), []
def work():
    start.wait()
    for _ in range(30):
        query = inputs.query.detach().requires_grad_()
        found = propagate(query, *inputs[1:], dag, backend="numba")
        found.sum().backward()
    right.append(torch.allclose(found, want))
workers = [threading.Thread(target=work) for _ in range(4)]
[each.start() for each in workers]
[each.join() for each in workers]
assert (right, numba.threading_layer()) == (4 * [True], "workqueue")
"""
    environment = os.environ | {"NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@NUMBA
def test_numba_is_for_the_cpu():
    dag = DAGS["diamond"]()
    inputs = random_inputs(dag)
    query, key, value = (x.to("meta") for x in inputs[:3])
    with pytest.raises(BackendUnavailable, match="loops are for the CPU, the tensors are on meta; use 'auto'"):
        dispatch.BACKENDS["numba"](query, key, value, inputs.gates, dag)


@TRITON
def test_triton_is_for_gpus():
    dag = DAGS["diamond"]()
    with pytest.raises(BackendUnavailable, match="for NVIDIA GPUs, the tensors are on cpu; use 'auto' or 'scatter'"):
        propagate(*random_inputs(dag), dag, backend="triton")
