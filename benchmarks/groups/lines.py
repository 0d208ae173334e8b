"""Line graphs from edge_index, and their pruning."""

import time

from bench import Bench, Row, sizes
from timing import Case, summary, wait

from plstm_graph import LineDAG

LIMIT_MS = 3  # for 128 molecules


def line_dag(bench: Bench) -> None:
    """LineDAG from the edge_index of one batch, and its pruning; then both for every molecule, batch by batch."""
    size = bench.options.line_dag_molecules
    edge_index, batch = bench.batch(size)

    def build() -> LineDAG:
        return LineDAG.from_edge_index(edge_index, batch.numel(), batch=batch)

    def targets(name: str, row: Row) -> dict[str, bool]:
        return {f"< {LIMIT_MS} ms": row["median_ms"] < LIMIT_MS} if (name, size) == ("LineDAG", 128) else {}

    build().validate()
    assert build().prune().num_pairs <= build().num_pairs
    case = f"{size} molecules ({bench.sets.molecules.source})"
    cases = {"LineDAG": Case(lambda _: build()), "prune": Case(lambda dag: dag.prune(), build)}
    bench.compare("line-dag", case, cases, sizes(build()), targets=targets)
    every_molecule(bench, size)


def every_molecule(bench: Bench, size: int) -> None:
    """Line graphs and pruning of all molecules (or the first --all-molecules), in batches; sums of one pass each."""
    molecules = bench.sets.molecules
    count = min(len(molecules), bench.options.all_molecules)
    batches = [
        [part.to(bench.device) for part in molecules.batch(list(range(a, min(a + size, count))))]
        for a in range(0, count, size)
    ]
    built, pruned, pairs, kept = [], [], 0, 0
    for _ in range(3):
        begin = time.perf_counter()
        dags = [LineDAG.from_edge_index(edges, batch.numel(), batch=batch) for edges, batch in batches]
        wait(bench.device)
        middle = time.perf_counter()
        pairs, kept = sum(dag.num_pairs for dag in dags), sum(dag.prune().num_pairs for dag in dags)
        wait(bench.device)
        built.append(middle - begin)
        pruned.append(time.perf_counter() - middle)
    shape = {"graphs": count, "E": sum(dag.num_edges for dag in dags), "P": pairs, "P_pruned": kept}
    case = f"all {count} molecules in batches of {size} ({molecules.source})"
    print(f"  {case}, one pass:")
    bench.record("line-dag", case, "LineDAG", summary(built), shape)
    bench.record("line-dag", case, "prune", summary(pruned), shape)
