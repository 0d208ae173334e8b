"""Batch norms that leave rows out of their statistics: those of a filler, which brings a batch to a size."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from plstm_graph.errors import ShapeError


@contextmanager
def counted(model: nn.Module, *masks: Tensor) -> Iterator[None]:
    """In training, every ``BatchNorm1d`` of a model takes its statistics from some of its rows alone.

    Args:
        model: whose norms do so while this lasts.
        masks: which rows count, bool [rows]; a norm takes the one that is as long as its input.

    Raises:
        ShapeError: two masks of one length; and from the model, at an input of another length.
    """
    by_length = {len(mask): mask for mask in masks}
    if len(by_length) < len(masks):
        raise ShapeError(
            f"lengths must tell which rows count, but there are {', '.join(str(len(x)) for x in masks)} rows"
        )
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    for norm in norms:
        norm.forward = partial(_forward, norm, by_length)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _forward(norm: nn.BatchNorm1d, masks: Mapping[int, Tensor], x: Tensor) -> Tensor:
    if not norm.training:
        return nn.BatchNorm1d.forward(norm, x)
    if len(x) not in masks:
        known = ", ".join(map(str, masks))
        raise ShapeError(f"which of {len(x)} rows a batch norm should count is not known, only of {known}")
    return batch_norm(norm, x, masks[len(x)])


def batch_norm(norm: nn.BatchNorm1d, x: Tensor, counts: Tensor) -> Tensor:
    """What a norm in training makes of the rows that count, [rows, channels]; in the others stands its bias.

    Args:
        norm: its running statistics move on.
        x: [rows, channels]; what stands in rows that do not count is not looked at.
        counts: which rows do, bool [rows]. A tensor, so that a CUDA graph may have another number in every replay.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    rows, there = counts.sum().to(wide.dtype), counts.unsqueeze(-1)
    mean = wide.where(there, 0.0).sum(0) / rows
    centred = (wide - mean).where(there, 0.0)
    variance = centred.square().sum(0) / rows
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            step = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), step)
            unbiased = variance * (rows / (rows - 1).clamp(min=1))
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), step)
    found = centred * torch.rsqrt(variance + norm.eps)
    if norm.affine:
        found = found * norm.weight + norm.bias
    return found.to(x.dtype)
