"""Launch the kernels of the operator: which form a graph takes, how wide, and how many programs run."""

from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from plstm_graph.gates import Gates
from plstm_graph.ops.flat import GRADIENTS, Norm, places
from plstm_graph.ops.triton import attend as attention
from plstm_graph.ops.triton import recurrent, walk
from plstm_graph.ops.triton.norm import backward_norm, forward_norm
from plstm_graph.ops.triton.runtime import INTERPRETED, At, ceil_div, launch, power_of_2
from plstm_graph.plan import TILES, Host, Plan, served_classes

SWEEP_NUMBERS, SWEEP_NUMBERS_BACK = 1024, 512
"""32-bit numbers of each tile that a warp of the recurrent form holds: of three tiles at once, going back of four."""
SWEEP_WARPS = 16
"""Its warps on a multiprocessor, which share 65536 registers."""
KNOWN = (9, 10)
"""Major compute capabilities that the tiles are chosen for."""
WALK_NUMBERS = 256
"""Numbers of the tile of a walk, which one warp holds: heads of a program times columns."""
ONE_WARP = (("num_warps", 1),)
WALK = (*ONE_WARP, ("maxnreg", 64))
"""Registers of a thread of a walk, so that 32 programs share a multiprocessor. Numbers of 64 bits take more."""
ATTEND_REGISTERS = 128
TIGHT = {(attention.forward, "tf32x3"): 64, (attention.backward, "tf32x3"): 32, (attention.backward, "tf32"): 32}
"""Registers of a thread of the attention kernels, and up to which padded K + V they are so few: twice as many programs
on a multiprocessor are worth a few spills, as measured."""


def runs_here(device: torch.device) -> str | None:
    """Why the kernels cannot run for tensors on ``device``, or None."""
    if INTERPRETED and device.type == "cpu":
        return None
    return _why_not(device)


@cache
def _why_not(device: torch.device) -> str | None:
    if device.type != "cuda" or torch.version.hip is not None:
        return f"Triton's kernels are for NVIDIA GPUs, the tensors are on {device}"
    if tuple(int(x) for x in triton.__version__.split(".")[:2]) < (3, 3):
        return f"the kernels need Triton 3.3 or later (PyTorch 2.7), this is {triton.__version__}"
    major, minor = torch.cuda.get_device_capability(device)
    if major not in KNOWN:
        return (
            "the kernels are made for compute capability 9.0 and 10.x (H100, H200, B200) and untried on others, "
            f"{device} has {major}.{minor}"
        )
    return None


class Layout(NamedTuple):
    """How queries, keys and values lie.

    Attributes:
        heads, keys, values: H, K and V.
        strides: from node to node and from head to head of queries, of keys and of values; the last dimension is
            contiguous.
    """

    heads: int
    keys: int
    values: int
    strides: tuple[int, ...]

    @classmethod
    def apart(cls, query: Tensor, key: Tensor, value: Tensor) -> "Layout":
        """Three tensors, [N, H, K] and [N, H, V]."""
        strides = (*query.stride()[:2], *key.stride()[:2], *value.stride()[:2])
        return cls(value.size(1), key.size(2), value.size(2), strides)

    @classmethod
    def joined(cls, heads: int, keys: int, values: int) -> "Layout":
        """Side by side for each head in one contiguous tensor, the nodes' terms of the gates behind them,
        [N, H * (2 * K + V) + 8 * H]."""
        width = 2 * keys + values
        return cls(heads, keys, values, 3 * (heads * (width + 8), width))

    def split(self, joined: Tensor) -> tuple[At, At, At]:
        """Where queries, keys and values begin in such a tensor."""
        return At(joined, 0), At(joined, self.keys), At(joined, 2 * self.keys)


def forward(
    query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool
) -> tuple[Tensor, "Call"]:
    """Output of every node, [N, H, V] in the dtype of ``value``, and the call for the backward pass.

    Args:
        query, key: [N, H, K]; value: [N, H, V]. The last dimension is contiguous.
        gates: contiguous; float64 with float64 values, else float32 or half precision.
        plan: for ``served_classes(K, V)`` classes.
        reversed: read against the edges.
    """
    call = Call(Layout.apart(query, key, value), plan, reversed, gates.source)
    call.walk_along(gates)
    output = torch.empty(value.shape, dtype=value.dtype, device=value.device)
    call.attend((query, key, value), gates, output)
    return output, call


def backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gates: Gates,
    plan: Plan,
    reversed: bool,
    grad: Tensor,
    call: "Call | None" = None,
) -> tuple[Tensor, ...]:
    """The seven gradients, of query, key and value strided as those are.

    Args:
        grad: of the output, contiguous.
        call: of the forward pass, which is used up. Without it, what it knows is found again: to the same bits.
    """
    if call is None:
        call = Call(Layout.apart(query, key, value), plan, reversed, gates.source)
        call.walk_along(gates)
    vectors = query, key, value
    d_vectors = tuple(_like(x) for x in vectors)
    d_gates = Gates(*(torch.empty_like(gate) for gate in gates))
    call.attend_back(vectors, gates, grad, d_vectors, d_gates)
    call.walk_back(gates, d_gates)
    return (*d_vectors, *d_gates)


def _like(x: Tensor) -> Tensor:
    """Room for a tensor of the same shape and strides; ``empty_like`` is faster, but closes gaps."""
    if x.is_contiguous():
        return torch.empty_like(x)
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)


# The same step by step, for a layer as one: what needs nothing but gates apart from what needs vectors.


def walk_along(gates: Tensor, heads: int, keys: int, values: int, plan: Plan, reversed: bool) -> "Call":
    """What of the forward pass needs nothing but gates, see :mod:`plstm_graph.ops.flat`."""
    call = Call(Layout.joined(heads, keys, values), plan, reversed, gates)
    call.walk_along(call.parts(gates))
    return call


def attend(call: "Call", joined: Tensor, lin_bias: Tensor | None, gates: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """The rest of it: what the operator puts out, [N, H, V], and that after the norm. ``joined``: see Layout.joined."""
    heads, _, values, _ = call.layout
    y = torch.empty(joined.size(0), heads, values, dtype=joined.dtype, device=joined.device)
    given = call.layout.split(joined), call.parts(gates), y
    if call.ends_with(norm):
        output = torch.empty(y.size(0), heads * values, dtype=norm.dtype(y), device=y.device)
        call.attend(*given, Ends(lin_bias, norm, output))
        return y, output
    if lin_bias is not None:
        joined.narrow(1, 0, lin_bias.numel()).add_(lin_bias)
    call.attend(*given)
    return y, forward_norm(y, *norm)


def attend_back(
    call: "Call", joined: Tensor, lin_bias: Tensor | None, gates: Tensor, y: Tensor, grad: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradient of ``joined`` but for the nodes' terms, the tensor for those of the gates, some of which are there, and
    gradients of the norm's weight and bias."""
    d_joined = torch.empty_like(joined)
    d_gates = gates.new_empty(places(call.plan, call.layout.heads)[GRADIENTS])
    split = call.layout.split
    given, found = (split(joined), call.parts(gates)), (split(d_joined), call.parts(d_gates))
    if not call.ends_with(norm):
        d_y, d_weight, d_bias = backward_norm(grad, y, norm.weight, norm.eps, norm.concat, norm.bias is not None)
        call.attend_back(*given, d_y, *found)
        return d_joined, d_gates, d_weight, d_bias
    numbers = norm.weight.numel()
    parts = gates.new_empty(call.programs_back(), numbers if norm.bias is None else 2 * numbers)
    call.attend_back(*given, grad.contiguous(), *found, Ends(lin_bias, norm, y, parts))
    sums = parts.sum(0)
    d_bias = None if norm.bias is None else sums.narrow(0, numbers, numbers)
    return d_joined, d_gates, sums.narrow(0, 0, numbers).view_as(norm.weight), d_bias


def walk_back(call: "Call", gates: Tensor, d_gates: Tensor) -> None:
    """The gradients of the gates that are not there yet."""
    call.walk_back(call.parts(gates), call.parts(d_gates))


class _Form(NamedTuple):
    """What the launches of the parallel form take from the layout alone.

    Attributes:
        blocks: programs of a walk for a graph of each class.
        walk, attend: constants of the kernels, ``attend`` without the precision.
        tight, loose: options of attention, with few registers a thread or any number.
        padded: K and V as powers of two, in all.
    """

    blocks: tuple[int, ...]
    walk: tuple[Any, ...]
    attend: tuple[Any, ...]
    tight: tuple[Any, ...]
    loose: tuple[Any, ...]
    padded: int


@cache
def _form(layout: Layout, reversed: bool) -> _Form:
    """Worked out once, since launches have no time to lose."""
    heads, keys, values, strides = layout
    each = [min(power_of_2(heads), max(WALK_NUMBERS // columns, 1)) for columns in TILES]
    each += (walk.CLASSES.value - len(TILES)) * [1]
    widths = [max(16, power_of_2(width)) for width in (keys, values)]
    warps = (("num_warps", max(2, sum(widths) // 64)),)
    return _Form(
        blocks=tuple(ceil_div(heads, some) for some in each),
        walk=(heads, TILES[0], *each, reversed),
        attend=(heads, keys, values, *widths, *strides, TILES[0]),
        tight=(*warps, ("maxnreg", ATTEND_REGISTERS)),
        loose=warps,
        padded=sum(widths),
    )


Vectors = tuple[Tensor | At, ...]
"""Queries, keys and values, or their gradients, laid out as a call says."""


class Ends(NamedTuple):
    """What a layer adds to the attention at both ends, so that no tensor is read or written for it alone.

    Attributes:
        shift: bias of queries, keys and values, [H * (2 * K + V)], or None.
        norm: what follows.
        output: what comes of it, or, going back, what the operator put out.
        parts: going back, a row for each program of a head, of what it adds to the gradients of the norm's weight and
            bias.
    """

    shift: Tensor | None
    norm: Norm
    output: Tensor
    parts: Tensor | None = None

    def forward(self, y: Tensor) -> tuple[Tensor | None, ...]:
        """Tensors of the kernel; what is not there stands in for itself and is not read."""
        weight, bias, *_ = self.norm
        return self.output, y if self.shift is None else self.shift, weight, y if bias is None else bias

    def backward(self) -> tuple[Any, ...]:
        """Tensors of the kernel, likewise."""
        return self.output, self.output if self.shift is None else self.shift, self.norm.weight, self.parts

    @property
    def constants(self) -> tuple[Any, ...]:
        """Of the kernels: SHIFTED, NORMED, BIASED and EPS."""
        return self.shift is not None, True, self.norm.bias is not None, self.norm.eps


WITHOUT_ENDS = (False, False, False, 0.0)


class Call:
    """One forward pass and one backward pass: what their launches share.

    Attributes:
        layout, plan, reversed: as it was called.
        room: states and gating matrices of the graphs that tiles serve, and room for the gradients of matrices; from
            ``walk_along`` on, until the backward pass writes it over.
    """

    def __init__(self, layout: Layout, plan: Plan, reversed: bool, gates: Tensor) -> None:
        self.layout, self.plan, self.reversed = layout, plan, reversed
        self.heads, self.keys, self.values, self.strides = layout
        self.device = gates.device
        self.wide = torch.float64 if gates.dtype == torch.float64 else torch.float32
        self.form = _form(layout, reversed)
        self.classes = served_classes(self.keys, self.values)
        self.sizes = (plan.graphs.size(1), plan.edges.size(1), plan.pairs.size(1))
        self.host = plan.host.tolist()
        self.large = sum(self.host[Host.NODES][self.classes :])
        # Graphs that tiles serve: of each class, and in all.
        self.counts = self.host[Host.GRAPHS][: self.classes]
        self.counts += (walk.CLASSES.value - len(self.counts)) * [0]
        self.tiled = sum(self.counts)
        self.room: Tensor | None = None
        self._parts: dict[int, Gates] = {}

    def parts(self, flat: Tensor) -> Gates:
        """Gates or gradients of gates in one tensor."""
        found = self._parts.get(flat.data_ptr())
        if found is None:
            parts: Any = [At(flat, place) for place in places(self.plan, self.heads)[:4]]
            found = self._parts[flat.data_ptr()] = Gates(*parts)
        return found

    def walk_along(self, gates: Gates) -> None:
        """Find states and gating matrices."""
        if self.tiled:
            numbers = sum(self.host[Host.ROOM][: self.classes]) * TILES[0] * self.heads
            self.room = torch.empty(numbers, dtype=self.wide, device=self.device)
            self._walk(walk.along, (*gates, self.room))

    def ends_with(self, norm: Norm) -> bool:
        """Whether all that a layer does before and after goes with the attention: heads must stay apart, and the
        recurrent form knows nothing of it."""
        return norm.concat and not self.large

    def attend(self, vectors: Vectors, gates: Gates, y: Tensor, ends: "Ends | None" = None) -> None:
        """Output ``y`` [N, H, V]; of large graphs, with all that leads there."""
        if self.room is not None:
            given = (y, y, y, y) if ends is None else ends.forward(y)
            self._attend(attention.forward, 1, (*vectors, y, *given, self.room), y.dtype, ends)
        if self.large:
            self._recurrent_output(vectors, gates, y)

    def attend_back(
        self,
        vectors: Vectors,
        gates: Gates,
        grad: Tensor,
        d_vectors: Vectors,
        d_gates: Gates,
        ends: "Ends | None" = None,
    ) -> None:
        """Gradients of the vectors and of direct; of large graphs, of all gates."""
        if self.room is not None:
            given = (grad, grad, grad, grad) if ends is None else ends.backward()
            tensors = (*vectors, grad, *d_vectors, d_gates.direct, *given, self.room)
            self._attend(attention.backward, 2, tensors, given[0].dtype, ends)
        if self.large:
            self._recurrent_gradients(vectors, gates, grad, d_vectors, d_gates)

    def walk_back(self, gates: Gates, d_gates: Gates) -> None:
        """Gradients of source, transition and mark."""
        if self.room is not None:
            self._walk(walk.back, (gates.transition, gates.mark, *d_gates[:3], self.room))

    def _walk(self, kernel: Any, tensors: tuple[Tensor | At, ...]) -> None:
        """One launch for all graphs that tiles serve, a program for each graph and block of heads."""
        plan = self.plan
        launch(
            kernel,
            (sum(count * blocks for count, blocks in zip(self.counts, self.form.blocks, strict=True)),),
            tensors,
            (plan.graphs, plan.edges, plan.pairs, plan.work),
            (*self.counts, *self.sizes),
            self.form.walk,
            ONE_WARP if self.wide == torch.float64 else WALK,
        )

    def _attend(
        self, kernel: Any, kinds: int, tensors: tuple[Any, ...], dtype: torch.dtype, ends: "Ends | None"
    ) -> None:
        """Attention under the gating matrices, or its gradients, for which wide graphs take two kinds of programs."""
        half = dtype in (torch.bfloat16, torch.float16)  # such a number fits into tf32 as it is
        precision = "tf32" if half else "ieee" if self.wide == torch.float64 else "tf32x3"
        tight = self.form.padded <= TIGHT.get((kernel, precision), 0)
        launch(
            kernel,
            (self._programs(kinds) * self.heads,),
            tensors,
            (self.plan.graphs, self.plan.work),
            (*self.counts, self.sizes[0]),
            (*self.form.attend, precision, *(WITHOUT_ENDS if ends is None else ends.constants)),
            self.form.tight if tight else self.form.loose,
        )

    def programs_back(self) -> int:
        """Programs of the backward pass of attention for each head."""
        return self._programs(2)

    def _programs(self, kinds: int) -> int:
        narrow, *wide = self.counts
        return narrow + kinds * sum(count << number for number, count in enumerate(wide, start=1))

    def _recurrent_output(self, vectors: Vectors, gates: Gates, output: Tensor) -> None:
        """Output of the nodes of large graphs."""
        *most, direct = gates
        outputs = self._by_edge(self.values)
        states = self._by_edge(self.keys, self.values)
        self._sweep(recurrent.forward, (*vectors, *most, states, outputs), True)
        self._at_nodes(recurrent.output, (*vectors, direct, output, outputs))

    def _recurrent_gradients(
        self, vectors: Vectors, gates: Gates, grad: Tensor, d_vectors: Vectors, d_gates: Gates
    ) -> None:
        """All seven gradients at the nodes, edges and pairs of large graphs."""
        *most, direct = gates
        *d_most, d_direct = d_gates
        states, adjoints = (self._by_edge(self.keys, self.values) for _ in range(2))
        parts = tuple(self._by_edge(width) for width in (self.keys, self.keys, self.values))
        self._sweep(recurrent.forward, (*vectors, *most, states, states), False)
        self._sweep(recurrent.backward, (*vectors, *most, grad, *d_most, states, adjoints, *parts))
        self._at_nodes(recurrent.gradients, (*vectors, direct, grad, *d_vectors, d_direct, *parts))

    def _by_edge(self, *widths: int) -> Tensor:
        """Room for numbers of every head of the edges of large graphs."""
        edges = sum(self.host[Host.EDGES][self.classes :])
        return torch.empty(edges, self.heads, *widths, dtype=self.wide, device=self.device)

    def _sweep(self, kernel: Any, tensors: tuple[Tensor | At, ...], *options: Any) -> None:
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
        counters = torch.zeros(recurrent.COUNTERS, dtype=torch.int32, device=self.device)
        launch(
            kernel,
            (programs,),
            tensors,
            (plan.pairs, plan.large, plan.levels, counters),
            (self.sizes[2], levels),
            (self.heads, self.keys, self.values, *widths, *self.strides, block, two, self.reversed, *options),
            (("num_warps", warps), ("maxnreg", 65536 // (32 * SWEEP_WARPS)), ("launch_cooperative_grid", True)),
        )

    def _at_nodes(self, kernel: Any, tensors: tuple[Tensor | At, ...]) -> None:
        """A program for each node of large graphs and some heads."""
        plan = self.plan
        widths = [power_of_2(width) for width in (self.keys, self.values)]
        block = max(1, min(power_of_2(self.heads), 512 // max(widths)))
        launch(
            kernel,
            (self.large * ceil_div(self.heads, block),),
            tensors,
            (plan.edges, plan.large),
            (self.sizes[1],),
            (self.heads, self.keys, self.values, *widths, *self.strides, block, self.reversed),
            ONE_WARP,
        )


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
