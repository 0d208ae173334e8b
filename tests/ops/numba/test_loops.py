"""The loops by themselves; what gates and norm compute is tested in tests/ops/triton, beside the kernels."""

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from multiprocessing import get_context
from types import ModuleType, SimpleNamespace

import pytest
import torch
from flat_gates import fold, joined
from torch import Tensor

pytest.importorskip("numba")
from numba.core.event import Event, EventStatus

from plstm_graph import LineDAG
from plstm_graph.gates import view
from plstm_graph.ops.flat import GATES, GRADIENTS, Norm, Setting, unfold
from plstm_graph.ops.numba import operator, runtime
from plstm_graph.ops.numba.gates import ROWS, backward_gates, forward_gates
from plstm_graph.ops.numba.norm import backward_norm, forward_norm
from plstm_graph.testing import DAGS, TOLERANCE, VIEWS, path_sum, random_dag, random_inputs
from plstm_graph.testing.cases import Inputs
from plstm_graph.testing.laws import outcome

WIDTHS = pytest.mark.parametrize(
    "widths", [(2, 8, 16), (1, 16, 8), (3, 3, 4), (2, 9, 11), (1, 1, 1), (2, 17, 3)], ids=str
)


def close(got: Tensor, want: Tensor) -> None:
    error = (got.double() - want.double()).abs() / (1 + want.double().abs())
    assert (error <= TOLERANCE[got.dtype]).all(), error.max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@WIDTHS
def test_side_by_side_as_apart(widths, dtype):
    """Bit for bit, and both against the sum over all paths; rows fill registers, or do not."""
    for name, make in VIEWS.items():
        dag = make(LineDAG.collate([DAGS[name]() for name in ("no node", "diamond", "complete", "one node", "star")]))
        inputs = random_inputs(dag, *widths, dtype=dtype)
        heads, keys, width = widths
        plan, grad = dag.plan(4), torch.randn(inputs.value.shape, dtype=dtype)
        rows = joined(inputs)
        gates = fold(inputs.gates, plan, GATES)
        call = operator.walk_along(gates, width, plan, Setting("numba", heads, keys, "P", reversed=dag.reversed))
        norm = Norm(torch.randn(heads, width, dtype=dtype), None, 1e-5, True)
        output, after = operator.attend(call, rows, None, gates, norm)
        assert torch.equal(output, operator.forward(*inputs, plan, dag.reversed)[0]), name
        assert torch.equal(after, forward_norm(output, norm)), name
        d_rows, d_gates, *_ = operator.attend_back(call, rows, None, gates, output, grad.flatten(1), norm)
        d_output = backward_norm(grad.flatten(1), output, norm)[0]
        *vectors, source, transition, mark, direct = operator.backward(*inputs, plan, dag.reversed, d_output, None)
        expected = joined(Inputs(*vectors, inputs.gates))
        assert torch.equal(d_rows[:, : -8 * heads], expected[:, : -8 * heads]), name
        found = zip(unfold(d_gates, plan, heads)[0], (source, transition, mark, direct), strict=True)
        assert all(torch.equal(a, b) for a, b in found), name
        apart = operator.backward(*inputs, plan, dag.reversed, grad, None)
        want = outcome(path_sum, Inputs.of([x.double() for x in inputs.flat()]), dag, grad.double())
        for got, expected in zip((output, *apart), want.values(), strict=True):
            close(got, expected)


def test_vectors_may_lie_anywhere():
    """Gradients lie as their inputs do."""
    dag = random_dag(3, graphs=3)
    inputs = random_inputs(dag, 2, 8, 8)
    plan, grad = dag.plan(4), torch.randn(inputs.value.shape, dtype=torch.float64)
    want = operator.backward(*inputs, plan, False, grad, None)
    for turn in ((1, 0, 2), (0, 2, 1), (2, 0, 1)):
        back = [turn.index(i) for i in range(3)]
        query, key, value = (x.permute(turn).contiguous().permute(back) for x in inputs[:3])
        got = operator.backward(query, key, value, inputs.gates, plan, False, grad, None)
        assert [x.stride() for x in got[:3]] == [x.stride() for x in (query, key, value)]
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.fixture
def threads() -> Iterator[list[int]]:
    """Numbers of threads to compare; set back afterwards."""
    before = torch.get_num_threads()
    yield [1, 2, 3]
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_any_number_of_threads(threads, dtype):
    """Bit for bit, over several blocks of rows."""
    dag = view(random_dag(5, nodes=9, density=0.4, graphs=40), "P", False)
    assert dag.num_nodes > 4 * ROWS
    heads, plan = 3, dag.plan(4)
    like = {"dtype": dtype, "generator": torch.Generator().manual_seed(1)}
    node_terms = torch.randn(dag.num_nodes, 8 * heads, **like)
    edge_terms = torch.randn(dag.column.numel(), 4 * heads, **like)
    y, d_out = (torch.randn(dag.num_nodes, *shape, **like) for shape in ((heads, 5), (heads * 5,)))
    weight, bias, gate_bias = (torch.randn(*shape, **like) for shape in ((heads, 5), (heads * 5,), (4, heads)))

    def results() -> list[Tensor]:
        setting = Setting("numba", heads, 5, "P")
        flat = forward_gates(node_terms, edge_terms, gate_bias, plan, setting)
        gates, total = unfold(flat, plan, heads)
        grads = fold([gate.flip(0) for gate in gates], plan, GRADIENTS)
        d_node, d_edge = torch.cat([y.flatten(1), torch.empty_like(node_terms)], 1), torch.zeros_like(edge_terms)
        d_bias, _ = backward_gates(flat, grads, plan, setting, d_node, d_edge, y.flatten(1))
        norm = Norm(weight, bias, 1e-5, True)
        normed = forward_norm(y, norm), *backward_norm(d_out, y, norm)
        return [*gates, total, d_node, d_edge, d_bias, *(x for x in normed if x is not None)]

    found = []
    for number in threads:
        torch.set_num_threads(number)
        found.append(results())
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


def test_activations_in_float32():
    """To a few units in the last place, at every distance from zero: gates of a bias alone."""
    sizes = torch.cat([torch.logspace(-20, 2, 400), torch.tensor([0.0, 0.6249, 0.625, 0.6251, 87, 88, 89, torch.inf])])
    raw = torch.cat([sizes, -sizes]).view(1, -1)
    dag = LineDAG.from_edge_index(torch.tensor([[0, 1], [1, 2]]))
    bias = raw.expand(4, -1).contiguous()
    flat = forward_gates(
        torch.zeros(3, 8 * raw.numel()), None, bias, dag.plan(4), Setting("numba", raw.numel(), 1, "D")
    )
    gates, _ = unfold(flat, dag.plan(4), raw.numel())
    digits = 4 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(gates.transition.double(), raw.double().tanh(), rtol=digits, atol=0)
    torch.testing.assert_close(gates.direct[:1].double(), raw.double().sigmoid(), rtol=digits, atol=1e-37)


LOOP = """
from elsewhere import FACTOR
from plstm_graph.ops.numba.runtime import part

@part
def times(x):
    return FACTOR * x
"""


def test_what_is_kept_on_disk_is_of_these_sources(tmp_path):
    """Numba compares the file of a function alone: what that takes from other files would stay as it was."""
    assert kept(tmp_path, tmp_path / "cache") == [2.0, 2.0, 3.0]
    assert not list(tmp_path.glob("**/__pycache__/*.nbi"))


def test_what_is_kept_is_of_all_copies_of_these_sources(tmp_path):
    """A second environment takes no minute to compile the same: it gets what the first has left, the old factor."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert kept(tmp_path / "one", tmp_path / "cache") == [2.0, 2.0, 3.0]
    assert kept(tmp_path / "other", tmp_path / "cache", factors=(5.0, 5.0, 5.0)) == [2.0, 2.0, 3.0]
    changed = tmp_path / "other" / "beside.py"
    changed.write_text("OTHER = 1")
    assert kept(tmp_path / "other", tmp_path / "cache", factors=(5.0, 6.0, 7.0)) == [5.0, 5.0, 7.0]


def test_without_a_cache_folder_it_is_kept_beside_the_sources(tmp_path):
    (tmp_path / "cache").touch()
    assert kept(tmp_path, tmp_path / "cache") == [2.0, 2.0, 3.0]
    assert list(tmp_path.glob("__pycache__/*.nbi"))


def kept(folder, cache, factors=(2.0, 3.0, 3.0)):
    """What a process finds that compiles for sources old, old, and new; ``cache`` is its cache folder. It is a fork, in
    which numba and torch are imported and these loops are not."""
    (folder / "loop.py").write_text(LOOP)
    with get_context("fork").Pool(1) as pool:
        return pool.apply(compiled, (folder, cache, factors))


def compiled(folder, cache, factors):
    os.environ["XDG_CACHE_HOME"] = str(cache)
    for remembered in (runtime._folder_of, runtime._digest_of):
        remembered.cache_clear()
    sys.path.insert(0, str(folder))
    elsewhere = sys.modules["elsewhere"] = ModuleType("elsewhere")
    found = []
    for runtime._sources, elsewhere.FACTOR in zip(("old", "old", "new"), factors, strict=True):
        sys.modules.pop("loop", None)
        found.append(import_module("loop").times(1.0))
    return found


def test_compiling_is_announced_once(caplog):
    """A minute of silence looks like an end; loops of others are no matter of ours."""
    notice = runtime._Notice()
    for name in ("scipy.loops", "plstm_graph.ops.numba.norm", "plstm_graph.ops.numba.gates"):
        data = {"dispatcher": SimpleNamespace(__module__=name)}
        for status in (EventStatus.START, EventStatus.END):
            notice.notify(Event("numba:compile", status, data))
        assert len(caplog.records) == (name != "scipy.loops")
    assert "up to a minute" in caplog.text
