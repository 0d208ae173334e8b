"""Random-walk encodings: how likely a walk is back where it began, worked out for many graphs at once."""

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.data.stacked import sizes, values
from plstm_graph.io.waiting import tracked

DENSE = 2000
"""Nodes of the largest graph whose steps are one dense matrix."""
ROOM = 2**18
"""Numbers in the matrices of the graphs that are worked out together: three such matrices lie in a core's cache."""
Columns = tuple[Tensor, Tensor | None]
"""``edge_index`` and ``edge_weight`` of a graph."""


def random_walks(graphs: Sequence[Data], steps: int) -> list[Tensor]:
    r"""Return probabilities of each node after 1 to ``steps`` steps, float32 [N, steps] of each graph.

    .. math::
        p_k = \operatorname{diag}\bigl((D^{-1} A)^k\bigr)

    with :math:`A` as the columns of ``edge_index`` are, one where they repeat themselves, and their number
    :math:`D` from each node; ``edge_weight``, where there is one, in place of ones. As PyG's ``AddRandomWalkPE``, for
    any graph, and several times faster for molecules (3 s for the 41,127 of ogbg-molhiv, on one core).

    Args:
        graphs: with ``edge_index`` [2, M].
        steps: of the longest walk, at least 1.

    Reference: Dwivedi et al. 2022, "Graph neural networks with learnable structural and positional representations".
    """
    found: list[Tensor] = [torch.empty(0)] * len(graphs)
    work = iter(tracked(range(len(graphs)), f"random walks on {len(graphs):,} graphs"))
    counts, columns, weights = sizes(graphs), values(graphs, "edge_index"), values(graphs, "edge_weight")
    for chosen in _groups(counts):
        group, nodes = [(columns[number], weights[number]) for number in chosen], [counts[number] for number in chosen]
        walks = [_sparse(group[0], nodes[0], steps)] if nodes[0] > DENSE else _dense(group, nodes, steps)
        for number, walk in zip(chosen, walks, strict=True):
            found[number] = walk
            next(work)
    next(work, None)
    return found


def _groups(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of graphs of like size, as many as there is room for; large ones alone."""
    group: list[int] = []
    for number in sorted(range(len(sizes)), key=lambda number: sizes[number]):
        if group and (sizes[number] > DENSE or (len(group) + 1) * sizes[number] ** 2 > ROOM):
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def _transitions(group: Sequence[Columns], row: Tensor, size: int) -> Tensor:
    """Chance of each column of ``edge_index`` to be taken from the one of ``size`` nodes where it begins, [M]."""
    weight = torch.ones(len(row))
    if any(weights is not None for _, weights in group):
        parts = (torch.ones(columns.size(1)) if weights is None else weights for columns, weights in group)
        weight = torch.cat([part.view(-1).float() for part in parts])
    return 1 / torch.zeros(size).index_add_(0, row, weight).clamp(min=1)[row]


def _dense(group: Sequence[Columns], nodes: Sequence[int], steps: int) -> Sequence[Tensor]:
    """The walks are views of one tensor."""
    columns, width = [columns for columns, _ in group], max(nodes)
    owner = torch.arange(len(group)).repeat_interleave(torch.tensor([each.size(1) for each in columns]))
    row, column = torch.cat(columns, 1)
    step = torch.zeros(len(group), width, width)
    step[owner, row, column] = _transitions(group, owner * width + row, len(group) * width)
    back, walk = [step.diagonal(dim1=1, dim2=2)], step
    for _ in range(steps - 1):
        walk = torch.bmm(walk, step)
        back.append(walk.diagonal(dim1=1, dim2=2))
    real = torch.arange(width) < torch.tensor(nodes).unsqueeze(1)
    return torch.stack(back, 2)[real].split(list(nodes))


def _sparse(graph: Columns, size: int, steps: int) -> Tensor:
    """As COO matrices: torch's product of two CSR matrices on a CPU may end in a segmentation fault."""
    columns, inverse = torch.unique(graph[0], dim=1, return_inverse=True)
    chances = _transitions([graph], graph[0][0], size)
    chances = torch.empty(columns.size(1)).index_copy_(0, inverse, chances)
    step = torch.sparse_coo_tensor(columns, chances, (size, size), check_invariants=False).coalesce()
    back, walk = torch.zeros(size, steps), step
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # how torch multiplies is no news
        for number in range(steps):
            walk = torch.sparse.mm(walk, step).coalesce() if number else step
            (row, column), value = walk.indices(), walk.values()
            home = row == column
            back[row[home], number] = value[home]
    return back
