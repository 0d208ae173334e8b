"""Time and memory, after checking that what is timed is right."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plstm_graph.line_dag import LineDAG

FLOOR = (
    "11 passes over [N, H, K] (forward reads q, k, v and writes y; backward reads q, k, v and the gradient of y and "
    "writes three gradients) and 3 over source and mark [E, H], transition [P, H] and direct [N, H] (read twice, "
    "gradient written)"
)
"""The bytes that :func:`operator_floor` counts, in words."""


TURN = 3
"""Calls of a case in a row. The first finds caches of the host that another case has filled; a network, too, calls one
layer after another."""


class Disagreement(SystemExit):
    """What should be timed is wrong: nothing is."""


@dataclass(frozen=True)
class Case:
    """Something to time: ``run(set_up())``, of which only ``run`` counts. It returns all that it leaves behind."""

    run: Callable[[Any], Any]
    set_up: Callable[[], Any] = lambda: None


def agree(
    what: str,
    got: Mapping[str, Tensor],
    want: Mapping[str, Tensor],
    tolerance: float,
    size: Mapping[str, Tensor] | None = None,
) -> float:
    """Largest ``|got - want| / (1 + |want|)`` over all entries of all tensors; raises beyond ``tolerance``.

    ``size``: what errors are divided by instead, for each entry.
    """
    worst = 0.0
    for name, wanted in want.items():
        b = wanted.detach().double()
        a = got[name].detach().to(b.device).double()
        by = 1 + b.abs() if size is None else size[name].detach().to(b) + torch.finfo(torch.float32).tiny
        error = ((a - b).abs() / by).nan_to_num(nan=torch.inf) if a.shape == b.shape else b.new_full((1,), torch.inf)
        largest = float(error.max()) if error.numel() else 0.0
        if not largest <= tolerance:
            raise Disagreement(
                f"{what} disagrees with the reference in its {name}: error {largest:.2e}, at most {tolerance:.0e} is "
                "allowed; nothing was timed"
            )
        worst = max(worst, largest)
    return worst


def measure(
    cases: Mapping[str, Case], device: str = "cpu", *, rounds: int = 30, seconds: float = 20.0
) -> dict[str, list[float]]:
    """Seconds of every call. Cases take turns, so that a busy moment of the machine hits all of them alike.

    Args:
        cases: what to time, by name; each runs twice untimed first.
        device: waited for before and after each call.
        rounds: calls of each case, ``TURN`` at a time, fewer (but at least 5) once ``seconds`` have passed.
        seconds: time for all of them together.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        for _ in range(2):
            case.run(case.set_up())
    begin = time.perf_counter()
    for called in range(0, rounds, TURN):
        if called >= min(5, rounds) and time.perf_counter() - begin > seconds:
            break
        for name, case in cases.items():
            for _ in range(min(TURN, rounds - called)):
                given = case.set_up()
                wait(device)
                start = time.perf_counter()
                case.run(given)
                wait(device)
                times[name].append(time.perf_counter() - start)
    return times


def summary(times: list[float]) -> dict[str, float]:
    """Median and spread in milliseconds."""
    q1, median, q3 = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else 3 * times
    spread = {"median_ms": median, "min_ms": min(times), "q1_ms": q1, "q3_ms": q3}
    return {name: round(1e3 * value, 4) for name, value in spread.items()} | {"calls": len(times)}


def device_costs(case: Case, device: str, calls: int) -> dict[str, float]:
    """What a GPU says of a case that has run before; nothing on a CPU.

    Returns:
        ``device_ms``: between two events around calls in a row, so that launches overlap with what was launched
        before; ``peak_mib``: the highest sum of all tensors during a call; ``extra_mib``: how far that is above the
        sum just after it, when only inputs and what the call returned (outputs, gradients) are there.
    """
    if not device.startswith("cuda"):
        return {}
    wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    kept = case.run(case.set_up())
    wait(device)
    peak, after = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
    del kept
    given = [case.set_up() for _ in range(calls)]
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for each in given:
        case.run(each)
    end.record()
    wait(device)
    found = {
        "device_ms": start.elapsed_time(end) / calls,
        "peak_mib": peak / 2**20,
        "extra_mib": (peak - after) / 2**20,
    }
    return {name: round(value, 4) for name, value in found.items()}


def operator_floor(dag: LineDAG, heads: int, keys: int, values: int, itemsize: int = 4) -> tuple[int, str]:
    """Bytes that no implementation of the operator's forward and backward pass can avoid, and their count; FLOOR."""
    nodes, edges, pairs = dag.num_nodes, dag.num_edges, dag.num_pairs
    vectors = nodes * heads * (6 * keys + 5 * values)
    gates = 3 * heads * (2 * edges + pairs + nodes)
    return (vectors + gates) * itemsize, f"({vectors:,} + {gates:,}) numbers of {itemsize} bytes"


def bandwidth(device: str) -> float:
    """Bytes a second that a plain copy moves here (reads and writes both counted), beyond any cache."""
    source = torch.zeros(2**26 * (8 if device.startswith("cuda") else 1), device=device)
    target = torch.empty_like(source)
    times = measure({"copy": Case(lambda _: target.copy_(source))}, device, rounds=5)["copy"]
    return 2 * source.numel() * source.element_size() / statistics.median(times)


def wait(device: str) -> None:
    """Until a GPU has done all it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
