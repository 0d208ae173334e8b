"""Launch the kernels of the operator: which form a graph takes, how wide, and how many programs run."""

from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from plstm_graph.gates import Gates
from plstm_graph.ops.triton import attend, recurrent, walk
from plstm_graph.ops.triton.runtime import INTERPRETED, launch
from plstm_graph.plan import TILES, Host, Plan, served_classes


def runs_here(device: torch.device) -> str | None:
    """Why the kernels cannot run for tensors on ``device``, or None."""
    if device.type == "cuda" or (INTERPRETED and device.type == "cpu"):
        return None
    return f"Triton's kernels are for NVIDIA GPUs, the tensors are on {device}"


def forward(query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool) -> Tensor:
    """Output of every node, [N, H, V] in the dtype of ``value``.

    Args:
        query, key: [N, H, K]; value: [N, H, V]. The last dimension is contiguous.
        gates: contiguous; float32, or float64 with float64 values.
        plan: for ``served_classes(K, V)`` classes.
        reversed: read against the edges.
    """
    output = torch.empty(value.shape, dtype=value.dtype, device=value.device)
    call = _Call(query, key, value, gates, plan, reversed)
    for tile in call.tiles:
        call.walk_along(tile)
        call.attend(attend.forward, tile, (query, key, value, output))
    if call.large:
        call.recurrent_output(output)
    return output


def backward(
    query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool, grad: Tensor
) -> tuple[Tensor, ...]:
    """The seven gradients, of query, key and value strided as those are. ``grad``: of the output, contiguous."""
    vectors = (torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device) for x in (query, key, value))
    gradients = (*vectors, *(torch.empty_like(gate) for gate in gates))
    into(gradients, query, key, value, gates, plan, reversed, grad)
    return gradients


def into(
    gradients: tuple[Tensor, ...],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gates: Gates,
    plan: Plan,
    reversed: bool,
    grad: Tensor,
) -> None:
    """As :func:`backward`, into tensors that are there; those of query, key and value are strided alike."""
    call = _Call(query, key, value, gates, plan, reversed)
    d_query, d_key, d_value, d_source, d_transition, d_mark, d_direct = gradients
    for tile in call.tiles:
        call.walk_along(tile)
        call.attend(attend.backward, tile, (query, key, value, grad, d_query, d_key, d_value, d_direct))
        call.walk_back(tile, (gates.transition, gates.mark, d_source, d_transition, d_mark))
    if call.large:
        call.recurrent_gradients(grad, gradients)


class _Call:
    """What the launches of one call share."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool) -> None:
        self.inputs = (query, key, value, *gates)
        self.plan, self.device, self.reversed, self.wide = plan, value.device, reversed, gates.source.dtype
        self.heads, self.keys, self.values = value.size(1), key.size(2), value.size(2)
        self.sizes = (plan.graphs.size(1), plan.edges.size(1), plan.pairs.size(1))
        self.classes = served_classes(self.keys, self.values)
        self.host = plan.host.tolist()
        self.large = sum(self.host[Host.NODES][self.classes :])
        self.tiles = [number for number in range(self.classes) if self.host[Host.GRAPHS][number]]
        self.strides = (*query.stride()[:2], *key.stride()[:2], *value.stride()[:2])
        # States and gating matrices of the graphs that tiles serve.
        numbers = sum(self.host[Host.ROOM][: self.classes]) * TILES[0] * self.heads
        self.room = torch.empty(numbers, dtype=self.wide, device=self.device)
        half = value.dtype in (torch.bfloat16, torch.float16)  # such a number fits into tf32 as it is
        self.precision = "tf32" if half else "ieee" if self.wide == torch.float64 else "tf32x3"

    def place(self, tile: int) -> int:
        """Of the first graph of a class in ``work``."""
        return sum(self.host[Host.GRAPHS][:tile])

    def walk_along(self, tile: int) -> None:
        """Find states and gating matrices of a class of graphs."""
        plan = self.plan
        *_, source, transition, mark, direct = self.inputs
        columns, block, warps = self.walk(tile)
        tables = (plan.graphs, plan.edges, plan.pairs, plan.work)
        launch(
            walk.along,
            (self.host[Host.GRAPHS][tile] * triton.cdiv(self.heads, block),),
            (source, transition, mark, direct, *tables, self.room, self.place(tile), *self.sizes),
            (self.heads, block, columns, max(2048 // (block * columns), 1), self.reversed),
            num_warps=warps,
        )

    def walk_back(self, tile: int, arguments: tuple[Tensor, ...]) -> None:
        plan = self.plan
        columns, block, warps = self.walk(tile)
        launch(
            walk.back,
            (self.host[Host.GRAPHS][tile] * triton.cdiv(self.heads, block),),
            (*arguments, plan.graphs, plan.edges, plan.pairs, plan.work, self.room, self.place(tile), *self.sizes),
            (self.heads, block, columns, self.reversed),
            num_warps=warps,
        )

    def walk(self, tile: int) -> tuple[int, int, int]:
        """Columns, heads of a program and warps of the walks."""
        columns = TILES[tile]
        block = min(triton.next_power_of_2(self.heads), WALK_NUMBERS // columns)
        return columns, block, max(1, block * columns // 256)

    def attend(self, kernel: Any, tile: int, arguments: tuple[Tensor, ...]) -> None:
        plan, columns = self.plan, TILES[tile]
        widths = [max(16, triton.next_power_of_2(width)) for width in (self.keys, self.values)]
        warps = max(columns // 32, triton.next_power_of_2(sum(widths) // 64))
        rows = 32 if kernel is attend.forward else ROWS_BACK
        launch(
            kernel,
            (self.host[Host.GRAPHS][tile] * self.heads,),
            (*arguments, plan.graphs, plan.work, self.room, self.place(tile), self.sizes[0]),
            (self.heads, self.keys, self.values, *widths, *self.strides, columns, rows, self.precision),
            num_warps=warps,
        )

    def recurrent_output(self, output: Tensor) -> None:
        """Output of the nodes of large graphs."""
        query, key, value, source, transition, mark, direct = self.inputs
        outputs = self.by_edge(self.values)
        states = self.by_edge(self.keys, self.values)
        self.sweep(recurrent.forward, (query, key, value, source, transition, mark, states, outputs), True)
        self.at_nodes(recurrent.output, (query, key, value, direct, output, outputs))

    def recurrent_gradients(self, grad: Tensor, gradients: tuple[Tensor, ...]) -> None:
        """All seven gradients at the nodes, edges and pairs of large graphs."""
        *most, direct = self.inputs
        *vectors, d_source, d_transition, d_mark, d_direct = gradients
        states, adjoints = (self.by_edge(self.keys, self.values) for _ in range(2))
        parts = tuple(self.by_edge(width) for width in (self.keys, self.keys, self.values))
        self.sweep(recurrent.forward, (*most, states, states), False)
        self.sweep(recurrent.backward, (*most, grad, d_source, d_transition, d_mark, states, adjoints, *parts))
        self.at_nodes(recurrent.gradients, (*most[:3], direct, grad, *vectors, d_direct, *parts))

    def by_edge(self, *widths: int) -> Tensor:
        """Room for numbers of every head of the edges of large graphs."""
        edges = sum(self.host[Host.EDGES][self.classes :])
        return torch.empty(edges, self.heads, *widths, dtype=self.wide, device=self.device)

    def sweep(self, kernel: Any, arguments: tuple[Tensor, ...], *options: Any) -> None:
        """One launch for all edges of large graphs. All programs must be on the chip at once, since they wait for each
        other; and the fewer they are, the less they wait."""
        plan = self.plan
        widths = [triton.next_power_of_2(width) for width in (self.keys, self.values)]
        numbers = widths[0] * widths[1] * self.wide.itemsize // 4
        block = max(1, min(triton.next_power_of_2(self.heads), SWEEP_NUMBERS // numbers))
        warps = min(max(1, block * numbers // SWEEP_NUMBERS), 16)
        two = block * numbers <= SWEEP_NUMBERS * warps
        levels = plan.levels.numel() - 2
        items = sum(self.host[Host.EDGES][self.classes :]) * triton.cdiv(self.heads, block)
        if not items:
            return
        most = 1 if INTERPRETED else processors(self.device) * (65536 // (SWEEP_REGISTERS * 32 * warps))
        programs = min(most, 1 + 2 * items // levels)
        launch(
            kernel,
            (programs,),
            (
                *(*arguments, plan.pairs, plan.large, plan.levels),
                torch.zeros(recurrent.COUNTERS, dtype=torch.int32, device=self.device),
                *(self.sizes[2], levels),
            ),
            (self.heads, self.keys, self.values, *widths, *self.strides, block, two, self.reversed, *options),
            num_warps=warps,
            maxnreg=SWEEP_REGISTERS,
            launch_cooperative_grid=True,
        )

    def at_nodes(self, kernel: Any, arguments: tuple[Tensor, ...]) -> None:
        """A program for each node of large graphs and some heads."""
        plan = self.plan
        widths = [triton.next_power_of_2(width) for width in (self.keys, self.values)]
        block = max(1, min(triton.next_power_of_2(self.heads), 512 // max(widths)))
        launch(
            kernel,
            (self.large * triton.cdiv(self.heads, block),),
            (*arguments, plan.edges, plan.large, self.sizes[1]),
            (self.heads, self.keys, self.values, *widths, *self.strides, block, self.reversed),
            num_warps=1,
        )


SWEEP_NUMBERS = 1024
"""Numbers of a state that a warp of the recurrent form holds, in 32 bits each."""
SWEEP_REGISTERS = 128
WALK_NUMBERS = 2048
ROWS_BACK = 32


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
