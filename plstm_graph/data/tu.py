"""The TU Dortmund collection of graph data sets (Morris et al. 2020): its text files, and its download."""

import os
import tempfile
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch_geometric.data import Data

from plstm_graph.errors import DataError

URL = "https://www.chrsmrrs.com/graphkerneldatasets"
TIMEOUT = 60.0  # seconds without an answer


class TUGraphs(NamedTuple):
    """Graphs of one set, the vocabulary sizes of node and edge labels (one a column), and the number of classes."""

    graphs: list[Data]
    node_sizes: tuple[int, ...]
    edge_sizes: tuple[int, ...]
    num_classes: int


def find(name: str, root: str | Path | None = None) -> Path:
    """The folder with the raw text files of a set, downloaded into the cache if ``root`` is not given.

    ``root`` may be read-only and holds ``TUDataset/NAME/raw`` or ``NAME/raw``; nothing is written there.
    """
    if root is None:
        raw = cache_folder() / "TUDataset" / name / "raw"
        if not raw.is_dir():
            _download(name, raw)
        return raw
    choices = [Path(root) / "TUDataset" / name / "raw", Path(root) / name / "raw"]
    for folder in choices:
        if folder.is_dir():
            return folder
    raise DataError(
        f"{name} is not in {root}: there is neither {choices[0]} nor {choices[1]}; leave root out to download"
    )


def cache_folder() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/plstm_graph``, or ``~/.cache/plstm_graph``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "plstm_graph"


def read(folder: Path, name: str) -> TUGraphs:
    """Read ``NAME_A.txt`` and its companions.

    Every graph has ``x`` [N, columns] and, where the set labels edges, ``edge_attr`` [M, columns]: categories (int64),
    counted from the smallest label. A set without node labels gets the one category 0. ``edge_index`` [2, M] is
    sorted, without self-loops and repeated columns, as PyG's ``TUDataset`` has it. ``y`` [1] is the class, from 0.
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

    graphs = []
    for g in range(len(labels)):
        nodes, edges = slice(node_ptr[g], node_ptr[g + 1]), slice(edge_ptr[g], edge_ptr[g + 1])
        item = Data(
            x=torch.tensor(node[nodes]),
            edge_index=torch.tensor(ends[edges].T - node_ptr[g]).contiguous(),
            y=torch.tensor([int(y[g])]),
        )
        if edge is not None:
            item.edge_attr = torch.tensor(edge[kept[edges]])
        graphs.append(item)
    return TUGraphs(graphs, node_sizes, edge_sizes, len(classes))


def _labels(folder: Path, name: str, kind: str, rows: int) -> tuple[np.ndarray | None, tuple[int, ...]]:
    if not (folder / f"{name}_{kind}.txt").is_file():
        return None, ()
    labels = _table(folder, name, kind)
    if len(labels) != rows:
        raise DataError(f"{name}_{kind}.txt must have {rows} lines, got {len(labels)}: truncated? fetch it again")
    labels = labels - labels.min(axis=0)
    return labels, tuple(int(size) for size in labels.max(axis=0) + 1)


def _table(folder: Path, name: str, kind: str) -> np.ndarray:
    """Integers of a file, [lines, columns]."""
    path = folder / f"{name}_{kind}.txt"
    try:
        text = path.read_text()
        if not text.strip():
            raise DataError(f"{path} is empty")
        return np.loadtxt(text.splitlines(), delimiter=",", dtype=np.int64, ndmin=2)
    except FileNotFoundError as error:
        raise DataError(f"{name} is not complete: there is no file {path}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} must hold integers separated by commas: {str(error).splitlines()[0]}") from error


def _check(name: str, ends: np.ndarray, graph: np.ndarray, num_graphs: int) -> None:
    if ends.shape[1] != 2 or ends.min() < 0 or ends.max() >= len(graph):
        raise DataError(f"{name}_A.txt must hold pairs of nodes from 1 to {len(graph)}")
    if (np.diff(graph) < 0).any() or not np.array_equal(np.unique(graph), np.arange(num_graphs)):
        raise DataError(f"{name}_graph_indicator.txt must rise from 1 to the {num_graphs} graphs of the labels file")
    if (graph[ends[:, 0]] != graph[ends[:, 1]]).any():
        raise DataError(f"{name}_A.txt has an edge between two graphs")


def _download(name: str, raw: Path) -> None:
    """Fetch and unpack beside the target, then rename: an interrupted download leaves nothing half there."""
    url = f"{URL}/{name}.zip"
    try:
        raw.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=raw.parent) as folder:
            archive = Path(folder) / "archive.zip"
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                archive.write_bytes(answer.read())
            with zipfile.ZipFile(archive) as content:
                content.extractall(folder)
            (Path(folder) / name).rename(raw)
    except (OSError, HTTPException, zipfile.BadZipFile) as error:
        if raw.is_dir():  # another process was faster
            return
        raise DataError(
            f"cannot download {url} to {raw}: {error}; "
            f"unpack it by hand and give the folder that holds {name}/raw as root"
        ) from error
