"""pLSTM for graphs: orient, line graph, gate, propagate, stack."""

__version__ = "0.1.0"
