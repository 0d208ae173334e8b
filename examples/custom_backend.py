"""A backend of your own: a function, an entry in BACKENDS, and the laws that say whether it is right.

    python examples/custom_backend.py

This one sweeps over all pairs at once, as often as the deepest path has steps, until every state is final: short to
write and right, but it does the work of each level again in every sweep.
"""

import torch
from torch import Tensor

from plstm_graph import Gates, LineDAG, PLSTMConv
from plstm_graph.ops import BACKENDS
from plstm_graph.testing import LAWS, check_backend


def sweeping(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
    """[N, H, V], as :func:`plstm_graph.propagate` describes."""
    fed = torch.einsum("ehk,ehv->ehkv", gates.source.unsqueeze(-1) * key[dag.src], value[dag.src])
    state = fed
    for _ in range(dag.num_levels - 1):
        state = fed.index_add(0, dag.next, gates.transition[:, :, None, None] * state[dag.prev])
    message = torch.einsum("ehk,ehkv->ehv", gates.mark.unsqueeze(-1) * query[dag.dst], state)
    itself = (gates.direct * (query * key).sum(-1)).unsqueeze(-1) * value
    return itself.index_add(0, dag.dst, message)


def main() -> None:
    check_backend(sweeping)
    print(f"sweeping keeps {len(LAWS)} laws on all line graphs of plstm_graph.testing")
    BACKENDS["sweeping"] = sweeping
    conv = PLSTMConv(16, 8, heads=4, backend="sweeping")
    edge_index = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    print(conv(torch.randn(4, 16), edge_index).shape)


if __name__ == "__main__":
    main()
