"""The operator, the layer and DAGNN under torch.func: as without it, or an error that says what to use."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

from plstm_graph import Gates, LineDAG, PLSTMConv, propagate
from plstm_graph.errors import BackendUnavailable
from plstm_graph.nn.dagnn import DAGNN
from plstm_graph.ops.functional import NO_FORWARD, NO_SECOND

COLUMNS = torch.tensor([[0, 1, 2, 3, 0, 1, 4], [1, 2, 3, 4, 2, 3, 5]])
DAG = LineDAG.from_edge_index(COLUMNS, 6, batch=torch.zeros(6, dtype=torch.long))
NODES, EDGES, PAIRS, HEADS, KEYS, VALUES = 6, DAG.num_edges, DAG.num_pairs, 2, 3, 4
SHAPES = (
    [(NODES, HEADS, KEYS)] * 2 + [(NODES, HEADS, VALUES)] + [(size, HEADS) for size in (EDGES, PAIRS, EDGES, NODES)]
)
BACKENDS = ["scatter", "scatter_recompute", "dense", "numba"]
ALL = tuple(range(7))


GENERATOR = torch.Generator().manual_seed(1)
DRAWN = [torch.randn(shape, generator=GENERATOR, dtype=torch.float64) for shape in SHAPES]


def inputs() -> list[Tensor]:
    return [x.clone() if place < 3 else x.tanh() for place, x in enumerate(DRAWN)]


def operator(backend: str):
    return lambda *x: propagate(*x[:3], Gates(*x[3:]), DAG, backend=backend)


def over_batches(f):
    """vmap with batches at other places, and without."""
    x = inputs()
    some = [torch.stack([x[0], 2 * x[0]]), x[1], torch.stack([x[2], -x[2]], 1), torch.stack([x[3], x[3] / 2], 2)]
    some += [x[4], x[5], torch.stack([x[6], x[6] / 3])]
    return vmap(f, in_dims=(0, None, 1, 2, None, None, 0))(*some)


def squares(f):
    return lambda *x: f(*x).square().sum()


TRANSFORMS = {
    "grad": lambda f: grad(squares(f), ALL)(*inputs()),
    "jacrev": lambda f: jacrev(f, ALL)(*inputs()),
    "vmap": over_batches,
    "vmap of grad": lambda f: vmap(grad(squares(f), ALL))(*(torch.stack([x, x / 2]) for x in inputs())),
}
FORWARD = {
    "jvp": lambda f: jvp(f, tuple(inputs()), tuple(x.cos() for x in inputs()))[1],
    "jacfwd": lambda f: jacfwd(f, ALL)(*inputs()),
    "hessian": lambda f: hessian(lambda t: squares(f)(*inputs()[:4], t, *inputs()[5:]))(inputs()[4]),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*TRANSFORMS, *FORWARD])
def test_transforms_are_those_of_the_reference(name: str, backend: str) -> None:
    transform = (TRANSFORMS | FORWARD)[name]
    if backend == "numba" and name in FORWARD:
        with pytest.raises(RuntimeError) as error:
            transform(operator(backend))
        assert str(error.value) == NO_FORWARD
        return
    found, expected = transform(operator(backend)), transform(operator("reference"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_second_derivatives_of_a_compiled_backend_are_refused() -> None:
    with pytest.raises(RuntimeError) as error:
        jacrev(grad(squares(operator("numba"))))(*inputs())
    assert str(error.value) == NO_SECOND
    dual = torch.autograd.forward_ad
    with dual.dual_level(), pytest.raises(RuntimeError) as error:
        operator("numba")(dual.make_dual(inputs()[0], inputs()[1]), *inputs()[1:])
    assert str(error.value) == NO_FORWARD


@pytest.mark.parametrize("backend", ["scatter", "numba"])
@pytest.mark.parametrize("mode", ["P", "D"])
def test_a_layer_has_gradients_of_each_sample(backend: str, mode: str) -> None:
    """Its line graph is built within the transform, and left over for use without one."""
    layer = PLSTMConv(4, 3, heads=2, mode=mode, backend=backend)
    x, parameters = torch.randn(2, NODES, 4), dict(layer.named_parameters())
    dag = LineDAG.from_edge_index(COLUMNS, NODES)
    for given in (None, dag):

        def loss(parameters, x, given=given):
            return functional_call(layer, parameters, (x, COLUMNS), {"dag": given}).square().sum()

        found = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
        for sample in range(2):
            own = torch.autograd.grad(layer(x[sample], COLUMNS, dag=given).square().sum(), list(parameters.values()))
            for name, expected in zip(parameters, own, strict=True):
                torch.testing.assert_close(found[name][sample], expected, rtol=1e-4, atol=1e-5)


def test_dagnn_has_them_too() -> None:
    model, x = DAGNN(4, 8, 2).double(), torch.randn(NODES, 4, dtype=torch.float64)
    parameters = dict(model.named_parameters())
    found = grad(lambda p: functional_call(model, p, (x, DAG)).square().sum())(parameters)
    own = torch.autograd.grad(model(x, DAG).square().sum(), list(parameters.values()))
    torch.testing.assert_close(list(found.values()), list(own))


def test_a_trace_says_what_it_cannot_record() -> None:
    layer, x = PLSTMConv(4, 3, heads=2).requires_grad_(False), torch.randn(NODES, 4)
    with pytest.raises(BackendUnavailable, match="cannot record how a line graph is built; trace with dag="):
        torch.jit.trace(layer, (x, COLUMNS))

    dag = LineDAG.from_edge_index(COLUMNS, NODES, batch=torch.zeros(NODES, dtype=torch.long))

    def with_dag(x: Tensor) -> Tensor:
        return layer(x, COLUMNS, dag=dag)  # what is read of a line graph is made at the first call

    traced = torch.jit.trace(with_dag, x)
    torch.testing.assert_close(traced(2 * x), with_dag(2 * x))
    layer.backend = "numba"
    with pytest.raises(BackendUnavailable, match=r"torch.jit.trace records torch's own operations only; use 'auto'"):
        torch.jit.trace(with_dag, x)
