"""Neural architectures with their measured accuracy, from D-VAE (Zhang et al. 2019): small native DAGs."""

import json
import random
from pathlib import Path

import torch

from plstm_graph.data import source
from plstm_graph.data.dataset import DatasetInfo, GraphDataset
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.splits import OFFICIAL
from plstm_graph.data.stacked import Stacked
from plstm_graph.errors import DataError

FILE = "final_structures6.txt"
BURN_IN = 1000  # the first architectures of the search are left out
START, END, OPERATIONS = 0, 1, 6


def load(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """Eight nodes each: input, six operations, output. Predict the accuracy, a number from 0 to 1.

    The split shuffles as D-VAE does and takes the last tenth for testing, as there; the tenth before it is for
    validation. (D-VAE's tables give errors in standard deviations of the training labels.)
    """
    folder = info.find(root, source.fetched({FILE: (info.url, None)}))
    path = source.plain_or_packed(folder / FILE)
    stacked = Stacked(**source.cached(info.name, [path], lambda: read(path).plain()))
    size = len(stacked.nodes)
    info.check_count(size)
    order = list(range(size))
    random.Random(0).shuffle(order)
    ends = [int(size * share) for share in (0.8, 0.9)]
    parts = {"train": order[: ends[0]], "valid": order[ends[0] : ends[1]], "test": order[ends[1] :]}
    features = FeatureSpec(node_sizes=(2 + OPERATIONS,))
    return info.dataset(stacked.graphs(), ("accuracy",), features, parts=parts)


def read(path: Path) -> Stacked:
    """Architectures after the first thousand: lines ``[[operation, flag, ...], ...], accuracy``.

    Node 0 is the input, node i + 1 the i-th operation (from 0), the last one the output. Each is fed by the node before
    it, an operation also by those earlier nodes whose flag is set.
    """
    x, edges, nodes, columns, y = [], [], [], [], []
    for number, line in enumerate(source.read_bytes(path).decode().splitlines()[BURN_IN:], start=BURN_IN + 1):
        try:
            operations, accuracy = json.loads(f"[{line}]")
            kinds = [START, *(2 + int(operation[0]) for operation in operations), END]
            if max(kinds) >= 2 + OPERATIONS or any(len(row) != i + 1 for i, row in enumerate(operations)):
                raise ValueError
            skips = [(j, i + 1) for i, row in enumerate(operations) for j, flag in enumerate(row[1:]) if flag]
            y.append(float(accuracy))
        except (ValueError, TypeError, IndexError) as error:
            raise DataError(f"{path.name}, line {number}: not '[[operation, flags], ...], accuracy'") from error
        ends = sorted([*((i, i + 1) for i in range(len(kinds) - 1)), *skips])
        x += kinds
        edges += ends
        nodes.append(len(kinds))
        columns.append(len(ends))
    if not y:
        raise DataError(f"{path} has no line after the first {BURN_IN}")
    rank = torch.cat([torch.arange(count) for count in nodes])  # nodes are numbered topologically
    stack = torch.tensor(x)[:, None], torch.tensor(edges).t().contiguous(), None, torch.tensor(y)[:, None], rank
    return Stacked(torch.tensor(nodes), torch.tensor(columns), *stack)


SETS = [
    DatasetInfo(
        "dvae",
        graphs=19020,
        task="regression",
        metric="rmse",
        split=OFFICIAL,
        licence="MIT",
        source="D-VAE, Zhang et al. 2019",
        url=f"https://raw.githubusercontent.com/muhanzhang/D-VAE/master/data/{FILE}",
        places=("dag_NA_dvae",),
        megabytes=0.2,
        loader=load,
    )
]
