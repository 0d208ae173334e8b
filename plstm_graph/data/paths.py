"""Tasks on which only what travels along directed paths helps, drawn from seeds: ``transfer`` and ``carry``.

They are learnt on short paths and tested on long ones, so a score on the test part says whether the rule was found.
``swap`` is ``transfer`` as it was published, for comparison: on paths of one length, and a node can know its answer.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch_geometric.data import Data

from plstm_graph.data.dataset import DatasetInfo, GraphDataset
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.splits import OFFICIAL, one_after_another
from plstm_graph.data.stacked import Stacked
from plstm_graph.errors import ConfigError, unknown

TRANSFERS = ("line", "ring", "crossed", "tree", "dag")
CARRIES = ("tree", "dag")
SWAPS = ("line", "ring", "crossed")
NEAR = 3  # a parent is among so many nodes before its child


class Paths(NamedTuple):
    """Graphs of one size, and over how many edges the value has to come that each node is asked for, int64 [N]; -1
    where nothing is asked."""

    graphs: Stacked
    distance: Tensor


def transfer(kind: str, distance: int, graphs: int, generator: torch.Generator) -> Paths:
    """One node, the target, must say the random value of another, the source; all nodes have one, so that none can know
    the answer alone.

    ``"line"``: at the ends of a line. ``"ring"``: opposite each other. ``"crossed"``: at the ends of a ladder with
    crosses for rungs. These are undirected. ``"tree"``: a binary tree that branches off the path at every node.
    ``"dag"``: with such nodes beside the path, from which edges lead back to it.

    Args:
        kind: one of ``TRANSFERS``.
        distance: edges from source to target.
        graphs: how many.
        generator: of values and random edges.

    Returns:
        x [N, 3]: value (0 for the target), is source, is target. y [N, 1]: NaN but for the target.
    """
    if kind not in TRANSFERS:
        raise ConfigError(unknown("transfer", kind, TRANSFERS))
    nodes, target = {
        "line": (distance + 1, distance),
        "ring": (2 * distance, distance),
        "crossed": (2 * distance + 2, 2 * distance),
        "tree": (2 * distance + 1, 2 * distance),
        "dag": (2 * distance + 1, 2 * distance),
    }[kind]
    src, dst = _edges(kind, distance, graphs, generator)
    value = torch.rand(graphs, nodes, generator=generator)
    x = torch.zeros(graphs, nodes, 3)
    x[..., 0] = value
    x[:, 0, 1] = x[:, target, 2] = 1
    x[:, target, 0] = 0
    y, far = torch.full((graphs, nodes), torch.nan), torch.full((graphs, nodes), -1)
    y[:, target], far[:, target] = value[:, 0], distance
    if kind in ("line", "ring", "crossed"):
        src, dst = torch.cat([src, dst], 1), torch.cat([dst, src], 1)
    return Paths(_stack(x, torch.stack([src, dst]), None, y), far.flatten())


def _edges(kind: str, distance: int, graphs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ends of the edges of each graph, [graphs, edges] each, from lower to higher number."""
    step = torch.arange(distance)
    if kind == "line":
        src, dst = step, step + 1
    elif kind == "ring":
        ends = torch.stack([torch.arange(2 * distance), torch.arange(1, 2 * distance + 1) % (2 * distance)])
        src, dst = ends.amin(0), ends.amax(0)
    elif kind == "crossed":
        src = torch.cat([2 * step, 2 * step + 1, 2 * step, 2 * step + 1])
        dst = torch.cat([2 * step + 2, 2 * step + 3, 2 * step + 3, 2 * step + 2])
    else:  # the path runs over even nodes; an odd one hangs on the even one before it
        src, dst = torch.cat([2 * step, 2 * step]), torch.cat([2 * step + 2, 2 * step + 1])
    src, dst = src.expand(graphs, -1), dst.expand(graphs, -1)
    if kind == "tree":  # or on the odd one before it, so that branches grow
        hangs = (torch.rand(graphs, distance, generator=generator) < 0.5) & (step > 0)
        src = torch.cat([src[:, :distance], 2 * step - hangs.long()], 1)
    elif kind == "dag":  # and leads on to one of the nodes behind it
        on = 2 * step + 1 + torch.randint(1, 2 * NEAR, (graphs, distance), generator=generator)
        src = torch.cat([src, (2 * step + 1).expand(graphs, -1)], 1)
        dst = torch.cat([dst, on.clamp(max=2 * distance)], 1)
    return src, dst


def swap(kind: str, distance: int, graphs: int, generator: torch.Generator) -> Stacked:
    """Two nodes that are far apart must each say what the other has: 1 and 0, while all others have random numbers.

    The graph transfer of Gravina et al. 2025 ("On oversquashing in graph neural networks through the lens of dynamical
    systems"), without its self-loops and doubled edges. A network that reads no neighbour can answer it: 0 for 1, and
    1 for 0.

    Args:
        kind: one of ``SWAPS``: the ends of a line, opposite nodes of a ring, or of one with crosses for rungs.
        distance: nodes of the line; half of the ring's.
        graphs: how many.
        generator: of the other nodes' numbers.

    Returns:
        x [N, 1], y [N, 1]: NaN but for the two.
    """
    if kind not in SWAPS:
        raise ConfigError(unknown("swap", kind, SWAPS))
    nodes, end = (distance, distance - 1) if kind == "line" else (2 * distance, distance)
    step = torch.arange(nodes - 1)
    pairs = [torch.stack([step, step + 1])]
    if kind != "line":
        pairs.append(torch.tensor([[0], [nodes - 1]]))
    if kind == "crossed":  # to the node opposite the next one, and opposite the one before
        inner, outer = step[1 : distance - 1], step[2:distance]
        pairs += [torch.stack([inner, nodes - 1 - inner]), torch.stack([outer, nodes + 1 - outer])]
    src, dst = torch.cat(pairs, 1)
    x = torch.rand(graphs, nodes, 1, generator=generator)
    x[:, 0], x[:, end] = 1, 0
    y = torch.full((graphs, nodes), torch.nan)
    y[:, 0], y[:, end] = 0, 1
    both = torch.stack([torch.cat([src, dst]), torch.cat([dst, src])])
    return _stack(x, both.unsqueeze(1).expand(-1, graphs, -1), None, y)


def carry(kind: str, nodes: int, graphs: int, generator: torch.Generator, open_share: float = 0.9) -> Paths:
    """Reset and carry: edges are open or closed, and every node must say the random value at the top of its segment of
    open edges.

    ``"tree"``: every node's parent is among the three before it. ``"dag"``: it has another predecessor among these, by
    a closed edge.

    Args:
        kind: one of ``CARRIES``.
        nodes: of each graph, at least 2.
        graphs: how many.
        generator: of everything.
        open_share: probability that an edge of the tree is open.

    Returns:
        x [N, 1]: value. edge_attr [M, 1]: is open. y [N, 1].
    """
    if kind not in CARRIES:
        raise ConfigError(unknown("carry", kind, CARRIES))
    node = torch.arange(nodes).expand(graphs, nodes)
    parent = (node - torch.randint(1, NEAR + 1, (graphs, nodes), generator=generator)).clamp(min=0)
    value = torch.rand(graphs, nodes, generator=generator)
    is_open = torch.rand(graphs, nodes, generator=generator) < open_share
    is_open[:, 0] = False
    top, depth = torch.where(is_open, parent, node), is_open.long()
    while not torch.equal(further := top.gather(1, top), top):  # twice as far each time
        top, depth = further, depth + depth.gather(1, top)
    src, dst, state = parent[:, 1:], node[:, 1:], is_open[:, 1:].float()
    if kind == "dag":
        choices = node.clamp(max=NEAR)[:, 2:]  # predecessors that there might be
        turn = (torch.rand(graphs, nodes - 2, generator=generator) * (choices - 1)).long() + 1
        back = (node - parent)[:, 2:]
        other = node[:, 2:] - ((back - 1 + turn) % choices + 1)
        src, dst, state = torch.cat([src, other], 1), torch.cat([dst, node[:, 2:]], 1), pad(state, (0, nodes - 2))
    y = value.gather(1, top)
    return Paths(_stack(value.unsqueeze(-1), torch.stack([src, dst]), state, y), depth.flatten())


def _stack(x: Tensor, edge_index: Tensor, edge_attr: Tensor | None, y: Tensor) -> Stacked:
    """Graphs of one size: [graphs, nodes, features], [2, graphs, columns], [graphs, columns] and [graphs, nodes]."""
    graphs, nodes, _ = x.shape
    rank = torch.arange(nodes).repeat(graphs)
    sizes, columns = torch.full((graphs,), nodes), torch.full((graphs,), edge_index.size(2))
    attributes = None if edge_attr is None else edge_attr.reshape(-1, 1)
    return Stacked(sizes, columns, x.flatten(0, 1), edge_index.flatten(1), attributes, y.reshape(-1, 1), rank)


NODES, DISTANCES, SHARES = (10, 30, 60, 100), (5, 10, 20, 30, 40, 50), (0.5, 0.9, 0.98)
"""Of what is learnt on, and is validated by."""
FAR_NODES, FAR_DISTANCE, FAR_SHARE = 1000, 500, 0.995
"""Of what is tested on."""
FARTHEST = 5000
"""Edges from source to target in sets of ``transfer`` that have a test part only."""
COUNTS = {"train": 2000, "valid": 200, "test": 20}
SWAP_DISTANCE, SWAP_COUNTS = 50, {"train": 1000, "valid": 100, "test": 100}
"""As published."""


def load(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """Graphs of one family; they are the same on every machine."""
    kind, farthest = info.options["kind"], info.options.get("distance")
    generator = torch.Generator().manual_seed(farthest or 0)
    counts = {"train": 0, "valid": 0, "test": COUNTS["test"]} if farthest else COUNTS
    if info.options["family"] == "carry":
        near = [partial(carry, kind, nodes, open_share=share) for share in SHARES for nodes in NODES]
        far = partial(carry, kind, FAR_NODES, open_share=FAR_SHARE)
        features = FeatureSpec(node_dim=1, edge_dim=1)
    else:
        near = [partial(transfer, kind, distance) for distance in DISTANCES]
        far = partial(transfer, kind, farthest or FAR_DISTANCE)
        features = FeatureSpec(node_dim=3)
    graphs: list[Data] = []
    parts = {}
    for part, count in counts.items():
        draws = [far] if part == "test" else near[:count]  # none of no graphs
        begin = len(graphs)
        for number, draw in enumerate(draws):
            many = (count - number - 1) // len(draws) + 1  # together ``count``
            graphs += draw(graphs=many, generator=generator).graphs.graphs()
        parts[part] = list(range(begin, len(graphs)))
    return info.dataset(graphs, ("value",), features, {"level": "node"}, parts=parts)


def load_swaps(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """The published form of ``transfer``; the same on every machine."""
    count, parts = sum(SWAP_COUNTS.values()), one_after_another(SWAP_COUNTS)
    drawn = swap(info.options["kind"], SWAP_DISTANCE, count, torch.Generator().manual_seed(0))
    return info.dataset(drawn.graphs(), ("value",), FeatureSpec(node_dim=1), {"level": "node"}, parts=parts)


def _row(name: str, family: str, kind: str, **options: int) -> DatasetInfo:
    swaps = family == "swap"
    count = sum(SWAP_COUNTS.values()) if swaps else COUNTS["test"] if options else sum(COUNTS.values())
    return DatasetInfo(
        name,
        graphs=count,
        task="regression",
        metric="rmse",
        split=OFFICIAL,
        licence="generated",
        source="made here, from a seed",
        loader=load_swaps if swaps else load,
        options={"family": family, "kind": kind} | options,
    )


SETS = [_row(f"carry-{kind}" if kind != "tree" else "carry", "carry", kind) for kind in CARRIES]
SETS += [_row(f"transfer-{kind}", "transfer", kind) for kind in TRANSFERS]
SETS += [_row(f"transfer-{kind}-{FARTHEST}", "transfer", kind, distance=FARTHEST) for kind in TRANSFERS]
SETS += [_row(f"swap-{kind}", "swap", kind) for kind in SWAPS]
