"""One layer, or one block, of width 128 beside PyG's: forward, and the gradients of features and weights."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
from bench import DTYPES, REFERENCE, Bench, Row, Targets, backends, no_targets, sizes
from timing import Case, agree
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv, GINEConv, GPSConv, ResGatedGraphConv, TransformerConv

from plstm_graph import LineDAG, PLSTMBlock, PLSTMConv
from plstm_graph.errors import BackendUnavailable

WIDTH, HEADS, FULL = 128, 8, "float32"
# Against float64 on the same weights. A gate that is off by 1 % in one row shows as 1e-3 in float32; in half precision
# gradients of weights are long sums of rounded terms, and only gross errors show.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.5, torch.float16: 0.1}
HEAD = 16  # graphs to check on: the operator itself is checked on more


class Graphs(NamedTuple):
    """A batch as a layer takes it."""

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    batch: Tensor
    dag: LineDAG


def graphs(bench: Bench, count: int, dtype: torch.dtype = torch.float32) -> Graphs:
    """So many molecules with normal features, [N, WIDTH] and [M, WIDTH]."""
    edge_index, batch = bench.batch(count)
    dag = LineDAG.from_edge_index(edge_index, batch.numel(), batch=batch)
    generator = torch.Generator().manual_seed(count)
    x, edge_attr = (
        torch.randn(rows, WIDTH, generator=generator).to(bench.device, dtype)
        for rows in (batch.numel(), edge_index.size(1))
    )
    return Graphs(x, edge_index, edge_attr, batch, dag)


def gine() -> nn.Module:
    """GINEConv with its usual perceptron."""
    perceptron = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH))
    return GINEConv(perceptron, edge_dim=WIDTH)


PEERS: dict[str, Callable[[], nn.Module]] = {
    "GINEConv": gine,
    "GATv2Conv": lambda: GATv2Conv(WIDTH, WIDTH // HEADS, heads=HEADS, edge_dim=WIDTH),
    "ResGatedGraphConv": lambda: ResGatedGraphConv(WIDTH, WIDTH, edge_dim=WIDTH),
    "TransformerConv": lambda: TransformerConv(WIDTH, WIDTH // HEADS, heads=HEADS, edge_dim=WIDTH),
    "GPSConv": lambda: GPSConv(WIDTH, gine(), heads=HEADS),
}
"""PyG's layers of the same width, all of them reading edge features."""

BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "PLSTMBlock": lambda: PLSTMBlock(WIDTH, HEADS, directions="along", edge_dim=WIDTH),
    "PLSTMBlock (both directions)": lambda: PLSTMBlock(WIDTH, HEADS, edge_dim=WIDTH),
    "PLSTMBlock (both, with GINEConv)": lambda: PLSTMBlock(WIDTH, HEADS, edge_dim=WIDTH, local=gine()),
    "GINEConv block": lambda: PLSTMBlock(WIDTH, HEADS, mode=None, edge_dim=WIDTH, local=gine()),
    "GPSConv": PEERS["GPSConv"],
}
"""Norm, layer, residual and feed-forward; a GPSConv is one by itself."""


def plstm_layer(backend: str) -> nn.Module:
    """The layer with weights that depend on nothing else, so that two backends get the same."""
    torch.manual_seed(0)
    return PLSTMConv(WIDTH, WIDTH // HEADS, heads=HEADS, edge_dim=WIDTH, backend=backend)


def call(module: nn.Module, given: Graphs, with_dag: bool = True) -> Tensor:
    """A layer of either kind on a batch."""
    more: dict[str, Any] = {"batch": given.batch} if isinstance(module, GPSConv) else {}
    if with_dag and isinstance(module, PLSTMConv | PLSTMBlock):
        more = {"dag": given.dag}
    return module(given.x, given.edge_index, edge_attr=given.edge_attr, **more)


def unseen(module: nn.Module, given: Graphs) -> Tensor:
    """The same without a line graph, on an ``edge_index`` that no layer has been called with."""
    return call(module, given._replace(edge_index=given.edge_index.clone()), with_dag=False)


class Layers(nn.Module):
    """So many layers of a kind, one after the other; a pLSTM layer reads along the edges and against them in turn."""

    def __init__(self, make: Callable[[], nn.Module], count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make() for _ in range(count))
        for number, layer in enumerate(self.layers):
            if isinstance(layer, PLSTMConv):
                layer.reverse = number % 2 == 1

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """[N, WIDTH] -> [N, WIDTH]"""
        for layer in self.layers:
            x = layer(x, edge_index, edge_attr=edge_attr)
        return x


def step(module: nn.Module, given: Graphs, run: Callable[[nn.Module, Graphs], Tensor] = call) -> Case:
    """Forward, and the gradients of both features and of all weights."""
    given = given._replace(x=given.x.detach().requires_grad_(), edge_attr=given.edge_attr.detach().requires_grad_())
    module = module.to(given.x.device, given.x.dtype)
    leaves = [given.x, given.edge_attr, *module.parameters()]
    weight = torch.randn_like(given.x)

    def forward_backward(_: Any) -> tuple[Tensor, ...]:
        output = run(module, given)
        return (output.detach(), *torch.autograd.grad(output, leaves, weight, allow_unused=True))

    return Case(forward_backward)


def outcome(module: nn.Module, given: Graphs) -> dict[str, Tensor]:
    """Output and the gradients of inputs and weights, by name."""
    given = given._replace(x=given.x.detach().requires_grad_(), edge_attr=given.edge_attr.detach().requires_grad_())
    output = call(module, given)
    named = {"x": given.x, "edge_attr": given.edge_attr, **dict(module.named_parameters())}
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    grads = torch.autograd.grad(output, list(named.values()), weight, materialize_grads=True, allow_unused=True)
    return {"output": output, **{f"gradient of {name}": grad for name, grad in zip(named, grads, strict=True)}}


def exact(module: nn.Module) -> nn.Module:
    """The same weights in float64, on the reference."""
    module = deepcopy(module).double()
    for part in module.modules():
        if isinstance(part, PLSTMConv):
            part.backend = REFERENCE
    return module


def check(bench: Bench, modules: Mapping[str, Callable[[], nn.Module]], dtype: torch.dtype) -> dict[str, float]:
    """Error of each module that can run here on a few molecules, against itself in float64 on the reference."""
    given = graphs(bench, HEAD, dtype)
    wide = given._replace(x=given.x.double(), edge_attr=given.edge_attr.double())
    errors = {}
    for name, make in modules.items():
        module = make().to(bench.device, dtype)
        try:
            got = outcome(module, given)
        except BackendUnavailable as error:
            print(f"  {name} cannot run here: {error}")
            continue
        errors[name] = agree(name, got, outcome(exact(module), wide), TOLERANCE[dtype])
    print(f"  {', '.join(errors)} agree with the reference: output, gradients of x, edge_attr and all weights")
    return errors


def layer(bench: Bench) -> None:
    """PLSTMConv on every backend beside PyG's layers."""
    names = ["auto", *(name for name in backends(bench.options) if name != REFERENCE)]
    own = {f"PLSTMConv ({name})": partial(plstm_layer, name) for name in names}
    for count, dtype in batches(bench):
        errors = check(bench, own, DTYPES[dtype])
        given = graphs(bench, count, DTYPES[dtype])
        cases = {name: step(own[name](), given) for name in errors}
        cases["PLSTMConv (auto, no dag)"] = step(plstm_layer("auto"), given, unseen)
        cases |= {name: step(make(), given) for name, make in PEERS.items()}
        if bench.options.compiled:
            cases |= compiled({"PLSTMConv (auto)": own["PLSTMConv (auto)"], **PEERS}, given)
        _compare(bench, "layer", count, dtype, given, cases, errors, ["GINEConv", "GATv2Conv", "GPSConv"])
        _four(bench, count, dtype, given)


def _four(bench: Bench, count: int, dtype: str, given: Graphs) -> None:
    """A model of four layers that nobody has given a line graph."""
    kinds: dict[str, Callable[[], nn.Module]] = {"PLSTMConv (no dag)": partial(plstm_layer, "auto")}
    kinds |= {name: PEERS[name] for name in ("GINEConv", "GATv2Conv")}
    cases = {f"4 x {name}": step(Layers(make, 4), given, unseen) for name, make in kinds.items()}
    _compare(bench, "layer", count, dtype, given, cases, {}, ["4 x GINEConv", "4 x GATv2Conv"], ", four layers")


def block(bench: Bench) -> None:
    """PLSTMBlock beside a GPSConv, and beside the same block with a GINEConv alone."""
    for count, dtype in batches(bench):
        # In half precision some of GINEConv's ReLUs open or close, and its gradients are others by right.
        own = {name: make for name, make in BLOCKS.items() if "PLSTM" in name and (dtype == FULL or "GINE" not in name)}
        errors = check(bench, own, DTYPES[dtype])
        given = graphs(bench, count, DTYPES[dtype])
        cases = {name: step(make(), given) for name, make in BLOCKS.items()}
        if bench.options.compiled:
            cases |= compiled(BLOCKS, given)
        _compare(bench, "block", count, dtype, given, cases, errors, ["GINEConv block", "GPSConv"])


def batches(bench: Bench) -> Iterable[tuple[int, str]]:
    """Numbers of molecules with dtypes."""
    dtypes = bench.options.dtypes or (["float32", "bfloat16"] if bench.on_gpu else ["float32"])
    counts = bench.options.layer_molecules or ([64, 512, 4096] if bench.on_gpu else [64, 512])
    return [(count, dtype) for count in counts for dtype in dtypes]


def compiled(modules: Mapping[str, Callable[[], nn.Module]], given: Graphs) -> dict[str, Case]:
    """The same after ``torch.compile``; what it cannot compile is left out with a line."""
    torch.compiler.reset()  # what was compiled for other sizes counts towards a limit
    cases = {}
    for name, make in modules.items():
        module = make()
        module.forward = torch.compile(module.forward)
        case = step(module, given)
        try:
            case.run(None)
            cases[f"{name} (compiled)"] = case
        except Exception as error:  # whatever a compiler and its many parts raise
            print(f"  {name} (compiled) is left out: {str(error).splitlines()[0]}")
    return cases


def _compare(
    bench: Bench,
    group: str,
    count: int,
    dtype: str,
    given: Graphs,
    cases: dict[str, Case],
    errors: dict[str, float],
    against: list[str],
    more: str = "",
) -> None:
    found: dict[str, Row] = {name: {"dtype": dtype} for name in cases}
    for name, error in errors.items():
        found[name]["error"] = error
    case = f"{count} molecules ({bench.sets.molecules.source})" + ("" if dtype == FULL else f", {dtype}") + more
    shape = sizes(given.dag) | {"width": WIDTH, "H": HEADS}
    asked = group == "layer" and dtype == FULL
    goals: Targets = partial(targets, bench.on_gpu, count) if asked else no_targets
    bench.compare(group, case, cases, shape, against=against, found=found, targets=goals)


def targets(on_gpu: bool, count: int, name: str, row: Row) -> dict[str, bool]:
    """Shares of the peers' times that the layer should need at most."""
    wanted = {"GINEConv": 3.0, "GATv2Conv": 1.0} if count in (64, 512) else {}
    if on_gpu:
        wanted = {"GINEConv": 1.0, "GATv2Conv": 0.4} if count in (512, 4096) else {}
        wanted |= {"GPSConv": 0.1} if count == 4096 else {}
    if "no dag" in name:
        four = name.startswith("4 x ")
        wanted = {"4 x GINEConv": 1.3} if four else {"GINEConv": 2.0}
        wanted = wanted if on_gpu and count in (512, 4096) else {}
    elif name != "PLSTMConv (auto)":
        return {}
    return {
        f"<= {'' if share == 1 else f'{share:g} x '}{peer}": row["ratios"][peer] * share >= 1
        for peer, share in wanted.items()
        if peer in row["ratios"]
    }
