"""How far one block reads, by the order of the atoms: ``python benchmarks/reach.py nav17 ogbg-molhiv --root DATA``.

The share of ordered pairs of two atoms of one molecule whose atoms a path joins that runs along the edges or against
them, in 1, 2 and 4 blocks that read both ways. It holds for P mode; pruning takes paths from D mode. Layers of one hop
beside it. A row each goes to ``results/reach.jsonl``.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import records
import torch
from torch_geometric.data import Data

from plstm_graph import LineDAG
from plstm_graph.data import load_graphs
from plstm_graph.orient import SEARCHES
from plstm_graph.transforms import OrientDAG

ORDERS = ("canonical", *SEARCHES, "degree", "random", "bfs", "dfs", "index")
BLOCKS = (1, 2, 4)
ONE_HOP = "one hop"


def joined(graph: Data, order: str) -> tuple[np.ndarray, int]:
    """Which node reads which in one block, [N, N], and the levels of the line graph."""
    nodes = int(graph.num_nodes)
    rank = OrientDAG(order)(graph.clone()).rank if order in ("canonical", *SEARCHES) else order
    dag = LineDAG.from_edge_index(graph.edge_index, nodes, order="index" if order == ONE_HOP else rank)
    along = np.eye(nodes, dtype=bool)
    along[dag.src.numpy(), dag.dst.numpy()] = True
    along = along if order == ONE_HOP else closed(along)
    return along | along.T, dag.num_levels


def closed(reach: np.ndarray) -> np.ndarray:
    """With all that several steps reach."""
    while True:
        further = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
        if (further == reach).all():
            return reach
        reach = further


def row(graphs: Iterable[Data], order: str) -> dict[str, Any]:
    """Shares over all pairs of all molecules."""
    found, pairs, levels = dict.fromkeys(BLOCKS, 0), 0, []
    for graph in graphs:
        reach, height = joined(graph, order)
        whole = closed(reach).sum() - len(reach)
        pairs += int(whole)
        levels.append(height)
        power = reach.astype(np.float32)
        for blocks in range(1, max(BLOCKS) + 1):
            if blocks in found:
                found[blocks] += int((power > 0).sum()) - len(reach)
            power = ((power @ reach) > 0).astype(np.float32)
    shares = {f"blocks_{blocks}": round(count / pairs, 4) for blocks, count in found.items()}
    return {"order": order, "molecules": len(levels), "levels": round(float(np.mean(levels)), 2), **shares}


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Prints and stores the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="data sets by name")
    parser.add_argument("--root", help="folder with public data")
    parser.add_argument("--molecules", type=int, default=1000, help="the first so many")
    parser.add_argument("--out", type=Path, default=records.RESULTS / "reach.jsonl")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    for data in options.data:
        graphs = load_graphs(data, root=options.root).graphs[: options.molecules]
        for order in (*ORDERS, ONE_HOP):
            found = {"data": data, **row(graphs, order)}
            print(found, flush=True)
            records.append(options.out, found | records.provenance("cpu"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
