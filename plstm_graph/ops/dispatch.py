"""Propagate: check once, choose a backend, run it in float32 at least."""

from collections.abc import Callable

import torch
from torch import Tensor

from plstm_graph.errors import ConfigError, ShapeError, unknown
from plstm_graph.gates import Gates
from plstm_graph.line_dag import LineDAG
from plstm_graph.ops import dense, reference, scatter
from plstm_graph.ops.influence import padded_bytes

Backend = Callable[[Tensor, Tensor, Tensor, Gates, LineDAG], Tensor]

BACKENDS: dict[str, Backend] = {
    "reference": reference.propagate,
    "scatter": scatter.propagate,
    "scatter_recompute": scatter.propagate_recompute,
    "dense": dense.propagate,
}
"""Every way to propagate, by name; add your own. All take (query, key, value, gates, dag)."""


def choose_backend(dag: LineDAG, heads: int, width: int, itemsize: int = 4) -> str:
    """The backend that ``"auto"`` stands for: dense where its padded matrices are small beside the states.

    Args:
        dag: sizes only.
        heads: H.
        width: K · V, the size of a state.
        itemsize: bytes per number.
    """
    padded = padded_bytes(dag, heads, itemsize)
    states = dag.num_edges * heads * width * itemsize
    return "dense" if padded <= min(2 * states, 2**30) else "scatter"


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
        [N, H, V] in the dtype of ``value``; half precision inputs are propagated in float32.

    Raises:
        ShapeError: shapes or devices do not fit together or the dag.
        BackendUnavailable: the backend cannot run here.
        ConfigError: no backend of that name.
    """
    _check(query, key, value, gates, dag)
    if backend == "auto":
        backend = choose_backend(dag, value.size(1), key.size(2) * value.size(2), value.element_size())
    if backend not in BACKENDS:
        raise ConfigError(unknown("backend", backend, ("auto", *BACKENDS)))
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    with torch.autocast(value.device.type, enabled=False):
        wide = Gates(*(gate.to(dtype) for gate in gates))
        output = BACKENDS[backend](query.to(dtype), key.to(dtype), value.to(dtype), wide, dag)
    return output.to(value.dtype)


def _check(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> None:
    if query.dim() != 3 or query.shape != key.shape or value.dim() != 3 or value.shape[:2] != key.shape[:2]:
        raise ShapeError(
            "query and key must be [N, H, K] and value [N, H, V], got "
            f"{list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
        )
    nodes, heads = value.shape[:2]
    if nodes != dag.num_nodes:
        raise ShapeError(f"the dag has {dag.num_nodes} nodes, but query, key and value have {nodes}")
    rows = {"source": dag.num_edges, "transition": dag.num_pairs, "mark": dag.num_edges, "direct": nodes}
    for (name, count), gate in zip(rows.items(), gates, strict=True):
        if gate.shape != (count, heads):
            raise ShapeError(
                f"gate {name} must be [{count}, {heads}] for this dag, got {list(gate.shape)}; "
                "gates belong to one line graph: was it rebuilt, pruned or reordered after they were computed?"
            )
        if gate.device != value.device:
            raise ShapeError(f"gate {name} is on {gate.device}, value on {value.device}; move both to one device")
    if dag.src.device != value.device:
        raise ShapeError(f"the dag is on {dag.src.device}, value on {value.device}; use dag.to({str(value.device)!r})")
