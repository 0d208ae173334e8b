"""Whether the passes of a run can be CUDA graphs, and should be, found out before it trains."""

import logging
import random

import torch
from torch import nn

from plstm_graph.config.architectures import architecture
from plstm_graph.data.packed import PackedGraphs
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.line_dag.plan import TILES
from plstm_graph.nn.conv import PLSTMConv
from plstm_graph.ops.compiled import HOMES
from plstm_graph.ops.dispatch import compiled_backend
from plstm_graph.tasks import Task
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.placement import Graphs

log = logging.getLogger(__name__)

WORTHWHILE, DRAWS = 0.5, 40
"""Share of batches that must be of the size that is captured, and batches drawn to find it."""
PAYS = 300
"""Steps of a run from which on recording them, a second or two, is gained back many times over."""
POOLINGS, PRECISIONS = ("mean", "sum"), ("32-true", "bf16-mixed")
"""Where nobody asked, only what has been recorded often is: these read-outs and precisions."""


def chosen(
    graphs: Graphs, config: TrainConfig, task: Task, model: nn.Module, device: torch.device, devices: int = 1
) -> Graphs | None:
    """What :func:`capturable` gives, if passes are to be CUDA graphs: because the config says so, or because it leaves
    that open and they can be and pay; None if kernels are started one by one.

    Raises:
        ConfigError: the config asks for them, and they cannot be.
    """
    if config.capture:
        return capturable(graphs, config, task, model, device)
    steps = config.epochs * (len(graphs) // (devices * config.batch_size))
    if config.capture is False or not _usual(config) or steps < PAYS:
        return None
    try:
        found = capturable(graphs, config, task, model, device)
    except ConfigError as error:
        log.debug("steps go kernel by kernel: %s", error)
        return None
    log.info("training steps are captured as CUDA graphs")
    return found


def _usual(config: TrainConfig) -> bool:
    """Whether a run has no more than what is recorded all the time."""
    options = vars(config.model)
    return (
        not architecture(config.model.model).fixed
        and options.get("pooling") in POOLINGS
        and options.get("jk") == "last"
        and not (options.get("edge_readout") or options.get("rings") or config.descriptors)
        and config.precision in PRECISIONS
    )


def capturable(graphs: Graphs, config: TrainConfig, task: Task, model: nn.Module, device: torch.device) -> Graphs:
    """The graphs with room for fillers; examples whose batches have one shape as they are.

    Raises:
        ConfigError: training steps on them cannot be captured, and why.
    """
    why, kind, options = None, architecture(config.model.model), vars(config.model)
    home = HOMES.get(compiled_backend(options["backend"], device) or "") if kind.oriented else None
    convs = [module for module in model.modules() if isinstance(module, PLSTMConv)]
    if device.type != "cuda":
        why = f"needs a GPU, not {device.type}"
    elif kind.fixed:
        return graphs
    elif config.compile:
        why = "and compile do not go together"
    elif task.level != "graph":
        why = f"takes one answer a graph, not one a {task.level}"
    elif named := kind.uncaptured(config.model):
        why = f"takes what the host can start without a look at the data, not {named}"
    elif not isinstance(graphs, PackedGraphs):
        why = "needs graphs that can be packed on the GPU, and these cannot"
    elif kind.oriented and graphs.lines is None:
        why = f"needs line graphs that are made ahead, not order {options['order']!r}"
    elif config.precision == "16-mixed" and options.get("norm") == "none":
        why = "needs norms in 16-mixed, where features of the filler could overflow"
    elif kind.oriented and not (home and home.recorded):
        recorded = " or ".join(repr(name) for name, home in HOMES.items() if home.recorded)
        why = f"needs the backend {recorded}, not chosen or unable to run"
    elif home and not all(home.served(x.key_channels, x.out_channels) for x in convs):
        why = "needs narrower heads: K and V of at most 128 each"
    else:
        try:
            found = graphs.with_filler(config.batch_size)
        except DataError as error:
            why = f"needs batches that can be filled up, but {error}"
        else:
            share = _share_that_fits(found, config.batch_size)
            if share >= WORTHWHILE:
                return found
            why = (
                f"is for graphs of up to {TILES[-1]} nodes: of batches of {config.batch_size}, {share:.0%} have none "
                "that is larger; try smaller batches"
            )
    raise ConfigError(f"capture {why}; leave capture out")


def _share_that_fits(graphs: PackedGraphs, batch_size: int) -> float:
    """Share of some batches, drawn at random, that can be filled up."""
    draw = random.Random(0)
    return sum(graphs.fits(draw.sample(range(len(graphs)), batch_size)) for _ in range(DRAWS)) / DRAWS
