"""Models, ready to train: graph networks, what they are compared with, vision, and a forest."""

from plstm_graph.architectures import MODELS, NETWORKS, Architecture, architecture
from plstm_graph.model_config import AnyConfig, ForestConfig, ModelConfig
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
