"""Compile the kernels of a model ahead, several at a time: as they are met, one waits for the other."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy

import torch
from torch import Tensor, nn

from plstm_graph.line_dag import LineDAG
from plstm_graph.nn.conv import PLSTMConv
from plstm_graph.nn.gridded import GridLayer
from plstm_graph.ops.compiled import unavailable
from plstm_graph.ops.dispatch import compiled_backend

log = logging.getLogger(__name__)


def compile_ahead(
    model: nn.Module,
    device: torch.device,
    around: AbstractContextManager[object] | None = None,
    answer: Callable[[], Tensor] | None = None,
) -> int:
    """Compile the kernels that the forward and the backward pass of a model's layers need on an NVIDIA GPU.

    Those that Triton has kept on disk are read from there. What fails here fails again, with a message, where it is
    needed.

    Args:
        model: any with ``PLSTMConv``, ``PLSTMImage`` or ``PLSTMChain``; it is left as it is, and so are the random
            numbers.
        device: where it will run.
        around: the passes, as ``torch.autocast``.
        answer: a forward pass of the model on one example of the usual size, without which layers on images and chains
            are left out: their kernels depend on it.

    Returns:
        How many kinds of layers were found.
    """
    if device.type != "cuda":
        return 0
    convs = [module for module in model.modules() if isinstance(module, PLSTMConv) and module.in_channels != -1]
    convs = [conv for conv in convs if compiled_backend(conv.backend, device) == "triton"]
    on_grids = answer is not None and any(isinstance(module, GridLayer) for module in model.modules())
    on_grids = on_grids and unavailable("triton", device, unasked=True) is None
    if not convs and not on_grids:
        return 0
    from plstm_graph.launch import compiled_only  # there is Triton, by now

    kinds = {_kind(conv): conv for conv in convs}
    try:
        with torch.random.fork_rng(devices=[]), compiled_only(), around or nullcontext():
            for conv in kinds.values():
                _pass(conv, device)
            if answer is not None and on_grids:
                _answered(model, answer)
    except Exception as error:
        log.debug("kernels are compiled as they are met: %s", error)
    return len(kinds) + on_grids


def _kind(conv: PLSTMConv) -> tuple[object, ...]:
    """All that kernels depend on."""
    shape = conv.heads, conv.key_channels, conv.out_channels, conv.concat, conv.edge_dim is None, conv.bias is None
    return *shape, conv.mode, conv.reverse, conv.transition, conv.backend, type(conv.norm), conv.lin.weight.dtype


def _pass(conv: PLSTMConv, device: torch.device) -> None:
    """Forward and back, over a graph of three nodes; what comes out has no meaning."""
    edge_index = torch.tensor([[0, 1], [1, 2]], device="cpu")
    dag = LineDAG.from_edge_index(edge_index, 3).to(device)
    dtype = conv.lin.weight.dtype
    x = torch.zeros(3, conv.in_channels, dtype=dtype, device=device, requires_grad=True)
    edge_attr = None if conv.edge_dim is None else torch.zeros(2, conv.edge_dim, dtype=dtype, device=device)
    if edge_attr is not None:
        edge_attr.requires_grad_()
    output = deepcopy(conv)(x, None, edge_attr, dag=dag)
    torch.autograd.backward(output, torch.zeros_like(output))


def _answered(model: nn.Module, answer: Callable[[], Tensor]) -> None:
    """The whole model, forward and back, in evaluation."""
    training, weights = model.training, [weight for weight in model.parameters() if weight.requires_grad]
    model.eval()
    try:
        torch.autograd.grad(answer().sum(), weights, allow_unused=True)
    finally:
        model.train(training)
