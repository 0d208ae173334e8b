"""Self-test: before "auto" takes kernels on a kind of GPU that they have not been run on, they are compared there with
the definition, outputs and gradients of a layer, on a few small graphs. What came of it is kept on disk."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from plstm_graph.gates import Gates, activate
from plstm_graph.io.files import atomic_write, cache_folder
from plstm_graph.line_dag import LineDAG
from plstm_graph.line_dag.plan import served_classes
from plstm_graph.ops import reference
from plstm_graph.ops.flat import Setting
from plstm_graph.ops.layer import Inputs, layer

SIZES = (20, 50, 100, 200, 300)
"""Nodes of the graphs: one for each tile, and one beyond them."""
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 0.25}
"""Largest ``|got - want| / (1 + max |want| of its row)``, against float64: entries of a gradient are sums of terms of
one size in a row, whichever of them come out small. The definition itself is off by 2.4e-6 in float32 and .12 in
bfloat16; a gate that is off by one percent in one row shows in float32, in half precision only gross errors do."""
EPS = 0.1
"""Beside the mean square in the norm: 1e-5 blows up, 300-fold, the rounding of values that nearly cancel."""
HEADS, KEYS, VALUES, WIDTH, EDGE_WIDTH = 2, 16, 16, 24, 3

_found: dict[tuple[str, torch.device], str] = {}


def failure(name: str, device: torch.device, facts: Callable[[], dict[str, str]]) -> str:
    """What of a compiled backend is wrong on a device; empty, if nothing is.

    Found once for each combination of ``facts``, all that it may depend on, and looked up from then on.
    """
    known = _found.get((name, device))
    if known is None:
        known = _found[name, device] = _looked_up(name, device, {"backend": name, **facts()})
    return known


def _looked_up(name: str, device: torch.device, facts: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / "self-tests" / f"{name}-{digest}.json"
    try:
        wrong = str(json.loads(path.read_text())["wrong"])
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or not a whole one
        wrong = run(name, device)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                file.write_text(json.dumps({**facts, "wrong": wrong}, indent=2))
        except OSError as error:
            warnings.warn(f"every process tests {name!r} anew, since {path} cannot be written: {error}", stacklevel=2)
    if wrong:
        warnings.warn(
            f"backend {name!r} failed its self-test on {facts.get('device', device)}, so that 'auto' takes another "
            f"one there: {wrong}; delete {path} to test it again",
            stacklevel=2,
        )
    return wrong


def run(name: str, device: torch.device) -> str:
    """Compare now; what differs, or what was raised."""
    try:
        with _as_usual(device):
            for mode, reversed in (("P", False), ("D", True)):
                _compare(name, device, mode, reversed)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


@contextmanager
def _as_usual(device: torch.device) -> Iterator[None]:
    """Whatever the caller is in the middle of."""
    with ExitStack() as around:
        around.enter_context(_disable_current_modes())
        around.enter_context(torch._C._DisableFuncTorch())
        around.enter_context(torch.inference_mode(False))
        around.enter_context(torch.enable_grad())
        for kind in {device.type, "cpu"}:
            around.enter_context(torch.autocast(kind, enabled=False))
        yield


def _compare(name: str, device: torch.device, mode: str, reversed: bool) -> None:
    dag = _graphs()
    view = dag.prune() if mode == "D" else dag
    view = view.reverse() if reversed else view
    setting = Setting(name, HEADS, KEYS, mode, "tanh", reversed, gathered=False, eps=EPS, concat=True)
    plan = view.to(device).plan(served_classes(KEYS, VALUES))
    given = _inputs(dag)
    wanted = _outcome(lambda inputs: _by_definition(setting, inputs, view), given.to(torch.float64))
    for dtype, tolerance in TOLERANCE.items():
        found = _outcome(lambda inputs: layer(setting, inputs, plan), given.to(dtype, device))
        for part, want in wanted.items():
            size = 1 + want.abs().amax(-1, keepdim=True)
            apart = (found[part].cpu().double() - want).abs() / size
            error = float(apart.nan_to_num(nan=torch.inf).max())
            if error > tolerance:
                raise ArithmeticError(
                    f"{part} of a layer in mode {mode} and {dtype} is off by {error:.1e}, {tolerance:.0e} is allowed"
                )


def _graphs() -> LineDAG:
    """Chains with shortcuts, of each size."""
    parts = []
    for size in SIZES:
        node = torch.arange(size - 1, device="cpu")
        chain = torch.stack([node, node + 1])
        skip = torch.stack([node[: size - 3 : 4], node[: size - 3 : 4] + 3])
        whole = torch.zeros(size, dtype=torch.long, device="cpu")
        parts.append(LineDAG.from_edge_index(torch.cat([chain, skip], 1), size, batch=whole))
    return LineDAG.collate(parts)


class _Given(Inputs):
    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> Inputs:
        """Leaves of the same numbers."""
        return Inputs(*(x.to(device=device, dtype=dtype, copy=True).requires_grad_() for x in self))


def _inputs(dag: LineDAG) -> _Given:
    """Numbers that half precision holds exactly."""
    generator = torch.Generator("cpu").manual_seed(0)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)
        return (scale * drawn).bfloat16()

    vectors = HEADS * (2 * KEYS + VALUES)
    return _Given(
        x=random(dag.num_nodes, WIDTH),
        edge_attr=random(dag.column.numel(), EDGE_WIDTH),
        lin=random(vectors + 8 * HEADS, WIDTH, scale=WIDTH**-0.5),
        lin_bias=random(vectors),
        lin_edge=random(4 * HEADS, EDGE_WIDTH, scale=EDGE_WIDTH**-0.5),
        gate_bias=random(4, HEADS),
        norm=random(HEADS, VALUES),
        bias=random(HEADS * VALUES),
    )


def _outcome(run: Callable[[Inputs], Tensor], inputs: Inputs) -> dict[str, Tensor]:
    """The output and the gradients of a weighted sum over it, by name."""
    output = run(inputs)
    weight = torch.linspace(-1, 1, output.numel(), device="cpu", dtype=torch.float32).bfloat16().view(output.shape)
    grads = torch.autograd.grad(output, list(inputs), weight.to(output))
    return {"output": output.detach(), **{f"gradient of {n}": x for n, x in zip(Inputs._fields, grads, strict=True)}}


def _by_definition(setting: Setting, inputs: Inputs, dag: LineDAG) -> Tensor:
    """The layer step by step, with :mod:`plstm_graph.ops.reference`."""
    x, edge_attr, lin, lin_bias, lin_edge, gate_bias, norm, bias = inputs
    width = lin_bias.numel()
    vectors, terms = (x @ lin.t()).split([width, lin.size(0) - width], 1)
    query, key, value = (vectors + lin_bias).view(-1, HEADS, width // HEADS).split([KEYS, KEYS, VALUES], -1)
    source_src, source_dst, mark_src, mark_dst, tail, joint, head, direct = terms.chunk(8, -1)
    of_edge = dag.gather_edges(edge_attr @ lin_edge.t()).chunk(4, -1)
    source, mark, as_prev, as_next = (
        own + at_src[dag.src] + at_dst[dag.dst]
        for own, at_src, at_dst in zip(
            of_edge,
            (source_src, mark_src, tail, joint),
            (source_dst, mark_dst, torch.zeros_like(tail), head),
            strict=True,
        )
    )
    transition = as_prev[dag.prev] + as_next[dag.next]
    raw = (own + more for own, more in zip((source, transition, mark, direct), gate_bias, strict=True))
    gates = activate(Gates(*raw), dag, setting.mode, setting.transition)
    y = reference.propagate(query, key, value, gates, dag)
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + setting.eps) * norm
    return y.flatten(1) + bias
