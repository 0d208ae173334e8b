"""Whether training waits for its data: ``python benchmarks/profile_data.py MUTAG nav17 molhiv.pt --root DATA``.

Times every step of an epoch of the default model in two parts, getting the batch and working on it, for packed graphs
and for PyG's DataLoader (in this process; its line graphs are made with the batch). A row each goes to
``results/data.jsonl``.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import records
import torch
from timing import wait
from torch import Tensor
from torch_geometric.data import Batch

from plstm_graph.config.architectures import architecture
from plstm_graph.config.models import AnyConfig
from plstm_graph.data import PackedGraphs
from plstm_graph.data.dataset import AnyDataset
from plstm_graph.errors import ConfigError
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.data import Graphs, labels, load_data, pack, split_of, train_loader
from plstm_graph.train.inference.restored import pick_device
from plstm_graph.train.module import Learner


def learner_of(dataset: AnyDataset, model: AnyConfig, target: Tensor, device: str) -> Learner:
    """A network that is about to learn, with weights that depend on nothing else."""
    torch.manual_seed(0)
    task = dataset.task.fitted(target)
    return Learner(architecture(model.model).made(model, dataset.features, task), task).to(device)


def stepper(dataset: AnyDataset, model: AnyConfig, target: Tensor, device: str) -> Callable[[Batch], None]:
    """A training step as the trainer takes it, without Lightning."""
    learner = learner_of(dataset, model, target, device)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3, fused=device.startswith("cuda") or None)

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        learner.loss(learner.model(batch), batch.y).backward()
        optimizer.step()

    return step


def profile(source: Iterable[Batch], step: Callable[[Batch], None], device: str, steps: int) -> tuple[list[float], ...]:
    """Seconds for the batch and for the work on it, step by step."""
    fetched, worked = [], []
    batches = iter(source)
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        batch = batch.to(device)
        wait(device)
        middle = time.perf_counter()
        step(batch)
        wait(device)
        fetched.append(middle - start)
        worked.append(time.perf_counter() - middle)
    return fetched, worked


def rows(config: TrainConfig, device: str, steps: int) -> Iterable[dict[str, Any]]:
    """A row for each way to get batches."""
    dataset = load_data(config)
    chosen = split_of(config, dataset)["train"][: steps * config.batch_size]
    graphs = dataset.encoded(config.model, chosen)
    packed = pack(graphs, config.model, torch.device(device))
    if not isinstance(packed, PackedGraphs) or not isinstance(graphs, Sequence):
        raise ConfigError(f"the graphs of {dataset.name} cannot be packed on {device}; profile fewer --steps")
    ways: dict[str, Graphs] = {"packed": packed, "DataLoader": list(graphs)}
    for name, each in ways.items():
        step = stepper(dataset, config.model, labels(graphs), device)
        loader = train_loader(each, config.batch_size, config.seed)
        profile(loader, step, device, 3)  # the first ones compile, allocate, read from disk
        fetched, worked = profile(loader, step, device, steps)
        yield {
            "data": dataset.name,
            "name": name,
            "batch_size": config.batch_size,
            "steps": len(fetched),
            "batch_ms": round(1e3 * statistics.median(fetched), 3),
            "step_ms": round(1e3 * statistics.median(worked), 3),
            "share": round(sum(fetched) / (sum(fetched) + sum(worked)), 4),
        }


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Prints and stores the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="data sets by name, or files of prepared data")
    parser.add_argument("--root", help="folder with public data")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=TrainConfig.batch_size)
    parser.add_argument("--steps", type=int, default=50, help="at most so many, one epoch at most")
    parser.add_argument("--out", type=Path, default=records.RESULTS / "data.jsonl")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    device = str(pick_device(options.device))
    for data in options.data:
        config = replace(TrainConfig(), data=data, root=options.root, batch_size=options.batch_size)
        for row in rows(config, device, options.steps):
            share = f"{100 * row['share']:.1f} % of the time"
            print(
                f"{row['data']:16}{row['name']:12} batch {row['batch_ms']:8.2f} ms, step {row['step_ms']:8.2f} ms: "
                f"{share} ({row['steps']} steps of {row['batch_size']})",
                flush=True,
            )
            if not options.no_record:
                records.append(options.out, row | records.provenance(device))
    return 0


if __name__ == "__main__":
    sys.exit(main())
