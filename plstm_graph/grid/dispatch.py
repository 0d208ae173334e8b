"""Image and chain: check once, choose a form, run it in float32 at least."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from plstm_graph.errors import ConfigError, ShapeError, check_kind, unknown
from plstm_graph.grid import as_dag, chains, compiled, matrix, reference, tiled
from plstm_graph.grid.gates import (
    D_LEFT,
    D_RIGHT,
    DIRECTIONS,
    ChainGates,
    GridGates,
    check_mode,
    check_shapes,
    keeps_promise,
)
from plstm_graph.ops.compiled import in_dtype
from plstm_graph.ops.dispatch import check_floating
from plstm_graph.ops.functional import transforming

ImageForm = Callable[[Tensor, Tensor, Tensor, GridGates], Tensor]
ChainForm = Callable[[Tensor, Tensor, Tensor, ChainGates, Tensor | None], tuple[Tensor, Tensor]]

FORMS: dict[str, ImageForm] = {
    "reference": reference.image,
    "log": matrix.log,
    "rows": matrix.rows,
    "closed": matrix.closed,
    "tiles": tiled.tiled,
    "propagate": as_dag.image,
    "numba": partial(compiled.image, "numba"),
    "triton": partial(compiled.image, "triton"),
    compiled.TILES: partial(compiled.image, compiled.TILES),
}
"""Every way to compute an image, by name; add your own.

All take (query, key, value, gates) as :func:`image` has checked them: one device, one dtype (float32 or float64, but
for those in ``HALF``), at least one row and one column; gates with or without the axes of J states
(``gates.widened()`` always has them). They return [B, H, Y, X, V], all four directions and the direct term added. What
a form cannot do it refuses with :class:`BackendUnavailable`. ``gates.mode`` says what may be relied on.
"""

CHAIN_FORMS: dict[str, ChainForm] = {
    "reference": reference.chain,
    "log": chains.log,
    "chunks": chains.chunks,
    "chunks_in_turn": partial(chains.chunks, parallel=False),
    "numba": partial(compiled.chain, "numba"),
    "triton": partial(compiled.chain, "triton"),
}
"""Every way to compute a chain, by name; add your own.

All take (query, key, value, gates, state) as :func:`chain` has checked them, the state [B, H, J, K, V] (also where
J = 1) or None, and return (output [B, H, n, V], state behind the last token [B, H, J, K, V]).
"""

HALF = {"triton", compiled.TILES}
"""Forms of either kind that take half precision as it is and accumulate in float32; the others get float32."""


COMPILED: dict[str, tuple[str, ...]] = {"cpu": ("numba",), "cuda": ("triton", compiled.TILES)}
"""The compiled forms of images, by the type of device; ``"auto"`` takes the first that can run."""
COMPILED_CHAIN: dict[str, tuple[str, ...]] = {"cpu": ("numba",), "cuda": ("triton",)}
"""The same of chains."""
DENSE = {"cpu": 400, "cuda": 4096}
"""Pixels up to which gating matrices of a whole image are faster than tiles, by the device."""
ONE_CHUNK = 256
"""Tokens up to which a chain is one chunk."""


def choose_form(
    device: str, pixels: int, matrices: int, mode: str, compiled: str | None = None, edges: bool = False
) -> str:
    """The form of an image that ``"auto"`` stands for.

    Args:
        device: type of the device the tensors are on.
        pixels: Y · X.
        matrices: bytes of the gating matrices of four directions, see :func:`matrix.matrix_bytes`.
        mode: of the gates.
        compiled: the compiled form of this device, if it can run here.
        edges: whether loops over edges are faster than any of them, see :func:`as_dag.serves`.
    """
    if edges:
        return "propagate"
    if compiled is not None:
        return compiled
    if pixels > DENSE.get(device, DENSE["cpu"]) or matrices > matrix.MAX_BYTES // 4:
        return "tiles"
    return "closed" if mode in (D_LEFT, D_RIGHT) else "log"


def choose_chain_form(tokens: int, compiled: str | None = None) -> str:
    """The form of a chain that ``"auto"`` stands for."""
    if compiled is not None:
        return compiled
    return "log" if tokens <= ONE_CHUNK else "chunks"


def compiled_form(
    forms: dict[str, tuple[str, ...]], query: Tensor, value: Tensor, gates: GridGates | ChainGates
) -> str | None:
    """The compiled form among ``forms`` for these tensors, if there is one and it can run."""
    for form in forms.get(value.device.type, ()):
        if compiled.refuses(form, query, value, gates) is None:
            return form
    return None


def image(query: Tensor, key: Tensor, value: Tensor, gates: GridGates, *, form: str = "auto") -> Tensor:
    """Carry values along every path of B grids, in four directions (Pöppel et al. 2025, eqs 5 and 6 on a grid).

    In the direction right-down, with a the state that arrives from the left and b the one from above,
    ``a[i, j+1] = t[R,R] a + t[R,D] b + s[R] k ⊗ v``, ``b[i+1, j] = t[D,R] a + t[D,D] b + s[D] k ⊗ v`` and
    ``y = qᵀ (m[R] a + m[D] b)``, all of pixel (i, j); other directions are the same on a flipped grid. Their outputs
    are added, and ``direct · (q·k) v`` once.

    Args:
        query, key: [B, H, Y, X, K], not scaled here.
        value: [B, H, Y, X, V].
        gates: activated gates, see :class:`GridGates`.
        form: ``"auto"`` or a name in :data:`FORMS`.

    Returns:
        [B, H, Y, X, V] in the dtype of ``value``; half precision is computed in float32.

    Raises:
        ShapeError: shapes or devices do not fit together, or the gates do not keep what their mode promises (looked at
            on the CPU alone, and not within transforms of torch.func).
        BackendUnavailable: the form cannot run here.
        ConfigError: no form of that name.
    """
    _check_image(query, key, value, gates)
    check_form(form, FORMS, "form of an image")
    name = form
    if form == "auto":
        pixels, matrices = value.size(2) * value.size(3), matrix.matrix_bytes(gates)
        fast = compiled_form(COMPILED, query, value, gates)
        edges = as_dag.serves(query, value, gates)
        name = choose_form(value.device.type, pixels, matrices, gates.mode, fast, edges)
    taken, wide = _dtypes(name, query, key, value)
    given = gates.changed(partial(in_dtype, wide))._replace(direct=in_dtype(wide, gates.direct))
    with _without_autocast(value.device.type):
        found = FORMS[name](in_dtype(taken, query), in_dtype(taken, key), in_dtype(taken, value), given)
    return in_dtype(value.dtype, found)


def chain(
    query: Tensor, key: Tensor, value: Tensor, gates: ChainGates, *, form: str = "auto", state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Carry values along B chains (Pöppel et al. 2025, section 2): ``C' = t C + s k ⊗ v``, ``y = m qᵀC + d (q·k) v``.

    C is what arrives at a token, C' what leaves it.

    Args:
        query, key: [B, H, n, K], not scaled here.
        value: [B, H, n, V].
        gates: activated gates, see :class:`ChainGates`.
        form: ``"auto"`` or a name in :data:`CHAIN_FORMS`.
        state: what arrives at the first token, [B, H, K, V], with J states [B, H, J, K, V]; nothing if None.

    Returns:
        Output [B, H, n, V] in the dtype of ``value``, and what leaves the last token, shaped as ``state``, in float32
        at least: give it to the next call to go on.

    Raises:
        ShapeError: shapes or devices do not fit together.
        BackendUnavailable: the form cannot run here.
        ConfigError: no form of that name.
    """
    shape = _check_chain(query, key, value, gates, state)
    check_form(form, CHAIN_FORMS, "form of a chain")
    name = form
    if form == "auto":
        name = choose_chain_form(value.size(2), compiled_form(COMPILED_CHAIN, query, value, gates))
    taken, wide = _dtypes(name, query, key, value)
    given = ChainGates(*(in_dtype(wide, gate) for gate in gates))
    begin = None if state is None else in_dtype(wide, state.view(*shape[:2], gates.states, *shape[-2:]))
    with _without_autocast(value.device.type):
        found, end = CHAIN_FORMS[name](
            in_dtype(taken, query), in_dtype(taken, key), in_dtype(taken, value), given, begin
        )
    return in_dtype(value.dtype, found), end.view(shape)


def step(
    query: Tensor, key: Tensor, value: Tensor, gates: ChainGates, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token of :func:`chain`: query and key [B, H, K], value [B, H, V], gates [B, H] (see :class:`ChainGates`).

    Returns:
        Output [B, H, V], and the state to give to the next call.
    """
    check_kind("gates", gates, ChainGates, "make them by ChainGates(source, transition, mark, direct)")
    if value.dim() != 3 or gates.direct.dim() != 2:
        raise ShapeError(
            f"one token has value [B, H, V] and gate direct [B, H], got {list(value.shape)} and "
            f"{list(gates.direct.shape)}; several at a time are for chain()"
        )
    token = ChainGates(*(gate.unsqueeze(2) for gate in gates))
    output, state = chain(
        query.unsqueeze(2), key.unsqueeze(2), value.unsqueeze(2), token, form="reference", state=state
    )
    return output.squeeze(2), state


def check_form(name: str, forms: dict[str, ImageForm] | dict[str, ChainForm], kind: str = "form") -> None:
    """Raise ConfigError unless ``name`` is ``"auto"`` or in ``forms``, with what has been added by now."""
    if name != "auto" and name not in forms:
        raise ConfigError(unknown(kind, name, ("auto", *forms)))


def _dtypes(form: str, *vectors: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """In which queries, keys and values are given to a form, and in which gates and states are."""
    kinds = {x.dtype for x in vectors}
    wide = torch.float64 if torch.float64 in kinds else torch.float32
    half = form in HALF and len(kinds) == 1 and wide == torch.float32
    return (vectors[0].dtype if half else wide), wide


def _without_autocast(kind: str) -> AbstractContextManager[Any]:
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)  # "meta" has none to switch off


def _check_image(query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> None:
    check_kind("gates", gates, GridGates, "p_gates, d_gates and general_gates of plstm_graph.grid make them")
    _check_vectors(query, key, value, "Y, X")
    check_mode(gates.mode)
    images, heads, *size, _ = value.shape
    here, j = [images, len(DIRECTIONS), heads, *size], gates.states
    last = ([2, j], [2, 2, j, j], [2, j]) if gates.source.dim() == 7 else ([2], [2, 2], [2])
    shapes = [*([*here, *more] for more in last), [images, heads, *size]]
    check_shapes("image", gates._fields[:4], gates[:4], shapes)
    _check_devices(value.device, {"query": query, "key": key, **dict(zip(gates._fields, gates[:4], strict=False))})
    told = value.device.type == "cpu" and not torch.compiler.is_compiling() and not transforming()
    if told and not keeps_promise(gates):
        raise ShapeError(f"transitions are not of mode {gates.mode!r}; use mode='general' for free ones")


def _check_chain(query: Tensor, key: Tensor, value: Tensor, gates: ChainGates, state: Tensor | None) -> tuple[int, ...]:
    """Returns the shape of a state."""
    check_kind("gates", gates, ChainGates, "make them by ChainGates(source, transition, mark, direct)")
    _check_vectors(query, key, value, "n")
    here, j = list(value.shape[:3]), gates.states
    last = ([j], [j, j], [j]) if gates.source.dim() > gates.direct.dim() else ([], [], [])
    check_shapes("chain", gates._fields, gates, [*([*here, *more] for more in last), here])
    shape = (*value.shape[:2], *last[0], key.size(-1), value.size(-1))
    if state is not None and (not isinstance(state, Tensor) or state.shape != shape):
        got = list(state.shape) if isinstance(state, Tensor) else type(state).__name__
        raise ShapeError(f"state must be {list(shape)} for these values and gates, got {got}")
    begin = {} if state is None else {"state": state}
    _check_devices(value.device, {"query": query, "key": key, **gates._asdict(), **begin})
    return shape


def _check_vectors(query: Tensor, key: Tensor, value: Tensor, place: str) -> None:
    axes = 3 + len(place.split())
    if value.dim() != axes or key.dim() != axes or query.shape != key.shape or value.shape[:-1] != key.shape[:-1]:
        raise ShapeError(
            f"query and key must be [B, H, {place}, K] and value [B, H, {place}, V], got "
            f"{list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
        )
    check_floating(query=query, key=key, value=value)
    if 0 in value.shape[2:-1]:
        raise ShapeError(f"[{place}] must be at least 1, got {list(value.shape[2:-1])}")


def _check_devices(device: torch.device, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.device != device:
            raise ShapeError(f"{name} is on {tensor.device}, value on {device}; move both to one device")
