"""Kernels run on a GPU, or else under Triton's interpreter, which has to be on before they are defined."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
