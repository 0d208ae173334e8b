"""Kernels and loops as ops that torch's compiler sees: opaque, with known shapes, inputs are all their tensors."""

from collections.abc import Callable
from typing import Any

import torch

from plstm_graph.io.lazy import COMPILER, is_put_off


def register(
    name: str,
    schema: str,
    run: Callable[..., Any],
    shapes: Callable[..., Any],
    *,
    keep: Callable[..., None] | None = None,
    gradients: Callable[..., Any] | None = None,
) -> None:
    """Make ``torch.ops.plstm_graph.<name>``; not in a process that compiles nothing, since torch takes long for it.

    Args:
        name: of the op.
        schema: of its arguments and what it returns, as ``torch.library.define`` takes it.
        run: what it does, on a CPU and a GPU.
        shapes: the same arguments, and empty tensors for what it returns.
        keep, gradients: its ``setup_context`` and ``backward``, where it has gradients.
    """
    if is_put_off(COMPILER):
        return
    qualified = f"plstm_graph::{name}"
    torch.library.define(qualified, schema)
    torch.library.impl(qualified, ("CPU", "CUDA"), run)
    torch.library.register_fake(qualified, shapes)
    if gradients is not None:
        torch.library.register_autograd(qualified, gradients, setup_context=keep)
