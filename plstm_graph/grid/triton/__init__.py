"""Kernels for images on NVIDIA GPUs, forward and backward: the form ``triton``."""

from plstm_graph.grid.triton.operator import image

__all__ = ["image"]
