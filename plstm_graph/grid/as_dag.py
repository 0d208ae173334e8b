"""The same grids as line graphs: how every form is tested, and the way to whatever works on line graphs."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from plstm_graph.errors import BackendUnavailable, ConfigError, ShapeError, unknown
from plstm_graph.gates import Gates
from plstm_graph.grid.gates import DIRECTIONS, DOWN, RIGHT, GridGates
from plstm_graph.line_dag import LineDAG
from plstm_graph.ops import propagate
from plstm_graph.ops.dispatch import compiled_backend

WIDEST, DENSER, SMALL = 1024, 0.8, 512
"""Numbers in a state, K · V, up to which loops over edges are the fastest form of a large image on a CPU, and pixels,
as a share of K · V and at all, up to which others are faster (measured at K = V = 16, 32 and 64)."""
MAX_BYTES = 2**27
"""Of the states that a thread holds, those of one head of an image in one direction."""


class GridDAG(NamedTuple):
    """One direction of B grids as a line graph; pixel (i, j) of grid b is node ``b · Y · X + i · X + j``.

    Attributes:
        dag: N = B · Y · X nodes.
        direction: its place among ``DIRECTIONS``.
        kind: RIGHT or DOWN for each edge, [E].
        shape: B, Y, X.
    """

    dag: LineDAG
    direction: int
    kind: Tensor
    shape: tuple[int, int, int]

    def gates(self, gates: GridGates, direct: bool = True) -> Gates:
        """Gates of this direction for ``dag``; without ``direct`` a pixel does not read itself.

        Outputs of the four directions add up to :func:`plstm_graph.grid.image` where one of them has the direct term.

        Raises:
            ShapeError: gates of other grids than these, or of several states an edge.
        """
        if gates.states > 1:
            raise ShapeError(f"a line graph has one state an edge, these gates have {gates.states}")
        for gate in gates[:3]:
            self._check(gate, 3)
        source, transition, mark = (
            gate[:, self.direction].movedim(1, 3).flatten(0, 2) for gate in (gates.source, gates.transition, gates.mark)
        )  # [N, H, 2], [N, H, 2, 2], [N, H, 2]
        dag, kind = self.dag, self.kind
        itself = self.nodes(gates.direct.unsqueeze(-1)).squeeze(-1)
        return Gates(
            source[dag.src, :, kind],
            transition[dag.src[dag.next], :, kind[dag.next], kind[dag.prev]],
            mark[dag.dst, :, kind],
            itself if direct else torch.zeros_like(itself),
        )

    def nodes(self, x: Tensor) -> Tensor:
        """[B, H, Y, X, width] -> [N, H, width]; raises ShapeError for other grids than these."""
        self._check(x, 2)
        return x.movedim(1, 3).flatten(0, 2)

    def _check(self, x: Tensor, axis: int) -> None:
        """Rows are ``axis`` of ``x``. Pixels of another grid would be read at wrong places without a word."""
        found = x.size(0), *x.shape[axis : axis + 2]
        if found != self.shape:
            raise ShapeError(
                f"the line graph is of (images, rows, columns) {self.shape}, the tensor of {found}; make one with "
                "grid_dag(rows, columns, images=...)"
            )

    def images(self, x: Tensor) -> Tensor:
        """[N, H, width] -> [B, H, Y, X, width]"""
        return x.unflatten(0, self.shape).movedim(3, 1)


def grid_dag(rows: int, columns: int, direction: str = "right-down", *, images: int = 1) -> GridDAG:
    """One direction of a grid, or of several of one size, as a line graph.

    Args:
        rows, columns: Y and X.
        direction: a name in ``DIRECTIONS``.
        images: B, grids side by side.

    Raises:
        ConfigError: no direction of that name.
        ShapeError: a negative number.
    """
    if direction not in DIRECTIONS:
        raise ConfigError(unknown("direction", direction, DIRECTIONS))
    if min(rows, columns, images) < 0:
        raise ShapeError(f"rows, columns and images must be at least 0, got {rows}, {columns} and {images}")
    shape = images, rows, columns
    number = torch.arange(images * rows * columns).view(shape).flip([3 + axis for axis in DIRECTIONS[direction]])
    ends = ((number[:, :, :-1], number[:, :, 1:]), (number[:, :-1], number[:, 1:]))
    edge_index = torch.cat([torch.stack([src.flatten(), dst.flatten()]) for src, dst in ends], 1)
    batch = torch.arange(images).repeat_interleave(rows * columns)
    dag = LineDAG.from_edge_index(edge_index, number.numel(), order="given", batch=batch)
    along_row = dag.src // max(columns, 1) == dag.dst // max(columns, 1)
    return GridDAG(dag, list(DIRECTIONS).index(direction), torch.where(along_row, RIGHT, DOWN), shape)


def image(query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> Tensor:
    """The operator on four line graphs. See :func:`plstm_graph.grid.image`."""
    if gates.states > 1:
        raise BackendUnavailable(
            f"form 'propagate' cannot run here: it carries one state an edge, these gates have {gates.states}; "
            "use form='tiles'"
        )
    gates = gates.narrowed()
    images, _, rows, columns, _ = value.shape
    grids = [_kept(rows, columns, name, images, str(value.device)) for name in DIRECTIONS]
    query, key, value = (grids[0].nodes(x) for x in (query, key, value))
    found = [propagate(query, key, value, grid.gates(gates, direct=not at), grid.dag) for at, grid in enumerate(grids)]
    return grids[0].images(torch.stack(found).sum(0))


def serves(query: Tensor, value: Tensor, gates: GridGates) -> bool:
    """Whether ``"auto"`` should take it: a large image of narrow heads, on a CPU that has loops over edges."""
    return (
        value.device.type == "cpu"
        and gates.states == 1
        and faster(value.size(2) * value.size(3), query.size(-1) * value.size(-1))
        and compiled_backend("auto", value.device) is not None
    )


def faster(pixels: int, state: int) -> bool:
    """Whether loops over edges are faster than other forms on a CPU, for states of so many numbers, K · V."""
    return state <= WIDEST and pixels > max(SMALL, DENSER * state) and 2 * pixels * state * 4 <= MAX_BYTES


@lru_cache(maxsize=16)
def _kept(rows: int, columns: int, direction: str, images: int, device: str) -> GridDAG:
    grid = grid_dag(rows, columns, direction, images=images)
    return grid._replace(dag=grid.dag.to(device), kind=grid.kind.to(device))
