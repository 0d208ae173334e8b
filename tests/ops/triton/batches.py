"""Batches for the tests of the operator's kernels: graphs whose inputs are the same alone and in any company."""

from functools import partial

import torch
from torch import Tensor

from plstm_graph import LineDAG, propagate
from plstm_graph.gates import normalize_transition
from plstm_graph.testing import NAMES, Inputs, outcome, random_inputs

triton = partial(propagate, backend="triton")


def molecule(nodes: int, seed: int = 0) -> LineDAG:
    """A chain with ring closures, one graph even of no node."""
    start = torch.arange(max(nodes - 1, 0))
    closing = start[: max(nodes - 5, 0)]
    closing = closing[torch.rand(len(closing), generator=torch.Generator().manual_seed(seed)) < 0.15]
    columns = torch.cat([torch.stack([start, start + 1]), torch.stack([closing, closing + 5])], 1)
    return LineDAG.from_edge_index(columns, nodes, batch=torch.zeros(nodes, dtype=torch.long))


def tame_inputs(dag: LineDAG, heads: int, keys: int, values: int, seed: int = 0) -> Inputs:
    """Inputs that keep output and gradients near 1 on thousands of nodes, so that a tolerance means something: inner
    products of about 1 and transitions of a stable layer. Float64, on the CPU."""
    query, key, value, gates = random_inputs(dag, heads, keys, values, seed=seed)
    transition = gates.transition if dag.pruned else normalize_transition(gates.transition, dag)
    by_key, by_value = keys**-0.25, values**-0.25
    return Inputs(query * by_key, key * by_key, value * by_value, gates._replace(transition=transition))


def join(inputs: list[Inputs]) -> Inputs:
    """Inputs of a batch of graphs from theirs."""
    return Inputs.of([torch.cat(rows) for rows in zip(*(x.flat() for x in inputs), strict=True)])


def split(results: dict[str, Tensor], dags: list[LineDAG]) -> list[dict[str, Tensor]]:
    """The rows of each graph of a batch, from what ``outcome`` returns."""
    sizes = {f"gradient of {name}": [dag.num_nodes for dag in dags] for name in NAMES} | {
        "output": [dag.num_nodes for dag in dags],
        "gradient of source": [dag.num_edges for dag in dags],
        "gradient of transition": [dag.num_pairs for dag in dags],
        "gradient of mark": [dag.num_edges for dag in dags],
    }
    rows = {name: result.split(sizes[name]) for name, result in results.items()}
    return [{name: parts[i] for name, parts in rows.items()} for i in range(len(dags))]


def probe(inputs: Inputs) -> Tensor:
    """A gradient of the output that differs from entry to entry and not from batch to batch: its rows follow the
    values'."""
    return inputs.value.flip(1, 2)


def check_close(got: dict[str, Tensor], want: dict[str, Tensor], tolerance: float) -> None:
    """Output and all gradients, element by element."""
    for name, expected in want.items():
        torch.testing.assert_close(
            got[name].double(), expected.double(), rtol=tolerance, atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


def check_same(got: dict[str, Tensor], want: dict[str, Tensor], what: str = "") -> None:
    """Bit for bit."""
    for name, expected in want.items():
        assert torch.equal(got[name], expected), f"{what} {name}"


def run(inputs: Inputs, dag: LineDAG) -> dict[str, Tensor]:
    """Output and all gradients of the kernels."""
    return outcome(triton, inputs, dag, probe(inputs))
