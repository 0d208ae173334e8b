"""The same grids as line graphs: how every form is tested, and the way to whatever works on line graphs."""

from typing import NamedTuple

import torch
from torch import Tensor

from plstm_graph.errors import ConfigError, ShapeError, unknown
from plstm_graph.gates import Gates
from plstm_graph.grid.gates import DIRECTIONS, DOWN, RIGHT, GridGates
from plstm_graph.line_dag import LineDAG


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
        """
        if gates.states > 1:
            raise ShapeError(f"a line graph has one state an edge, these gates have {gates.states}")
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
        """[B, H, Y, X, width] -> [N, H, width]"""
        return x.movedim(1, 3).flatten(0, 2)

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
    """
    if direction not in DIRECTIONS:
        raise ConfigError(unknown("direction", direction, DIRECTIONS))
    shape = images, rows, columns
    number = torch.arange(images * rows * columns).view(shape).flip([3 + axis for axis in DIRECTIONS[direction]])
    ends = ((number[:, :, :-1], number[:, :, 1:]), (number[:, :-1], number[:, 1:]))
    edge_index = torch.cat([torch.stack([src.flatten(), dst.flatten()]) for src, dst in ends], 1)
    batch = torch.arange(images).repeat_interleave(rows * columns)
    dag = LineDAG.from_edge_index(edge_index, number.numel(), order="given", batch=batch)
    along_row = dag.src // max(columns, 1) == dag.dst // max(columns, 1)
    return GridDAG(dag, list(DIRECTIONS).index(direction), torch.where(along_row, RIGHT, DOWN), shape)
