"""Time and memory against depth: what it costs to read along all paths of a chain, a tree or a grid.

``python benchmarks/depth.py`` measures forward and backward pass of a stack of width 64 on one graph of 10 to 100,000
nodes: pLSTM (P mode) and DAGNN with 2 layers, GINE with as many layers as the graph is deep, which it needs to see as
far, and GPS with 4. Seconds are those of the processor, on one thread, the best of some passes; memory is what is kept
for the backward pass. A row for each goes to ``results/depth.jsonl``; ``--plot`` draws ``cost_against_depth.png``
beside it.
"""

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import records
import torch
from torch import Tensor, nn

from plstm_graph import LineDAG
from plstm_graph.config.architectures import architecture
from plstm_graph.config.models import ModelConfig
from plstm_graph.data.paths import NEAR

WIDTH = 64
SIZES = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
LARGEST = {"gine": 300, "gps": 3_000, "dagnn": 3_000}
"""Largest depth for GINE and DAGNN, and number of nodes for GPS, whose attention grows with its square."""
STATES = 10**6
"""Nodes times layers up to which GINE is measured: it keeps half a KiB and more for each."""
STYLES = {
    "plstm": ("pLSTM, 2 blocks", "#0072B2", "o"),
    "dagnn": ("DAGNN, 2 layers", "#E69F00", "v"),
    "gine": ("GINE, a layer for each level", "#D55E00", "P"),
    "gps": ("GPS, 4 layers", "#009E73", "D"),
}

Row = dict[str, Any]


def edges_of(shape: str, nodes: int) -> Tensor:
    """A chain, a random tree (a parent is among the three nodes before its child) or a square grid, [2, M]."""
    if shape == "chain":
        return torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)])
    if shape == "tree":
        child = torch.arange(1, nodes)
        back = torch.randint(1, NEAR + 1, (nodes - 1,), generator=torch.Generator().manual_seed(0))
        return torch.stack([(child - back).clamp(min=0), child])
    side = round(nodes**0.5)
    place = torch.arange(side * side).view(side, side)
    right, down = (place[:, :-1], place[:, 1:]), (place[:-1], place[1:])
    return torch.stack([torch.cat([right[end].flatten(), down[end].flatten()]) for end in (0, 1)])


def depth_of(dag: LineDAG) -> int:
    """Edges of the longest path."""
    return dag.num_levels


def stack_of(name: str, depth: int) -> nn.Module:
    """A network by its key in ``STYLES``, without edge features."""
    layers = {"plstm": 2, "dagnn": 2, "gps": 4, "gine": depth}[name]
    plain: dict[str, Any] = {"heads": 4, "modes": "P", "local": "none", "norm": "layer", "dropout": 0.0}
    config = ModelConfig(model=name, width=WIDTH, layers=layers, **plain)
    return architecture(name).stacked(config, None)


def kept(run: Any) -> float:
    """MiB that a forward pass keeps for the backward pass, each storage once."""
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = run()  # held, so that no place is used twice
    del result
    return sum(seen.values()) / 2**20


def measure(name: str, shape: str, nodes: int, passes: int) -> Row | None:
    """One network on one graph; None where it would take too long."""
    edge_index = edges_of(shape, nodes)
    nodes = int(edge_index.max()) + 1
    dag = LineDAG.from_edge_index(edge_index, nodes, order="given")
    depth = depth_of(dag)
    if (nodes if name == "gps" else depth) > LARGEST.get(name, nodes) or (name == "gine" and nodes * depth > STATES):
        return None
    torch.manual_seed(0)
    net, x = stack_of(name, depth), torch.randn(nodes, WIDTH)
    extra = {"dag": dag} if architecture(name).oriented else {"batch": torch.zeros(nodes, dtype=torch.long)}

    def run() -> Tensor:
        return net(x, edge_index, **extra)

    memory = kept(run)
    times = []
    for _ in range(passes):
        begin = time.process_time()
        run().sum().backward()
        times.append(time.process_time() - begin)
    found = {"name": name, "shape": shape, "nodes": nodes, "depth": depth, "parameters": 0}
    found["parameters"] = sum(p.numel() for p in net.parameters())
    return found | {"seconds": min(times), "kept_mib": round(memory, 3)}


def draw(rows: Iterable[Row], path: Path) -> bool:
    """Time above, memory below, a column for each shape; says whether the file changed."""
    from matplotlib.figure import Figure

    last = {(row["shape"], row["name"], row["nodes"]): row for row in rows}
    shapes = list(dict.fromkeys(shape for shape, _, _ in last))
    figure = Figure(figsize=(3.1 * len(shapes), 5.2), dpi=150, layout="constrained")
    axes = np.asarray(figure.subplots(2, len(shapes), sharex=True, sharey="row", squeeze=False))
    for column, shape in enumerate(shapes):
        for name, (label, color, marker) in STYLES.items():
            found = sorted(
                (row["nodes"], row["seconds"], row["kept_mib"]) for key, row in last.items() if key[:2] == (shape, name)
            )
            for place in (0, 1):
                axes[place, column].loglog(
                    [row[0] for row in found],
                    [row[1 + place] for row in found],
                    color=color,
                    marker=marker,
                    ms=4,
                    label=label,
                )
                axes[place, column].grid(True, which="major", color="#DDDDDD", lw=0.6)
        axes[0, column].set_title(shape)
        axes[1, column].set_xlabel("nodes")
    axes[0, 0].set_ylabel("seconds, forward and backward")
    axes[1, 0].set_ylabel("MiB kept for the backward pass")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    return records.save_figure(figure, path)


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Prints and stores the rows, and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(STYLES), help="networks")
    parser.add_argument("--shapes", nargs="+", default=["chain", "tree", "grid"])
    parser.add_argument("--nodes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--commit", help="of these files, where git cannot tell")
    parser.add_argument("--plot", action="store_true", help="draw what is stored")
    parser.add_argument("--out", type=Path, default=records.RESULTS / "depth.jsonl")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for shape in options.shapes:
        for name in options.names:
            for nodes in options.nodes:
                row = measure(name, shape, nodes, options.passes)
                if row is not None:
                    print(row, flush=True)
                    records.append(options.out, row | records.provenance("cpu", options.commit))
    if options.plot:
        picture = options.out.parent / "cost_against_depth.png"
        print(f"{picture}: {'written' if draw(records.read(options.out), picture) else 'as it was'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
