"""Models, ready to train: graph networks, what they are compared with, vision, and a forest."""

from plstm_graph.config.architectures import MODELS, NETWORKS, Architecture, architecture
from plstm_graph.config.models import AnyConfig, ForestConfig, ModelConfig
from plstm_graph.models.graph import POOLINGS, GraphModel

__all__ = [
    "MODELS",
    "NETWORKS",
    "POOLINGS",
    "AnyConfig",
    "Architecture",
    "ForestConfig",
    "GraphModel",
    "ModelConfig",
    "architecture",
]
