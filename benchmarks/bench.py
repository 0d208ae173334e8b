"""What the groups of ``speed.py`` share: options, graphs, rows, and the check against the reference."""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import records
import torch
from graphs import GraphSets
from timing import Case, agree, bandwidth, device_costs, measure, summary, wait
from torch import Tensor

from plstm_graph import LineDAG, propagate
from plstm_graph.errors import BackendUnavailable
from plstm_graph.gates import normalize_transition
from plstm_graph.ops import BACKENDS
from plstm_graph.ops.dispatch import Backend
from plstm_graph.testing import TOLERANCE, Inputs, outcome, random_inputs

REFERENCE = "reference"
REFERENCE_EDGES = 2500  # its time grows with the square of the edges: beyond, minutes
LARGE = 500  # nodes of a graph
ROOM = 10  # times the tolerance for large graphs or batches: the largest of many, or long, sums of rounding errors
EXACT_BYTES = 2**31  # of float64 states at a time
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Row = dict[str, Any]
Targets = Callable[[str, Row], dict[str, bool]]
"""From the name and the row of what was measured to what it should reach, and whether it does."""


def no_targets(name: str, row: Row) -> dict[str, bool]:
    """Most cases have nothing to reach."""
    return {}


@dataclass
class Bench:
    """What all groups share: the options, the graphs and where rows go."""

    options: argparse.Namespace
    sets: GraphSets
    started: str = field(default_factory=records.now)  # names the run in its rows

    @property
    def device(self) -> str:
        return str(self.options.device)

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @cached_property
    def copy_speed(self) -> float:
        """See :func:`timing.bandwidth`."""
        return bandwidth(self.device)

    def batch(self, count: int, atoms: tuple[int, int] = (1, 10**9)) -> tuple[Tensor, Tensor]:
        """edge_index and batch vector of so many molecules."""
        molecules = self.sets.molecules
        edge_index, batch = molecules.batch(molecules.draw(count, atoms=atoms))
        return edge_index.to(self.device), batch.to(self.device)

    def has(self, group: str, case: str) -> bool:
        """Whether ``--continue`` was given and a case has been measured on this device and commit; says so."""
        if not self.options.go_on:
            return False
        now = records.provenance(self.device, self.options.commit)
        known = ("group", group), ("case", case), ("machine", now["machine"]), ("commit", now["commit"])
        found = any(all(row.get(key) == value for key, value in known) for row in records.read(Path(self.options.out)))
        if found:
            print(f"  {case} has been measured")
        return found

    def measure(self, cases: Mapping[str, Case]) -> dict[str, list[float]]:
        return measure(cases, self.device, rounds=self.options.rounds, seconds=self.options.seconds)

    def compare(
        self,
        group: str,
        case: str,
        cases: Mapping[str, Case],
        shape: dict[str, int],
        *,
        against: Sequence[str] = (),
        found: Mapping[str, Row] | None = None,
        targets: Targets = no_targets,
    ) -> dict[str, float]:
        """Measure cases beside each other and record a row for each.

        Args:
            group, case: what was measured on.
            cases: what to measure, by name; what cannot run here or takes too long is left out with a line.
            shape: sizes of the case.
            against: names that the others are compared with.
            found: more for the rows.
            targets: what they should reach.

        Returns:
            Their medians in milliseconds.
        """
        able = {name: run for name, run in cases.items() if self._able(name, run)}
        print(f"  {case}: {shape}")
        times = self.measure(able)
        for name in times:
            calls = max(2, min(20, int(2 / statistics.median(times[name]))))
            row: Row = {**summary(times[name]), **device_costs(able[name], self.device, calls)}
            row |= {"ratios": ratios(times, name, against)} | (found or {}).get(name, {})
            self.record(group, case, name, row | {"targets": targets(name, row)}, shape)
        return {name: 1e3 * statistics.median(took) for name, took in times.items()}

    def _able(self, name: str, case: Case) -> bool:
        """Whether a case runs here, in a time that can be waited for (the first call may have to compile)."""
        took = 0.0
        try:
            for _ in range(2):
                given = case.set_up()
                start = time.perf_counter()
                case.run(given)
                wait(self.device)
                took = time.perf_counter() - start
                if took < self.options.patience:
                    return True
        except (BackendUnavailable, torch.OutOfMemoryError) as error:
            print(f"  {name} is left out: {str(error).splitlines()[0]}")
            return False
        print(f"  {name} is left out: one call takes {took:.0f} s")
        return False

    def record(self, group: str, case: str, name: str, row: Row, shape: dict[str, int]) -> None:
        """Prints and stores one row; ``case`` is what was measured on, ``name`` what was measured."""
        row = {"run": self.started, "group": group, "case": case, "name": name, **row, "sizes": shape}
        row = {key: value for key, value in row.items() if value or key not in ("targets", "ratios")}
        print(f"  {name:32}{_line(row)}", flush=True)
        if not self.options.no_record:
            records.append(Path(self.options.out), row | records.provenance(self.device, self.options.commit))


def _line(row: Row) -> str:
    text = f"{row['median_ms']:10.3f} ms  [min {row['min_ms']:.3f}, quartiles {row['q1_ms']:.3f} to {row['q3_ms']:.3f}]"
    if "device_ms" in row:
        text += f"  device {row['device_ms']:.3f} ms, {row['extra_mib']:.0f} MiB"
    text += "".join(f"  {ratio:.3g}x {other}" for other, ratio in row.get("ratios", {}).items())
    return text + "".join(
        f"  target {goal}: {'met' if met else 'MISSED'}" for goal, met in row.get("targets", {}).items()
    )


def ratios(times: Mapping[str, list[float]], name: str, others: Sequence[str]) -> dict[str, float]:
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


def gated_inputs(dag: LineDAG, heads: int, width: int, dtype: torch.dtype = torch.float32) -> Inputs:
    """Random inputs, K = V = ``width``, with the transitions of P mode, and queries over √K as attention has them, so
    that scores are of order 1 and errors of any width compare with one tolerance."""
    inputs = random_inputs(dag, heads, width, width, torch.float32, dag.src.device)
    transition = normalize_transition(inputs.gates.transition, dag)
    gates = inputs.gates._replace(transition=transition)
    inputs = inputs._replace(query=inputs.query / width**0.5, gates=gates)
    return Inputs.of([x.to(dtype) for x in inputs.flat()])


def through(name: str) -> Backend:
    """A backend as users reach it."""
    return partial(propagate, backend=name)


def exact(inputs: Inputs, dag: LineDAG, weight: Tensor) -> dict[str, Tensor]:
    """Output and gradients in float64: of the reference, or of ``scatter`` where that would take minutes.

    A few heads at a time: they know nothing of each other.
    """
    backend = through(REFERENCE if dag.num_edges <= REFERENCE_EDGES else "scatter")
    heads, states = inputs.value.size(1), dag.num_edges * inputs.key.size(2) * inputs.value.size(2) * 8
    step = max(1, min(heads, EXACT_BYTES // max(states, 1)))
    parts = [
        outcome(
            backend,
            Inputs.of([x[:, head : head + step].double() for x in inputs.flat()]),
            dag,
            weight[:, head : head + step].double(),
        )
        for head in range(0, heads, step)
    ]
    return {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}


def checked(names: Sequence[str], inputs: Inputs, dag: LineDAG, weight: Tensor) -> dict[str, float]:
    """Error of each backend that can run here against :func:`exact`; raises where one is wrong."""
    want = exact(inputs, dag, weight)
    many = dag.num_edges > REFERENCE_EDGES or dag.max_nodes > LARGE
    tolerance = TOLERANCE[inputs.value.dtype] * (ROOM if many else 1)
    errors = {}
    for name in names:
        if name == REFERENCE and dag.num_edges > REFERENCE_EDGES:
            continue
        try:
            got = outcome(through(name), inputs, dag, weight)
        except (BackendUnavailable, torch.OutOfMemoryError) as error:
            print(f"  {name} cannot run here: {str(error).splitlines()[0]}")
            continue
        errors[name] = agree(f"backend {name!r}", got, want, tolerance)
    return errors


def stepper(backend: Backend, inputs: Inputs, dag: LineDAG, weight: Tensor) -> Case:
    """Forward, and the gradients of all seven inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs.flat()]

    def run(_: Any) -> tuple[Tensor, ...]:
        output = backend(*Inputs.of(leaves), dag)
        return (output.detach(), *torch.autograd.grad(output, leaves, weight, allow_unused=True))

    return Case(run)


def backends(options: argparse.Namespace) -> list[str]:
    """Those to look at, by name."""
    return [name for name in BACKENDS if not options.backends or name in options.backends]
