"""Put the graphs of the benchmarks into one small file, for a machine without network, raw files, rdkit or ogb.

``python benchmarks/carry.py --root DATA`` writes ``build/graphs.npz``: the molecules of ogbg-molhiv with features,
labels and split, some peptides (these need rdkit and ogb here) and the circuits; ``speed.py --molecules-file`` reads
it.
"""

import argparse
import csv
import gzip
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import records

from plstm_graph.errors import DataError, PLSTMGraphError
from plstm_graph.files import atomic_write

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
    names = ("num-node-list", "num-edge-list", "edge", "node-feat", "edge-feat", "graph-label")
    nodes, counts, bonds, x, edge_attr, y = (_numbers(folder / "raw" / f"{name}.csv.gz") for name in names)
    if len(bonds) != 2 * counts.sum() or len(x) != 9 * nodes.sum() or not len(nodes) == len(counts) == len(y):
        raise DataError(
            f"the files in ogbg_molhiv/raw do not fit together: {len(bonds) // 2} edges, {counts.sum()} announced"
        )
    return {
        "nodes": nodes.astype(np.int16),
        "counts": counts.astype(np.int16),
        "bonds": bonds.reshape(-1, 2).T.astype(np.int16),
        "x": x.reshape(-1, 9).astype(np.uint8),
        "edge_attr": edge_attr.reshape(-1, 3).astype(np.uint8),
        "y": y.reshape(-1, 1).astype(np.uint8),
        "split": _split(folder / "split" / "scaffold", len(nodes), PARTS),
    }


def peptides(root: Path, count: int) -> Table:
    """The first ``count`` molecules of peptides-func from their SMILES, with OGB's features."""
    from plstm_graph.data.molecules import read_molecules

    folder = root / PEPTIDES
    with gzip.open(folder / "raw" / "peptide_multi_class_dataset.csv.gz", "rt") as stream:
        rows = list(csv.DictReader(stream))
    found, rejected = read_molecules(row["smiles"] for row in rows[:count])
    if rejected:
        raise DataError(f"{len(rejected)} peptides cannot be read, the first is row {rejected[0].row}")
    graphs = [graph for _, graph in found]
    return {
        "nodes": np.array([graph.num_nodes for graph in graphs], np.int16),
        "counts": np.array([graph.num_edges // 2 for graph in graphs], np.int16),
        "bonds": _joined((graph.edge_index[:, 0::2].numpy() for graph in graphs), np.int16, 1),
        "x": _joined((graph.x.numpy() for graph in graphs), np.uint8),
        "edge_attr": _joined((graph.edge_attr[0::2].numpy() for graph in graphs), np.uint8),
        "y": np.array([json.loads(row["labels"]) for row in rows[:count]], np.uint8),
        "split": _split(folder / "split", len(rows), ("train", "val", "test"))[:count],
    }


def circuits(root: Path) -> Table:
    """Contents of all binary AIGER files, by name."""
    files = sorted((root / "dag_EPFL_aig").glob("*.aig.gz"))
    return {
        path.name.removesuffix(".aig.gz"): np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8) for path in files
    }


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


def _numbers(path: Path) -> np.ndarray:
    """All whole numbers of a compressed CSV file."""
    text = gzip.decompress(path.read_bytes()).decode().replace("\n", ",").rstrip(",")
    return np.fromstring(text, dtype=np.int64, sep=",")


def _split(folder: Path, count: int, files: tuple[str, ...]) -> np.ndarray:
    """Part of each molecule, 0 to 2."""
    split = np.full(count, 255, np.uint8)
    for part, name in enumerate(files):
        split[_numbers(folder / f"{name}.csv.gz")] = part
    return split


def _joined(parts: Iterable[np.ndarray], dtype: type, axis: int = 0) -> np.ndarray:
    return np.concatenate([part.astype(dtype) for part in parts], axis)


def main(arguments: list[str] | None = None) -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with ogb, peptides-func and dag_EPFL_aig")
    parser.add_argument("--peptides", type=int, default=3000, help="at most so many of the 15,535; 0 for none")
    parser.add_argument("--out", type=Path, default=records.ROOT / "build" / "graphs.npz")
    options = parser.parse_args(arguments)
    try:
        tables = {MOLHIV: molhiv(options.root), CIRCUITS: circuits(options.root)}
        if options.peptides:
            tables[PEPTIDES] = peptides(options.root, options.peptides)
        write(options.out, tables)
    except (PLSTMGraphError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out.name}: {', '.join(tables)}; {options.out.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
