"""Whether torch.compile can do what a run asks of it, found out before it tries for a minute."""

import os
import shutil
from typing import Any

import torch

from plstm_graph.config.architectures import architecture
from plstm_graph.data.packed import PackedGraphs
from plstm_graph.errors import ConfigError
from plstm_graph.ops.compiled import HOMES
from plstm_graph.ops.dispatch import COMPILED, compiled_backend
from plstm_graph.train.placement import Graphs

COMPILERS = {"cpu": ("CXX", "g++", "clang++"), "cuda": ("CC", "gcc", "clang", "cc")}
"""What code is compiled with on each type of device: a variable that names it, and where that is not set, these."""


def check_compile(model: Any, graphs: Graphs, device: torch.device) -> None:
    """Raises ConfigError unless training steps on these graphs can be compiled on this device."""
    variable, *names = COMPILERS.get(device.type, COMPILERS["cuda"])
    names = [os.environ[variable]] if os.environ.get(variable) else names
    if not any(shutil.which(name) for name in names):
        wanted = " or ".join(names)
        raise ConfigError(f"compile needs a C compiler, and there is no {wanted}; install one, or leave compile out")
    if not architecture(model.model).oriented:
        return
    if not isinstance(graphs, PackedGraphs):
        raise ConfigError("compile needs line graphs made ahead, but these graphs cannot be packed; leave compile out")
    needed, found = COMPILED.get(device.type), compiled_backend(model.backend, device)
    if found is None or HOMES[found].device != device.type:
        raise ConfigError(
            f"on {device.type} compile needs the backend {needed!r}, not chosen or unable to run; leave compile out"
        )
