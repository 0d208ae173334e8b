"""Launches for large graphs, of the recurrent form."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from plstm_graph.gates import Gates
from plstm_graph.launch import INTERPRETED, At, ceil_div, launch, power_of_2
from plstm_graph.ops.triton import recurrent

Vectors = tuple[Tensor | At, ...]
"""Queries, keys and values, or their gradients, laid out as a call says."""

NUMBERS, NUMBERS_BACK = 1024, 512
"""32-bit numbers of each tile that a warp holds: of three tiles at once, going back of four."""
WARPS = 16
"""On a multiprocessor, which share 65536 registers."""


def output(call: Any, vectors: Vectors, gates: Gates, y: Tensor) -> None:
    """Output ``y`` [N, H, V] of the nodes of large graphs."""
    _, keys, values, _ = call.layout
    *most, direct = gates
    outputs, states = _by_edge(call, values), _by_edge(call, keys, values)
    _sweep(call, recurrent.forward, (*vectors, *most, states, outputs), True)
    _at_nodes(call, recurrent.output, (*vectors, direct, y, outputs))


def gradients(call: Any, vectors: Vectors, gates: Gates, grad: Tensor, d_vectors: Vectors, d_gates: Gates) -> None:
    """All seven gradients at the nodes, edges and pairs of large graphs."""
    _, keys, values, _ = call.layout
    *most, direct = gates
    *d_most, d_direct = d_gates
    states, adjoints = (_by_edge(call, keys, values) for _ in range(2))
    parts = tuple(_by_edge(call, width) for width in (keys, keys, values))
    _sweep(call, recurrent.forward, (*vectors, *most, states, states), False)
    _sweep(call, recurrent.backward, (*vectors, *most, grad, *d_most, states, adjoints, *parts))
    _at_nodes(call, recurrent.gradients, (*vectors, direct, grad, *d_vectors, d_direct, *parts))


def _by_edge(call: Any, *widths: int) -> Tensor:
    """Room for numbers of every head of the edges of large graphs."""
    return torch.empty(call.sizes.large_edges, call.layout.heads, *widths, dtype=call.wide, device=call.device)


def _sweep(call: Any, kernel: Any, tensors: tuple[Tensor | At, ...], *options: Any) -> None:
    """One launch for all edges of large graphs. All programs must be on the chip at once, since they wait for each
    other; and the fewer they are, the less they wait."""
    plan, (heads, keys, values, strides) = call.plan, call.layout
    widths = [power_of_2(width) for width in (keys, values)]
    numbers = widths[0] * widths[1] * call.wide.itemsize // 4
    held = NUMBERS if kernel is recurrent.forward else NUMBERS_BACK
    block = max(1, min(power_of_2(heads), held // numbers))
    warps = min(max(1, block * numbers // held), WARPS)
    two = block * numbers <= held * warps
    levels = plan.levels.numel() - 2
    items = call.sizes.large_edges * ceil_div(heads, block)
    if not items:
        return
    most = 1 if INTERPRETED else processors(call.device) * (WARPS // warps)
    programs = min(most, 1 + 2 * items // levels)
    counters = torch.zeros(recurrent.COUNTERS, dtype=torch.int32, device=call.device)
    launch(
        kernel,
        (programs,),
        tensors,
        (plan.pairs, plan.large, plan.levels, counters),
        (call.sizes.pairs, levels),
        (heads, keys, values, *widths, *strides, block, two, call.reversed, *options),
        (("num_warps", warps), ("maxnreg", 65536 // (32 * WARPS)), ("launch_cooperative_grid", True)),
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
