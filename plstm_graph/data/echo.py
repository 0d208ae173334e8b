"""Distances in undirected graphs of large diameter: the families of ECHO-Synth (Miglior et al. 2025), made anew.

Six families, diameters from 17 to 40, so many graphs of each; sizes within a family are drawn here, not taken from the
published files. Nodes are numbered at random, since their order must not tell where they are.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from plstm_graph.data.dataset import DatasetInfo, GraphDataset
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.splits import OFFICIAL
from plstm_graph.data.stacked import Stacked

DIAMETERS = range(17, 41)
EACH = 70
"""Graphs of each family and diameter."""
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}

Shape = tuple[int, list[tuple[int, int]], tuple[int, ...]]
"""Nodes, undirected edges, and corners: some of them are farthest from any node."""


def grid(diameter: int, rng: np.random.Generator, rows: int | None = None) -> Shape:
    """Rows and columns; one row is a line, two are a ladder."""
    rows = int(rng.integers(3, 9)) if rows is None else rows
    columns = diameter - rows + 2
    place = np.arange(rows * columns).reshape(rows, columns)
    right = zip(place[:, :-1].flat, place[:, 1:].flat, strict=True)
    down = zip(place[:-1].flat, place[1:].flat, strict=True)
    corners = tuple(int(place[i, j]) for i in {0, rows - 1} for j in {0, columns - 1})
    return rows * columns, [(int(a), int(b)) for a, b in (*right, *down)], corners


def tree(diameter: int, rng: np.random.Generator, deepest: int | None = None) -> Shape:
    """A path, and up to twice as many nodes that hang on it, at most ``deepest`` edges away: 1 makes a caterpillar, 2
    a lobster. None of them is farther from an end of the path than the other end."""
    edges = [(node, node + 1) for node in range(diameter)]
    at, depth = list(range(diameter + 1)), [0] * (diameter + 1)  # where a node's branch leaves the path, and how far up
    for _ in range(int(rng.integers(diameter // 2, 2 * diameter))):
        parent = int(rng.integers(len(at)))
        room = min(at[parent], diameter - at[parent], deepest or diameter)
        if depth[parent] < room:
            edges.append((parent, len(at)))
            at.append(at[parent])
            depth.append(depth[parent] + 1)
    return len(at), edges, (0, diameter)


FAMILIES: dict[str, Callable[[int, np.random.Generator], Shape]] = {
    "line": partial(grid, rows=1),
    "ladder": partial(grid, rows=2),
    "grid": grid,
    "tree": tree,
    "caterpillar": partial(tree, deepest=1),
    "lobster": partial(tree, deepest=2),
}


def distances(src: np.ndarray, dst: np.ndarray, starts: np.ndarray, nodes: int) -> np.ndarray:
    """Edges to every node of a union of graphs from the start in its graph, [nodes]; -1 where there is no way."""
    found = np.full(nodes, -1)
    found[starts] = 0
    depth = 0
    while len(hit := dst[found[src] == depth]):
        found[hit[found[hit] < 0]] = depth = depth + 1
    return found


def load(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """One question about all graphs: ``sssp``, of every node how far the source is; ``ecc``, of every node how far the
    farthest one is; ``diam``, of the graph how far two nodes can be. x: a random number, and whether it is the source.
    """
    rng = np.random.default_rng(0)
    shapes = [make(diameter, rng) for _ in range(EACH) for make in FAMILIES.values() for diameter in DIAMETERS]
    nodes = np.array([count for count, _, _ in shapes])
    first = np.concatenate([[0], nodes.cumsum()])
    names = [rng.permutation(count) for count in nodes]
    ends = [name[np.array(edges)].T for name, (_, edges, _) in zip(names, shapes, strict=True)]
    columns = [np.concatenate([pair, pair[::-1]], 1) for pair in ends]
    src, dst = np.concatenate([pair + at for pair, at in zip(columns, first, strict=False)], 1)
    ways = partial(distances, src, dst, nodes=int(first[-1]))
    source = first[:-1] + [int(rng.integers(count)) for count in nodes]
    if info.options["question"] == "sssp":
        answer = ways(source)
    else:
        corners = [
            [int(name[found[turn % len(found)]]) for name, (_, _, found) in zip(names, shapes, strict=True)]
            for turn in range(4)
        ]
        answer = np.max([ways(first[:-1] + corner) for corner in corners], 0)
        if info.options["question"] == "diam":
            answer = np.maximum.reduceat(answer, first[:-1])
    x = torch.rand(int(first[-1]), 2, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 0
    x[torch.from_numpy(source), 1] = 1
    edge_index = torch.from_numpy(np.concatenate(columns, 1))
    sizes = torch.from_numpy(nodes), torch.tensor([pair.shape[1] for pair in columns])
    stacked = Stacked(*sizes, x, edge_index, y=torch.from_numpy(answer).float()[:, None])
    order, parts, begin = rng.permutation(len(shapes)).tolist(), {}, 0
    for part, share in SHARES.items():
        parts[part] = sorted(order[begin : (begin := begin + round(share * len(shapes)))])
    level = {"level": "graph" if info.options["question"] == "diam" else "node"}
    return info.dataset(stacked.graphs(), ("edges",), FeatureSpec(node_dim=2), level, parts=parts)


SETS = [
    DatasetInfo(
        f"echo-{question}",
        graphs=len(DIAMETERS) * len(FAMILIES) * EACH,
        task="regression",
        metric="mae",
        split=OFFICIAL,
        licence="generated",
        source="families of ECHO-Synth, Miglior et al. 2025, made here from a seed",
        loader=load,
        options={"question": question},
    )
    for question in ("sssp", "ecc", "diam")
]
