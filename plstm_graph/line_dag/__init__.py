"""The line graph: pairs of edges that meet at a node, level by level, and what kernels look up in it."""

from plstm_graph.line_dag.dag import LineDAG
from plstm_graph.line_dag.sharing import share_line_graphs

__all__ = ["LineDAG", "share_line_graphs"]
