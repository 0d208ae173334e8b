"""Data sets: molecules, CSV files, TUDatasets, and how they are split."""

from plstm_graph.data.datasets import DATASETS, DatasetInfo, GraphDataset, load, load_csv
from plstm_graph.data.molecules import Rejected, depict, fingerprints, layout, scaffold, smiles_to_data
from plstm_graph.data.packed import PackedGraphs, PackedLoader
from plstm_graph.data.splits import SPLITS, make_split
from plstm_graph.data.tables import read_smiles

__all__ = [
    "DATASETS",
    "SPLITS",
    "DatasetInfo",
    "GraphDataset",
    "PackedGraphs",
    "PackedLoader",
    "Rejected",
    "depict",
    "fingerprints",
    "layout",
    "load",
    "load_csv",
    "make_split",
    "read_smiles",
    "scaffold",
    "smiles_to_data",
]
