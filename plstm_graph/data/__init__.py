"""Data sets by name, CSV files of molecules, and how they are split. Names load on first use."""

from typing import TYPE_CHECKING

from plstm_graph.io.lazy import loaded_on_use

if TYPE_CHECKING:
    from plstm_graph.data.aiger import read_aiger
    from plstm_graph.data.dataset import DatasetInfo, GraphDataset
    from plstm_graph.data.datasets import DATASETS, load, load_graphs
    from plstm_graph.data.depiction import depict, layout
    from plstm_graph.data.molecules import Rejected, smiles_to_data
    from plstm_graph.data.packed import PackedGraphs, PackedLoader
    from plstm_graph.data.prepared import PreparedDataset, read_prepared, write_prepared
    from plstm_graph.data.smiles import scaffold
    from plstm_graph.data.smiles_files import load_csv
    from plstm_graph.data.splits import SPLITS, make_split
    from plstm_graph.data.tables import read_smiles
    from plstm_graph.data.vectors import fingerprints

__all__ = [
    "DATASETS",
    "SPLITS",
    "DatasetInfo",
    "GraphDataset",
    "PackedGraphs",
    "PackedLoader",
    "PreparedDataset",
    "Rejected",
    "depict",
    "fingerprints",
    "layout",
    "load",
    "load_csv",
    "load_graphs",
    "make_split",
    "read_aiger",
    "read_prepared",
    "read_smiles",
    "scaffold",
    "smiles_to_data",
    "write_prepared",
]

_HOME = {
    "DATASETS": "datasets",
    "DatasetInfo": "dataset",
    "GraphDataset": "dataset",
    "PackedGraphs": "packed",
    "PackedLoader": "packed",
    "PreparedDataset": "prepared",
    "Rejected": "molecules",
    "SPLITS": "splits",
    "depict": "depiction",
    "fingerprints": "vectors",
    "layout": "depiction",
    "load": "datasets",
    "load_csv": "smiles_files",
    "load_graphs": "datasets",
    "make_split": "splits",
    "read_aiger": "aiger",
    "read_prepared": "prepared",
    "read_smiles": "tables",
    "scaffold": "smiles",
    "smiles_to_data": "molecules",
    "write_prepared": "prepared",
}
__getattr__, __dir__ = loaded_on_use(__name__, _HOME, globals())
