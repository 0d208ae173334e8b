"""Things that steps of a layer hand on to each other: its setting, gates in one tensor, and so their gradients.

Tensors of gates and of their gradients begin with source [E, H], transition [P, H], mark [E, H] and direct [N, H].
Gates go on with Σ|transition| over the pairs with the same prev before the normalisation of P mode, [E, H]; gradients
with room for two sums on their way to the linear terms, [E, H] and [P, H].
"""

from typing import NamedTuple

import torch
from torch import Tensor

from plstm_graph.gates import Gates
from plstm_graph.line_dag.plan import Plan

LINE = 16
"""Every part begins at a multiple of so many numbers."""
GATES, GRADIENTS = 5, 6
"""Parts of either tensor."""


def places(plan: Plan, heads: int) -> list[int]:
    """Places where the parts begin; ``places[GATES]`` and ``places[GRADIENTS]`` are the sizes of the tensors."""
    found = plan.places.get(heads)
    if found is None:
        nodes, edges, pairs = plan.nodes.size(1), plan.edges.size(1), plan.pairs.size(1)
        found = plan.places[heads] = [0]
        for rows in (edges, pairs, edges, nodes, edges, pairs):
            found.append(found[-1] + (rows * heads + LINE - 1) // LINE * LINE)
    return found


def unfold(flat: Tensor, plan: Plan, heads: int) -> tuple[Gates, Tensor]:
    """Views of the four gates and of the part behind them, [rows, H] each."""
    nodes, edges, pairs = plan.nodes.size(1), plan.edges.size(1), plan.pairs.size(1)
    rows = edges, pairs, edges, nodes, edges
    parts = (
        flat[at : at + many * heads].view(many, heads) for at, many in zip(places(plan, heads), rows, strict=False)
    )
    *gates, behind = parts
    return Gates(*gates), behind


class Setting(NamedTuple):
    """Options of a layer that its steps need.

    Attributes:
        backend: name of a compiled one.
        heads, keys: H and K.
        mode: ``"P"`` or ``"D"``.
        transition: ``"tanh"`` or ``"saturating"``.
        reversed: read against the edges.
        gathered: edge features have a row for each edge, not for each column.
        eps: of the norm.
        concat: heads side by side, else averaged.
    """

    backend: str
    heads: int
    keys: int
    mode: str
    transition: str = "tanh"
    reversed: bool = False
    gathered: bool = False
    eps: float = 0.0
    concat: bool = True


class Norm(NamedTuple):
    """The end of :class:`plstm_graph.PLSTMConv`: RMS norm of each head, heads side by side or averaged, bias.

    Attributes:
        weight: of the norm, [H, V]; contiguous.
        bias: [H * V] or, without ``concat``, [V]; or None.
        eps: of the norm.
        concat: heads side by side, else averaged.
    """

    weight: Tensor
    bias: Tensor | None
    eps: float
    concat: bool

    def dtype(self, y: Tensor) -> torch.dtype:
        """Dtype of the output after the norm, for ``y`` before it."""
        same = self.bias is None or self.bias.dtype == y.dtype
        return y.dtype if same else torch.promote_types(y.dtype, self.bias.dtype)  # type: ignore[union-attr]
