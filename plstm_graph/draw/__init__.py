"""Pictures of molecules: their line graph, and what a prediction is made of. Names load on first use."""

from typing import TYPE_CHECKING

from plstm_graph.io.lazy import loaded_on_use

if TYPE_CHECKING:
    from plstm_graph.draw.explanation import draw_explanation
    from plstm_graph.draw.line_graph import draw

__all__ = ["draw", "draw_explanation"]

__getattr__, __dir__ = loaded_on_use(__name__, {"draw": "line_graph", "draw_explanation": "explanation"}, globals())
