"""The definition of right: pixel by pixel, token by token, in plain Python. Autograd does the gradient."""

import torch
from torch import Tensor

from plstm_graph.grid.gates import DIRECTIONS, ChainGates, GridGates, flip


def image(query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> Tensor:
    """See :func:`plstm_graph.grid.image`."""
    gates = gates.widened().turned()
    output = gates.direct.unsqueeze(-1) * (query * key).sum(-1, keepdim=True) * value
    for number, axes in enumerate(DIRECTIONS.values()):
        here = (flip(x, axes) for x in (query, key, value))
        output = output + flip(_right_down(*here, *(gate[:, number] for gate in gates[:3])), axes)
    return output


def _right_down(query: Tensor, key: Tensor, value: Tensor, source: Tensor, transition: Tensor, mark: Tensor) -> Tensor:
    """One direction without the direct term, gates [B, H, Y, X, 2, J] and [B, H, Y, X, 2, 2, J, J]."""
    rows, columns = value.shape[2:4]
    nothing = value.new_zeros(*value.shape[:2], source.size(-1), key.size(-1), value.size(-1))  # [B, H, J, K, V]
    above = [nothing] * columns
    output = []
    for i in range(rows):
        left = nothing
        for j in range(columns):
            arriving = torch.stack([left, above[j]], 2)  # [B, H, 2, J, K, V]
            read = torch.einsum("bhpj,bhpjkv->bhkv", mark[:, :, i, j], arriving)
            output.append(torch.einsum("bhk,bhkv->bhv", query[:, :, i, j], read))
            fed = torch.einsum("bhnj,bhk,bhv->bhnjkv", source[:, :, i, j], key[:, :, i, j], value[:, :, i, j])
            leaving = fed + torch.einsum("bhnpji,bhpikv->bhnjkv", transition[:, :, i, j], arriving)
            left, above[j] = leaving.unbind(2)
    return torch.stack(output, 2).view_as(value)


def chain(query: Tensor, key: Tensor, value: Tensor, gates: ChainGates, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """See :func:`plstm_graph.grid.chain`; the state is [B, H, J, K, V], also where J = 1."""
    source, transition, mark, direct = gates.widened()
    if state is None:
        state = value.new_zeros(*value.shape[:2], source.size(-1), key.size(-1), value.size(-1))
    output = list((direct.unsqueeze(-1) * (query * key).sum(-1, keepdim=True) * value).unbind(2))
    for t in range(value.size(2)):
        read = torch.einsum("bhj,bhjkv->bhkv", mark[:, :, t], state)
        output[t] = output[t] + torch.einsum("bhk,bhkv->bhv", query[:, :, t], read)
        fed = torch.einsum("bhj,bhk,bhv->bhjkv", source[:, :, t], key[:, :, t], value[:, :, t])
        state = fed + torch.einsum("bhji,bhikv->bhjkv", transition[:, :, t], state)
    return torch.stack(output, 2), state
