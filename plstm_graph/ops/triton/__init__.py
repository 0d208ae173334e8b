"""The ``triton`` backend, see :class:`plstm_graph.ops.compiled.Compiled`."""

from plstm_graph.ops.triton.gates import backward_gates, forward_gates
from plstm_graph.ops.triton.launch import attend, attend_back, backward, forward, runs_here, walk_along, walk_back
from plstm_graph.ops.triton.norm import backward_norm, forward_norm
from plstm_graph.ops.triton.runtime import Fork

__all__ = [
    "Fork",
    "attend",
    "attend_back",
    "backward",
    "backward_gates",
    "backward_norm",
    "forward",
    "forward_gates",
    "forward_norm",
    "runs_here",
    "walk_along",
    "walk_back",
]
