"""Batch norms that leave rows out of their statistics: those of a filler, which brings a batch to a size."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from plstm_graph.errors import ConfigError, ShapeError, unknown

ROWS = ("nodes", "columns", "graphs")
"""Kinds of rows of a norm: nodes, columns of ``edge_index``, or graphs."""


def told(norm: nn.Module, rows: str) -> nn.Module:
    """Say what the rows of a norm are, where they are not nodes; see :data:`ROWS`. Returns the norm."""
    if rows not in ROWS:
        raise ConfigError(unknown("rows", rows, ROWS))
    for part in _norms(norm):
        part.rows = rows  # type: ignore[assignment]
    return norm


@contextmanager
def counted(model: nn.Module, **counts: Tensor) -> Iterator[None]:
    """Let every ``BatchNorm1d`` of a model, in training, take its statistics from some of its rows alone.

    Args:
        model: whose norms do so while this lasts. Rows are nodes, unless a norm was :func:`told` otherwise.
        counts: which rows count, bool [rows], by their names in :data:`ROWS`.

    Raises:
        ShapeError: from the model, at an input with another number of rows.
    """
    norms = _norms(model)
    for norm in norms:
        rows = getattr(norm, "rows", ROWS[0])
        norm.forward = partial(_forward, norm, rows, counts[rows])  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _norms(model: nn.Module) -> list[nn.BatchNorm1d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]


def _forward(norm: nn.BatchNorm1d, rows: str, counts: Tensor, x: Tensor) -> Tensor:
    if not norm.training:
        return nn.BatchNorm1d.forward(norm, x)
    if rows == "columns" and len(x) == 2 * len(counts):  # read as they are stored and then the other way, see BothWays
        counts = counts.repeat(2)
    if len(x) != len(counts):
        raise ShapeError(
            f"a batch norm of {len(counts)} {rows} was given {len(x)} rows; what its rows are is said by "
            f"plstm_graph.nn.counted.told(norm, rows), one of {', '.join(ROWS)}"
        )
    return batch_norm(norm, x, counts)


def batch_norm(norm: nn.BatchNorm1d, x: Tensor, counts: Tensor) -> Tensor:
    """Output of a norm in training for the rows that count, [rows, channels]; in the others stands its bias.

    Args:
        norm: its running statistics move on.
        x: [rows, channels]; what stands in rows that do not count is not looked at.
        counts: which rows do, bool [rows]. A tensor, so that a CUDA graph may have another number in every replay.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    count, there = counts.sum().to(wide.dtype), counts.unsqueeze(-1)
    rows = count.clamp(min=1)
    mean = wide.where(there, 0.0).sum(0) / rows
    centred = (wide - mean).where(there, 0.0)
    variance = centred.square().sum(0) / rows
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        with torch.no_grad():
            some = count.clamp(max=1)  # of no row, as of no edge in a batch of single atoms, nothing is learnt
            norm.num_batches_tracked += some.to(norm.num_batches_tracked.dtype)
            step = some * (norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.clamp(min=1))
            step = step.to(norm.running_mean.dtype)
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), step)
            unbiased = variance * (rows / (rows - 1).clamp(min=1))
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), step)
    found = centred * torch.rsqrt(variance + norm.eps)
    if norm.affine:
        found = found * norm.weight + norm.bias
    return found.to(x.dtype)
