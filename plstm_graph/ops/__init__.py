"""The operator and its backends."""

from plstm_graph.ops.dispatch import BACKENDS, choose_backend, propagate
from plstm_graph.ops.influence import influence

__all__ = ["BACKENDS", "choose_backend", "influence", "propagate"]
