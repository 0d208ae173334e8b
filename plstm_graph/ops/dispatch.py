"""Propagate: check once, choose a backend, run it in float32 at least."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from plstm_graph.errors import ConfigError, ShapeError, unknown
from plstm_graph.gates import Gates, check_gates
from plstm_graph.line_dag.dag import LineDAG, check_line_dag
from plstm_graph.ops import chunkwise, compiled, dense, reference, scatter
from plstm_graph.ops.compiled import HOMES, Home, in_dtype
from plstm_graph.ops.influence import padded_bytes

Backend = Callable[[Tensor, Tensor, Tensor, Gates, LineDAG], Tensor]


BACKENDS: dict[str, Backend] = {
    "reference": reference.propagate,
    "scatter": scatter.propagate,
    "scatter_recompute": scatter.propagate_recompute,
    "chunkwise": chunkwise.propagate,
    "dense": dense.propagate,
    **{name: partial(compiled.propagate, name) for name in HOMES},
}
"""Every way to propagate, by name; add your own. All take (query, key, value, gates, dag)."""


COMPILED = {home.device: name for name, home in HOMES.items()}
"""The compiled backend that ``"auto"`` takes on each type of device, where it can run."""


def add_compiled(name: str, home: Home) -> None:
    """Add a compiled backend, whose steps layers then use as well; ``"auto"`` takes it where there was none."""
    HOMES[name], BACKENDS[name] = home, partial(compiled.propagate, name)
    COMPILED.setdefault(home.device, name)


def check_backend(name: str) -> None:
    """Raise ConfigError unless ``name`` is ``"auto"`` or in :data:`BACKENDS`, with what has been added by now."""
    if name != "auto" and name not in BACKENDS:
        raise ConfigError(unknown("backend", name, ("auto", *BACKENDS)))


def choose_backend(device: str, padded: int, states: int, compiled: bool, deep: bool = False) -> str:
    """The backend that ``"auto"`` stands for.

    Args:
        device: type of the device the tensors are on.
        padded: bytes of the padded matrices of the parallel form, see :func:`influence.padded_bytes`.
        states: bytes of the states of the recurrent form, E · H · K · V numbers.
        compiled: whether the compiled backend of this device can run here.
        deep: whether the line graph is so deep and narrow that chunks pay, see :func:`chunkwise.serves`.
    """
    if deep:
        return "chunkwise"
    if compiled:
        return COMPILED[device]
    return "dense" if padded <= min(2 * states, 2**30) else "scatter"


def has_compiled(device: torch.device) -> bool:
    """Tell whether ``"auto"`` takes the compiled backend of a device in this process."""
    return compiled_backend("auto", device) is not None


def compiled_backend(name: str, device: torch.device) -> str | None:
    """The compiled backend that ``"auto"`` or a name stands for on a device, if it is one and can run there."""
    backend = COMPILED.get(device.type) if name == "auto" else name
    if backend is None or backend not in HOMES or compiled.unavailable(backend, device, name == "auto") is not None:
        return None
    return backend


def propagate(
    query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG, *, backend: str = "auto"
) -> Tensor:
    """Source, transition, mark: carry values along every path of the DAG (Pöppel et al. 2025, eqs 5 and 6).

    ``C_e = source_e · k_src ⊗ v_src + Σ_(p: next(p)=e) transition_p · C_prev(p)`` for every edge, then
    ``y_n = Σ_(e: dst(e)=n) mark_e · qₙᵀ C_e + direct_n (qₙ·kₙ) vₙ`` for every node.

    Args:
        query, key: [N, H, K].
        value: [N, H, V].
        gates: activated gates of this very ``dag``, see :class:`Gates`.
        dag: line graph as it is read (``prune()`` for D mode, ``reverse()`` for the other direction).
        backend: ``"auto"`` or a name in :data:`BACKENDS`.

    Returns:
        [N, H, V] in the dtype of ``value``; half precision inputs are propagated in float32
        (triton: read as they are, accumulated in float32).

    Raises:
        ShapeError: shapes or devices do not fit together or the dag.
        BackendUnavailable: the backend cannot run here.
        ConfigError: no backend of that name.
    """
    check_line_dag(dag)
    _check(query, key, value, gates, dag)
    check_backend(backend)
    if backend == "auto":
        heads, size = value.size(1), value.element_size()
        states = dag.num_edges * heads * key.size(2) * value.size(2) * size
        padded = padded_bytes(dag, heads, size)
        device, fast = value.device.type, has_compiled(value.device)
        deep = chunkwise.serves(dag, device, (heads, key.size(2), value.size(2)), size, compiled=fast)
        backend = choose_backend(device, padded, states, fast, deep)
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    half = backend in HOMES and HOMES[backend].half and dtype == torch.float32
    taken = value.dtype if half and query.dtype == key.dtype == value.dtype else dtype
    wide = Gates(*(gate if half and gate.dtype.itemsize < 4 else in_dtype(dtype, gate) for gate in gates))
    arguments = (in_dtype(taken, query), in_dtype(taken, key), in_dtype(taken, value), wide, dag)
    if not torch.is_autocast_enabled(value.device.type):
        return in_dtype(value.dtype, BACKENDS[backend](*arguments))
    with torch.autocast(value.device.type, enabled=False):
        return in_dtype(value.dtype, BACKENDS[backend](*arguments))


def check_floating(**tensors: Tensor) -> None:
    """Raise ShapeError unless these have fractions, which an output in the dtype of whole numbers would lose."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ShapeError(f"{name} must be floating point, got {tensor.dtype}; call {name}.float()")


def _check(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> None:
    shape, other = value.shape, key.shape
    if len(other) != 3 or query.shape != other or len(shape) != 3 or shape[:2] != other[:2]:
        raise ShapeError(
            "query and key must be [N, H, K] and value [N, H, V], got "
            f"{list(query.shape)}, {list(other)} and {list(shape)}"
        )
    check_floating(query=query, key=key, value=value)
    nodes, heads, _ = shape
    if nodes != dag.num_nodes:
        raise ShapeError(f"the dag has {dag.num_nodes} nodes, but query, key and value have {nodes}")
    device = value.device
    for name, tensor in (("query", query), ("key", key), ("the dag", dag.src)):
        if tensor.device != device:
            raise ShapeError(f"{name} is on {tensor.device}, value on {device}; move both to one device")
    check_gates(gates, dag, heads)
