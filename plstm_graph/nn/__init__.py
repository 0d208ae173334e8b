"""Layers, and the stack of them. Names load on first use."""

from typing import TYPE_CHECKING

from plstm_graph.io.lazy import loaded_on_use

if TYPE_CHECKING:
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

_HOME = {
    "AtomEncoder": "encoders",
    "BondEncoder": "encoders",
    "Captured": "captured",
    "CategoricalEncoder": "encoders",
    "MultiHeadRMSNorm": "norm",
    "PLSTM": "stack",
    "PLSTMBlock": "block",
    "PLSTMChain": "grid",
    "PLSTMConv": "conv",
    "PLSTMImage": "grid",
    "VirtualNode": "virtual",
}
__getattr__, __dir__ = loaded_on_use(__name__, _HOME, globals())
