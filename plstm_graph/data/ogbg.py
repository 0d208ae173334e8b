"""OGB's graph property data (Hu et al. 2020): molecules, and syntax trees of Python functions, from its raw files."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.canonical import weisfeiler_lehman_rank
from plstm_graph.data import source
from plstm_graph.data.column_splits import PARTS
from plstm_graph.data.dataset import MOLECULE, DatasetInfo, GraphDataset
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.molecules import OGB, canonical_rank
from plstm_graph.data.smiles import UnreadableSMILES
from plstm_graph.data.splits import OFFICIAL, Split
from plstm_graph.data.stacked import Stacked
from plstm_graph.errors import DataError, first_line, missing_extra

log = logging.getLogger(__name__)

URL = "http://snap.stanford.edu/ogb/data/graphproppred"
RAW = ("num-node-list", "num-edge-list", "edge", "node-feat", "graph-label")
PLACES, WORDS, DEPTH = 5, 5000, 20  # of ogbg-code2: words predicted, words known, deepest node told apart


def load_molecules(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """The stored graphs (OGB's features, each bond as two neighbouring columns), not graphs made from the SMILES."""
    folder = _find(info, root)
    content = source.cached(info.name, _files(folder, "edge-feat", "mapping/mol"), lambda: _molecules(folder).plain())
    stacked = Stacked(**content)
    info.check_count(len(stacked.nodes))
    names = [name for name in _frame(folder / "mapping" / "mol.csv.gz", nrows=0, header=0).columns if name != "smiles"]
    targets = tuple(str(name) for name in names)[: info.options["targets"]]
    if stacked.y is None or stacked.y.shape[1] != len(targets):
        raise DataError(f"{info.name} must have {info.options['targets']} targets; its label files are not complete")
    parts = read_split(folder / "split" / "scaffold")
    return info.dataset(stacked.graphs(), targets, MOLECULE, parts=parts, featuriser=OGB)


def _molecules(folder: Path) -> Stacked:
    stacked = read(folder)
    smiles = _frame(folder / "mapping" / "mol.csv.gz", header=0, usecols=["smiles"], keep_default_na=False)["smiles"]
    if len(smiles) != len(stacked.nodes):
        raise DataError(f"{folder / 'mapping'} has {len(smiles)} molecules, the graphs are {len(stacked.nodes)}")
    content = stacked.plain() | {"y": read_labels(folder), "smiles": smiles.tolist()}
    graphs = Stacked(**content).graphs()
    return Stacked(**content | {"rank": torch.cat(list(_ranks(graphs, folder.name)))})


def _ranks(graphs: Sequence[Data], name: str) -> Iterable[Tensor]:
    """Canonical ranks by rdkit; by Weisfeiler-Lehman colours where it cannot read a molecule or sees other atoms."""
    missed = 0
    for graph in graphs:
        try:
            rank = canonical_rank(graph.smiles)
        except UnreadableSMILES:
            rank = torch.empty(0)
        if len(rank) != graph.num_nodes:
            missed += 1
            rank = weisfeiler_lehman_rank(graph)
        yield rank
    if missed:
        log.info("%s: %d of %d molecules are unknown to rdkit and ranked by WL colours", name, missed, len(graphs))


def read(folder: Path, inverse: bool = True) -> Stacked:
    """Graphs of a folder in OGB's layout, without labels.

    Args:
        folder: holds ``raw/edge.csv.gz`` and its companions.
        inverse: each stored edge gives two neighbouring columns, one a direction, as OGB's loader does for molecules.

    Raises:
        DataError: a file is missing or damaged, or they do not fit together.
    """
    raw = folder / "raw"
    nodes, edges = (_table(raw / f"{kind}.csv.gz", int)[:, 0] for kind in ("num-node-list", "num-edge-list"))
    ends, x = (_table(raw / f"{kind}.csv.gz", int) for kind in ("edge", "node-feat"))
    attributes = _table(raw / "edge-feat.csv.gz", int) if (raw / "edge-feat.csv.gz").is_file() else None
    fits = len(nodes) == len(edges) and len(ends) == edges.sum() and len(x) == nodes.sum() and ends.shape[1:] == (2,)
    fits = fits and (attributes is None or len(attributes) == len(ends))
    if not fits or ((ends < 0) | (ends >= np.repeat(nodes, edges)[:, None])).any():
        raise DataError(f"the files in {raw} do not fit together: {len(ends)} edges, {edges.sum()} announced")
    edge_index = torch.from_numpy(ends.T)
    edge_attr = None if attributes is None else torch.from_numpy(attributes)
    columns = torch.from_numpy(edges)
    if inverse:
        edge_index = torch.stack([edge_index, edge_index.flip(0)], -1).view(2, -1)
        edge_attr = edge_attr if edge_attr is None else edge_attr.repeat_interleave(2, 0)
        columns = 2 * columns
    return Stacked(torch.from_numpy(nodes), columns, torch.from_numpy(x), edge_index, edge_attr)


def read_labels(folder: Path) -> Tensor:
    """Labels of the graphs of a folder in OGB's layout, float [G, targets] with NaN where there is none."""
    return torch.from_numpy(_table(folder / "raw" / "graph-label.csv.gz", float)).float()


def read_split(folder: Path, names: tuple[str, ...] = PARTS) -> Split:
    """The parts of a published split: numbers of graphs in ``names`` (train, valid and test), each once."""
    parts = [_table(folder / f"{name}.csv.gz", int)[:, 0] for name in names]
    together = np.sort(np.concatenate(parts))
    if not np.array_equal(together, np.arange(len(together))):
        raise DataError(f"the parts in {folder} must hold the number of each graph once, from 0 to {len(together) - 1}")
    return dict(zip(PARTS, (part.tolist() for part in parts), strict=True))


def load_code(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """ogbg-code2: trees of Python functions with their tokens in a row, as DAGs; predict the words of the name.

    Nodes have three categories: type, attribute and depth (from 20 on all are alike). Edges run from a node to its
    parts (0), and from each node with an attribute to the next one (1), as OGB's example adds them.
    """
    folder = _find(info, root)
    files = _files(folder, "node_depth", "node_is_attributed", "mapping/typeidx2type", "mapping/attridx2attr")
    files += [folder / "split" / "project" / f"{part}.csv.gz" for part in PARTS]
    content = source.cached(info.name, files, lambda: _code(folder))
    parts, words, sizes = (content.pop(key) for key in ("parts", "words", "sizes"))
    stacked = Stacked(**content)
    info.check_count(len(stacked.nodes))
    targets = tuple(f"word {place + 1}" for place in range(PLACES))
    features = FeatureSpec(node_sizes=tuple(sizes), edge_sizes=(2,))
    return info.dataset(stacked.graphs(), targets, features, {"words": tuple(words)}, parts=parts)


def _code(folder: Path) -> dict[str, Any]:
    stacked = read(folder, inverse=False)
    depth, attributed = (
        torch.from_numpy(_table(folder / "raw" / f"node_{kind}.csv.gz", int)[:, 0])
        for kind in ("depth", "is_attributed")
    )
    if not len(depth) == len(attributed) == len(stacked.x):
        raise DataError(
            f"the files in {folder / 'raw'} do not fit together: {len(depth)} depths, {len(stacked.x)} nodes"
        )
    parts = read_split(folder / "split" / "project")
    # A function called null is called nan here, as OGB's loader has it.
    names = [str(name).split(" ") for name in _frame(folder / "raw" / "graph-label.csv.gz")[0]]
    words, y = number_words(names, parts["train"])
    sizes = [len(_frame(folder / "mapping" / f"{kind}.csv.gz", header=0)) for kind in ("typeidx2type", "attridx2attr")]
    edge_index, edge_attr, columns = _with_next_tokens(stacked, attributed == 1)
    if bool((edge_index[0] >= edge_index[1]).any()):
        raise DataError(f"{folder.name} must number nodes depth first, so that edges run to higher numbers")
    first = stacked.nodes.cumsum(0) - stacked.nodes
    rank = torch.arange(len(stacked.x)) - first.repeat_interleave(stacked.nodes)
    x = torch.cat([stacked.x, depth.clamp(max=DEPTH)[:, None]], 1)
    content = Stacked(stacked.nodes, columns, x, edge_index, edge_attr, y, rank).plain()
    return content | {"parts": parts, "words": words, "sizes": [*sizes, DEPTH + 1]}


def _with_next_tokens(stacked: Stacked, attributed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The edges of the trees, then those along the tokens, graph by graph; their kind; and how many a graph has."""
    size = len(stacked.nodes)
    owner = torch.arange(size).repeat_interleave(stacked.nodes)
    first = stacked.nodes.cumsum(0) - stacked.nodes
    tokens = torch.nonzero(attributed).view(-1)
    same = owner[tokens[:-1]] == owner[tokens[1:]]
    rows = torch.stack([tokens[:-1][same], tokens[1:][same]])
    graph = owner[rows[0]]
    both = torch.cat([stacked.edge_index, rows - first[graph]], 1)
    kind = torch.cat([torch.zeros(stacked.edge_index.shape[1], 1), torch.ones(len(graph), 1)]).long()
    graphs = torch.cat([torch.arange(size).repeat_interleave(stacked.columns), graph])
    order = torch.argsort(graphs, stable=True)
    return both[:, order], kind[order], torch.bincount(graphs, minlength=size)


def number_words(names: list[list[str]], train: Iterable[int]) -> tuple[list[str], Tensor]:
    """Words of names as numbers.

    The most frequent words of the training part get the first numbers, by falling count and then by first appearance.
    Two numbers follow that no word has: unknown, and end. All other words come after them, so that a name can be
    compared with a prediction whether or not its words are known.

    Returns:
        The known words, and numbers [names, longest] with -1 after the last word.
    """
    counts = Counter(word for number in train for word in names[number])
    known = [word for word, _ in counts.most_common(WORDS)]
    numbers = {word: number for number, word in enumerate(known)}
    shift = 2
    y = torch.full((len(names), max(map(len, names))), -1)
    for row, name in zip(y, names, strict=True):
        for word in name:
            if word not in numbers:
                numbers[word] = len(numbers) + shift
        row[: len(name)] = torch.tensor([numbers[word] for word in name])
    return known, y


def _find(info: DatasetInfo, root: str | Path | None) -> Path:
    inner = info.url.rpartition("/")[2].removesuffix(".zip")
    return info.find(root, source.unzipped(info.url, inner))


def _files(folder: Path, *others: str) -> list[Path]:
    paths = [Path(name) if "/" in name else Path("raw", name) for name in (*RAW, *others)]
    return [folder / path.with_name(f"{path.name}.csv.gz") for path in paths]


def _table(path: Path, kind: type) -> np.ndarray:
    """Numbers of a file, [lines, columns]; whole ones, or floats with NaN where there is none."""
    values = _frame(path).to_numpy()
    if values.dtype.kind not in ("iu" if kind is int else "iufb"):
        raise DataError(f"{path} must hold {'whole numbers' if kind is int else 'numbers'} separated by commas")
    return np.array(values, dtype=np.int64 if kind is int else np.float64)  # a copy: pandas' may be read-only


def _frame(path: Path, **options: Any) -> Any:
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise DataError(missing_extra("pandas", "train")) from error
    content = BytesIO(source.read_bytes(path))
    try:
        return pandas.read_csv(content, **{"header": None} | options)
    except ValueError as error:  # as pandas' own errors are
        raise DataError(f"cannot read {path}: {first_line(error)}") from error


def _row(
    name: str, archive: str, graphs: int | None, targets: int, task: str, metric: str, size: float | None = None
) -> DatasetInfo:
    code = name == "code2"
    url = f"{URL}/{archive}.zip" if code else f"{URL}/csv_mol_download/{archive}.zip"
    folder = f"ogbg_{name}"
    return DatasetInfo(
        f"ogbg-{name}",
        graphs=graphs,
        task=task,
        metric=metric,
        split=OFFICIAL,
        licence="MIT",
        source="OGB, Hu et al. 2020",
        url=url,
        places=(f"ogb/{folder}", folder),
        megabytes=size,
        loader=load_code if code else load_molecules,
        options={"targets": targets},
    )


SETS = [
    _row("molhiv", "hiv", 41127, 1, "binary", "rocauc", 2.1),
    _row("molpcba", "pcba", 437929, 128, "binary", "ap"),
    _row("molbace", "bace", 1513, 1, "binary", "rocauc", 0.1),
    _row("molbbbp", "bbbp", 2039, 1, "binary", "rocauc", 0.1),
    _row("molclintox", "clintox", 1477, 2, "binary", "rocauc", 0.1),
    _row("molmuv", "muv", 93087, 17, "binary", "ap"),
    _row("molsider", "sider", 1427, 27, "binary", "rocauc", 0.1),
    _row("moltox21", "tox21", 7831, 12, "binary", "rocauc", 0.4),
    _row("moltoxcast", "toxcast", 8576, 617, "binary", "rocauc"),
    _row("molesol", "esol", 1128, 1, "regression", "rmse", 0.1),
    _row("molfreesolv", "freesolv", 642, 1, "regression", "rmse", 0.1),
    _row("mollipo", "lipophilicity", 4200, 1, "regression", "rmse", 0.3),
    _row("molchembl", "chembl", None, 1310, "binary", "rocauc"),
    _row("code2", "code2", 452741, 1, "tokens", "f1"),
]
