"""The line graph: pairs of edges that meet at a node, level by level, and what kernels look up in it."""

from plstm_graph.line_dag.dag import LineDAG

__all__ = ["LineDAG"]
