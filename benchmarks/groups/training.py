"""Training of a whole model, 4 layers of width 128: one step on a batch, and an epoch end to end."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from bench import Bench, Row, sizes
from timing import Case, agree, summary, wait
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from groups.layers import HEAD, TOLERANCE, exact
from plstm_graph.config.models import ModelConfig
from plstm_graph.data import PackedGraphs
from plstm_graph.data.dataset import MOLECULE
from plstm_graph.models.graph import GraphModel
from plstm_graph.nn import Captured
from plstm_graph.transforms import AddLineDAG, line_dag

BASE = ModelConfig(width=128, layers=4, order="index", rwse=0)
MODELS = {
    "plstm": BASE,
    "plstm alone": replace(BASE, local="none"),
    "gine": replace(BASE, model="gine"),
    "gin": replace(BASE, model="gin"),
}
"""The package's default (both directions, modes in turns, a GINEConv beside), without it, it alone, and PyG's GIN."""

Source = tuple[str, Callable[[], Iterable[Batch]]]
"""A name, and what gives the batches of an epoch."""

WAYS = ("", "captured", "compiled")
"""How steps are started: kernel by kernel, passes as one CUDA graph, after torch.compile."""

BATCH = 512
LIMIT_S, BUSY = 2.0, 0.8


def build(config: ModelConfig, outputs: int, device: str) -> GraphModel:
    """A model with weights that depend on nothing else."""
    torch.manual_seed(0)
    return GraphModel(MOLECULE, outputs, config).to(device)


def losses(model: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    """Mean loss over all labels, all of them there."""
    output = model(batch).float()
    return binary_cross_entropy_with_logits(output, batch.y[: len(output)])  # a filler has none


def trainer(model: GraphModel, way: str = "") -> Callable[[Batch], Tensor]:
    """A training step: forward, loss, backward, AdamW; for batches of any size, see :data:`WAYS`."""
    run: Callable[[Batch], Tensor] = model
    if way == "compiled":
        model.stack.compile(fullgraph=True, dynamic=True)
    if way == "captured":
        run = Captured(model)
    on_gpu = next(model.parameters()).is_cuda
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=on_gpu)

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = losses(run, batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def united(bench: Bench, graphs: list[Data]) -> Batch:
    """A batch on the device with its line graph."""
    batch = Batch.from_data_list(graphs).to(bench.device)
    batch.line_dag = line_dag(batch)
    return batch


def check(bench: Bench, config: ModelConfig, graphs: list[Data]) -> float:
    """Error of a model on the ``auto`` backend, without dropout, against itself in float64 on the reference."""
    batch = united(bench, graphs)
    model = build(replace(config, dropout=0.0), batch.y.size(1), bench.device)
    got: dict[str, Tensor] = {}
    want: dict[str, Tensor] = {}
    for found, each in ((got, model), (want, exact(model))):
        names, weights = zip(*each.named_parameters(), strict=True)
        loss = binary_cross_entropy_with_logits(each(batch).double(), batch.y.double())
        grads = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        found |= {"loss": loss, **{f"gradient of {name}": grad for name, grad in zip(names, grads, strict=True)}}
    return agree(f"model {config.model!r}", got, want, TOLERANCE[torch.float32])


def step(bench: Bench) -> None:
    """A training step of each model on one batch that is there already."""
    molecules = bench.sets.molecules
    for count in bench.options.step_molecules:
        graphs = molecules.data(molecules.draw(count))
        errors = {name: check(bench, config, graphs[:HEAD]) for name, config in MODELS.items()}
        print("  all models agree with the reference: loss and gradients of all weights")
        batch = united(bench, graphs)
        cases = {}
        for name, config in MODELS.items():
            run = trainer(build(config, batch.y.size(1), bench.device))
            cases[name] = Case(partial(_on, run, batch))
        bench.compare(
            "step",
            f"{count} molecules ({molecules.source})",
            cases,
            sizes(line_dag(batch)) | {"width": BASE.width, "layers": BASE.layers},
            against=["gine", "gin"],
            found={name: {"error": error, "dtype": "float32"} for name, error in errors.items()},
        )


def _on(run: Callable[[Batch], Tensor], batch: Batch, _: Any) -> Tensor:
    return run(batch)


def epoch(bench: Bench) -> None:
    """An epoch over the training split, shuffled: packed graphs on the device beside PyG's DataLoader."""
    molecules, config = bench.sets.molecules, MODELS["plstm"]
    training = torch.nonzero(molecules.split == 0).view(-1)[: bench.options.epoch_molecules].tolist()
    graphs = molecules.data(training)
    error = check(bench, config, graphs[:HEAD])
    shape = {"graphs": len(graphs), "batch": BATCH, "width": BASE.width, "layers": BASE.layers}
    for make, way in ((packed, ""), (packed, "captured"), (packed, "compiled"), (loaded, "")):
        if (way == "captured" and not (bench.on_gpu and len(graphs) >= BATCH)) or (
            way == "compiled" and not bench.options.compiled
        ):
            continue
        begin = time.perf_counter()
        name, source = make(bench, graphs, config, way)
        wait(bench.device)
        row: Row = {"error": error, "dtype": "float32", "prepare_ms": round(1e3 * (time.perf_counter() - begin), 1)}
        name += f", {way}" if way else ""
        run = partial(_epoch, bench, trainer(build(config, molecules.y.size(1), bench.device), way), source)
        row |= summary([run() for _ in range(1 + bench.options.epochs)][1:])  # the first one warms up
        if bench.on_gpu:  # kernels of one more epoch, which the profiler makes longer
            row["busy"] = round(kernel_seconds(run) * 1e3 / row["median_ms"], 3)
        bench.record("epoch", f"{len(graphs)} molecules ({molecules.source})", name, row | goals(name, row), shape)


def packed(bench: Bench, graphs: list[Data], config: ModelConfig, way: str) -> Source:
    """Graphs and line graphs on the device."""
    found = PackedGraphs.from_data_list(graphs, order=config.order).to(bench.device)
    filled = way == "captured"
    found = found.with_filler(BATCH) if filled else found
    return "packed", lambda: (found.batch(part, filled=filled) for part in torch.randperm(len(graphs)).split(BATCH))


def loaded(bench: Bench, graphs: list[Data], config: ModelConfig, _: str) -> Source:
    """PyG's DataLoader, line graphs stored in the graphs."""
    workers = bench.options.workers
    add = AddLineDAG(config.order, prune=True)
    more = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": bench.on_gpu}
    loader = DataLoader([add(graph) for graph in graphs], batch_size=BATCH, shuffle=True, **more)
    return f"DataLoader, {workers} workers", lambda: (batch.to(bench.device, non_blocking=True) for batch in loader)


def _epoch(bench: Bench, run: Callable[[Batch], Tensor], source: Callable[[], Iterable[Batch]]) -> float:
    """Seconds of an epoch, the sum of its losses fetched at the end."""
    begin = time.perf_counter()
    total = torch.zeros((), device=bench.device)
    for batch in source():
        total += run(batch)
    if not torch.isfinite(total):  # the only time that it waits for the GPU
        raise ArithmeticError("the loss is not finite")
    return time.perf_counter() - begin


def kernel_seconds(run: Callable[[], Any]) -> float:
    """Time during which at least one kernel or copy ran on the GPU."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    events = profile.events() or []
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    return covered(spans) * 1e-6


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of some spans of time."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def goals(name: str, row: Row) -> Row:
    """What an epoch on a GPU should reach."""
    if not name.startswith("packed") or "busy" not in row:
        return {}
    return {"targets": {f"<= {LIMIT_S} s": row["median_ms"] <= 1e3 * LIMIT_S, "GPU busy > 80 %": row["busy"] > BUSY}}
