"""Random inputs of grids and chains, and what the operator on their line graphs says of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plstm_graph import Gates, LineDAG, propagate
from plstm_graph.grid import DIRECTIONS, ChainGates, GridGates, chain, d_gates, general_gates, grid_dag, p_gates

KEYS, VALUES = 3, 2
# Rows and columns: single ones, odd ones, either side longer, beyond a power of two.
SIZES = ((1, 1), (1, 6), (5, 1), (3, 5), (6, 4), (9, 7))
MAKERS = ("P", "D-left", "D-right", "general")


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """From -0.6 to 1."""
    return (torch.rand(*shape, dtype=torch.float64) * 1.6 - 0.6).to(dtype)


class Case:
    """Leaves of one grid, and the outcome of a function of them: output and all gradients."""

    def __init__(
        self, rows: int, columns: int, mode: str, states: int = 1, images: int = 2, heads: int = 2,
        widths: tuple[int, int] = (KEYS, VALUES),
    ) -> None:  # fmt: skip
        here = (images, 4, heads, rows, columns)
        j = (states,) if states > 1 else ()
        self.query, self.key = (torch.randn(images, heads, rows, columns, widths[0]).double() for _ in range(2))
        self.value = torch.randn(images, heads, rows, columns, widths[1]).double()
        self.direct = draw(images, heads, rows, columns)
        self.mode = mode
        two = () if mode == "P" else (2,)
        self.source, self.mark = draw(*here, *two, *j), draw(*here, *two, *j)
        self.parts = {  # what transitions are made of
            "P": lambda: [draw(*here).abs(), draw(*here, *j, *j)],
            "general": lambda: [draw(*here, 2, 2, *j, *j)],
        }.get(mode, lambda: [draw(*here, *j, *j) for _ in range(3)])()

    def leaves(self) -> list[Tensor]:
        return [self.query, self.key, self.value, self.direct, self.source, self.mark, *self.parts]

    @staticmethod
    def gates(mode: str, direct: Tensor, source: Tensor, mark: Tensor, *parts: Tensor) -> GridGates:
        if mode == "P":
            return p_gates(source, *parts, mark, direct)
        if mode == "general":
            return general_gates(source, *parts, mark, direct)
        return d_gates(source, *parts, mark, direct, mode)

    def inputs(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, GridGates]:
        """Queries, keys, values and gates, which require gradients."""
        query, key, value, *rest = (x.to(dtype).requires_grad_() for x in self.leaves())
        return query, key, value, self.gates(self.mode, *rest)

    def outcome(self, run: Callable[..., Tensor], dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """Output, and the gradients of all leaves."""
        leaves = [x.to(dtype).requires_grad_() for x in self.leaves()]
        query, key, value, *rest = leaves
        output = run(query, key, value, self.gates(self.mode, *rest))
        generator = torch.Generator().manual_seed(3)
        weight = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
        grads = torch.autograd.grad(output, leaves, weight, materialize_grads=True, allow_unused=True)
        return [output.detach(), *grads]


def general_operator(query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> Tensor:
    """Four line graphs, one for each direction, J states as J parallel edges."""
    images, _, rows, columns, _ = value.shape
    total = torch.zeros_like(value)
    for number, direction in enumerate(DIRECTIONS):
        grid = grid_dag(rows, columns, direction, images=images)
        nodes = [grid.nodes(x) for x in (query, key, value)]
        if gates.states == 1:
            given = grid.gates(gates.narrowed(), direct=number == 0)
            found = propagate(*nodes, given, grid.dag, backend="scatter")
        else:
            found = _parallel_edges(nodes, gates, grid, number == 0)
        total = total + grid.images(found)
    return total


def _parallel_edges(nodes: list[Tensor], gates: GridGates, grid: Any, direct: bool) -> Tensor:
    """Each edge becomes J paths of two edges; nodes in their middle say and hear nothing."""
    dag, j, many = grid.dag, gates.states, grid.dag.num_nodes
    state = torch.arange(j).repeat(dag.num_edges)
    edge = torch.arange(dag.num_edges).repeat_interleave(j)
    middle = many + torch.arange(edge.numel())
    ends = torch.cat([torch.stack([dag.src[edge], middle]), torch.stack([middle, dag.dst[edge]])], 1)
    fine = LineDAG.from_edge_index(ends, many + edge.numel(), order="given")
    # Of the finer graph's edges: the first or second half of which edge, and for which state.
    second = fine.src >= many
    place = torch.where(second, fine.src, fine.dst) - many
    old, number = edge[place], state[place]
    kind = grid.kind[old]
    source, transition, mark = (
        gate[:, grid.direction].movedim(1, 3).flatten(0, 2) for gate in (gates.source, gates.transition, gates.mark)
    )  # [N, H, 2, J], [N, H, 2, 2, J, J], [N, H, 2, J]
    fed = source[dag.src[old], :, kind, number] * ~second[:, None]
    read = mark[dag.dst[old], :, kind, number] * second[:, None]
    prev, next = fine.prev, fine.next
    joint = dag.src[old[next]]
    turn = transition[joint, :, kind[next], kind[prev], number[next], number[prev]]
    inside = second[next]  # from the first half of an edge to its second
    turn = torch.where(inside[:, None], torch.ones_like(turn), turn)
    itself = grid.nodes(gates.direct.unsqueeze(-1)).squeeze(-1)
    itself = torch.cat([itself if direct else torch.zeros_like(itself), itself.new_zeros(edge.numel(), itself.size(1))])
    wide = [torch.cat([x, x.new_zeros(edge.numel(), *x.shape[1:])]) for x in nodes]
    return propagate(*wide, Gates(fed, turn, read, itself), fine, backend="scatter")[:many]


class ChainCase:
    """The same of a chain; ``begin`` gives it a state that arrives at its first token."""

    def __init__(
        self, size: int, states: int = 1, begin: bool = False, batch: int = 2, heads: int = 2,
        widths: tuple[int, int] = (KEYS, VALUES),
    ) -> None:  # fmt: skip
        here, j = (batch, heads, size), (states,) if states > 1 else ()
        self.leaves = [
            *(torch.randn(*here, width).double() for width in (widths[0], *widths)),
            *(draw(*here, *j), draw(*here, *j, *j), draw(*here, *j), draw(*here)),
        ]
        if begin:
            self.leaves.append(torch.randn(batch, heads, *j, *widths).double())

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, ChainGates]:
        """Queries, keys, values and gates, which require gradients."""
        leaves = [x.detach().requires_grad_() for x in self.leaves]
        return leaves[0], leaves[1], leaves[2], ChainGates(*leaves[3:7])

    def outcome(
        self, run: Callable[..., tuple[Tensor, Tensor] | Tensor], dtype: torch.dtype = torch.float64
    ) -> list[Tensor]:
        """Output, state behind the last token if there is one, and the gradients of both."""
        leaves = [x.detach().to(dtype).requires_grad_() for x in self.leaves]
        found = run(*leaves[:3], ChainGates(*leaves[3:7]), *leaves[7:])
        results = [found] if isinstance(found, Tensor) else list(found)
        generator = torch.Generator().manual_seed(3)
        weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in results]
        grads = torch.autograd.grad(results, leaves, weights, materialize_grads=True, allow_unused=True)
        return [*(x.detach() for x in results), *grads]


def chain_operator(query: Tensor, key: Tensor, value: Tensor, gates: ChainGates) -> Tensor:
    """A chain is a grid of one row that is read to the right alone."""

    def along(gate: Tensor) -> Tensor:  # first of four directions, first kind of edge
        row = gate.unsqueeze(2)  # one row
        wide = torch.stack([row, torch.zeros_like(row)], 4)
        return torch.stack([wide, *[torch.zeros_like(wide)] * 3], 1)

    source, transition, mark, direct = gates
    turns = along(transition)
    turns = torch.stack([turns, torch.zeros_like(turns)], 6)
    of_grid = GridGates(along(source), turns, along(mark), direct.unsqueeze(2))
    return general_operator(*(x.unsqueeze(2) for x in (query, key, value)), of_grid).squeeze(2)


def begun(form: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """A form of a chain whose state arrives at its first token."""
    return lambda query, key, value, gates, state: chain(query, key, value, gates, form=form, state=state)


def close(got: list[Tensor], want: list[Tensor], tolerance: float = 1e-10) -> None:
    """Element by element."""
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.to(b.dtype), b, rtol=tolerance, atol=tolerance)
