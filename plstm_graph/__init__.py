"""pLSTM for graphs: orient, line graph, gate, propagate, stack."""

from plstm_graph.gates import Gates
from plstm_graph.line_dag import LineDAG
from plstm_graph.nn import PLSTM, PLSTMBlock, PLSTMConv
from plstm_graph.ops import influence, propagate

__version__ = "0.1.0"
__all__ = ["PLSTM", "Gates", "LineDAG", "PLSTMBlock", "PLSTMConv", "influence", "propagate"]
