"""Pictures of molecules: their line graph, and what a prediction is made of."""

from plstm_graph.draw.explanation import draw_explanation
from plstm_graph.draw.line_graph import draw

__all__ = ["draw", "draw_explanation"]
