"""Compiled loops on the CPU: one graph and head, or some rows, per work item. No atomics.

Imported on first use only: numba is an extra, and compiling takes seconds (once per machine, kept on disk).
"""

from plstm_graph.ops.numba.operator import backward, forward
from plstm_graph.ops.numba.runtime import runs_here

__all__ = ["backward", "forward", "runs_here"]
