"""The embedded data set: molecules that the rdkit wheel carries, with measured activities."""

import csv
from pathlib import Path

import torch

from plstm_graph.data.dataset import MOLECULE, DatasetInfo, GraphDataset
from plstm_graph.data.molecules import CIP, read_molecules
from plstm_graph.data.smiles import contrib_folder
from plstm_graph.errors import DataError


def load_nav17(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """The molecules of ChEMBL document CHEMBL2321810 that the rdkit wheel carries, with their measured pIC50.

    ``CHEMBL2321810.smi`` (SMILES, id) and ``CHEMBL2321810_act.csv`` (id, activity) have the same 1,017 ids, each once,
    and no structure stands there twice (canonical SMILES). The activity is -log10 of IC50 in mol/l, 4.27 to 9.22 with
    mean 6.55 and standard deviation 1.09: inhibitors (aryl sulfonamides) of the sodium channel Nav1.7.
    """
    folder = Path(contrib_folder()) / "FreeWilson" / "data"
    files = folder / "CHEMBL2321810.smi", folder / "CHEMBL2321810_act.csv"
    try:
        molecules = [line.split() for line in files[0].read_text().splitlines() if line.strip()]
        activity = {name: float(value) for name, value in list(csv.reader(files[1].read_text().splitlines()))[1:]}
    except (OSError, ValueError) as error:
        raise DataError(
            f"this rdkit does not carry nav17 in {folder} ({error}); install its wheel from PyPI"
        ) from error
    graphs, rejected = read_molecules((smiles for smiles, _ in molecules), info.options["featuriser"])
    for row, graph in graphs:
        graph.y = torch.tensor([[activity[molecules[row - 1][1]]]], dtype=torch.float)
    found = [graph for _, graph in graphs]
    info.check_count(len(found))
    return info.dataset(found, ("pIC50",), MOLECULE, rejected=rejected, featuriser=info.options["featuriser"])


SETS = [
    DatasetInfo(
        "nav17",
        graphs=1017,
        task="regression",
        metric="r2",
        split="random",
        licence="BSD-3-Clause (rdkit), data CC BY-SA 3.0 (ChEMBL)",
        source="rdkit Contrib/FreeWilson, ChEMBL document CHEMBL2321810",
        url="https://pypi.org/project/rdkit",
        loader=load_nav17,
        options={"featuriser": CIP},
    )
]
