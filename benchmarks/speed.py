"""Speed of the operator, the layer, the line graph and a deep circuit: ``python benchmarks/speed.py --help``.

Nothing is timed before its output and all gradients agree with the ``reference`` backend, entry by entry.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import records
import torch
from aiger import Circuit, read_aiger
from bench import REFERENCE, Bench, checked, gated_inputs, ratios, sizes, stepper
from graphs import load_molecules
from timing import Case, agree, bandwidth, measure, operator_floor
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv, GINEConv, GPSConv, ResGatedGraphConv, TransformerConv

from plstm_graph import LineDAG, PLSTMConv
from plstm_graph.errors import BackendUnavailable, PLSTMGraphError
from plstm_graph.ops import BACKENDS

WIDTH, HEADS = 128, 8  # of the layers; heads of the operator too
LAYER_TOLERANCE = 1e-4  # float32 against float64; a gate that is off by 1 % in one row shows as 1e-3


def operator(bench: Bench) -> None:
    """Every backend, forward and all seven gradients, H=8, K=V=16, float32, P mode, molecules of about 25 atoms."""
    count, width = bench.options.molecules, 16
    edge_index, batch = bench.batch(count, atoms=(20, 30))
    dag = LineDAG.from_edge_index(edge_index, batch.numel(), batch=batch)
    inputs = gated_inputs(dag, HEADS, width)
    weight = torch.randn_like(inputs.value)
    errors = checked(list(BACKENDS), inputs, dag, weight)
    print("  all backends agree with the reference: output and seven gradients")
    times = bench.measure({name: stepper(BACKENDS[name], inputs, dag, weight) for name in errors})
    floor, text = operator_floor(dag, HEADS, width, width)
    speed = bandwidth(bench.device)
    print(f"  byte floor: {text}")
    print(f"  {floor / 2**20:.2f} MiB, {1e3 * floor / speed:.3f} ms at the {speed / 1e9:.1f} GB/s of a plain copy")
    bound = {"floor_bytes": floor, "floor_ms": round(1e3 * floor / speed, 4), "copy_gb_s": round(speed / 1e9, 2)}
    for name, error in errors.items():
        found = ratios(times, name, [REFERENCE, "scatter"])
        target = {"target": ">= 10x reference", "met": found[REFERENCE] >= 10} if name == "scatter" else {}
        bench.record(
            "operator",
            f"{count} molecules of 20 to 30 atoms ({bench.molecules.source})",
            name,
            times[name],
            {"ratios": found, "error": error, **bound, "floor_count": text, **target},
            sizes(dag) | {"H": HEADS, "K": width, "V": width},
        )


def peers() -> dict[str, Callable[[], nn.Module]]:
    """PyG's layers of the same width, all of them reading edge features."""

    def gine() -> nn.Module:
        perceptron = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH))
        return GINEConv(perceptron, edge_dim=WIDTH)

    head = WIDTH // HEADS
    return {
        "GINEConv": gine,
        "GATv2Conv": lambda: GATv2Conv(WIDTH, head, heads=HEADS, edge_dim=WIDTH),
        "ResGatedGraphConv": lambda: ResGatedGraphConv(WIDTH, WIDTH, edge_dim=WIDTH),
        "TransformerConv": lambda: TransformerConv(WIDTH, head, heads=HEADS, edge_dim=WIDTH),
        "GPSConv": lambda: GPSConv(WIDTH, gine(), heads=HEADS),
    }


def plstm_layer(backend: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The layer with weights that depend on nothing else, so that two backends get the same."""
    torch.manual_seed(0)
    return PLSTMConv(WIDTH, WIDTH // HEADS, heads=HEADS, edge_dim=WIDTH, backend=backend).to(dtype)


def layer_outcome(conv: nn.Module, x: Tensor, edge_index: Tensor, edge_attr: Tensor, dag: LineDAG) -> dict[str, Tensor]:
    """Output and the gradients of inputs and weights, by name."""
    x, edge_attr = x.detach().requires_grad_(), edge_attr.detach().requires_grad_()
    output = conv(x, edge_index, edge_attr, dag=dag)
    named = {"x": x, "edge_attr": edge_attr, **dict(conv.named_parameters())}
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    grads = torch.autograd.grad(output, list(named.values()), weight)
    return {"output": output, **{f"gradient of {name}": grad for name, grad in zip(named, grads, strict=True)}}


def check_layer(bench: Bench) -> dict[str, float]:
    """The layer in float32 on each backend that can run here against itself in float64 on the reference: errors.

    A few molecules will do: the operator itself is checked on more.
    """
    edge_index, batch = bench.batch(min(16, bench.options.molecules))
    dag = LineDAG.from_edge_index(edge_index, batch.numel(), batch=batch)
    x, edge_attr = features(batch.numel(), bench.device), features(edge_index.size(1), bench.device)
    exact = plstm_layer(REFERENCE, torch.float64).to(bench.device)
    want = layer_outcome(exact, x.double(), edge_index, edge_attr.double(), dag)
    errors = {}
    for name in ["auto", *(name for name in BACKENDS if name != REFERENCE)]:
        with suppress(BackendUnavailable):
            got = layer_outcome(plstm_layer(name).to(bench.device), x, edge_index, edge_attr, dag)
            errors[name] = agree(f"PLSTMConv on {name!r}", got, want, LAYER_TOLERANCE)
    print("  PLSTMConv agrees with the reference: output, gradients of x, edge_attr and all weights")
    return errors


def features(rows: int, device: str) -> Tensor:
    """Normal numbers, [rows, WIDTH]."""
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(rows)).to(device)


def layer_step(conv: nn.Module, x: Tensor, edge_attr: Tensor, **more: Any) -> Case:
    """Forward, and the gradients of both features and of all weights."""
    leaves = [x.requires_grad_(), edge_attr.requires_grad_(), *conv.to(x.device).parameters()]
    weight = torch.randn_like(x)
    return Case(lambda _: torch.autograd.grad(conv(x, edge_attr=edge_attr, **more), leaves, weight))


def layer(bench: Bench) -> None:
    """One layer of width 128, forward and the gradients of features and weights, beside PyG's layers."""
    errors = check_layer(bench)
    for count in bench.options.layer_molecules:
        edge_index, batch = bench.batch(count)
        dag = LineDAG.from_edge_index(edge_index, batch.numel(), batch=batch)
        x, edge_attr = features(batch.numel(), bench.device), features(edge_index.size(1), bench.device)
        step = partial(layer_step, x=x, edge_attr=edge_attr, edge_index=edge_index)
        own = {f"PLSTMConv ({name})": step(plstm_layer(name), dag=dag) for name in errors}
        own["PLSTMConv (auto, no dag)"] = step(plstm_layer("auto"))  # builds a LineDAG on every call
        others = {
            name: step(make(), **({"batch": batch} if name == "GPSConv" else {})) for name, make in peers().items()
        }
        times = bench.measure(own | others)
        print(f"  {count} molecules")
        for name in times:
            bench.record(
                "layer",
                f"{count} molecules ({bench.molecules.source})",
                name,
                times[name],
                {"ratios": ratios(times, name, ["GINEConv", "GATv2Conv"])}
                | ({"error": max(errors.values())} if name in own else {}),
                sizes(dag) | {"width": WIDTH, "H": HEADS},
            )


def line_dag(bench: Bench) -> None:
    """LineDAG from the edge_index of one batch, and its pruning; then both for every molecule, batch by batch."""
    size = bench.options.line_dag_molecules
    edge_index, batch = bench.batch(size)

    def build() -> LineDAG:
        return LineDAG.from_edge_index(edge_index, batch.numel(), batch=batch)

    build().validate()
    assert build().prune().num_pairs <= build().num_pairs
    case = f"{size} molecules ({bench.molecules.source})"
    cases = {"LineDAG": Case(lambda _: build()), "prune": Case(lambda dag: dag.prune(), build)}
    for name, times in bench.measure(cases).items():
        target = (
            {"target": "< 3 ms", "met": statistics.median(times) < 3e-3} if (name, size) == ("LineDAG", 128) else {}
        )
        bench.record("line-dag", case, name, times, target, sizes(build()))
    every_molecule(bench, size)


def every_molecule(bench: Bench, size: int) -> None:
    """Line graphs and pruning of all molecules (or the first --all-molecules), in batches; sums of one pass each."""
    count = min(len(bench.molecules), bench.options.all_molecules)
    batches = [bench.molecules.batch(list(range(a, min(a + size, count)))) for a in range(0, count, size)]
    built, pruned, pairs, kept = [], [], 0, 0
    for _ in range(3):
        begin = time.perf_counter()
        dags = [LineDAG.from_edge_index(edges, batch.numel(), batch=batch) for edges, batch in batches]
        middle = time.perf_counter()
        pairs, kept = sum(dag.num_pairs for dag in dags), sum(dag.prune().num_pairs for dag in dags)
        built.append(middle - begin)
        pruned.append(time.perf_counter() - middle)
    shape = {"graphs": count, "E": sum(dag.num_edges for dag in dags), "P": pairs, "P_pruned": kept}
    case = f"all {count} molecules in batches of {size} ({bench.molecules.source})"
    print(f"  {case}, one pass:")
    bench.record("line-dag", case, "LineDAG", built, {}, shape)
    bench.record("line-dag", case, "prune", pruned, {}, shape)


def circuit_dag(circuit: Circuit, gates: int | None = None) -> LineDAG:
    """The DAG of a circuit, or of its first gates (any head of a topological order is a circuit)."""
    kept = circuit.num_gates if gates is None else min(gates, circuit.num_gates)
    nodes = circuit.num_nodes - circuit.num_gates + kept
    dag = LineDAG.from_edge_index(circuit.edge_index[:, : 2 * kept], nodes, order="given")
    assert dag.gather_edges(circuit.inverted[: 2 * kept, None].float()).shape == (dag.num_edges, 1)
    return dag


def circuit(bench: Bench) -> None:
    """A deep native DAG: scatter, forward and all seven gradients, H=1, K=V=4."""
    options = bench.options
    if options.root is None:
        print("  skipped: a circuit is read from --root")
        return
    found = read_aiger(Path(options.root) / "dag_EPFL_aig" / f"{options.circuit}.aig.gz")
    # The reference takes time that grows with the square of E: minutes for a whole large circuit.
    head = circuit_dag(found, options.check_gates or None).to(bench.device)
    inputs = gated_inputs(head, 1, 4)
    error = checked(["scatter"], inputs, head, torch.randn_like(inputs.value))["scatter"]
    print(f"  scatter agrees with the reference on the first {head.num_edges} edges: output and seven gradients")

    begin = time.perf_counter()
    dag = circuit_dag(found).to(bench.device)
    build = time.perf_counter() - begin
    inputs = gated_inputs(dag, 1, 4)
    case = stepper(BACKENDS["scatter"], inputs, dag, torch.randn_like(inputs.value))
    times = measure({"scatter": case}, bench.device, rounds=min(5, options.rounds), seconds=options.seconds)["scatter"]
    print(f"  {sizes(dag)}; LineDAG built in {build:.2f} s")
    bench.record(
        "circuit",
        options.circuit,
        "scatter",
        times,
        {"error": error, "checked_edges": head.num_edges, "build_ms": round(1e3 * build, 2)},
        sizes(dag) | {"H": 1, "K": 4, "V": 4},
    )


GROUPS: dict[str, Callable[[Bench], None]] = {
    "operator": operator,
    "layer": layer,
    "line-dag": line_dag,
    "circuit": circuit,
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("group", nargs="?", default="all", choices=[*GROUPS, "all"])
    parser.add_argument("--root", help="folder with ogb/ogbg_molhiv/raw and dag_EPFL_aig; without it random graphs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=30, help="timed calls of each row")
    parser.add_argument("--seconds", type=float, default=20.0, help="stop a comparison after this long")
    parser.add_argument("--molecules", type=int, default=64, help="batch of the operator")
    parser.add_argument("--layer-molecules", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--line-dag-molecules", type=int, default=128)
    parser.add_argument("--all-molecules", type=int, default=10**9, help="at most so many in the pass over all")
    parser.add_argument("--circuit", default="div")
    parser.add_argument("--check-gates", type=int, default=1500, help="gates to check on; 0: all (10 minutes for div)")
    parser.add_argument("--out", default=str(records.RESULTS / "speed.jsonl"))
    parser.add_argument("--no-record", action="store_true", help="print only")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run one group or all."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    try:
        bench = Bench(options, load_molecules(options.root))
        for name in GROUPS if options.group == "all" else [options.group]:
            print(f"{name} on {records.machine(options.device)}")
            torch.manual_seed(0)
            GROUPS[name](bench)
    except (PLSTMGraphError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
