"""The kernels of the operator on a GPU: every tile and the recurrent form in one batch, element by element against
float64, and bit for bit from run to run and from batch to batch."""

import pytest
import torch
from batches import check_close, check_same, join, molecule, probe, run, split, tame_inputs, triton

from plstm_graph import LineDAG
from plstm_graph.line_dag import plan
from plstm_graph.line_dag.plan import Host
from plstm_graph.ops import BACKENDS
from plstm_graph.testing import LAWS, NAMES, TOLERANCE, VIEWS, Inputs, outcome, random_dag

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SIZES = (0, 1, 2, 5, 17, 31, 32, 33, 60, 64, 90, 128, 200, 256, 300, 500, 513, 700, 2000)
# H, K, V and a view: every number of heads, widths of every kind, all four views. Each takes seconds to compile.
CASES = [
    (8, 16, 16, "plain"),
    (8, 16, 16, "pruned and reversed"),
    (4, 32, 32, "pruned"),
    (2, 5, 7, "reversed"),
    (3, 33, 5, "plain"),
    (1, 64, 64, "pruned and reversed"),
    (16, 1, 16, "reversed"),
    (2, 100, 128, "pruned"),
    (2, 40, 100, "plain"),
    (1, 128, 64, "reversed"),
    (1, 128, 100, "reversed"),
    (4, 7, 33, "plain"),
    (1, 1, 1, "pruned"),
]


def molecules() -> list[LineDAG]:
    """One of each size, and two graphs of many edges and pairs: 30 nodes that take a wider tile, and 400."""
    crowded = [random_dag(1, nodes=30, density=0.6), random_dag(2, nodes=400, density=0.02)]
    return [molecule(size, seed=size) for size in SIZES] + crowded


def on_gpu(inputs: Inputs, dtype: torch.dtype, gates: torch.dtype | None = None) -> Inputs:
    """Moved and rounded."""
    dtypes = [dtype] * 3 + [gates or dtype] * 4
    return Inputs.of([x.to("cuda", wanted) for x, wanted in zip(inputs.flat(), dtypes, strict=True)])


def check(inputs: Inputs, dag: LineDAG) -> None:
    """Against level scatter in float64, which the oracle vouches for."""
    wide = Inputs.of([x.double() for x in inputs.flat()])
    want = outcome(BACKENDS["scatter"], wide, dag, probe(wide))
    check_close(run(inputs, dag), want, TOLERANCE[inputs.value.dtype])


@pytest.fixture(params=[0, 100], ids=["wide", "deep"])
def recurrent(monkeypatch, request) -> None:
    """No tile serves any graph, and all count as wide or nearly all as deep."""
    monkeypatch.setattr(plan, "WIDEST", 0)
    monkeypatch.setattr(plan, "NARROW", request.param)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32(case):
    heads, keys, values, view = case
    dag = VIEWS[view](LineDAG.collate(molecules()))
    check(on_gpu(tame_inputs(dag, heads, keys, values), torch.float32), dag.to("cuda"))


def test_that_batch_meets_every_tile():
    dag = LineDAG.collate(molecules())
    assert (dag.plan(plan.served_classes(16, 16)).host[Host.GRAPHS] > 1).all()
    assert [plan.served_classes(width, width) for width in (16, 32, 64, 100, 128)] == [4, 4, 4, 4, 4]


@pytest.mark.parametrize(
    "case", [(8, 16, 16, "plain"), (3, 5, 33, "pruned and reversed"), (1, 100, 7, "reversed")], ids=str
)
@pytest.mark.parametrize("gates", [None, torch.float32], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype, gates, case):
    """All in half precision, and with gates in float32 as under autocast."""
    heads, keys, values, view = case
    dag = VIEWS[view](LineDAG.collate(molecules()))
    check(on_gpu(tame_inputs(dag, heads, keys, values), dtype, gates), dag.to("cuda"))


@pytest.mark.parametrize("case", [(2, 16, 16), (1, 100, 128)], ids=str)
def test_float64(case):
    dag = LineDAG.collate(molecules())
    check(on_gpu(tame_inputs(dag, *case), torch.float64), dag.to("cuda"))


def test_recurrent_form_of_small_graphs(recurrent):
    dag = LineDAG.collate(molecules())
    check(on_gpu(tame_inputs(dag, 8, 16, 16), torch.float32), dag.to("cuda"))


def test_a_chain_of_many_levels(recurrent):
    dag = molecule(5000, seed=1).reverse()
    assert dag.num_levels >= 4999
    check(on_gpu(tame_inputs(dag, 2, 16, 16), torch.float32), dag.to("cuda"))


@pytest.mark.parametrize("law", LAWS)
def test_laws_of_the_recurrent_form(law, recurrent):
    """Those of the parallel form are checked with all other backends'."""
    LAWS[law]("triton", dtype=torch.float32, device="cuda")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("law", ["equals_oracle", "closed_gates", "any_layout"])
def test_laws_in_half_precision(law, dtype):
    LAWS[law]("triton", dtype=dtype, device="cuda")


# ---------------------------------------------------------------------- layouts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_slices_of_a_projection(dtype):
    """Queries, keys and values are read where they lie, in one tensor beside each other, and not at a multiple of 16
    bytes."""
    dag = LineDAG.collate(molecules()).to("cuda")
    inputs = on_gpu(tame_inputs(dag.to("cpu"), 3, 5, 7), dtype)
    rows = torch.cat([x.flatten(1) for x in inputs[:3]], 1)
    memory = torch.cat([rows.new_zeros(1), rows.flatten()])
    flat = memory[1:].view_as(rows).requires_grad_()
    query, key, value = (x.unflatten(1, (3, -1)) for x in flat.split([15, 15, 21], 1))
    assert not value.is_contiguous()
    assert flat.data_ptr() % 16
    output = triton(query, key, value, inputs.gates, dag)
    (grad,) = torch.autograd.grad(output, flat, probe(inputs))
    want = run(inputs, dag)
    expected = torch.cat([want[f"gradient of {name}"].flatten(1) for name in ("query", "key", "value")], 1)
    got = {"output": output, "gradients": grad}
    check_close(got, {"output": want["output"], "gradients": expected}, TOLERANCE[dtype])


def test_memory_that_is_not_aligned():
    """What was compiled for aligned memory does not serve the other kind, nor is it forgotten."""
    dag = LineDAG.collate(molecules()).to("cuda")
    inputs = on_gpu(tame_inputs(dag.to("cpu"), 8, 16, 16), torch.float32)
    want = run(inputs, dag)
    shifted = [torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x) for x in inputs.flat()]
    leaves = [x.requires_grad_() for x in shifted]
    output = triton(*Inputs.of(leaves), dag)
    grads = torch.autograd.grad(output, leaves, probe(inputs))
    got = {"output": output, **{f"gradient of {name}": grad for name, grad in zip(NAMES, grads, strict=True)}}
    check_close(got, want, TOLERANCE[torch.float32])
    check_same(run(inputs, dag), want)


def test_any_strides():
    dag = LineDAG.collate(molecules()).to("cuda")
    inputs = on_gpu(tame_inputs(dag.to("cpu"), 8, 16, 16), torch.float32)
    strided = Inputs.of([x.transpose(0, -1).contiguous().transpose(0, -1).requires_grad_() for x in inputs.flat()])
    output = triton(*strided, dag)
    grads = torch.autograd.grad(output.sum(), strided.flat())
    want = outcome(triton, inputs, dag, torch.ones_like(inputs.value))
    check_same({"output": output, **{f"gradient of {n}": g for n, g in zip(NAMES, grads, strict=True)}}, want)


# ---------------------------------------------------------------------- bit for bit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_from_run_to_run(dtype):
    dag = LineDAG.collate(molecules()).to("cuda")
    inputs = on_gpu(tame_inputs(dag.to("cpu"), 8, 16, 16), dtype)
    first = run(inputs, dag)
    for i in range(10):
        check_same(run(inputs, dag), first, f"run {i}:")


def check_company(form: str, view: str) -> None:
    """A graph alone, in a batch, in another batch, and beside a graph of NaN."""
    dags = [VIEWS[view](molecule(size, seed=size)) for size in (1, 25, 33, 120, 250, 700, 2000)]
    inputs = [on_gpu(tame_inputs(dag, 8, 16, 16, seed=i), torch.float32) for i, dag in enumerate(dags)]
    alone = [run(given, dag.to("cuda")) for given, dag in zip(inputs, dags, strict=True)]
    spoilt = {i: Inputs.of([torch.full_like(x, torch.nan) for x in inputs[i].flat()]) for i in (1, 5)}
    for order, nan in (
        ((0, 1, 2, 3, 4, 5, 6), ()),
        ((6, 3, 5, 5, 0, 1, 4, 6, 2, 2), ()),
        ((5, 0, 6, 1, 2, 4, 3), (1, 5)),
    ):
        parts = [dags[i] for i in order]
        whole = run(join([spoilt[i] if i in nan else inputs[i] for i in order]), LineDAG.collate(parts).to("cuda"))
        for i, got in zip(order, split(whole, parts), strict=True):
            if i not in nan:
                check_same(got, alone[i], f"{form}, graph {i} in {order}:")


@pytest.mark.parametrize("view", ["plain", "pruned and reversed"])
def test_same_in_any_batch(view):
    check_company("by size", view)


def test_same_in_any_batch_in_recurrent_form(recurrent):
    check_company("recurrent", "plain")


@pytest.mark.xdist_group("memory")  # one after the other: each takes some 30 GB
@pytest.mark.parametrize("nodes", [256, 700], ids=["in tiles", "recurrent"])
def test_more_numbers_than_an_int32_counts(nodes):
    """Copies of one graph, whose states are more than 2³¹ numbers in all: the last copy is right."""
    torch.cuda.empty_cache()  # of the tests before
    part = molecule(nodes)
    heads, width = (16, 16) if nodes == 256 else (8, 48)
    states = part.num_edges * heads * (256 if nodes == 256 else width * width)
    copies = 2**31 // states + 2
    inputs = on_gpu(tame_inputs(part, heads, width, width), torch.float32)
    want = run(inputs, part.to("cuda"))
    many = Inputs.of([x.repeat(copies, *[1] * (x.dim() - 1)) for x in inputs.flat()])
    got = split(run(many, LineDAG.collate([part] * copies).to("cuda")), [part] * copies)
    for i in (0, copies // 2, copies - 1):
        check_same(got[i], want, f"copy {i}:")
    del got, many
    torch.cuda.empty_cache()
