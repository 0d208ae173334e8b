"""Kernels that build line graphs, where they can run and have been found right."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from plstm_graph.line_dag.derived import Known
from plstm_graph.line_dag.topology import Topology

Built = tuple[Topology, Known]
Operations = Callable[[Tensor, int, Tensor | None], Built]
"""Build the same by torch's operations, with tables: from edge_index, the number of nodes, batch."""

OLDEST = 8
"""Major compute capability from which on Triton compiles them."""


def build(edge_index: Tensor, num_nodes: int, batch: Tensor | None, operations: Operations) -> Built | None:
    """Topology and tables of a graph whose nodes stand in order; None where kernels cannot run, or something about the
    graph is not as it should be, which is for the ``operations`` to tell.

    Args:
        edge_index: int64, [2, M].
        num_nodes: N.
        batch: graph of each node on the same device, [N], or None.
        operations: what the kernels are compared with on first use.
    """
    if edge_index.device.type != "cuda":
        return None
    kernels = _kernels()
    if isinstance(kernels, str) or not kernels.serves(edge_index, num_nodes):
        return None
    if batch is not None and (batch.shape != (num_nodes,) or batch.dtype != torch.long):
        return None
    if not _right(edge_index.device, operations):
        return None
    found: Built | None = kernels.build(edge_index, num_nodes, batch)
    return found


@cache
def _kernels() -> Any:
    """Their module, or why there is none."""
    if torch.version.hip is not None:
        return "they are for NVIDIA GPUs"
    try:
        from plstm_graph.line_dag.triton import build as kernels
    except ImportError:  # of triton, or of something that one of an older version does not have
        return "triton is not installed, or too old"
    return kernels


@cache
def _right(device: torch.device, operations: Operations) -> bool:
    """Tell whether kernels build on a device what operations build on the host; compared once in a process."""
    if torch.cuda.get_device_capability(device)[0] < OLDEST:
        return False
    wrong = trial(device, operations)
    if wrong:
        warnings.warn(
            f"line graphs are built by torch's operations on {device}, as kernels failed their test there: {wrong}",
            stacklevel=2,
        )
    return not wrong


def trial(device: torch.device, operations: Operations) -> str:
    """What kernels build wrong on a device; empty, if nothing. Of a few thousand edges, some of them several times or
    loops, in several hundred graphs, with a batch and without."""
    generator = torch.Generator("cpu").manual_seed(0)
    start = torch.randint(1900, (3000,), generator=generator, device="cpu")
    end = (start + torch.randint(-2, 5, (3000,), generator=generator, device="cpu")).clamp(0, 1999)
    columns = torch.stack([start, end])
    columns = columns[:, start // 20 == end // 20]
    batch = torch.arange(2000, device="cpu") // 20
    try:
        for graphs in (None, batch):
            found = _kernels().build(columns.to(device), 2000, None if graphs is None else graphs.to(device))
            wrong = _difference(found, operations(columns, 2000, graphs))
            if wrong:
                return wrong
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def _difference(found: Built | None, wanted: Built) -> str:
    """Names of what is not equal."""
    if found is None:
        return "nothing was built"
    one, other = (
        lines._asdict() | known["tables"][False]._asdict() | {"classes": known["classes"]}
        for lines, known in (found, wanted)
    )
    return ", ".join(name for name, value in one.items() if not _equal(value, other[name]))


def _equal(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor):
        return bool(one == other)
    return one.dtype == other.dtype and torch.equal(one.cpu(), other)
