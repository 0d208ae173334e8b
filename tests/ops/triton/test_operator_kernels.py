"""The kernels of the operator under Triton's interpreter, on graphs of at most 8 nodes in both forms."""

import pytest
import torch
from batches import check_close, check_same, join, probe, run, split, triton
from forms import FORMS

pytest.importorskip("triton")


from plstm_graph import LineDAG
from plstm_graph.line_dag import plan
from plstm_graph.line_dag.plan import Host
from plstm_graph.testing import DAGS, NAMES, TOLERANCE, VIEWS, Inputs, outcome, path_sum, random_inputs

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has its own tests: test_operator_gpu.py")

WIDTHS = dict(zip(VIEWS, [(1, 3, 4), (3, 5, 1), (3, 4, 2), (1, 1, 7)], strict=True))
BOTH = pytest.mark.parametrize("form", ["tiles", "mixed"], indirect=True)


def batch(*names: str) -> LineDAG:
    """Some of the tricky DAGs in one."""
    names = names or ("one node", "no node", "diamond", "ring with a short cut", "star")
    return LineDAG.collate([DAGS[name]() for name in names])


def check(dag: LineDAG, inputs: Inputs) -> None:
    """Against the sum over all paths in float64."""
    wide = Inputs.of([x.double() for x in inputs.flat()])
    want = outcome(path_sum, wide, dag, probe(wide))
    check_close(run(inputs, dag), want, TOLERANCE[inputs.value.dtype])


@BOTH
@pytest.mark.parametrize(("view", "widths"), WIDTHS.items())
def test_output_and_gradients(form, view, widths):
    dag = VIEWS[view](batch())
    check(dag, random_inputs(dag, *widths))
    tables = dag.plan(plan.served_classes(*widths[1:]))
    assert (tables.host[Host.GRAPHS] > 0).tolist() == FORMS[form][2]
    assert bool(tables.levels.any()) == (form != "tiles")


def test_tiles_as_wide_as_on_a_gpu():
    dag = batch("no edge", "diamond")
    check(dag, random_inputs(dag, heads=3, key_width=17, value_width=2))


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_lower_precision(form, dtype):
    """bfloat16 is a GPU's matter: the interpreter does not round it."""
    dag = batch("diamond", "isolated nodes").reverse()
    check(dag, random_inputs(dag, 2, 4, 3, dtype=dtype))


@pytest.mark.parametrize("name", ["no node", "one node", "no edge", "one edge", "no pair", "diamond"])
def test_batches_of_little(form, name):
    dag = DAGS[name]()
    check(dag, random_inputs(dag))


@BOTH
def test_slices_of_a_projection(form):
    """Queries, keys and values are read where they lie, in one tensor beside each other."""
    dag = batch("diamond", "isolated nodes")
    inputs = random_inputs(dag)
    flat = torch.cat([x.flatten(1) for x in inputs[:3]], 1).requires_grad_()
    query, key, value = (x.unflatten(1, (2, -1)) for x in flat.split([6, 6, 8], 1))
    assert not any(x.is_contiguous() for x in (query, key, value))
    output = triton(query, key, value, inputs.gates, dag)
    (grad,) = torch.autograd.grad(output, flat, probe(inputs))
    want = outcome(path_sum, inputs, dag, probe(inputs))
    expected = torch.cat([want[f"gradient of {name}"].flatten(1) for name in ("query", "key", "value")], 1)
    check_close({"output": output, "gradient": grad}, {"output": want["output"], "gradient": expected}, 1e-10)


@BOTH
def test_any_strides(form):
    """Transposed inputs, and a gradient that is one number expanded."""
    dag = batch("diamond", "no pair").prune()
    inputs = random_inputs(dag)
    strided = Inputs.of([x.transpose(0, -1).contiguous().transpose(0, -1).requires_grad_() for x in inputs.flat()])
    output = triton(*strided, dag)
    grads = torch.autograd.grad(output.sum(), strided.flat())
    want = outcome(path_sum, inputs, dag, torch.ones_like(inputs.value))
    check_close({"output": output, **{f"gradient of {n}": g for n, g in zip(NAMES, grads, strict=True)}}, want, 1e-10)


@BOTH
def test_a_graph_does_not_feel_its_batch(form):
    """Bit for bit, alone, among others and beside a graph of NaN."""
    dags = [DAGS[name]() for name in ("no pair", "diamond", "no edge", "one edge")]
    inputs = [random_inputs(dag, dtype=torch.float32, seed=i) for i, dag in enumerate(dags)]
    alone = [run(*given) for given in zip(inputs, dags, strict=True)]
    inputs[0] = Inputs.of([torch.full_like(x, torch.nan) for x in inputs[0].flat()])
    for order in ([0, 1, 2, 3], [3, 0, 2, 1, 1]):
        parts = [dags[i] for i in order]
        for i, got in zip(
            order, split(run(join([inputs[i] for i in order]), LineDAG.collate(parts)), parts), strict=True
        ):
            if i:
                check_same(got, alone[i], f"graph {i} in {order}:")
