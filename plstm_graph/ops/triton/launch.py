"""Launch the kernels of the operator: which form a graph takes, how wide, and how many programs run."""

from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from plstm_graph.gates import Gates
from plstm_graph.ops.triton import attend, recurrent, walk
from plstm_graph.ops.triton.runtime import INTERPRETED, At, ceil_div, launch, power_of_2
from plstm_graph.plan import TILES, Host, Plan, served_classes

SWEEP_NUMBERS, SWEEP_NUMBERS_BACK = 1024, 512
"""32-bit numbers of each tile that a warp of the recurrent form holds: of three tiles at once, going back of four."""
SWEEP_WARPS = 16
"""Its warps on a multiprocessor, which share 65536 registers."""
BIG = (9, 10)
"""Major compute capabilities with enough shared memory for the widest tiles (backward pass, 164 KiB)."""
WALK_NUMBERS, WALK_REGISTERS = 256, 64
"""Numbers of the tile of a walk, which one warp holds: heads of a program times columns. And its registers a thread: 32
programs share a multiprocessor."""
ATTEND_REGISTERS = 128
TIGHT = {(attend.forward, "tf32x3"): 64, (attend.backward, "tf32x3"): 32, (attend.backward, "tf32"): 32}
"""Registers of a thread of the attention kernels, and up to which padded K + V they are so few: twice as many programs
on a multiprocessor are worth a few spills, as measured."""


def runs_here(device: torch.device) -> str | None:
    """Why the kernels cannot run for tensors on ``device``, or None."""
    if INTERPRETED and device.type == "cpu":
        return None
    if device.type != "cuda" or torch.version.hip is not None:
        return f"Triton's kernels are for NVIDIA GPUs, the tensors are on {device}"
    if tuple(int(x) for x in triton.__version__.split(".")[:2]) < (3, 3):
        return f"the kernels need Triton 3.3 or later (PyTorch 2.7), this is {triton.__version__}"
    major, minor = capability(device)
    if major not in BIG:
        return (
            "the kernels need the 227 KiB of shared memory of compute capability 9.0 or 10.x (H100, H200, B200), "
            f"{device} has {major}.{minor}"
        )
    return None


@cache
def capability(device: torch.device) -> tuple[int, int]:
    """Compute capability of a GPU."""
    major, minor = torch.cuda.get_device_capability(device)
    return major, minor


class Vectors(NamedTuple):
    """Queries and keys [N, H, K] and values [N, H, V], or tensors shaped alike, wherever they lie.

    Attributes:
        query, key, value: where each begins.
        heads, keys, values: H, K and V.
        strides: from node to node and from head to head of each; the last dimension is contiguous.
    """

    query: Tensor | At
    key: Tensor | At
    value: Tensor | At
    heads: int
    keys: int
    values: int
    strides: tuple[int, ...]

    @classmethod
    def apart(cls, query: Tensor, key: Tensor, value: Tensor) -> "Vectors":
        """Three tensors."""
        strides = (*query.stride()[:2], *key.stride()[:2], *value.stride()[:2])
        return cls(query, key, value, value.size(1), key.size(2), value.size(2), strides)

    @classmethod
    def together(cls, joined: Tensor, heads: int, keys: int) -> "Vectors":
        """Side by side for each head in one contiguous tensor [N, H * (2 * K + V)]."""
        width = joined.size(1) // heads
        query, key, value = (At(joined, place) for place in (0, keys, 2 * keys))
        return cls(query, key, value, heads, keys, width - 2 * keys, 3 * (joined.size(1), width))


def forward(query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool) -> Tensor:
    """Output of every node, [N, H, V] in the dtype of ``value``.

    Args:
        query, key: [N, H, K]; value: [N, H, V]. The last dimension is contiguous.
        gates: contiguous; float64 with float64 values, else float32 or half precision.
        plan: for ``served_classes(K, V)`` classes.
        reversed: read against the edges.
    """
    output = torch.empty(value.shape, dtype=value.dtype, device=value.device)
    run_forward(Vectors.apart(query, key, value), gates, plan, reversed, output)
    return output


def backward(
    query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool, grad: Tensor
) -> tuple[Tensor, ...]:
    """The seven gradients, of query, key and value strided as those are. ``grad``: of the output, contiguous."""
    vectors = [torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device) for x in (query, key, value)]
    d_gates = Gates(*(torch.empty_like(gate) for gate in gates))
    run_backward(Vectors.apart(query, key, value), gates, plan, reversed, grad, Vectors.apart(*vectors), d_gates)
    return (*vectors, *d_gates)


def run_forward(vectors: Vectors, gates: Gates, plan: Plan, reversed: bool, output: Tensor) -> None:
    """As :func:`forward`, into ``output`` [N, H, V]."""
    call = _Call(vectors, gates, plan, reversed, output.dtype)
    if call.tiled:
        call.walk_along()
        call.attend(attend.forward, 1, (*vectors[:3], output))
    if call.large:
        call.recurrent_output(output)


def run_backward(
    vectors: Vectors, gates: Gates, plan: Plan, reversed: bool, grad: Tensor, d_vectors: Vectors, d_gates: Gates
) -> None:
    """As :func:`backward`, into ``d_vectors``, which are strided as ``vectors``, and ``d_gates``."""
    call = _Call(vectors, gates, plan, reversed, grad.dtype)
    if call.tiled:
        call.walk_along()
        call.attend(attend.backward, 2, (*vectors[:3], grad, *d_vectors[:3], d_gates.direct))
        call.walk_back((gates.transition, gates.mark, *d_gates[:3]))
    if call.large:
        call.recurrent_gradients(grad, (*d_vectors[:3], *d_gates))


class _Call:
    """What the launches of one call share."""

    def __init__(self, vectors: Vectors, gates: Gates, plan: Plan, reversed: bool, dtype: torch.dtype) -> None:
        self.inputs = (*vectors[:3], *gates)
        self.plan, self.device, self.reversed = plan, gates.source.device, reversed
        self.wide = torch.float64 if gates.source.dtype == torch.float64 else torch.float32
        _, _, _, self.heads, self.keys, self.values, self.strides = vectors
        self.sizes = (plan.graphs.size(1), plan.edges.size(1), plan.pairs.size(1))
        self.classes = served_classes(self.keys, self.values)
        self.host = plan.host.tolist()
        self.large = sum(self.host[Host.NODES][self.classes :])
        # Graphs that tiles serve: of each class, and in all.
        self.counts = [*self.host[Host.GRAPHS][: self.classes], *(4 - self.classes) * [0]]
        self.tiled = sum(self.counts)
        # States and gating matrices of the graphs that tiles serve.
        numbers = sum(self.host[Host.ROOM][: self.classes]) * TILES[0] * self.heads
        self.room = torch.empty(numbers, dtype=self.wide, device=self.device)
        half = dtype in (torch.bfloat16, torch.float16)  # such a number fits into tf32 as it is
        self.precision = "tf32" if half else "ieee" if self.wide == torch.float64 else "tf32x3"

    def walk_along(self) -> None:
        """Find states and gating matrices."""
        *_, source, transition, mark, direct = self.inputs
        self.walk(walk.along, (source, transition, mark, direct))

    def walk_back(self, arguments: tuple[Tensor | At, ...]) -> None:
        """Gradients of source, transition and mark."""
        self.walk(walk.back, arguments)

    def walk(self, kernel: Any, arguments: tuple[Tensor | At, ...]) -> None:
        """One launch for all graphs that tiles serve, a program for each graph and block of heads."""
        plan, heads = self.plan, power_of_2(self.heads)
        blocks = (ceil_div(self.heads, min(heads, max(WALK_NUMBERS // columns, 1))) for columns in TILES)
        launch(
            kernel,
            (sum(count * block for count, block in zip(self.counts, blocks, strict=False)),),
            (*arguments, plan.graphs, plan.edges, plan.pairs, plan.work, self.room, *self.counts, *self.sizes),
            (self.heads, heads, TILES[0], len(TILES), WALK_NUMBERS, self.reversed),
            num_warps=1,
            maxnreg=None if self.wide == torch.float64 else WALK_REGISTERS,
        )

    def attend(self, kernel: Any, kinds: int, arguments: tuple[Tensor | At, ...]) -> None:
        """Attention under the gating matrices, or its gradients, for which wide graphs take two kinds of programs."""
        plan = self.plan
        widths = [max(16, power_of_2(width)) for width in (self.keys, self.values)]
        tight = sum(widths) <= TIGHT.get((kernel, self.precision), 0)
        narrow, *wide = self.counts
        parts = narrow + kinds * sum(count << number for number, count in enumerate(wide, start=1))
        launch(
            kernel,
            (parts * self.heads,),
            (*arguments, plan.graphs, plan.work, self.room, *self.counts, self.sizes[0]),
            (self.heads, self.keys, self.values, *widths, *self.strides, TILES[0], len(TILES), self.precision),
            num_warps=max(2, sum(widths) // 64),
            maxnreg=ATTEND_REGISTERS if tight else None,
        )

    def recurrent_output(self, output: Tensor) -> None:
        """Output of the nodes of large graphs."""
        query, key, value, source, transition, mark, direct = self.inputs
        outputs = self.by_edge(self.values)
        states = self.by_edge(self.keys, self.values)
        self.sweep(recurrent.forward, (query, key, value, source, transition, mark, states, outputs), True)
        self.at_nodes(recurrent.output, (query, key, value, direct, output, outputs))

    def recurrent_gradients(self, grad: Tensor, gradients: tuple[Tensor | At, ...]) -> None:
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

    def sweep(self, kernel: Any, arguments: tuple[Tensor | At, ...], *options: Any) -> None:
        """One launch for all edges of large graphs. All programs must be on the chip at once, since they wait for each
        other; and the fewer they are, the less they wait."""
        plan = self.plan
        widths = [power_of_2(width) for width in (self.keys, self.values)]
        numbers = widths[0] * widths[1] * self.wide.itemsize // 4
        held = SWEEP_NUMBERS if kernel is recurrent.forward else SWEEP_NUMBERS_BACK
        block = max(1, min(power_of_2(self.heads), held // numbers))
        warps = min(max(1, block * numbers // held), SWEEP_WARPS)
        two = block * numbers <= held * warps
        levels = plan.levels.numel() - 2
        items = sum(self.host[Host.EDGES][self.classes :]) * ceil_div(self.heads, block)
        if not items:
            return
        most = 1 if INTERPRETED else processors(self.device) * (SWEEP_WARPS // warps)
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
            maxnreg=65536 // (32 * SWEEP_WARPS),
            launch_cooperative_grid=True,
        )

    def at_nodes(self, kernel: Any, arguments: tuple[Tensor | At, ...]) -> None:
        """A program for each node of large graphs and some heads."""
        plan = self.plan
        widths = [power_of_2(width) for width in (self.keys, self.values)]
        block = max(1, min(power_of_2(self.heads), 512 // max(widths)))
        launch(
            kernel,
            (self.large * ceil_div(self.heads, block),),
            (*arguments, plan.edges, plan.large, self.sizes[1]),
            (self.heads, self.keys, self.values, *widths, *self.strides, block, self.reversed),
            num_warps=1,
        )


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
