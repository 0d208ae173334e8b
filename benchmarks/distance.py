"""Error against distance: which networks carry a value along a directed path, and how far.

``python benchmarks/distance.py plstm gine gatedgcn gps dagnn --seeds 0 1 2`` learns ``carry`` (see
``plstm_graph.data.paths``) on trees of at most 100 nodes and asks for values from up to thousands of edges away. A row
for each network and seed goes to ``results/distance.jsonl``; ``--plot`` draws ``error_against_distance.png`` beside it
from all rows. Two blocks of width 64; one-hop networks have 16, GPS 4. On a GPU: ``--device cuda``.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import records
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from plstm_graph.config.models import ModelConfig
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.paths import NODES, SHARES, Paths, carry
from plstm_graph.models.graph import GraphModel
from plstm_graph.nn.dagnn import DAGNN
from plstm_graph.train.defaults import default_config
from plstm_graph.transforms import line_dag

BATCH = 32
TESTS = ((60, 0.9, 16), (60, 0.98, 16), (300, 0.98, 8), (1000, 0.995, 8), (12_000, 0.9999, 2))
"""Nodes, share of open edges and number of the trees that are asked for."""
CONSTANT = 1 / 12
"""Error of a constant answer: the variance of what is carried."""
STYLES = {  # colours that the colour-blind can tell apart (Okabe and Ito)
    "plstm": ("pLSTM, saturating", "#0072B2", "o"),
    "plstm-tanh": ("pLSTM, tanh", "#56B4E9", "s"),
    "dagnn": ("DAGNN (GRU along the levels)", "#E69F00", "v"),
    "gps": ("GPS, 4 layers", "#009E73", "D"),
    "gatedgcn": ("GatedGCN, 16 layers", "#CC79A7", "^"),
    "gine": ("GINE, 16 layers", "#D55E00", "P"),
}

Row = dict[str, Any]


class Dagnn(nn.Module):
    """DAGNN along the edges. A softmax over one predecessor leaves nothing of the edge, so whether it is open is given
    to the node behind it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.stack = DAGNN(2, config.width, config.layers, directions="along")
        self.head = nn.Sequential(nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, 1))

    def forward(self, data: Batch) -> Tensor:
        """[N, 1]"""
        state = torch.zeros_like(data.x).index_add(0, data.edge_index[1], data.edge_attr)
        return self.head(self.stack(torch.cat([data.x, state], 1), line_dag(data, "canonical")))


def build(name: str) -> nn.Module:
    """A network by its key in ``STYLES``."""
    model: Any = default_config("carry").model
    layers = {"gine": 16, "gatedgcn": 16, "gps": 4}.get(name, model.layers)
    kind, _, tanh = name.partition("-")
    values: dict[str, Any] = vars(model) | {"layers": layers}
    values |= {"transition": "tanh", "output_norm": "rms"} if tanh else {}
    if kind == "dagnn":
        return Dagnn(ModelConfig(**values))
    return GraphModel(FeatureSpec(node_dim=1, edge_dim=1), 1, ModelConfig(**values | {"model": kind}), level="node")


def batch_of(drawn: Paths, device: str) -> Batch:
    """As PyG's loaders make it."""
    return Batch.from_data_list(drawn.graphs.graphs()).to(device)


def learn(net: nn.Module, steps: int, lr: float, seed: int, device: str) -> None:
    """AdamW on fresh trees in every step, one cycle of the learning rate."""
    generator, pick = torch.Generator().manual_seed(1000 + seed), random.Random(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        batch = batch_of(carry("tree", pick.choice(NODES), BATCH, generator, pick.choice(SHARES)), device)
        loss = (net(batch) - batch.y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def errors(net: nn.Module, device: str) -> dict[str, float]:
    """Mean square error by distance: of 1, 2 to 3, 4 to 7 edges and so on, by the first of each."""
    squares: dict[int, list[Tensor]] = {}
    net.eval()
    for nodes, share, count in TESTS:
        drawn = carry("tree", nodes, count, torch.Generator().manual_seed(nodes), share)
        batch = batch_of(drawn, device)
        found = (net(batch) - batch.y).square().flatten().cpu()
        group = drawn.distance.clamp(min=1).log2().long()
        for number in group[drawn.distance > 0].unique().tolist():
            squares.setdefault(2**number, []).append(found[(drawn.distance > 0) & (group == number)])
    return {str(first): float(torch.cat(found).mean()) for first, found in sorted(squares.items())}


def run(name: str, seed: int, steps: int, lr: float, device: str) -> Row:
    """Learn and ask."""
    torch.manual_seed(seed)
    net = build(name).to(device)
    begin = time.perf_counter()
    learn(net, steps, lr, seed, device)
    minutes = (time.perf_counter() - begin) / 60
    sizes = {"parameters": sum(p.numel() for p in net.parameters()), "minutes": round(minutes, 2)}
    return {"name": name, "seed": seed, "steps": steps, "lr": lr, **sizes, "errors": errors(net, device)}


def draw(rows: Iterable[Row], path: Path, steps: int) -> bool:
    """Median over seeds, and the range between the best and the worst, of runs of so many steps; says whether the file
    changed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    axis = figure.subplots()
    rows = list(rows)
    for name, (label, color, marker) in STYLES.items():
        found = [row["errors"] for row in rows if (row["name"], row["steps"]) == (name, steps)]
        if not found:
            continue
        distances = sorted(map(int, found[0]))
        values = torch.tensor([[each[str(distance)] for distance in distances] for each in found])
        axis.loglog(distances, values.quantile(0.5, 0), color=color, marker=marker, ms=5, lw=1.6, label=label)
        axis.fill_between(distances, values.amin(0), values.amax(0), color=color, alpha=0.15, lw=0)
    axis.axhline(CONSTANT, color="#7F7F7F", ls="--", lw=1.2, label="a constant")
    axis.axvspan(1, max(NODES) / 2, color="#EEEEEE", zorder=0)
    axis.set_xlabel("edges that the value has to travel (shaded: depths seen in training)")
    axis.set_ylabel("mean square error")
    axis.grid(True, which="major", color="#DDDDDD", lw=0.6)
    axis.legend(frameon=False, fontsize=8)
    return records.save_figure(figure, path)


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Prints and stores the rows, and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*STYLES, []], help="networks")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of torch, on a CPU")
    parser.add_argument("--commit", help="of these files, where git cannot tell")
    parser.add_argument("--plot", action="store_true", help="draw what is stored of so many steps")
    parser.add_argument("--out", type=Path, default=records.RESULTS / "distance.jsonl")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.names:
        for seed in options.seeds:
            row = run(name, seed, options.steps, options.lr, options.device)
            print(row, flush=True)
            records.append(options.out, row | records.provenance(options.device, options.commit))
    if options.plot:
        picture = options.out.parent / "error_against_distance.png"
        print(f"{picture}: {'written' if draw(records.read(options.out), picture, options.steps) else 'as it was'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
