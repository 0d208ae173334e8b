"""The ``numba`` backend, see :class:`plstm_graph.ops.compiled.Compiled`: compiled loops on the CPU.

Imported on first use only: numba is an extra, and compiling takes up to a minute (once per machine, kept on disk).
"""

from plstm_graph.ops.numba.gates import backward_gates, forward_gates
from plstm_graph.ops.numba.operator import attend, attend_back, backward, forward, walk_along, walk_back
from plstm_graph.ops.numba.runtime import runs_here, tried_on

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
