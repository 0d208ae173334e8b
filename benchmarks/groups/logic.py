"""A training step on cones of logic and on whole circuits: pLSTM beside DAGNN and GINE of equal width."""

from dataclasses import replace
from functools import partial
from typing import Any

import records
import torch
from bench import Bench, Row, sizes
from plan import read_plan
from profile_data import learner_of, stepper
from timing import Case, agree
from torch import Tensor
from torch_geometric.data import Batch

from groups.layers import TOLERANCE, exact
from plstm_graph.config.models import ModelConfig
from plstm_graph.data import GraphDataset, PackedGraphs, load
from plstm_graph.transforms import line_dag

WIDTH = 64
PLSTM, DAGNN, GINE = "pLSTM, saturating, soft norm", "DAGNN, 1 layer", "GINE, 16 layers"
"""Entries of ``configs/circuits.toml``, whose widths there are those of equal budgets."""
DEEPER = "DAGNN, 4 layers"
"""As deep as pLSTM, where the trained one has about as many parameters."""
CASES = (
    ("circuits", "train", 16, "16 cones as learnt on"),
    ("circuits", "test", 16, "16 cones of div"),
    ("circuits-max", "test", 1, "max"),
    ("circuits-sin", "test", 1, "sin"),
)
"""Data set, part and its first graphs."""
GOAL = 10
HEAD = 4  # the smallest cones: what is checked takes the reference the square of the edges


def models() -> dict[str, ModelConfig]:
    """The networks by name, all of one width."""
    plan = read_plan(records.CONFIGS / "circuits.toml")
    found: dict[str, Any] = {job.entry: job.config.model for job in plan.jobs}
    found[DEEPER] = replace(found[DAGNN], layers=found[PLSTM].layers)
    return {name: replace(found[name], width=WIDTH) for name in (PLSTM, DAGNN, DEEPER, GINE)}


def united(dataset: GraphDataset, chosen: list[int], device: str) -> Batch:
    """These graphs as the trainer has them: on the device with their line graph."""
    graphs = dataset.encoded(ModelConfig(rwse=0), chosen)
    return PackedGraphs.from_data_list(graphs).to(device).batch(range(len(chosen)))


def check(dataset: GraphDataset, config: ModelConfig, batch: Batch, device: str) -> float:
    """Error of the loss and the gradients of all weights against float64 on the reference."""
    learner = learner_of(dataset, config, batch.y, device)
    got: dict[str, Tensor] = {}
    want: dict[str, Tensor] = {}
    for found, model in ((got, learner.model), (want, exact(learner.model))):
        names, weights = zip(*model.named_parameters(), strict=True)
        loss = learner.loss(model(batch), batch.y)
        grads = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        found |= {"loss": loss, **{f"gradient of {name}": grad for name, grad in zip(names, grads, strict=True)}}
    return agree(f"model {config.model!r}", got, want, TOLERANCE[torch.float32])


def cones(bench: Bench) -> None:
    """Forward pass, loss, backward pass and AdamW on a batch that is there already."""
    if not bench.options.root:
        print("  skipped: cones are cut from the circuits of --root")
        return
    networks = models()
    for data, part, count, name in CASES:
        dataset = load(data, root=bench.options.root)
        assert isinstance(dataset, GraphDataset)
        chosen = dataset.split()[part]
        small = sorted(dataset.split()["train"], key=lambda i: dataset.graphs[i].num_nodes)[:HEAD]
        head = united(dataset, small, bench.device)
        errors = {each: check(dataset, config, head, bench.device) for each, config in networks.items()}
        batch = united(dataset, chosen[:count], bench.device)
        steps = {each: stepper(dataset, config, batch.y, bench.device) for each, config in networks.items()}
        bench.compare(
            "cones",
            name,
            {each: Case(partial(_on, step, batch)) for each, step in steps.items()},
            sizes(line_dag(batch)) | {"width": WIDTH} | depths(dataset, chosen),
            against=[DAGNN, DEEPER, GINE],
            found={
                each: {"error": errors[each], "dtype": "float32", "parameters": parameters(dataset, config)}
                for each, config in networks.items()
            },
            targets=targets,
        )


def depths(dataset: GraphDataset, chosen: list[int]) -> dict[str, int]:
    """How deep the graphs of a part are: gates on the longest path of the median graph and of the deepest."""
    found = sorted(int(dataset.graphs[i].y[:, 2].nan_to_num().max()) for i in chosen)
    return {"graphs of the part": len(found), "median depth": found[(len(found) - 1) // 2], "greatest depth": found[-1]}


def parameters(dataset: GraphDataset, config: ModelConfig) -> int:
    """Weights of a network."""
    learner = learner_of(dataset, config, dataset.graphs[0].y, "cpu")
    return sum(weights.numel() for weights in learner.model.parameters())


def targets(name: str, row: Row) -> dict[str, bool]:
    """What pLSTM should reach beside DAGNN of equal width."""
    if name != PLSTM:
        return {}
    return {f">= {GOAL} x {other}": ratio >= GOAL for other, ratio in row["ratios"].items() if other != GINE}


def _on(step: Any, batch: Batch, _: Any) -> None:
    step(batch)
