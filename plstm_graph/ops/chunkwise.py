"""Chunkwise form of any DAG (B.7): chunks of edges side by side, and one after the other what crosses between them.

For deep, narrow DAGs, where one level at a time waits. Edges are cut into chunks in topological order. With D the
transitions inside chunks and L those between them, ``C = (I - D)⁻¹ (B + L C)``: solving with ``I - D`` takes as many
steps as a chunk has levels, for all chunks at once, and only the states of edges that are read by later chunks (tails)
are needed one chunk after the other. What arrives at a chunk reaches its tails through one dense matrix.
"""

from functools import partial

from torch import Tensor

from plstm_graph.errors import BackendUnavailable
from plstm_graph.gates import Gates
from plstm_graph.line_dag import LineDAG
from plstm_graph.line_dag.chunks import ChunkPlan
from plstm_graph.ops.scatter import recurrent, sweep

MAX_BYTES = 2**33
"""Largest working set of the matrices of all chunks, 8 GiB."""
SIZES = (128, 1024)
"""Fewest and most edges of a chunk; between them twice the numbers of a state: then matrices are as large as states."""
DEEP, NARROW = 1000, 8
"""Levels from which on, and edges a level up to which, ``"auto"`` takes this form where a level is a step of the host,
which takes as long with few edges as with many: where no compiled backend runs."""


def propagate(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
    """See :func:`plstm_graph.propagate`. Keeps the E·H·K·V states for the backward pass; refuses beyond MAX_BYTES."""
    size = chunk_size(key.size(-1) * value.size(-1))
    plan = dag.chunk_plan(size)
    needed = matrix_bytes(dag, plan, value.size(1) * value.element_size())
    if needed > MAX_BYTES:
        raise BackendUnavailable(
            f"up to {plan.width} states arrive at a chunk of {size} edges, its matrices would take "
            f"{needed / 2**30:.1f} GiB, more than the limit of {MAX_BYTES / 2**30:.0f}; use backend='scatter'"
        )
    return recurrent(query, key, value, gates, dag, partial(solve, size=size))


def serves(dag: LineDAG, device: str, shape: tuple[int, int, int], itemsize: int = 4, *, compiled: bool = True) -> bool:
    """Tell whether ``"auto"`` takes this form: for DAGs that are deep and narrow, within MAX_BYTES, on a GPU or a CPU
    for which nothing is ``compiled``.

    ``shape`` is H, K, V.
    """
    if compiled or device not in ("cuda", "cpu"):
        return False
    if dag.max_edges < DEEP:  # before levels, which are found on the host
        return False
    if dag.num_levels < DEEP or dag.num_edges > NARROW * dag.num_levels:
        return False
    heads, keys, values = shape
    return matrix_bytes(dag, dag.chunk_plan(chunk_size(keys * values)), heads * itemsize) <= MAX_BYTES


def chunk_size(numbers: int) -> int:
    """Edges of a chunk for states of so many numbers."""
    low, high = SIZES
    return max(low, min(high, 2 * numbers))


def matrix_bytes(dag: LineDAG, plan: ChunkPlan, itemsize: int) -> int:
    """Bytes of the matrices from what arrives at a chunk to each of its edges; ``itemsize`` of all heads together."""
    return dag.num_edges * plan.width * itemsize


def solve(right: Tensor, transition: Tensor, dag: LineDAG, *, size: int) -> Tensor:
    """B [E, H, S] and transitions [P, H] to the state of every edge, [E, H, S], in chunks of ``size`` edges."""
    plan = dag.chunk_plan(size)
    weight = transition.index_select(0, plan.pair).unsqueeze(-1)
    crossing = _tails(right, transition, plan).index_select(0, plan.place) * weight
    return sweep(right.index_add(0, plan.next, crossing), transition, plan.inside)


def _tails(right: Tensor, transition: Tensor, plan: ChunkPlan) -> Tensor:
    """States of the tails, [T, H, S]: what chunks make of their own sources, then chunk after chunk what arrives."""
    tails = sweep(right.clone(), transition, plan.inside).index_select(0, plan.tail)
    if not plan.width:
        return tails
    # Heads first, so that each chunk is one product of all of them; split at once, since the host is what waits.
    tails = tails.transpose(0, 1).contiguous()
    chunks = zip(
        tails.split(plan.tails, 1),
        _matrices(right, transition, plan).transpose(0, 1).split(plan.tails, 1),
        plan.arriving.split(plan.arrivals),
        strict=True,
    )
    for state, reach, arriving in chunks:
        if state.size(1) and arriving.numel():
            state.baddbmm_(reach[:, :, : arriving.numel()], tails.index_select(1, arriving))
    return tails.transpose(0, 1)


def _matrices(right: Tensor, transition: Tensor, plan: ChunkPlan) -> Tensor:
    """Matrices from what arrives at a chunk to each of its tails, [T, H, width]."""
    reach = right.new_zeros(*right.shape[:2], plan.width)
    reach[plan.next, :, plan.slot] = transition.index_select(0, plan.pair)
    return sweep(reach, transition, plan.inside).index_select(0, plan.tail)
