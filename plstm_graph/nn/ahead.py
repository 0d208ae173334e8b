"""Compile the kernels of a model ahead, several at a time: as they are met, one waits for the other."""

import logging
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy

import torch
from torch import nn

from plstm_graph.line_dag import LineDAG
from plstm_graph.nn.conv import PLSTMConv
from plstm_graph.ops.dispatch import compiled_backend

log = logging.getLogger(__name__)


def compile_ahead(model: nn.Module, device: torch.device, around: AbstractContextManager[object] | None = None) -> int:
    """Compile the kernels that the forward and the backward pass of a model's ``PLSTMConv`` need on an NVIDIA GPU.

    Those that Triton has kept on disk are read from there. What fails here fails again, with a message, where it is
    needed.

    Args:
        model: any with such layers; it is left as it is, and so are the random numbers.
        device: where it will run.
        around: the passes, as ``torch.autocast``.

    Returns:
        How many kinds of layers were found.
    """
    if device.type != "cuda":
        return 0
    convs = [module for module in model.modules() if isinstance(module, PLSTMConv) and module.in_channels != -1]
    convs = [conv for conv in convs if compiled_backend(conv.backend, device) == "triton"]
    if not convs:
        return 0
    from plstm_graph.launch import compiled_only  # there is Triton, by now

    kinds = {_kind(conv): conv for conv in convs}
    try:
        with torch.random.fork_rng(devices=[]), compiled_only(), around or nullcontext():
            for conv in kinds.values():
                _pass(conv, device)
    except Exception as error:
        log.debug("kernels are compiled as they are met: %s", error)
    return len(kinds)


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
