"""Put the graphs of the benchmarks into one small file, for a machine without network, raw files, rdkit or ogb.

``python benchmarks/carry.py --root DATA`` writes ``build/graphs.npz``: the molecules of ogbg-molhiv with features,
labels and split, some peptides (these need rdkit and ogb here) and the circuits; ``speed.py --molecules-file`` reads
it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import records
from torch import Tensor

from plstm_graph.data import ogbg, source
from plstm_graph.data.aiger import circuit_files
from plstm_graph.data.peptides import FUNCTION_FILE, read_split
from plstm_graph.data.peptides import read as read_peptides
from plstm_graph.data.splits import Split
from plstm_graph.data.stacked import Stacked
from plstm_graph.errors import DataError
from plstm_graph.io.files import atomic_write

MOLHIV, PEPTIDES, CIRCUITS = "ogbg-molhiv", "peptides-func", "circuits"
PARTS = ("train", "valid", "test")

Table = dict[str, np.ndarray]
"""Molecules one after the other: ``nodes`` and ``counts`` [G] atoms and bonds of each, ``bonds`` [2, B] by the atoms'
numbers inside their molecule, ``x`` [atoms, 9], ``edge_attr`` [B, 3], ``y`` [G, targets], ``split`` [G] one of PARTS.
Circuits: their files, by name."""


def molhiv(root: Path) -> Table:
    """All of ogbg-molhiv from its raw files."""
    folder = root / "ogb" / "ogbg_molhiv"
    if not (folder / "raw").is_dir():
        raise DataError(f"no ogb/ogbg_molhiv/raw below {root}; leave out --root to time on random graphs")
    found = ogbg.read(folder)
    return packed(found, ogbg.read_labels(folder), ogbg.read_split(folder / "split" / "scaffold"))


def peptides(root: Path, count: int) -> Table:
    """The first ``count`` molecules of peptides-func from their SMILES, with OGB's features."""
    found = read_peptides(root / PEPTIDES / "raw" / FUNCTION_FILE, count=count)
    assert found.y is not None
    return packed(found, found.y, read_split(root / PEPTIDES))


def packed(graphs: Stacked, labels: Tensor, split: Split) -> Table:
    """Graphs with two neighbouring columns a bond as a table; ``split`` may know more of them."""
    assert graphs.edge_attr is not None
    part = np.empty(sum(map(len, split.values())), np.uint8)
    for number, name in enumerate(PARTS):
        part[split[name]] = number
    return {
        "nodes": graphs.nodes.numpy().astype(np.int16),
        "counts": (graphs.columns // 2).numpy().astype(np.int16),
        "bonds": graphs.edge_index[:, 0::2].numpy().astype(np.int16),
        "x": graphs.x.numpy().astype(np.uint8),
        "edge_attr": graphs.edge_attr[0::2].numpy().astype(np.uint8),
        "y": labels.numpy().astype(np.uint8),
        "split": part[: len(graphs.nodes)],
    }


def circuits(root: Path) -> Table:
    """Contents of all binary AIGER files, by name."""
    folder = root / "dag_EPFL_aig"
    files = circuit_files(folder) if folder.is_dir() else {}
    return {name: np.frombuffer(source.read_bytes(path), np.uint8) for name, path in files.items()}


def write(path: Path, tables: dict[str, Table]) -> None:
    """One file of all tables, compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = {f"{name}/{key}": value for name, table in tables.items() for key, value in table.items()}
    with atomic_write(path) as temp, temp.open("wb") as stream:
        np.savez_compressed(stream, **flat)  # type: ignore[arg-type]  # names are not its option


def read(path: Path) -> dict[str, Table]:
    """Tables by name, as :func:`write` got them."""
    if not path.is_file():
        raise DataError(f"no file {path}; benchmarks/carry.py writes it from raw files")
    tables: dict[str, Table] = {}
    with np.load(path) as stored:
        for key in stored.files:
            name, _, column = key.partition("/")
            tables.setdefault(name, {})[column] = stored[key]
    return tables


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with ogb, peptides-func and dag_EPFL_aig")
    parser.add_argument("--peptides", type=int, default=3000, help="at most so many of the 15,535; 0 for none")
    parser.add_argument("--out", type=Path, default=records.ROOT / "build" / "graphs.npz")
    options = parser.parse_args(arguments)
    tables = {MOLHIV: molhiv(options.root), CIRCUITS: circuits(options.root)}
    if options.peptides:
        tables[PEPTIDES] = peptides(options.root, options.peptides)
    write(options.out, tables)
    print(f"{options.out.name}: {', '.join(tables)}; {options.out.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
