"""pLSTM for graphs: orient, line graph, gate, propagate, stack.

Names load on first use: the command line answers ``--help`` without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plstm_graph.estimators import MoleculeClassifier, MoleculeRegressor
    from plstm_graph.gates import Gates
    from plstm_graph.line_dag import LineDAG
    from plstm_graph.models.vision import PLSTMVision
    from plstm_graph.nn import PLSTM, PLSTMBlock, PLSTMChain, PLSTMConv, PLSTMImage
    from plstm_graph.ops.dispatch import propagate
    from plstm_graph.ops.influence import influence

__version__ = "0.1.0"
__all__ = [
    "PLSTM",
    "Gates",
    "LineDAG",
    "MoleculeClassifier",
    "MoleculeRegressor",
    "PLSTMBlock",
    "PLSTMChain",
    "PLSTMConv",
    "PLSTMImage",
    "PLSTMVision",
    "influence",
    "propagate",
]

_HOME = {
    "Gates": "gates",
    "LineDAG": "line_dag",
    "MoleculeClassifier": "estimators",
    "MoleculeRegressor": "estimators",
    "PLSTM": "nn",
    "PLSTMBlock": "nn",
    "PLSTMChain": "nn",
    "PLSTMConv": "nn",
    "PLSTMImage": "nn",
    "PLSTMVision": "models.vision",
    "influence": "ops",
    "propagate": "ops",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in _HOME.values():
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_HOME.values()})
