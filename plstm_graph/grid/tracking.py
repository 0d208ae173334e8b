"""Transitions between J states of an edge: bounded singular values between orthogonal factors (B.5).

A product of such matrices never grows, and one with all singular values 1 loses nothing: rotations and permutations of
states are kept over any distance, which a single number cannot (state tracking).
"""

import torch
from torch import Tensor


def bounded(values: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``U diag(values) Vᵀ`` with U and V the rotations of ``left`` and ``right``.

    Args:
        values: singular values but for their signs, from -1 to 1, [.., J]; negative ones make reflections.
        left, right: entries above the diagonal of skew matrices, [.., J (J - 1) / 2].

    Returns:
        [.., J, J], of norm at most 1.
    """
    return (rotation(left, values.size(-1)) * values.unsqueeze(-2)) @ rotation(right, values.size(-1)).mT


def rotation(skew: Tensor, states: int) -> Tensor:
    """``exp(A - Aᵀ)`` with A the strictly upper triangle of ``skew``, [.., J (J - 1) / 2] -> [.., J, J]."""
    if states == 1:
        return skew.new_ones(*skew.shape[:-1], 1, 1)
    if states == 2:  # a plane has but one angle
        cos, sin = skew.cos(), skew.sin()
        return torch.stack([torch.cat([cos, sin], -1), torch.cat([-sin, cos], -1)], -2)
    row, column = torch.triu_indices(states, states, 1, device=skew.device)
    flat = skew.new_zeros(*skew.shape[:-1], states**2).index_copy(-1, row * states + column, skew)
    upper = flat.unflatten(-1, (states, states))
    return torch.linalg.matrix_exp(upper - upper.mT)
