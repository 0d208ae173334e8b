"""Layers and models."""

from plstm_graph.nn.block import PLSTMBlock
from plstm_graph.nn.captured import Captured
from plstm_graph.nn.conv import PLSTMConv
from plstm_graph.nn.encoders import AtomEncoder, BondEncoder, CategoricalEncoder, FeatureSpec
from plstm_graph.nn.grid import PLSTMChain, PLSTMImage
from plstm_graph.nn.inputs import prepare
from plstm_graph.nn.model import MODELS, PLSTM, GraphModel, ModelConfig
from plstm_graph.nn.norm import MultiHeadRMSNorm
from plstm_graph.nn.virtual import VirtualNode

__all__ = [
    "MODELS",
    "PLSTM",
    "AtomEncoder",
    "BondEncoder",
    "Captured",
    "CategoricalEncoder",
    "FeatureSpec",
    "GraphModel",
    "ModelConfig",
    "MultiHeadRMSNorm",
    "PLSTMBlock",
    "PLSTMChain",
    "PLSTMConv",
    "PLSTMImage",
    "VirtualNode",
    "prepare",
]
