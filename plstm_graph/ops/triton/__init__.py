"""The ``triton`` backend, see :class:`plstm_graph.ops.compiled.Compiled`."""

from plstm_graph.ops.triton.gates import backward_gates, forward_gates
from plstm_graph.ops.triton.operator import (
    attend,
    attend_back,
    backward,
    forward,
    runs_here,
    tried_on,
    walk_along,
    walk_back,
)

__all__ = [
    "attend",
    "attend_back",
    "backward",
    "backward_gates",
    "forward",
    "forward_gates",
    "runs_here",
    "tried_on",
    "walk_along",
    "walk_back",
]
