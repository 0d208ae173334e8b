"""Images and chains: every form beside attention over all pairs and the general operator on line graphs."""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import NamedTuple

import torch
from bench import Bench, Row
from timing import Case, Disagreement, agree
from torch import Tensor
from torch.nn import functional as F

from groups.peers import FLA, gated_linear_attention
from plstm_graph import propagate
from plstm_graph.errors import BackendUnavailable
from plstm_graph.grid import (
    CHAIN_FORMS,
    DIRECTIONS,
    FORMS,
    ChainGates,
    GridGates,
    chain,
    d_gates,
    grid_dag,
    image,
    p_gates,
)
from plstm_graph.grid.compiled import unfit
from plstm_graph.grid.dispatch import HALF
from plstm_graph.grid.gates import DOWN, RIGHT, P
from plstm_graph.testing import TOLERANCE

REFERENCE = "reference"
SDPA, GENERAL = "sdpa", "general operator"
IN_HALF = ", bfloat16"  # behind the name of a form: queries, keys and values of that
PEERS = [name + IN_HALF for name in FLA]
CHECKED = 32  # rows and columns up to which the reference looks at a whole image
PIECE = (9, 65)  # of a larger one, at most: as wide as images that kernels take in tiles
TOKENS = 200  # and at a chain
Run = Callable[..., Tensor]
Leaves = list[Tensor]


class Shape(NamedTuple):
    """Images of one case, the mode of their gates, and the most milliseconds that the fastest form should take."""

    images: int
    heads: int
    rows: int
    columns: int
    width: int
    mode: str
    limit_ms: float | None = None

    @property
    def name(self) -> str:
        count = f"{self.images} images x {self.heads} heads" if self.images * self.heads > 1 else "1 image"
        return f"{count}, {self.rows} x {self.columns}, d {self.width}, {self.mode}"


GPU = (
    Shape(128, 6, 12, 12, 32, P, 1.2),
    Shape(128, 6, 12, 12, 32, "D-left", 0.7),
    Shape(64, 6, 24, 24, 32, P, 5.0),
    Shape(64, 6, 24, 24, 32, "D-left", 2.0),
    Shape(1, 1, 512, 512, 64, P),
)
CPU = (Shape(16, 3, 12, 12, 32, P), Shape(16, 3, 12, 12, 32, "D-left"))
SIDES = {"cuda": (8, 16, 32, 64, 128, 256), "cpu": (4, 8, 12, 16, 24, 32, 48)}
PIXELS = {"cuda": 2**16, "cpu": 2**11}  # of all images and heads of a point of the plot
CHAINS = {  # sequences, heads, tokens, width
    "cuda": ((1, 4, 65536, 64),),
    "cpu": ((1, 2, 64, 32), (1, 2, 256, 32), (16, 3, 256, 32), (1, 2, 2048, 32), (1, 4, 8192, 64), (1, 2, 2048, 128)),
}
LARGE = 2**16  # pixels from which on attention has to be beaten ten times
LARGE_MIB = 8 * 2**10


def grid(bench: Bench) -> None:
    """Images of the sizes that networks for vision have, and one large one."""
    for shape in GPU if bench.on_gpu else CPU:
        _image(bench, "grid", shape)


def grid_size(bench: Bench) -> None:
    """Time against size, the same number of pixels in all."""
    kind = "cuda" if bench.on_gpu else "cpu"
    for side in SIDES[kind]:
        images = max(1, PIXELS[kind] // (4 * side * side))
        for mode in (P, "D-left"):
            _image(bench, "grid-size", Shape(images, 4, side, side, 32, mode))


def sequence(bench: Bench) -> None:
    """Chains beside causal attention: a long one, on a CPU shorter ones, too."""
    for shape in CHAINS["cuda" if bench.on_gpu else "cpu"]:
        _chain(bench, *shape)


def _chain(bench: Bench, count: int, heads: int, tokens: int, width: int) -> None:
    case = f"chain of {tokens:,} tokens x {heads} heads, d {width}"
    case = case if count == 1 else f"{count} {case.replace('chain', 'chains', 1)}"
    if bench.has("chain", case):
        return
    small = _chain_leaves(bench.device, 1, heads, min(TOKENS, tokens), width)
    leaves = _chain_leaves(bench.device, count, heads, tokens, width)
    errors = _check(_names(CHAIN_FORMS, bench.on_gpu), _run_chain, small, TOKENS)
    if bench.on_gpu:
        for peer in PEERS:
            try:
                errors |= _check([peer], _run_chain, small, TOKENS)
            except (Disagreement, RuntimeError) as error:  # not ours to mend
                print(f"  {peer} is left out: {error}")
    cases = {name: _case(_run_chain, name, leaves) for name in errors}
    cases[SDPA] = _stepper(partial(_attention, True), _half(leaves[:3]))
    bench.compare(
        "chain",
        case,
        cases,
        {"B": count, "H": heads, "N": tokens, "K": width, "V": width},
        against=[SDPA, *PEERS],
        found={name: {"error": error} for name, error in errors.items()},
        targets=lambda name, row: _chain_targets(bench.on_gpu, name, row),
    )


def _image(bench: Bench, group: str, shape: Shape) -> None:
    if bench.has(group, shape.name):
        return
    large = max(shape.rows, shape.columns) > CHECKED
    rows, columns = map(min, PIECE, (shape.rows, shape.columns)) if large else (shape.rows, shape.columns)
    few = shape._replace(images=min(2, shape.images), rows=rows, columns=columns, limit_ms=None)
    leaves = _leaves(bench.device, shape)
    errors = _image_errors(bench.device, few, _too_slow_to_compile(leaves, shape.mode))
    cases = {name: _case(partial(_run_image, shape.mode), name, leaves) for name in errors}
    cases[SDPA] = _stepper(partial(_attention, False), _half(leaves[:3]))
    cases[GENERAL] = _general(leaves, shape)
    bench.compare(
        group,
        shape.name,
        cases,
        {"B": shape.images, "H": shape.heads, "N": shape.rows * shape.columns, "K": shape.width, "V": shape.width},
        against=[SDPA, GENERAL, "log"],
        found={name: {"error": error} for name, error in errors.items()},
        targets=partial(_targets, bench.on_gpu and group == "grid", shape),
    )


def _names(forms: Iterable[str], on_gpu: bool) -> list[str]:
    """Forms to measure; those that take half precision as it is twice."""
    names = [name for name in forms if name != REFERENCE]
    return names + [name + IN_HALF for name in names if on_gpu and name in HALF]


def _case(run: Run, name: str, leaves: Leaves) -> Case:
    form, given = _as_named(name, leaves)
    return _stepper(partial(run, form), given)


def _as_named(name: str, leaves: Leaves) -> tuple[str, Leaves]:
    """The form, and what it is given."""
    if not name.endswith(IN_HALF):
        return name, leaves
    return name.removesuffix(IN_HALF), [*(x.bfloat16() for x in leaves[:3]), *leaves[3:]]


def _too_slow_to_compile(leaves: Leaves, mode: str) -> frozenset[str]:
    """Kernels that are for smaller images, with a line."""
    _, key, value, source, transition, mark, direct = leaves
    why = unfit("triton", key, value, GridGates(source, transition, mark, direct, mode), unasked=True)
    if why is not None:
        print(f"  triton is left out: {why}")
    return frozenset(["triton"] if why is not None else [])


@cache
def _image_errors(device: str, shape: Shape, without: frozenset[str]) -> dict[str, float]:
    """Errors of the forms that run on a device; most images are looked at by a piece of one size."""
    names = _names([form for form in FORMS if form not in without], device.startswith("cuda"))
    return _check(names, partial(_run_image, shape.mode), _leaves(device, shape), shape.mode)


def _leaves(device: str, shape: Shape) -> Leaves:
    """Queries over √K, keys, values, source, transition, mark and direct, open enough that all pixels matter."""
    generator = torch.Generator().manual_seed(0)
    images, heads, rows, columns, width, mode, _ = shape
    here = (images, heads, rows, columns)

    def draw(*more: int) -> Tensor:
        return torch.rand(images, 4, heads, rows, columns, *more, generator=generator).to(device)

    vectors = [torch.randn(*here, width, generator=generator).to(device) for _ in range(3)]
    direct = torch.rand(here, generator=generator).to(device)
    if mode == P:
        gates = p_gates(draw(), draw(), 0.8 + 0.2 * draw(), draw(), direct)
    else:
        gates = d_gates(draw(2), 0.9 + 0.1 * draw(), draw(), 0.9 + 0.1 * draw(), draw(2), direct, mode)
    return [vectors[0] / width**0.5, *vectors[1:], *(gate.contiguous() for gate in gates[:4])]


def _chain_leaves(device: str, count: int, heads: int, tokens: int, width: int) -> Leaves:
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(count, heads, tokens, width, generator=generator) for _ in range(3)]
    source, transition, mark, direct = (torch.rand(count, heads, tokens, generator=generator) for _ in range(4))
    found = [vectors[0] / width**0.5, *vectors[1:], source, 0.9 + 0.1 * transition, mark, direct]
    return [x.to(device) for x in found]


def _run_image(mode: str, form: str, query: Tensor, key: Tensor, value: Tensor, *gates: Tensor) -> Tensor:
    source, transition, mark, direct = gates
    return image(query, key, value, GridGates(source, transition, mark, direct, mode), form=form)


def _run_chain(form: str, query: Tensor, key: Tensor, value: Tensor, *gates: Tensor) -> Tensor:
    if form in FLA:
        return gated_linear_attention(form, query, key, value, *gates)
    return chain(query, key, value, ChainGates(*gates), form=form)[0]


def _attention(causal: bool, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q, k, v = (x.flatten(2, -2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).view(value.shape)


def _half(vectors: Leaves) -> Leaves:
    """For attention: bfloat16 on a GPU, where its fastest kernels are; as they are on a CPU."""
    return [x.bfloat16() if x.is_cuda else x for x in vectors]


def _general(leaves: Leaves, shape: Shape) -> Case:
    """Four line graphs, direct terms in the first; gates gathered once, as leaves of their own."""
    gates = GridGates(leaves[3], leaves[4], leaves[5], leaves[6], shape.mode)
    grids = [grid_dag(shape.rows, shape.columns, name, images=shape.images) for name in DIRECTIONS]
    device = leaves[0].device
    grids = [each._replace(dag=each.dag.to(device), kind=each.kind.to(device)) for each in grids]
    given = [each.gates(gates, direct=at == 0) for at, each in enumerate(grids)]
    inputs = [grids[0].nodes(x) for x in leaves[:3]] + [gate for each in given for gate in each]

    def run(query: Tensor, key: Tensor, value: Tensor, *flat: Tensor) -> Tensor:
        total = torch.zeros_like(value)
        for at, each in enumerate(grids):
            own = type(given[0])(*flat[4 * at : 4 * at + 4])
            total = total + propagate(query, key, value, own, each.dag)
        return total

    return _stepper(run, inputs)


def _stepper(run: Run, leaves: Leaves) -> Case:
    """Forward, and the gradients of all inputs."""
    leaves = [x.detach().requires_grad_() for x in leaves]
    weight: list[Tensor] = []

    def once(_: object) -> tuple[Tensor, ...]:
        output = run(*leaves)
        if not weight:
            weight.append(torch.randn_like(output))
        return (output.detach(), *torch.autograd.grad(output, leaves, weight[0], allow_unused=True))

    return Case(once)


def _check(names: list[str], run: Run, leaves: Leaves, mode: str | int) -> dict[str, float]:
    """Error of each form that can run here against the reference in float64, over the sum of all terms' sizes.

    An output or a gradient is a sum of products, and rounding is relative to the terms of a sum, however small the sum
    comes out: with u = 2⁻²⁴ it is off by at most ``m u Σ|terms|`` after m roundings in a row, and by about
    ``√m u Σ|terms|`` where these are independent (Higham and Mary 2019). For an image m is the gates of a path (Y + X),
    the entries of a score (K + V) and the pixels of a sum (4 Y X): for 26 x 26 pixels √m u is 3e-6, and float32's
    tolerance 84 u. Every input enters by products alone, so sizes in the place of all inputs make ``Σ|terms|`` of the
    same sums.
    """
    exact = [x.cpu().double() for x in leaves]
    want = _outcome(partial(run, REFERENCE), exact, mode)
    size = _outcome(partial(run, REFERENCE), [x.abs() for x in exact], mode, torch.abs)
    errors = {}
    for name in names:
        form, given = _as_named(name, leaves)
        try:
            got = _outcome(partial(run, form), given, mode)
        except (BackendUnavailable, torch.OutOfMemoryError) as error:
            print(f"  {name} is left out: {str(error).splitlines()[0]}")
            continue
        errors[name] = agree(f"form {name!r}", got, want, TOLERANCE[given[0].dtype], size)
    if errors:
        print(f"  {', '.join(errors)} agree with the reference: output and seven gradients")
    return errors


def _outcome(
    run: Run, leaves: Leaves, mode: str | int, change: Callable[[Tensor], Tensor] = lambda weight: weight
) -> dict[str, Tensor]:
    """Output and gradients by name; of transitions along what their mode promises. ``change``: of the output's."""
    leaves = [x.detach().requires_grad_() for x in leaves]
    output = run(*leaves)
    weight = change(torch.randn(output.shape, generator=torch.Generator().manual_seed(1))).to(output)
    grads = list(torch.autograd.grad(output, leaves, weight, materialize_grads=True, allow_unused=True))
    if mode == P:
        grads[4] = grads[4].sum(-1)
    if mode == "D-left":
        grads[4] = grads[4].clone()
        grads[4][..., DOWN, RIGHT] = 0
    names = ("query", "key", "value", "source", "transition", "mark", "direct")
    return {"output": output, **{f"gradient of {name}": grad for name, grad in zip(names, grads, strict=True)}}


def _targets(asked: bool, shape: Shape, name: str, row: Row) -> dict[str, bool]:
    """What the compiled form of a GPU should reach; of the large image any form may."""
    if not asked or name in (SDPA, GENERAL):
        return {}
    if shape.rows * shape.columns >= LARGE:
        beaten = {f">= 10 x {other}": row["ratios"][other] >= 10 for other in (SDPA, GENERAL) if other in row["ratios"]}
        return beaten | {"<= 8 GiB": row["peak_mib"] <= LARGE_MIB}
    limit = shape.limit_ms
    return {f"<= {limit:g} ms": row["device_ms"] <= limit} if name.startswith("triton") and limit is not None else {}


def _chain_targets(on_gpu: bool, name: str, row: Row) -> dict[str, bool]:
    if not on_gpu or name in PEERS or SDPA not in row["ratios"]:
        return {}
    found = {"<= 5 ms": row["device_ms"] <= 5, f">= 3 x {SDPA}": row["ratios"][SDPA] >= 3}
    return found | {f"<= 2 x {peer}": row["ratios"][peer] >= 0.5 for peer in PEERS if peer in row["ratios"]}
