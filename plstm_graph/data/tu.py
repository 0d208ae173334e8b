"""The TU Dortmund collection of graph data sets (Morris et al. 2020): its text files, and its download."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import one_hot
from torch_geometric.data import Data

from plstm_graph.data import source
from plstm_graph.data.dataset import DatasetInfo, GraphDataset
from plstm_graph.data.stacked import Stacked
from plstm_graph.errors import DataError
from plstm_graph.nn.encoders import FeatureSpec

URL = "https://www.chrsmrrs.com/graphkerneldatasets"
ATTRIBUTES = "+attr"  # after a name: with the float attributes of nodes


class TUGraphs(NamedTuple):
    """Graphs of one set, what their features are, and the number of classes."""

    graphs: list[Data]
    features: FeatureSpec
    num_classes: int


def load(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """A set of the collection, from ``TUDataset/NAME/raw`` or ``NAME/raw`` below ``root``."""
    name = info.options["folder"]
    data = read(info.find(root, source.unzipped(info.url, name)), name, attributes=info.options["attributes"])
    info.check_count(len(data.graphs))
    return info.dataset(data.graphs, ("class",), data.features, num_outputs=data.num_classes)


def read(folder: Path, name: str, *, attributes: bool = False) -> TUGraphs:
    """Read ``NAME_A.txt`` and its companions.

    Every graph has ``x`` [N, columns] and, where the set labels edges, ``edge_attr`` [M, columns]: categories (int64),
    counted from the smallest label. A set without node labels gets the one category 0. With ``attributes``, ``x`` holds
    floats: the node attributes, then the labels as ones and zeros, as PyG's ``TUDataset(use_node_attr=True)`` has it.
    ``edge_index`` [2, M] is sorted, without self-loops and repeated columns, as PyG has it. ``y`` [1] is the class,
    from 0.
    """
    ends = _table(folder, name, "A") - 1
    graph = _table(folder, name, "graph_indicator")[:, 0] - 1
    labels = _table(folder, name, "graph_labels")[:, 0]
    node, node_sizes = _labels(folder, name, "node_labels", len(graph))
    edge, edge_sizes = _labels(folder, name, "edge_labels", len(ends))
    _check(name, ends, graph, len(labels))

    # Sort by (src, dst) and keep the first of equal columns.
    key, kept = np.unique(ends[:, 0] * len(graph) + ends[:, 1], return_index=True)
    kept = kept[key // len(graph) != key % len(graph)]
    ends = ends[kept]
    node_ptr = np.searchsorted(graph, np.arange(len(labels) + 1))
    edge_ptr = np.searchsorted(ends[:, 0], node_ptr)
    classes, y = np.unique(labels, return_inverse=True)
    if node is None:
        node, node_sizes = np.zeros((len(graph), 1), dtype=np.int64), (1,)
    x, features = torch.from_numpy(node), FeatureSpec(node_sizes=node_sizes, edge_sizes=edge_sizes)
    if attributes:
        parts = [torch.from_numpy(_attributes(folder, name, len(graph)))]
        if sum(node_sizes) > 1:
            parts += [one_hot(column, size) for column, size in zip(x.T, node_sizes, strict=True)]
        x = torch.cat(parts, 1).float()
        features = FeatureSpec(node_dim=x.shape[1], edge_sizes=edge_sizes)
    stacked = Stacked(
        torch.from_numpy(np.diff(node_ptr)),
        torch.from_numpy(np.diff(edge_ptr)),
        x,
        torch.from_numpy((ends - node_ptr[graph[ends[:, 0]]][:, None]).T).contiguous(),
        None if edge is None else torch.from_numpy(edge[kept]),
        torch.from_numpy(y),
    )
    return TUGraphs(stacked.graphs(), features, len(classes))


def _attributes(folder: Path, name: str, rows: int) -> np.ndarray:
    values = _table(folder, name, "node_attributes", np.float64)
    if len(values) != rows:
        raise DataError(f"{name}_node_attributes.txt must have {rows} lines, got {len(values)}: truncated?")
    return values


def _labels(folder: Path, name: str, kind: str, rows: int) -> tuple[np.ndarray | None, tuple[int, ...]]:
    if not (folder / f"{name}_{kind}.txt").is_file():
        return None, ()
    labels = _table(folder, name, kind)
    if len(labels) != rows:
        raise DataError(f"{name}_{kind}.txt must have {rows} lines, got {len(labels)}: truncated? fetch it again")
    labels = labels - labels.min(axis=0)
    return labels, tuple(int(size) for size in labels.max(axis=0) + 1)


def _table(folder: Path, name: str, kind: str, dtype: type = np.int64) -> np.ndarray:
    """Numbers of a file, [lines, columns]."""
    path = folder / f"{name}_{kind}.txt"
    try:
        text = path.read_text()
        if not text.strip():
            raise DataError(f"{path} is empty")
        return np.loadtxt(text.splitlines(), delimiter=",", dtype=dtype, ndmin=2)
    except FileNotFoundError as error:
        raise DataError(f"{name} is not complete: there is no file {path}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        kind = "integers" if dtype is np.int64 else "numbers"
        raise DataError(f"{path} must hold {kind} separated by commas: {str(error).splitlines()[0]}") from error


def _check(name: str, ends: np.ndarray, graph: np.ndarray, num_graphs: int) -> None:
    if ends.shape[1] != 2 or ends.min() < 0 or ends.max() >= len(graph):
        raise DataError(f"{name}_A.txt must hold pairs of nodes from 1 to {len(graph)}")
    if (np.diff(graph) < 0).any() or not np.array_equal(np.unique(graph), np.arange(num_graphs)):
        raise DataError(f"{name}_graph_indicator.txt must rise from 1 to the {num_graphs} graphs of the labels file")
    if (graph[ends[:, 0]] != graph[ends[:, 1]]).any():
        raise DataError(f"{name}_A.txt has an edge between two graphs")


def _row(name: str, graphs: int, size: float | None = None) -> DatasetInfo:
    folder = name.removesuffix(ATTRIBUTES)
    return DatasetInfo(
        name,
        graphs,
        "multiclass",
        "accuracy",
        "folds",
        "none stated",
        "TU Dortmund, Morris et al. 2020",
        f"{URL}/{folder}.zip",
        (f"TUDataset/{folder}/raw", f"{folder}/raw"),
        size,
        load,
        {"folder": folder, "attributes": folder != name},
    )


ROWS = [
    _row("MUTAG", 188, 0.1),
    _row("PTC_FM", 349, 0.1),
    _row("ENZYMES", 600, 0.5),
    _row("ENZYMES+attr", 600, 0.5),
    _row("PROTEINS", 1113, 0.5),
    _row("PROTEINS+attr", 1113, 0.5),
    _row("AIDS", 2000, 0.4),
    _row("AIDS+attr", 2000, 0.4),
    _row("NCI1", 4110, 0.8),
    _row("Mutagenicity", 4337, 0.9),
    _row("IMDB-BINARY", 1000),
]
