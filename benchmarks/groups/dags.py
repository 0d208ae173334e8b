"""Single deep DAGs: circuits of the EPFL suite, chains, and large random ones. Forward and all seven gradients."""

import time
from functools import partial

import torch
from bench import Bench, Row, gated_inputs, sizes, stepper, through
from graphs import layered_edges

from groups.operators import SHAPES, check, floors
from plstm_graph import LineDAG
from plstm_graph.data.aiger import Circuit
from plstm_graph.line_dag import plan

CIRCUIT_SHAPES = ((1, 4), SHAPES[0])
CHAINS = (2000, 20000)  # edges
BY_LEVEL = "triton, level by level"
"""Deep graphs as wide ones are read."""
CPU_STATES = 2**30  # bytes of the float32 states up to which a CPU is asked


def circuit_dag(circuit: Circuit, gates: int | None = None) -> LineDAG:
    """The DAG of a circuit, or of its first gates (any head of a topological order is a circuit)."""
    kept = circuit.num_gates if gates is None else min(gates, circuit.num_gates)
    nodes = circuit.num_nodes - circuit.num_gates + kept
    dag = LineDAG.from_edge_index(circuit.edge_index[:, : 2 * kept], nodes, order="given")
    assert dag.gather_edges(circuit.inverted[: 2 * kept, None].float()).shape == (dag.num_edges, 1)
    return dag


def circuit(bench: Bench) -> None:
    """All circuits there are, or those of ``--circuits``."""
    if not bench.sets.circuits:
        print("  skipped: circuits are read from --root or --molecules-file")
    for name, found in bench.sets.circuits.items():
        if bench.options.circuits and name not in bench.options.circuits:
            continue
        begin = time.perf_counter()
        dag = circuit_dag(found).to(bench.device)
        build = time.perf_counter() - begin
        head = circuit_dag(found, bench.options.check_gates or None).to(bench.device)
        for heads, width in CIRCUIT_SHAPES:
            _measure(bench, "circuit", name, dag, head, (heads, width), {"build_ms": round(1e3 * build, 2)})


def deep(bench: Bench) -> None:
    """Chains, where a level is one edge: the deepest and narrowest DAGs there are."""
    for edges in bench.options.edges or CHAINS:
        begin = time.perf_counter()
        dag = _chain(bench, edges)
        found = {"build_ms": round(1e3 * (time.perf_counter() - begin), 2)}
        for shape in CIRCUIT_SHAPES:
            _measure(bench, "deep", f"chain of {edges:,} edges", dag, _chain(bench, min(edges, 500)), shape, found)


def _chain(bench: Bench, edges: int) -> LineDAG:
    nodes = torch.arange(edges + 1)
    return LineDAG.from_edge_index(torch.stack([nodes[:-1], nodes[1:]]), edges + 1, order="given").to(bench.device)


def random(bench: Bench) -> None:
    """Random DAGs of so many edges, about 1,000 levels and 2 E pairs."""
    for edges in bench.options.edges or ([10**5, 10**6] if bench.on_gpu else [10**5]):
        levels = max(2, min(1000, edges // 20))
        begin = time.perf_counter()
        dag = _layered(bench, edges, levels)
        build = time.perf_counter() - begin
        head = _layered(bench, min(edges, 2000), min(levels, 500))  # as deep as the reference can wait for
        found = {"build_ms": round(1e3 * build, 2)}
        _measure(bench, "random", f"random DAG of {edges:,} edges", dag, head, SHAPES[0], found)


def _layered(bench: Bench, edges: int, levels: int) -> LineDAG:
    return LineDAG.from_edge_index(*layered_edges(edges, levels)).to(bench.device)


def _measure(
    bench: Bench, group: str, case: str, dag: LineDAG, head: LineDAG, shape: tuple[int, int], found: Row
) -> None:
    heads, width = shape
    case += "" if group == "random" or shape == CIRCUIT_SHAPES[0] else f", H={heads}, K=V={width}"
    states = dag.num_edges * heads * width * width * 4
    if not bench.on_gpu and states > CPU_STATES:
        print(f"  {case} is left out: states of {states / 2**30:.1f} GiB are for a GPU")
        return
    errors = check(bench, dag, head, heads, width)
    inputs = gated_inputs(dag, heads, width)
    weight = torch.randn_like(inputs.value)
    found |= floors(bench, dag, heads, width)
    cases = {name: stepper(through(name), inputs, dag, weight) for name in errors}
    if "triton" in cases and group != "random":
        cases[BY_LEVEL] = stepper(through("triton"), inputs, by_level(dag, width), weight)
    bench.compare(
        group,
        case,
        cases,
        sizes(dag) | {"H": heads, "K": width, "V": width},
        against=["scatter", "triton", BY_LEVEL],
        found={name: {"error": error, "checked_edges": head.num_edges, **found} for name, error in errors.items()},
        targets=partial(targets, group == "random" and dag.num_edges > 900_000),
    )


def by_level(dag: LineDAG, width: int) -> LineDAG:
    """A copy of which no graph counts as deep."""
    copy, narrow = dag.bare(), plan.NARROW
    plan.NARROW = 0
    copy.plan(plan.served_classes(width, width))
    plan.NARROW = narrow
    return copy


def targets(large: bool, name: str, row: Row) -> dict[str, bool]:
    """What the largest random DAG should reach, and kernels on deep ones."""
    if name == "triton" and BY_LEVEL in row["ratios"]:
        return {f">= 3 x {BY_LEVEL}": row["ratios"][BY_LEVEL] >= 3}
    if not large or name != "triton":
        return {}
    return {"<= 50 ms": row["median_ms"] <= 50, "peak < 40 GiB": row["peak_mib"] < 40 * 2**10}
