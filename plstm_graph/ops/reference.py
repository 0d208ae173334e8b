"""The definition of right: eqs 5 and 6 edge by edge in plain Python. Autograd does the gradient."""

import torch
from torch import Tensor

from plstm_graph.gates import Gates
from plstm_graph.line_dag import LineDAG


def propagate(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
    """See :func:`plstm_graph.propagate`."""
    src, dst = dag.src.tolist(), dag.dst.tolist()
    arriving: list[list[tuple[int, int]]] = [[] for _ in src]  # (pair, prev) of each edge
    for pair, (prev, next) in enumerate(zip(dag.prev.tolist(), dag.next.tolist(), strict=True)):
        arriving[next].append((pair, prev))

    state: dict[int, Tensor] = {}  # of each edge, [H, K, V]
    for edge in torch.argsort(dag.level, stable=True).tolist():
        node = src[edge]
        state[edge] = gates.source[edge, :, None, None] * key[node].unsqueeze(-1) * value[node].unsqueeze(-2)
        for pair, prev in arriving[edge]:
            state[edge] = state[edge] + gates.transition[pair, :, None, None] * state[prev]

    itself = (gates.direct * (query * key).sum(-1)).unsqueeze(-1) * value
    output = list(itself)  # of each node, [H, V]
    for edge, node in enumerate(dst):
        output[node] = output[node] + gates.mark[edge, :, None] * (query[node].unsqueeze(-1) * state[edge]).sum(-2)
    return torch.stack(output) if output else itself
