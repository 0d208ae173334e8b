"""Which examples may stay on a device, where batches of them are made several times faster."""

from collections.abc import Sequence

import torch
from torch_geometric.data import Data

from plstm_graph.data.examples import Examples

HOST_BYTES = 2 * 2**30
"""For training on a CPU, graphs are packed up to this size."""
DEVICE_SHARE = 0.5
"""For training on a GPU, graphs are packed up to this share of its free memory."""

Graphs = Sequence[Data] | Examples


def fits(nbytes: int, device: torch.device) -> bool:
    """Whether so many bytes of packed graphs may stay on a device, see ``HOST_BYTES`` and ``DEVICE_SHARE``."""
    if device.type == "cuda":
        return nbytes <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
    return device.type == "cpu" and nbytes <= HOST_BYTES


def moved(graphs: Graphs, device: torch.device) -> Graphs:
    """Examples on a device, where batches then come to be, if they fit; a list of graphs as it is."""
    if isinstance(graphs, Sequence) or not fits(getattr(graphs, "nbytes", 0), device):
        return graphs
    return graphs.to(device)
