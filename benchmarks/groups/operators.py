"""The operator alone: every backend, forward and all seven gradients, P mode."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from bench import (
    DTYPES,
    REFERENCE,
    REFERENCE_EDGES,
    Bench,
    Row,
    backends,
    checked,
    gated_inputs,
    sizes,
    stepper,
    through,
)
from graphs import Molecules
from timing import FLOOR, operator_floor

from plstm_graph import LineDAG

SHAPES = ((8, 16), (4, 32))  # heads, and width of keys and values
HEAD = 16  # graphs of a large batch that the reference looks at, too
TWICE = 2000  # molecules from which on half precision and other shapes are measured, too
LIMITS_MS = {512: 0.6, 4096: 1.2}
LIMIT_MIB = 400


class Batch(NamedTuple):
    """A batch of graphs with its name, and its first few graphs alone."""

    name: str
    graphs: int
    dag: LineDAG
    head: LineDAG


def operator(bench: Bench) -> None:
    """Every batch; the larger ones in half precision and in another shape, too."""
    print(f"  byte floor: {FLOOR}")
    for batch in batches(bench):
        full: dict[str, float] = {}
        for (heads, width), name in variants(bench, batch):
            found = _measure(bench, batch, heads, width, name, full)
            full = full if name != "float32" else found


def batches(bench: Bench) -> Iterator[Batch]:
    """Molecules of about 25 atoms, molecules as they come, large ones of one size, large ones as they come."""
    options, sets = bench.options, bench.sets
    for count in options.molecules:
        yield _batch(bench, sets.molecules, count, "molecules of 20 to 30 atoms", (20, 30))
    if options.mixed:
        yield _batch(bench, sets.molecules, options.mixed, "molecules")
    if options.large:
        yield _batch(bench, sets.large, options.large, "molecules of 140 to 160 atoms", (140, 160))
    if options.peptides and "peptides" in sets.large.source:
        yield _batch(bench, sets.large, options.peptides, "peptides")


def _batch(bench: Bench, source: Molecules, count: int, name: str, atoms: tuple[int, int] = (1, 10**9)) -> Batch:
    numbers = source.draw(count, atoms=atoms)
    dag, head = (_line_dag(bench, source, some) for some in (numbers, numbers[:HEAD]))
    return Batch(f"{count} {name} ({source.source})", count, dag, head)


def _line_dag(bench: Bench, source: Molecules, numbers: list[int]) -> LineDAG:
    edge_index, batch = source.batch(numbers)
    return LineDAG.from_edge_index(edge_index.to(bench.device), batch.numel(), batch=batch)


def variants(bench: Bench, batch: Batch) -> list[tuple[tuple[int, int], str]]:
    """Shapes and dtypes of a batch. Half precision on a GPU only: a CPU computes it in float32."""
    names = bench.options.dtypes or (list(DTYPES) if bench.on_gpu and batch.graphs >= TWICE else ["float32"])
    shapes = SHAPES if bench.on_gpu and batch.graphs >= TWICE else SHAPES[:1]
    return [(shape, name) for shape in shapes for name in names]


def _measure(
    bench: Bench, batch: Batch, heads: int, width: int, dtype: str, full: dict[str, float]
) -> dict[str, float]:
    dag, case = batch.dag, batch.name
    case += "" if (heads, width) == SHAPES[0] else f", H={heads}, K=V={width}"
    case += "" if dtype == "float32" else f", {dtype}"
    errors = check(bench, dag, batch.head, heads, width, DTYPES[dtype])
    inputs = gated_inputs(dag, heads, width, DTYPES[dtype])
    weight = torch.randn_like(inputs.value)
    found = floors(bench, dag, heads, width, dtype)
    return bench.compare(
        "operator",
        case,
        {name: stepper(through(name), inputs, dag, weight) for name in errors},
        sizes(dag) | {"H": heads, "K": width, "V": width},
        against=[REFERENCE, "scatter"],
        found={name: {"error": error, **found} for name, error in errors.items()},
        targets=partial(targets, bench.on_gpu, batch, (heads, width), dtype, full),
    )


def check(
    bench: Bench, dag: LineDAG, head: LineDAG, heads: int, width: int, dtype: torch.dtype = torch.float32
) -> dict[str, float]:
    """Errors of the backends; a large line graph against ``scatter`` in float64, its head against the reference."""
    errors: dict[str, float] = {}
    names = backends(bench.options)
    for part in (head, dag) if dag.num_edges > REFERENCE_EDGES else (dag,):
        inputs = gated_inputs(part, heads, width, dtype)
        found = checked(names, inputs, part, torch.randn_like(inputs.value))
        errors = {name: max(error, errors.get(name, 0.0)) for name, error in found.items()}
    print(f"  {', '.join(errors)} agree with the reference: output and seven gradients")
    return errors


def floors(bench: Bench, dag: LineDAG, heads: int, width: int, dtype: str = "float32") -> Row:
    """Byte floor of a case, and the time it takes at the speed of a plain copy."""
    floor, text = operator_floor(dag, heads, width, width, DTYPES[dtype].itemsize)
    speed = bench.copy_speed
    return {
        "dtype": dtype,
        "floor_bytes": floor,
        "floor_ms": round(1e3 * floor / speed, 4),
        "floor_count": text,
        "copy_gb_s": round(speed / 1e9, 2),
    }


def targets(
    on_gpu: bool, batch: Batch, shape: tuple[int, int], dtype: str, full: dict[str, float], name: str, row: Row
) -> dict[str, bool]:
    """What a backend should reach on one batch, and whether it does; ``full`` has medians in float32."""
    if name == "scatter" and REFERENCE in row["ratios"] and not on_gpu:
        return {">= 10x reference": row["ratios"][REFERENCE] >= 10}
    if name != "triton" or not on_gpu or batch.graphs not in LIMITS_MS:
        return {}
    if dtype != "float32":
        return {"faster than float32": row["median_ms"] < full[name]} if name in full else {}
    if shape != SHAPES[0]:
        return {}
    limit = LIMITS_MS[batch.graphs]
    found = {f"<= {limit} ms": row["median_ms"] <= limit}
    return found | ({f"<= {LIMIT_MIB} MiB": row["extra_mib"] <= LIMIT_MIB} if batch.graphs == 4096 else {})
