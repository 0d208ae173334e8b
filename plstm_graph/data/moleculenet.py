"""MoleculeNet (Wu et al. 2018): SMILES and labels, by PyG's table of where they are."""

from pathlib import Path

import torch
from torch_geometric.datasets import MoleculeNet

from plstm_graph.data import source
from plstm_graph.data.dataset import MOLECULE, DatasetInfo, GraphDataset
from plstm_graph.data.molecules import CIP, Rejected, read_molecules
from plstm_graph.data.stacked import Stacked
from plstm_graph.data.tables import read_table
from plstm_graph.errors import DataError


def load(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """Molecules from their SMILES, featurised as by :func:`smiles_to_data`; unreadable rows are in ``rejected``."""
    folder = info.find(root, source.fetched({info.url.rpartition("/")[2]: (info.url, None)}))
    path = source.plain_or_packed(folder / f"{info.options['file']}.csv")
    if not path.is_file():
        raise DataError(f"{info.name} is not complete: there is no {info.options['file']}.csv in {folder}")
    table = read_table(path)
    smiles, labels = info.options["columns"]
    featuriser = info.options["featuriser"]
    names = table.columns[labels] if isinstance(labels, slice) else (table.columns[labels],)
    if info.graphs is not None and len(table.rows) < info.graphs:
        raise DataError(f"{path} must have {info.graphs} rows, got {len(table.rows)}: truncated? fetch it again")

    def build() -> dict[str, object]:
        found, rejected = read_molecules(table.column(table.columns[smiles]), featuriser)
        rows = [row for row, _ in found]
        return Stacked.of([graph for _, graph in found]).plain() | {"rows": rows, "rejected": [[*r] for r in rejected]}

    content = source.cached(f"{info.name}-{featuriser}", [path], build)
    rows, rejected = content.pop("rows"), [Rejected(*row) for row in content.pop("rejected")]
    y = torch.tensor(table.labels(names), dtype=torch.float)[torch.tensor(rows) - 1]
    graphs = Stacked(**content | {"y": y}).graphs()
    return info.dataset(graphs, tuple(names), MOLECULE, rejected=rejected, featuriser=featuriser)


def _row(key: str, rows: int, task: str = "binary", metric: str = "rocauc") -> DatasetInfo:
    _, archive, file, smiles, labels = MoleculeNet.names[key]
    return DatasetInfo(
        key,
        graphs=rows,
        task=task,
        metric=metric,
        split="scaffold",
        licence="MIT (DeepChem)",
        source="MoleculeNet, Wu et al. 2018",
        url=MoleculeNet.url.format(archive),
        places=(f"MoleculeNet/{key}/raw", f"{key}/raw"),
        loader=load,
        options={"file": file, "columns": (smiles, labels), "featuriser": CIP},
    )


SETS = [
    _row("esol", 1128, "regression", "rmse"),
    _row("freesolv", 642, "regression", "rmse"),
    _row("lipo", 4200, "regression", "rmse"),
    _row("pcba", 437929, metric="ap"),
    _row("muv", 93087, metric="ap"),
    _row("hiv", 41127),
    _row("bace", 1513),
    _row("bbbp", 2050),
    _row("tox21", 7831),
    _row("toxcast", 8597),
    _row("sider", 1427),
    _row("clintox", 1484),
]
