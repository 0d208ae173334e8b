"""What the groups of ``speed.py`` share: options, molecules, rows, and the check against the reference."""

import argparse
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import records
import torch
from graphs import Molecules
from timing import Case, agree, measure, summary
from torch import Tensor

from plstm_graph import LineDAG
from plstm_graph.errors import BackendUnavailable
from plstm_graph.gates import normalize_transition
from plstm_graph.ops import BACKENDS
from plstm_graph.ops.dispatch import Backend
from plstm_graph.testing import TOLERANCE, Inputs, outcome, random_inputs

REFERENCE = "reference"


@dataclass
class Bench:
    """What all groups share: the options, the molecules and where rows go."""

    options: argparse.Namespace
    molecules: Molecules
    started: str = field(default_factory=records.now)  # names the run in its rows

    @property
    def device(self) -> str:
        return str(self.options.device)

    def measure(self, cases: dict[str, Case]) -> dict[str, list[float]]:
        return measure(cases, self.device, rounds=self.options.rounds, seconds=self.options.seconds)

    def batch(self, count: int, atoms: tuple[int, int] = (1, 10**9)) -> tuple[Tensor, Tensor]:
        edge_index, batch = self.molecules.batch(self.molecules.draw(count, atoms=atoms))
        return edge_index.to(self.device), batch.to(self.device)

    def record(
        self, group: str, case: str, name: str, times: list[float], found: dict[str, Any], shape: dict[str, int]
    ) -> None:
        """Prints and stores one row; ``case`` is what was measured on, ``name`` what was measured."""
        row = {
            "run": self.started,
            "group": group,
            "case": case,
            "name": name,
            **summary(times),
            **found,
            "sizes": shape,
        }
        print(f"  {name:32}{_line(row)}", flush=True)
        if not self.options.no_record:
            records.append(Path(self.options.out), row | records.provenance(self.device))


def _line(row: dict[str, Any]) -> str:
    spread = f"min {row['min_ms']:.3f}, quartiles {row['q1_ms']:.3f} to {row['q3_ms']:.3f}"
    text = f"{row['median_ms']:10.3f} ms  [{spread}]"
    for other, ratio in row.get("ratios", {}).items():
        text += f"  {ratio:.3g}x {other}"
    return text + (f"  target {row['target']}: {'met' if row['met'] else 'MISSED'}" if "target" in row else "")


def ratios(times: dict[str, list[float]], name: str, others: list[str]) -> dict[str, float]:
    """How many times as fast as each of the others, by medians; below 1 it is slower."""
    own = statistics.median(times[name])
    return {
        other: round(statistics.median(times[other]) / own, 3) for other in others if other in times and other != name
    }


def sizes(dag: LineDAG) -> dict[str, int]:
    """Sizes of a line graph, by their letters where they have one."""
    return {
        "graphs": dag.num_graphs,
        "N": dag.num_nodes,
        "E": dag.num_edges,
        "P": dag.num_pairs,
        "levels": dag.num_levels,
        "max_nodes": dag.max_nodes,
    }


def gated_inputs(dag: LineDAG, heads: int, width: int) -> Inputs:
    """Random float32 inputs with the transitions of P mode."""
    inputs = random_inputs(dag, heads, width, width, torch.float32, dag.src.device)
    transition = normalize_transition(inputs.gates.transition, dag)
    return inputs._replace(gates=inputs.gates._replace(transition=transition))


def checked(names: list[str], inputs: Inputs, dag: LineDAG, weight: Tensor) -> dict[str, float]:
    """Error of each backend that can run here against the reference in float64; raises where one is wrong."""
    wide = Inputs.of([x.double() for x in inputs.flat()])
    want = outcome(BACKENDS[REFERENCE], wide, dag, weight.double())
    errors = {}
    for name in names:
        try:
            got = outcome(BACKENDS[name], inputs, dag, weight)
        except BackendUnavailable as error:
            print(f"  {name} cannot run here: {error}")
            continue
        errors[name] = agree(f"backend {name!r}", got, want, TOLERANCE[torch.float32])
    return errors


def stepper(backend: Backend, inputs: Inputs, dag: LineDAG, weight: Tensor) -> Case:
    """Forward, and the gradients of all seven inputs."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs.flat()]
    return Case(lambda _: torch.autograd.grad(backend(*Inputs.of(leaves), dag), leaves, weight))
