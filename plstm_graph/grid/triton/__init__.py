"""Kernels for images and chains on NVIDIA GPUs, forward and backward: the forms ``triton`` and ``triton_tiles``."""

from plstm_graph.grid.triton import images, large
from plstm_graph.grid.triton.images import image
from plstm_graph.grid.triton.sequences import chain

__all__ = ["chain", "image", "images", "large"]
