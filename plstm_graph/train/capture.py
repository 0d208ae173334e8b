"""Whether the passes of a run can be one CUDA graph, found out before it trains."""

import torch
from torch import nn

from plstm_graph.data.packed import PackedGraphs
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.nn.conv import PLSTMConv
from plstm_graph.ops.dispatch import compiled_backend
from plstm_graph.plan import served_classes
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.data import Graphs

MODELS = ("plstm", "gine", "gatedgcn", "gin")
LOCALS = ("none", "gine", "gatedgcn")
"""Models, and local branches of pLSTM, that the host can start without a look at the data."""


def capturable(
    graphs: Graphs, config: TrainConfig, model: nn.Module, device: torch.device, devices: int = 1
) -> PackedGraphs:
    """The graphs with room for fillers.

    Raises:
        ConfigError: training steps on them cannot be captured, and why.
    """
    why = None
    if device.type != "cuda":
        why = f"needs a GPU, not {device.type}"
    elif devices > 1:
        why = f"takes one device, not {devices}"
    elif config.compile:
        why = "and compile do not go together"
    elif config.model.model not in MODELS or (config.model.model == "plstm" and config.model.local not in LOCALS):
        named = f"model {config.model.model!r}" if config.model.model not in MODELS else f"local {config.model.local!r}"
        why = f"takes models {', '.join(MODELS)} and local branches {', '.join(LOCALS)}, not {named}"
    elif not isinstance(graphs, PackedGraphs):
        why = "needs graphs that can be packed on the GPU, and these cannot"
    elif config.model.model == "plstm" and compiled_backend(config.model.backend, device) != "triton":
        why = "needs the backend 'triton', not chosen or unable to run"
    elif any(isinstance(x, PLSTMConv) and not served_classes(x.key_channels, x.out_channels) for x in model.modules()):
        why = "needs narrower heads: K and V of at most 128 each"
    else:
        try:
            return graphs.with_filler(config.batch_size)
        except DataError as error:
            why = f"needs batches that can be filled up, but {error}"
    raise ConfigError(f"capture {why}; leave capture out")
