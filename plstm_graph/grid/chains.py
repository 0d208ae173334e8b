"""Forms of chains: one gating matrix, or chunks in parallel form with their K x V states from a scan."""

import torch
from torch import Tensor
from torch.nn import functional as F

from plstm_graph.errors import BackendUnavailable
from plstm_graph.grid.gates import ChainGates
from plstm_graph.grid.matrix import MAX_BYTES
from plstm_graph.grid.merge import chain_tiles

CHUNK = 64


def log(query: Tensor, key: Tensor, value: Tensor, gates: ChainGates, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """The whole chain is one chunk: its gating matrix in logarithmic depth."""
    tokens = value.size(2)
    needed = gates.direct.numel() * tokens * value.element_size()
    if needed > MAX_BYTES:
        raise BackendUnavailable(
            f"the gating matrices of {tokens} tokens need {needed / 2**30:.1f} GiB, more than the limit of "
            f"{MAX_BYTES / 2**30:.0f}; use form='chunks'"
        )
    return chunks(query, key, value, gates, state, size=tokens)


def chunks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gates: ChainGates,
    state: Tensor | None,
    *,
    size: int = CHUNK,
    parallel: bool = True,
) -> tuple[Tensor, Tensor]:
    """Chunks of ``size`` tokens; what arrives at each by a scan in logarithmic depth if ``parallel``, or in turn."""
    tokens, j, keys = value.size(2), gates.states, key.size(-1)
    size = min(size, tokens)
    fill = -tokens % size
    itself = gates.direct.unsqueeze(-1) * (query * key).sum(-1, keepdim=True) * value
    wide = _filled(gates.widened(), fill)
    q, k, v = (F.pad(x, (0, 0, 0, fill)).unflatten(2, (-1, size)) for x in (query, key, value))
    tiles = chain_tiles(wide, size)  # [B, H, chunks, J + size, J + size]
    through, source, mark = tiles[..., :j, :j], tiles[..., :j, j:], tiles[..., j:, :j]
    output = ((q @ k.transpose(-1, -2)) * tiles[..., j:, j:]) @ v
    fed = source.unsqueeze(-2) * k.transpose(-1, -2).unsqueeze(-3)  # [B, H, chunks, J, K, size]
    given = (fed.flatten(-3, -2) @ v).unflatten(-2, (j, keys)).flatten(-2)  # [B, H, chunks, J, K * V]
    begin = torch.zeros_like(given[:, :, 0]) if state is None else state.flatten(-2)
    given = torch.cat([begin.unsqueeze(2), given], 2)
    arriving = (scan if parallel else in_turn)(F.pad(through, (0, 0, 0, 0, 1, 0)), given)
    *_, end = arriving.unbind(2)
    arriving = arriving[:, :, :-1].unflatten(-1, (keys, -1)).flatten(3, 4)
    output = output + (mark.unsqueeze(-1) * q.unsqueeze(-2)).flatten(-2) @ arriving
    return output.flatten(2, 3)[:, :, :tokens] + itself, end.unflatten(-1, (keys, -1))


def scan(through: Tensor, given: Tensor) -> Tensor:
    """``state[c] = through[c] state[c-1] + given[c]`` (Hillis and Steele 1986): [B, H, C, J, J], [B, H, C, J, S].

    After a step of s a state covers the 2s places up to its own; log2(C) steps.
    """
    state, step = given, 1
    while step < state.size(2):
        reached = through[:, :, step:] @ state[:, :, :-step]
        state = torch.cat([state[:, :, :step], state[:, :, step:] + reached], 2)
        through = torch.cat([through[:, :, :step], through[:, :, step:] @ through[:, :, :-step]], 2)
        step *= 2
    return state


def in_turn(through: Tensor, given: Tensor) -> Tensor:
    """The same as :func:`scan`, one after the other: fewer operations, more steps."""
    state, *rest = given.unbind(2)
    states = [state]
    for carry, add in zip(through.unbind(2)[1:], rest, strict=True):
        state = carry @ state + add
        states.append(state)
    return torch.stack(states, 2)


def _filled(gates: ChainGates, fill: int) -> ChainGates:
    """Tokens behind the last one that pass on what arrives."""
    source, transition, mark, direct = gates
    eye = torch.eye(gates.states, dtype=transition.dtype, device=transition.device)
    passed = eye.expand(*transition.shape[:2], fill, *eye.shape)
    return ChainGates(
        F.pad(source, (0, 0, 0, fill)), torch.cat([transition, passed], 2), F.pad(mark, (0, 0, 0, fill)), direct
    )
