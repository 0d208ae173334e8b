"""Tree-NeighborsMatch (Alon and Yahav 2021): a root asks for one of all leaves, and every path leads through it."""

from pathlib import Path

import torch
from torch import Tensor

from plstm_graph.data.dataset import DatasetInfo, GraphDataset
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.splits import OFFICIAL, one_after_another
from plstm_graph.data.stacked import Stacked

DEPTHS = range(2, 9)
COUNTS = {"train": 8000, "valid": 500, "test": 500}


def draw(depth: int, graphs: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Complete binary trees whose leaves have keys and values; the root has a key and must say the value that belongs.

    Args:
        depth: edges from a leaf to the root.
        graphs: how many trees.
        generator: of keys and values.

    Returns:
        x [graphs, nodes, 2]: key and value from 1, 0 for none; the root is node 0. edge_index [2, nodes - 1]: from
        child to parent. y [graphs]: value from 0.
    """
    leaves = 2**depth
    nodes = 2 * leaves - 1
    keys, values = (torch.rand(graphs, leaves, generator=generator).argsort(1) for _ in range(2))
    asked = torch.randint(leaves, (graphs,), generator=generator)
    x = torch.zeros(graphs, nodes, 2, dtype=torch.long)
    x[:, leaves - 1 :, 0], x[:, leaves - 1 :, 1] = keys + 1, values + 1
    place = torch.arange(graphs), asked
    x[:, 0, 0] = keys[place] + 1
    child = torch.arange(1, nodes)
    return x, torch.stack([child, (child - 1) // 2]), values[place]


def load(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """Trees of one depth, the same on every machine. What counts, as published, is how many of the training part can be
    learnt: the state of the root has to hold all leaves."""
    depth, count = info.options["depth"], sum(COUNTS.values())
    x, edge_index, y = draw(depth, count, torch.Generator().manual_seed(depth))
    nodes, columns = x.size(1), edge_index.size(1)
    rank = torch.arange(nodes - 1, -1, -1).repeat(count)  # children before their parent
    sizes = torch.full((count,), nodes), torch.full((count,), columns)
    stacked = Stacked(*sizes, x.flatten(0, 1), edge_index.repeat(1, count), y=y, rank=rank)
    leaves, parts = 2**depth, one_after_another(COUNTS)
    features = FeatureSpec(node_sizes=(leaves + 1, leaves + 1))
    return info.dataset(stacked.graphs(), ("value",), features, {"classes": leaves}, parts=parts)


SETS = [
    DatasetInfo(
        f"neighborsmatch-{depth}",
        graphs=sum(COUNTS.values()),
        task="multiclass",
        metric="accuracy",
        split=OFFICIAL,
        licence="generated",
        source="Tree-NeighborsMatch, Alon and Yahav 2021, made here from a seed",
        loader=load,
        options={"depth": depth},
    )
    for depth in DEPTHS
]
