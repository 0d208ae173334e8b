"""The TU Dortmund collection of graph data sets (Morris et al. 2020): its text files, and its download."""

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch_geometric.data import Data
from torch_geometric.datasets import TUDataset

from plstm_graph.config.names import ATTRIBUTES, TU_COLLECTION, TU_PREFIX, tu_folder
from plstm_graph.data import source
from plstm_graph.data.dataset import DatasetInfo, GraphDataset
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.stacked import Stacked, first
from plstm_graph.errors import DataError, first_line
from plstm_graph.io.files import expanded

EDGES = "_A.txt"


class TUGraphs(NamedTuple):
    """Graphs of one set, what their features are, and the number of classes."""

    graphs: Sequence[Data]
    features: FeatureSpec
    num_classes: int


def load(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """A set of the collection, from ``TUDataset/NAME/raw`` or ``NAME/raw`` below ``root``, or a place of its own."""
    name, place = info.options["folder"], info.options.get("place")
    folder = _files(place) if place else info.find(root, source.unzipped(info.url, name))
    data = read(folder, name, attributes=info.options["attributes"])
    info.check_count(len(data.graphs))
    if data.num_classes:
        return info.dataset(data.graphs, ("class",), data.features, {"classes": data.num_classes})
    targets = tuple(f"y{number}" for number in range(first(data.graphs).y.shape[1]))
    numbers = replace(info, task="regression", metric="mae", split="random")
    return numbers.dataset(data.graphs, targets, data.features)


def find(name: str, root: str | Path | None = None) -> DatasetInfo | None:
    """The set that ``name`` means, or None.

    Args:
        name: of the collection's list, in any case; of a folder below ``root``; ``tu:NAME`` for one that
            may be downloaded although the list lacks it; or the path of a folder or a zip file with ``NAME_A.txt``.
            ``+attr`` behind it adds attributes.
        root: folder with public data.
    """
    plain, attributes = name.removesuffix(ATTRIBUTES), ATTRIBUTES if name.endswith(ATTRIBUTES) else ""
    if path := _files(expanded(plain)):
        (first,) = [file.name for file in path.iterdir() if file.name.endswith(EDGES)]
        row = _row(first.removesuffix(EDGES) + attributes, None)
        return replace(row, places=(), options=row.options | {"place": expanded(plain)})
    known = {each.casefold(): each for each in TU_COLLECTION}
    row = _row(known.get(plain.casefold(), plain.removeprefix(TU_PREFIX)) + attributes, None)
    listed = plain.casefold() in known or plain.startswith(TU_PREFIX)
    return row if listed or (root is not None and tu_folder(plain, root)) else None


def _files(place: Path) -> Any:
    """The folder, below a folder or in a zip file, that holds one set's files; None where there is none."""
    try:
        top: Any = zipfile.Path(place) if place.suffix == ".zip" and place.is_file() else place
    except zipfile.BadZipFile as error:
        raise DataError(f"{place} is truncated, or no zip file: {error}") from error
    if not top.is_dir():
        return None
    for folder in (top, *(below for below in sorted(top.iterdir(), key=str) if below.is_dir())):
        if sum(file.name.endswith(EDGES) for file in folder.iterdir()) == 1:
            return folder
    return None


def read(folder: Any, name: str, *, attributes: bool = False) -> TUGraphs:
    """Read ``NAME_A.txt`` and its companions.

    Every graph has ``x`` [N, columns] and, where the set labels edges, ``edge_attr`` [M, columns]: categories (int64),
    counted from the smallest label. A set without node labels gets the one category 0. With ``attributes``, and where
    there are attributes and no labels, they are floats: the attributes, then the labels as ones and zeros, as PyG's
    ``TUDataset(use_node_attr=True, use_edge_attr=True)`` has it. ``edge_index`` [2, M] is sorted, without self-loops
    and repeated columns, as PyG has it. ``y`` is the class from 0, int64 [1]; where a set has attributes of graphs in
    place of classes, these, float [1, columns], and ``num_classes`` is 0.

    Args:
        folder: a ``Path``, or one into a zip file.
        name: of the set, which its files begin with.
        attributes: read those of nodes and edges, too.
    """
    ends = _table(folder, name, "A") - 1
    graph = _table(folder, name, "graph_indicator")[:, 0] - 1
    classes, y = _targets(folder, name)
    x, node_sizes, node_dim = _features(folder, name, "node", len(graph), attributes)
    edge, edge_sizes, edge_dim = _features(folder, name, "edge", len(ends), attributes)
    _check(name, ends, graph, len(y))

    # Sort by (src, dst) and keep the first of equal columns.
    key, kept = np.unique(ends[:, 0] * len(graph) + ends[:, 1], return_index=True)
    kept = kept[key // len(graph) != key % len(graph)]
    ends = ends[kept]
    node_ptr = np.searchsorted(graph, np.arange(len(y) + 1))
    edge_ptr = np.searchsorted(ends[:, 0], node_ptr)
    if x is None:
        x, node_sizes = torch.zeros(len(graph), 1, dtype=torch.long), (1,)
    stacked = Stacked(
        torch.from_numpy(np.diff(node_ptr)),
        torch.from_numpy(np.diff(edge_ptr)),
        x,
        torch.from_numpy((ends - node_ptr[graph[ends[:, 0]]][:, None]).T).contiguous(),
        None if edge is None else edge[torch.from_numpy(kept)],
        y,
    )
    return TUGraphs(stacked.graphs(), FeatureSpec(node_sizes, edge_sizes, node_dim, edge_dim), classes)


def _targets(folder: Any, name: str) -> tuple[int, Tensor]:
    """How many classes there are, 0 for none, and ``y`` of all graphs."""
    if (folder / f"{name}_graph_labels.txt").is_file() or not (folder / f"{name}_graph_attributes.txt").is_file():
        labels = _table(folder, name, "graph_labels")
        if labels.shape[1] > 1:
            raise DataError(
                f"{name}_graph_labels.txt must have one class a line, got {labels.shape[1]} columns; keep one, "
                f"or rename it {name}_graph_attributes.txt to predict them all as quantities"
            )
        classes, y = np.unique(labels[:, 0], return_inverse=True)
        return len(classes), torch.from_numpy(y)
    return 0, torch.from_numpy(_table(folder, name, "graph_attributes", np.float64)).float()


def _features(
    folder: Any, name: str, what: str, rows: int, attributes: bool
) -> tuple[Tensor | None, tuple[int, ...], int]:
    """Those of nodes or edges with the sizes of their categories, or the width of their floats."""
    labels, sizes = _labels(folder, name, f"{what}_labels", rows)
    there = (folder / f"{name}_{what}_attributes.txt").is_file()
    if not there and attributes and what == "node":
        raise DataError(f"{name} has no attributes of nodes; leave {ATTRIBUTES} out")
    if not there or not (attributes or labels is None):
        return (None if labels is None else torch.from_numpy(labels)), sizes, 0
    values = _table(folder, name, f"{what}_attributes", np.float64)
    if len(values) != rows:
        raise DataError(f"{name}_{what}_attributes.txt must have {rows} lines, got {len(values)}: truncated?")
    parts = [torch.from_numpy(values)]
    if labels is not None:
        parts += [one_hot(column, size) for column, size in zip(torch.from_numpy(labels).T, sizes, strict=True)]
    found = torch.cat(parts, 1).float()
    return found, (), found.shape[1]


def _labels(folder: Any, name: str, kind: str, rows: int) -> tuple[np.ndarray | None, tuple[int, ...]]:
    if not (folder / f"{name}_{kind}.txt").is_file():
        return None, ()
    labels = _table(folder, name, kind)
    if len(labels) != rows:
        raise DataError(f"{name}_{kind}.txt must have {rows} lines, got {len(labels)}: truncated? fetch it again")
    labels = labels - labels.min(axis=0)
    return labels, tuple(int(size) for size in labels.max(axis=0) + 1)


def _table(folder: Any, name: str, kind: str, dtype: type = np.int64) -> np.ndarray:
    """Numbers of a file, [lines, columns]."""
    path = folder / f"{name}_{kind}.txt"
    try:
        if isinstance(path, zipfile.Path) and path.is_file():
            source.check_unpacked(path.root.getinfo(path.at).file_size, path)
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
        what = "integers" if dtype is np.int64 else "numbers"
        more = f"; quantities belong in {name}_graph_attributes.txt instead" if kind == "graph_labels" else ""
        raise DataError(f"{path} must hold {what} separated by commas: {first_line(error)}{more}") from error


def _check(name: str, ends: np.ndarray, graph: np.ndarray, num_graphs: int) -> None:
    if ends.shape[1] != 2 or ends.min() < 0 or ends.max() >= len(graph):
        raise DataError(f"{name}_A.txt must hold pairs of nodes from 1 to {len(graph)}")
    if (np.diff(graph) < 0).any() or not np.array_equal(np.unique(graph), np.arange(num_graphs)):
        raise DataError(f"{name}_graph_indicator.txt must rise from 1 to the {num_graphs} graphs of the labels file")
    if (graph[ends[:, 0]] != graph[ends[:, 1]]).any():
        raise DataError(f"{name}_A.txt has an edge between two graphs")


def _row(name: str, graphs: int | None, size: float | None = None) -> DatasetInfo:
    folder = name.removesuffix(ATTRIBUTES)
    return DatasetInfo(
        name,
        graphs=graphs,
        task="multiclass",
        metric="accuracy",
        split="folds",
        licence="none stated",
        source="TU Dortmund, Morris et al. 2020",
        url=f"{TUDataset.url}/{folder}.zip",
        places=(f"TUDataset/{folder}/raw", f"{folder}/raw"),
        megabytes=size,
        loader=load,
        options={"folder": folder, "attributes": folder != name},
    )


SETS = [
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
