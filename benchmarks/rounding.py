"""What bfloat16 costs a layer, and where: ``python benchmarks/rounding.py``.

One ``PLSTMConv`` on molecules of nav17 with random features, in float64, beside the same with its weights rounded to
bfloat16, with its features rounded as well, and computed in bfloat16 altogether. The row goes to
``results/rounding.jsonl``.
"""

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import records
import torch
from torch import Tensor
from torch_geometric.data import Batch

from plstm_graph import LineDAG, PLSTMConv
from plstm_graph.data import load_graphs

FILE = "rounding.jsonl"
SMALL = 0.1
"""Outputs below this share of their mean size are small."""


def errors(found: Tensor, exact: Tensor) -> dict[str, float]:
    """Errors over the mean size of an output, and relative ones, of all outputs and of small ones."""
    size = exact.abs().mean()
    error = (found.double() - exact).abs()
    relative = error / exact.abs()
    small = exact.abs() < SMALL * size
    return {
        "mean": float(error.mean() / size),
        "largest": float(error.max() / size),
        "relative": float(relative.median()),
        "relative_small": float(relative[small].median()),
        "off_by_a_tenth": float((relative > 0.1).double().mean()),
    }


def measure(molecules: int, heads: int, width: int, seed: int) -> dict[str, dict[str, float]]:
    """Errors by what was rounded; mean size and gates of a layer as it is built."""
    graphs = Batch.from_data_list(load_graphs("nav17").graphs[:molecules])
    edges = graphs.edge_index
    dag = LineDAG.from_edge_index(edges, graphs.num_nodes, order=graphs.rank, batch=graphs.batch)
    torch.manual_seed(seed)
    x = torch.randn(dag.num_nodes, heads * width, dtype=torch.float64)
    layer = PLSTMConv(heads * width, width, heads, backend="scatter").double()
    half = copy.deepcopy(layer).bfloat16()
    with torch.no_grad():
        exact = layer(x, edges, dag=dag)
        weights = copy.deepcopy(half).double()
        return {
            "weights": errors(weights(x, edges, dag=dag), exact),
            "weights and features": errors(weights(x.bfloat16().double(), edges, dag=dag), exact),
            "weights, features and what the layer computes": errors(half(x.bfloat16(), edges, dag=dag), exact),
        }


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Measures, stores the row and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("molecules", 64), ("heads", 8), ("width", 16), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--results", type=Path, default=records.RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    setting = {name: getattr(options, name) for name in ("molecules", "heads", "width", "seed")}
    row: dict[str, Any] = {**setting, "rounded": measure(**setting)}
    records.append(options.results / FILE, row | records.provenance())
    for what, found in row["rounded"].items():
        print(what, " ".join(f"{name} {value:.3g}" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
