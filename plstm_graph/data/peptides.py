"""Peptides of the Long Range Graph Benchmark (Dwivedi et al. 2022): functions, and properties of the 3D structure."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plstm_graph.data import ogbg, source
from plstm_graph.data.dataset import MOLECULE, DatasetInfo, GraphDataset
from plstm_graph.data.molecules import OGB, read_molecules
from plstm_graph.data.splits import OFFICIAL, Split
from plstm_graph.data.stacked import Stacked
from plstm_graph.data.tables import Table, read_table
from plstm_graph.errors import DataError

URL = "https://www.dropbox.com/s"
FUNCTION_FILE = "peptide_multi_class_dataset.csv.gz"
SPLIT = "splits_random_stratified_peptide.pickle"
SPLIT_MD5 = "5a0114bdadc80b94fc7ae974f13ef061"  # both sets are split alike
FUNCTIONS = (
    *("antifungal", "cell_cell_communication", "anticancer", "drug_delivery_vehicle", "antimicrobial", "antiviral"),
    *("antihypertensive", "antibacterial", "antiparasitic", "toxic"),
)
PROPERTIES = (
    *("Inertia_mass_a", "Inertia_mass_b", "Inertia_mass_c"),
    *("Inertia_valence_a", "Inertia_valence_b", "Inertia_valence_c"),
    *("length_a", "length_b", "length_c", "Spherocity", "Plane_best_fit"),
)


def _functions(table: Table) -> Tensor:
    return torch.tensor([json.loads(cell) for cell in table.column("labels")], dtype=torch.float)


def _properties(table: Table) -> Tensor:
    """In standard deviations from the mean over all peptides, as the benchmark reports its errors."""
    values = torch.tensor(table.labels(PROPERTIES), dtype=torch.float64)
    return ((values - values.mean(0)) / values.std(0)).float()


def load(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """Molecules from their SMILES, with OGB's features, and the benchmark's stratified split."""
    file, md5, _ = info.options["file"]
    files = {f"raw/{file}": (info.url, md5), SPLIT: (f"{URL}/j4zcnx2eipuo0xz/{SPLIT}?dl=1", SPLIT_MD5)}
    folder = info.find(root, source.fetched(files))
    path = folder / "raw" / file
    labels: Callable[[Table], Tensor] = info.options["labels"]
    stacked = Stacked(**source.cached(info.name, [path], lambda: read(path, labels).plain()))
    info.check_count(len(stacked.nodes))
    return info.dataset(stacked.graphs(), info.options["targets"], MOLECULE, parts=read_split(folder), featuriser=OGB)


def read(path: Path, labels: Callable[[Table], Tensor] = _functions, count: int | None = None) -> Stacked:
    """The first ``count`` molecules of a file (all without), with their labels."""
    table = read_table(path)
    texts = table.smiles()[:count]
    graphs, rejected = read_molecules(texts, OGB)
    if rejected:
        raise DataError(f"{path.name}, row {rejected[0].row}: {rejected[0].reason}")
    content: dict[str, Any] = Stacked.of([graph for _, graph in graphs]).plain()
    return Stacked(**content | {"y": labels(table)[: len(texts)]})


def read_split(folder: Path) -> Split:
    """The benchmark's split: one file a part, or else the published file."""
    if (folder / "split").is_dir():
        return ogbg.read_split(folder / "split", ("train", "val", "test"))
    content = source.read_bytes(folder / SPLIT)
    if source.md5(content) != SPLIT_MD5:  # before it is unpickled
        raise DataError(f"{folder / SPLIT} is not the published file; fetch it again")
    parts = pickle.loads(content)
    return {name: parts[key].tolist() for name, key in (("train", "train"), ("valid", "val"), ("test", "test"))}


def _row(
    name: str, task: str, metric: str, code: str, file: tuple[str, str, float | None], labels: Any, targets: Any
) -> DatasetInfo:
    return DatasetInfo(
        name,
        graphs=15535,
        task=task,
        metric=metric,
        split=OFFICIAL,
        licence="CC BY-NC 4.0",
        source="LRGB, Dwivedi et al. 2022",
        url=f"{URL}/{code}/{file[0]}?dl=1",
        places=(name,),
        megabytes=file[2],
        loader=load,
        options={"file": file, "labels": labels, "targets": targets},
    )


_FUNCTIONS_FILE = (FUNCTION_FILE, "701eb743e899f4d793f0e13c8fa5a1b4", 0.9)
_STRUCTURE_FILE = ("peptide_structure_dataset.csv.gz", "9786061a34298a0684150f2e4ff13f47", None)
SETS = [
    _row("peptides-func", "binary", "ap", "ol2v01usvaxbsr8", _FUNCTIONS_FILE, _functions, FUNCTIONS),
    _row("peptides-struct", "regression", "mae", "464u3303eu2u4zp", _STRUCTURE_FILE, _properties, PROPERTIES),
]
