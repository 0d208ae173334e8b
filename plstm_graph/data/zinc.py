"""ZINC: penalised logP of molecules, in the subset of 12,000 graphs that benchmarks use (Dwivedi et al. 2020)."""

import tempfile
from pathlib import Path
from typing import Any

from torch_geometric.datasets import ZINC

from plstm_graph.data import source
from plstm_graph.data.dataset import DatasetInfo, GraphDataset
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.splits import OFFICIAL, one_after_another
from plstm_graph.data.stacked import Stacked
from plstm_graph.errors import DataError

PARTS = {"train": "train", "valid": "val", "test": "test"}
ATOMS, BONDS = 28, 4  # types of the full set; bond type 0 does not occur


def load(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """The graphs of PyG's ``ZINC(subset=True)``, which reads the raw files: ``x`` [N, 1], ``edge_attr`` [M, 1]."""
    raw = info.find(root, _fetch)
    files = [raw / f"{part}.{kind}" for part in PARTS.values() for kind in ("pickle", "index")]
    content = source.cached(info.name, files, lambda: _read(raw))
    sizes = content.pop("sizes")
    stacked = Stacked(**content)
    info.check_count(len(stacked.nodes))
    parts = one_after_another(dict(zip(PARTS, sizes, strict=True)))
    features = FeatureSpec(node_sizes=(ATOMS,), edge_sizes=(BONDS,))
    return info.dataset(stacked.graphs(), ("penalised logP",), features, parts=parts)


def _read(raw: Path) -> dict[str, Any]:
    graphs, sizes = [], []
    with tempfile.TemporaryDirectory() as folder:  # PyG writes beside raw, which may be read-only
        (Path(folder) / "raw").symlink_to(raw.resolve(), target_is_directory=True)
        for part in PARTS.values():
            try:
                found = list(ZINC(folder, subset=True, split=part))
            except Exception as error:  # whatever unpickling a damaged file may raise
                raise DataError(f"PyG cannot read {raw}: {type(error).__name__}: {error}") from error
            sizes.append(len(found))
            graphs += found
    for graph in graphs:
        graph.edge_attr, graph.y = graph.edge_attr.view(-1, 1), graph.y.view(1, 1)
    return Stacked.of(graphs).plain() | {"sizes": sizes}


def _fetch(folder: Path) -> Path:
    raw = source.unzipped(ZINC.url, "molecules")(folder)
    for part in PARTS.values():
        source.fetch(ZINC.split_url.format(part), raw / f"{part}.index")
    return raw


SETS = [
    DatasetInfo(
        "ZINC",
        graphs=12000,
        task="regression",
        metric="mae",
        split=OFFICIAL,
        licence="MIT (benchmarking-gnns)",
        source="Irwin et al. 2012, Dwivedi et al. 2020",
        url=ZINC.url,
        places=("ZINC/raw",),
        loader=load,
    )
]
