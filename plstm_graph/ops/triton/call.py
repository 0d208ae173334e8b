"""One call of the operator: how its tensors lie, and the launches for graphs that tiles serve."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plstm_graph.gates import Gates, NodeTerm
from plstm_graph.launch import At, ceil_div, launch, power_of_2
from plstm_graph.line_dag.plan import TILES, Host, Launches, Plan, served_classes
from plstm_graph.ops.flat import Norm, places
from plstm_graph.ops.triton import attention, sweep, walk
from plstm_graph.ops.triton.sweep import Vectors

WALK_NUMBERS = 256
"""Numbers of the tile of a walk, which one warp holds: heads of a program times columns."""
ONE_WARP = (("num_warps", 1),)
WALK = (*ONE_WARP, ("maxnreg", 64))
"""Registers of a thread of a walk, so that 32 programs share a multiprocessor. Numbers of 64 bits take more."""
ATTEND_REGISTERS = 128
TIGHT = {("forward", "tf32x3"): 64, ("backward", "tf32x3"): 32, ("backward", "tf32"): 32}
"""Registers of a thread of the attention kernels, and up to which padded K + V they are so few: twice as many programs
on a multiprocessor are worth a few spills, as measured."""
WITHOUT_ENDS = (False, False, False, 0.0)
"""SHIFTED, NORMED, BIASED and EPS of the attention kernels where nothing stands before or after them."""


class Layout(NamedTuple):
    """Layout of queries, keys and values.

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
        return cls(heads, keys, values, 3 * (heads * (width + len(NodeTerm)), width))

    def split(self, joined: Tensor) -> tuple[At, At, At]:
        """Places where queries, keys and values begin in such a tensor."""
        return At(joined, 0), At(joined, self.keys), At(joined, 2 * self.keys)


class _Form(NamedTuple):
    """Numbers that the launches of the parallel form take from the layout alone.

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
    warps = (("num_warps", max(2, power_of_2(sum(widths) // 64))),)
    return _Form(
        blocks=tuple(ceil_div(heads, some) for some in each),
        walk=(heads, TILES[0], *each, reversed),
        attend=(heads, keys, values, *widths, *strides, TILES[0]),
        tight=(*warps, ("maxnreg", ATTEND_REGISTERS)),
        loose=warps,
        padded=sum(widths),
    )


def _launches(plan: Plan, form: _Form, layout: Layout) -> Launches:
    """Numbers of a plan that is for as many classes as tiles serve of this K and V."""
    host, classes = plan.host.tolist(), served_classes(layout.keys, layout.values)
    counts = host[Host.GRAPHS][:classes] + (walk.CLASSES.value - classes) * [0]
    wide = sum(count << number for number, count in enumerate(counts[1:], start=1))
    large, deep = sum(host[Host.GRAPHS][classes:]), plan.levels.size(1) - 1
    return Launches(
        graphs=plan.graphs.size(1),
        edges=plan.edges.size(1),
        pairs=plan.pairs.size(1),
        counts=tuple(counts),
        walks=sum(count * blocks for count, blocks in zip(counts, form.blocks, strict=True)),
        programs=counts[0] + wide,
        programs_back=counts[0] + 2 * wide,
        room=sum(host[Host.ROOM][:classes]) * TILES[0] * layout.heads,
        large_nodes=sum(host[Host.NODES][classes:]),
        large_edges=sum(host[Host.EDGES][classes:]),
        wide=large - deep,
        deep=deep,
    )


class Ends(NamedTuple):
    """Tensors that a layer adds to the attention at both ends, so that none is read or written for it alone. Heads
    stay apart.

    Attributes:
        shift: bias of queries, keys and values, [H * (2 * K + V)], or None.
        norm: what follows.
        after: what comes of it or, going back, the gradient of that; contiguous.
        y: going back, what the operator put out.
        sums: going back, a row for each program of a head, of what it adds to the gradients of the norm's weight and
            bias.
    """

    shift: Tensor | None
    norm: Norm
    after: Tensor
    y: Tensor | None = None
    sums: Tensor | None = None

    def forward(self) -> tuple[Tensor, ...]:
        """Tensors of the kernel; one that is there stands in for what is not, and is not read."""
        after, (weight, bias, *_) = self.after, self.norm
        return after, after if self.shift is None else self.shift, weight, after if bias is None else bias

    def backward(self) -> tuple[Any, ...]:
        """Tensors of the kernel behind the gradient that is given, likewise."""
        return self.y, self.y if self.shift is None else self.shift, self.norm.weight, self.sums

    @property
    def constants(self) -> tuple[Any, ...]:
        """Constants of the kernels: SHIFTED, NORMED, BIASED and EPS."""
        return self.shift is not None, True, self.norm.bias is not None, self.norm.eps


class Call:
    """One forward pass and one backward pass: what their launches share.

    Attributes:
        layout, plan, reversed: as it was called.
        room: states and gating matrices of the graphs that tiles serve, and room for the gradients of matrices; from
            ``walk_along`` on, until the backward pass writes it over.
        states: of the edges of large graphs, if there are deep ones among these: from the output on, for the backward
            pass. Those of wide graphs alone are found again.
    """

    def __init__(self, layout: Layout, plan: Plan, reversed: bool, gates: Tensor) -> None:
        self.layout, self.plan, self.reversed = layout, plan, reversed
        self.device = gates.device
        self.wide = torch.float64 if gates.dtype == torch.float64 else torch.float32
        self.form = _form(layout, reversed)
        sizes = plan.launches.get(layout)
        if sizes is None:
            sizes = plan.launches[layout] = _launches(plan, self.form, layout)
        self.sizes = sizes
        self.room: Tensor | None = None
        self.states: Tensor | None = None
        self._gates: dict[int, Gates] = {}

    def gates(self, flat: Tensor) -> Gates:
        """Gates or gradients of gates in one tensor."""
        found = self._gates.get(flat.data_ptr())
        if found is None:
            four: Any = [At(flat, place) for place in places(self.plan, self.layout.heads)[:4]]
            found = self._gates[flat.data_ptr()] = Gates(*four)
        return found

    @property
    def large(self) -> Tensor | None:
        """Rows of ``Plan.large`` for the nodes of large graphs, if there are any."""
        nodes = self.sizes.large_nodes
        return self.plan.large[:nodes] if nodes else None

    def walk_along(self, gates: Gates) -> None:
        """Find states and gating matrices."""
        if self.sizes.walks:
            self.room = torch.empty(self.sizes.room, dtype=self.wide, device=self.device)
            self._walk(walk.along, (*gates, self.room))

    def attend(self, vectors: Vectors, gates: Gates, y: Tensor, ends: Ends | None = None) -> None:
        """Output ``y`` [N, H, V] and with ``ends`` what comes of it; of large graphs ``y`` alone, with all that leads
        there."""
        if self.room is not None:
            given = (y, y, y, y) if ends is None else ends.forward()
            self._attend(attention.forward, self.sizes.programs, (*vectors, y, *given, self.room), y.dtype, ends)
        if self.sizes.large_nodes:
            sweep.output(self, vectors, gates, y)

    def attend_back(
        self,
        vectors: Vectors,
        gates: Gates,
        d_y: Tensor | None,
        d_vectors: Vectors,
        d_gates: Gates,
        ends: Ends | None = None,
    ) -> None:
        """Gradients of the vectors and of direct; of large graphs, of all gates. With ``ends`` nothing but large graphs
        needs that of ``y``."""
        if self.room is not None:
            grad: Any = d_y if ends is None else ends.after
            given = (grad, grad, grad, grad) if ends is None else ends.backward()
            tensors = (*vectors, grad, *d_vectors, d_gates.direct, *given, self.room)
            self._attend(attention.backward, self.sizes.programs_back, tensors, given[0].dtype, ends)
        if self.sizes.large_nodes:
            assert d_y is not None
            sweep.gradients(self, vectors, gates, d_y, d_vectors, d_gates)

    def walk_back(self, gates: Gates, d_gates: Gates) -> None:
        """Gradients of source, transition and mark."""
        if self.room is not None:
            self._walk(walk.back, (gates.transition, gates.mark, *d_gates[:3], self.room))

    def _walk(self, kernel: Any, tensors: tuple[Tensor | At, ...]) -> None:
        """One launch for all graphs that tiles serve, a program for each graph and block of heads."""
        plan, sizes = self.plan, self.sizes
        launch(
            kernel,
            (sizes.walks,),
            tensors,
            (plan.graphs, plan.edges, plan.pairs, plan.work),
            (*sizes.counts, sizes.graphs, sizes.edges, sizes.pairs),
            self.form.walk,
            ONE_WARP if self.wide == torch.float64 else WALK,
        )

    def _attend(
        self, kernel: Any, programs: int, tensors: tuple[Any, ...], dtype: torch.dtype, ends: Ends | None
    ) -> None:
        """Attention under the gating matrices, or its gradients."""
        half = dtype in (torch.bfloat16, torch.float16)  # tf32 keeps all the digits of such a number
        precision = "tf32" if half else "ieee" if self.wide == torch.float64 else "tf32x3"
        tight = self.form.padded <= TIGHT.get((kernel.fn.__name__, precision), 0)
        launch(
            kernel,
            (programs * self.layout.heads,),
            tensors,
            (self.plan.graphs, self.plan.work),
            (*self.sizes.counts, self.sizes.graphs),
            (*self.form.attend, precision, *(WITHOUT_ENDS if ends is None else ends.constants)),
            self.form.tight if tight else self.form.loose,
        )
