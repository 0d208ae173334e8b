"""Kernels for images and chains on NVIDIA GPUs, forward and backward: the forms ``triton``."""

from plstm_graph.grid.triton.images import backward, forward, image
from plstm_graph.grid.triton.sequences import chain

__all__ = ["backward", "chain", "forward", "image"]
