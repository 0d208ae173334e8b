"""Layers, and the stack of them."""

from plstm_graph.nn.block import PLSTMBlock
from plstm_graph.nn.captured import Captured
from plstm_graph.nn.conv import PLSTMConv
from plstm_graph.nn.encoders import AtomEncoder, BondEncoder, CategoricalEncoder
from plstm_graph.nn.grid import PLSTMChain, PLSTMImage
from plstm_graph.nn.norm import MultiHeadRMSNorm
from plstm_graph.nn.stack import PLSTM
from plstm_graph.nn.virtual import VirtualNode

__all__ = [
    "PLSTM",
    "AtomEncoder",
    "BondEncoder",
    "Captured",
    "CategoricalEncoder",
    "MultiHeadRMSNorm",
    "PLSTMBlock",
    "PLSTMChain",
    "PLSTMConv",
    "PLSTMImage",
    "VirtualNode",
]
