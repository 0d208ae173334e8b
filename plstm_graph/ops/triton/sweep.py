"""Launches for large graphs, of both recurrent forms: states of wide graphs level by level, of deep ones by columns."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plstm_graph.gates import Gates
from plstm_graph.launch import INTERPRETED, At, ceil_div, launch, power_of_2
from plstm_graph.ops.triton import columns, recurrent

Vectors = tuple[Tensor | At, ...]
"""Queries, keys and values, or their gradients, laid out as a call says."""

NUMBERS, NUMBERS_BACK = 1024, 512
"""32-bit numbers of each tile that a warp holds: of three tiles at once, going back of four."""
WARPS = 16
"""On a multiprocessor, which share 65536 registers."""
LANES, COLUMN = 32, 4
"""A lane of ``columns.solve`` has an edge and so many numbers of its state, so that nothing goes from lane to lane."""
COLUMN_WARPS = (4, 2, 1)
"""Warps of such a program: the most with which all find room at once, since a level is a step where it has fewer edges
than there are lanes. Of div on an H200 11.3, 11.5 and 13.5 ms."""

KEPT = 2**30
"""Bytes of the states of one call up to which they are kept for its backward pass: 1 GiB, for div 0.9. Beyond, they are
worked out again, as those of wide graphs always are."""


def output(call: Any, vectors: Vectors, gates: Gates, y: Tensor) -> None:
    """Output ``y`` [N, H, V] of the nodes of large graphs. The E'·H·K·V states are kept for the backward pass where
    there are deep graphs, up to :data:`KEPT`."""
    _, keys, values, _ = call.layout
    outputs, states = _by_edge(call, values), _by_edge(call, keys, values)
    _states(call, vectors, gates, states, outputs)
    if call.sizes.deep:
        call.states = states if states.nbytes <= KEPT else None
        query, mark = vectors[0], gates.mark
        _at_edges(call, columns.read, (query, mark, states, outputs), NUMBERS, call.layout.strides[:2])
    _at_nodes(call, recurrent.output, (*vectors, gates.direct, y, outputs))


def gradients(call: Any, vectors: Vectors, gates: Gates, grad: Tensor, d_vectors: Vectors, d_gates: Gates) -> None:
    """All seven gradients at the nodes, edges and pairs of large graphs."""
    _, keys, values, strides = call.layout
    *most, direct = gates
    *d_most, d_direct = d_gates
    states, call.states = call.states, None
    if states is None:
        states = _by_edge(call, keys, values)
        _states(call, vectors, gates, states)
    adjoints = _by_edge(call, keys, values)
    parts = tuple(_by_edge(call, width) for width in (keys, keys, values))
    if call.sizes.wide:
        _sweep(call, recurrent.backward, (*vectors, *most, grad, *d_most, states, adjoints, *parts))
    if call.sizes.deep:
        query, key, value = vectors
        ends = (query, *strides[:2]), (grad, call.layout.heads * values, values)
        _solve(call, *ends, gates.mark, gates.transition, adjoints, not call.reversed)
        tensors = query, key, value, gates.source, gates.mark, grad, *d_most, states, adjoints, *parts
        _at_edges(call, columns.backward, tensors, NUMBERS_BACK, strides, (call.plan.pairs,), (call.sizes.pairs,))
    _at_nodes(call, recurrent.gradients, (*vectors, direct, grad, *d_vectors, d_direct, *parts))


def _states(call: Any, vectors: Vectors, gates: Gates, states: Tensor, outputs: Tensor | None = None) -> None:
    """States of all edges of large graphs and, of wide ones, what each adds to the output of a node."""
    if call.sizes.wide:
        tensors = *vectors, *gates[:3], states, states if outputs is None else outputs
        _sweep(call, recurrent.forward, tensors, outputs is not None)
    if call.sizes.deep:
        _, key, value = vectors
        *_, k_node, k_head, v_node, v_head = call.layout.strides
        ends = (key, k_node, k_head), (value, v_node, v_head)
        _solve(call, *ends, gates.source, gates.transition, states, call.reversed)


def _by_edge(call: Any, *widths: int) -> Tensor:
    """Room for numbers of every head of the edges of large graphs."""
    return torch.empty(call.sizes.large_edges, call.layout.heads, *widths, dtype=call.wide, device=call.device)


class _Tiles(NamedTuple):
    """Tiles of a program for one edge: [``block`` heads, padded K, padded V] numbers, and how many warps hold them, so
    many 32-bit numbers each (``held``) or, of one head, more: ``full`` tells that it is not more."""

    widths: tuple[int, int]
    block: int
    warps: int
    full: bool


def _tiles(call: Any, held: int) -> _Tiles:
    heads, keys, values, _ = call.layout
    widths = power_of_2(keys), power_of_2(values)
    numbers = widths[0] * widths[1] * call.wide.itemsize // 4
    block = max(1, min(power_of_2(heads), held // numbers))
    warps = min(max(1, block * numbers // held), WARPS)
    return _Tiles(widths, block, warps, block * numbers <= held * warps)


def _sweep(call: Any, kernel: Any, tensors: tuple[Tensor | At, ...], *options: Any) -> None:
    """One launch for all edges of wide graphs. All programs must be on the chip at once, since they wait for each
    other; and the fewer they are, the less they wait."""
    plan, (heads, keys, values, strides) = call.plan, call.layout
    tiles = _tiles(call, NUMBERS if kernel is recurrent.forward else NUMBERS_BACK)
    levels = plan.levels.size(2) - 2
    items = call.sizes.large_edges * ceil_div(heads, tiles.block)
    if not items:
        return
    most = 1 if INTERPRETED else processors(call.device) * (WARPS // tiles.warps)
    programs = min(most, 1 + 2 * items // levels)
    counters = torch.zeros(recurrent.COUNTERS, dtype=torch.int32, device=call.device)
    launch(
        kernel,
        (programs,),
        tensors,
        (plan.pairs, plan.large, plan.levels, counters),
        (call.sizes.pairs, levels),
        (heads, keys, values, *tiles.widths, *strides, tiles.block, tiles.full, call.reversed, *options),
        (("num_warps", tiles.warps), ("maxnreg", 65536 // (32 * WARPS)), ("launch_cooperative_grid", True)),
    )


def _solve(
    call: Any,
    left: tuple[Any, int, int],
    right: tuple[Any, int, int],
    fed: Any,
    transition: Any,
    states: Tensor,
    against: bool,
) -> None:
    """States of the edges of deep graphs, or their adjoints. ``left``, ``right``: vectors, and their strides from node
    to node and from head to head."""
    plan, sizes, (heads, keys, values, _) = call.plan, call.sizes, call.layout
    numbers = min(COLUMN, power_of_2(keys * values))
    programs = sizes.deep * heads * ceil_div(keys * values, numbers)
    room = 0 if INTERPRETED else processors(call.device) * WARPS
    warps = next((warps for warps in COLUMN_WARPS if programs * warps <= room), 1)
    launch(
        columns.solve,
        (programs,),
        (left[0], right[0], fed, transition, states),
        (plan.pairs, plan.large, plan.levels),
        (sizes.pairs, plan.levels.size(2) - 2, sizes.deep),
        (heads, keys, values, *left[1:], *right[1:], numbers, LANES * warps, against),
        (("num_warps", warps),),
    )


def _at_edges(
    call: Any,
    kernel: Any,
    tensors: tuple[Tensor | At, ...],
    held: int,
    strides: tuple[int, ...],
    tables: tuple[Tensor, ...] = (),
    numbers: tuple[int, ...] = (),
) -> None:
    """A program for each edge of deep graphs and some heads."""
    plan, sizes, (heads, keys, values, _), tiles = call.plan, call.sizes, call.layout, _tiles(call, held)
    launch(
        kernel,
        (sizes.large_edges * ceil_div(heads, tiles.block),),
        tensors,
        (*tables, plan.large, plan.levels),
        (*numbers, sizes.large_nodes, plan.levels.size(2) - 2),
        (heads, keys, values, *tiles.widths, *strides, tiles.block, call.reversed),
        (("num_warps", tiles.warps),),
    )


def _at_nodes(call: Any, kernel: Any, tensors: tuple[Tensor | At, ...]) -> None:
    """A program for each node of large graphs and some heads."""
    plan, (heads, keys, values, strides) = call.plan, call.layout
    widths = [power_of_2(width) for width in (keys, values)]
    block = max(1, min(power_of_2(heads), 512 // max(widths)))
    launch(
        kernel,
        (call.sizes.large_nodes * ceil_div(heads, block),),
        tensors,
        (plan.edges, plan.large),
        (call.sizes.edges,),
        (heads, keys, values, *widths, *strides, block, call.reversed),
        (("num_warps", 1),),
    )


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
