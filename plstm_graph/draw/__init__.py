"""Pictures of molecules: their line graph, and what a prediction is made of. Names load on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plstm_graph.draw.explanation import draw_explanation
    from plstm_graph.draw.line_graph import draw

__all__ = ["draw", "draw_explanation"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"{__name__}.{'line_graph' if name == 'draw' else 'explanation'}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
