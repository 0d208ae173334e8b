"""Regular grids and chains, where the operator on the line graph has closed parallel forms."""

from plstm_graph.grid.as_dag import GridDAG, grid_dag
from plstm_graph.grid.dispatch import CHAIN_FORMS, FORMS, chain, choose_chain_form, choose_form, image, step
from plstm_graph.grid.gates import (
    DIRECTIONS,
    DOWN,
    MODES,
    RIGHT,
    ChainGates,
    GridGates,
    d_gates,
    general_gates,
    p_code_gates,
    p_gates,
)

__all__ = [
    "CHAIN_FORMS",
    "DIRECTIONS",
    "DOWN",
    "FORMS",
    "MODES",
    "RIGHT",
    "ChainGates",
    "GridDAG",
    "GridGates",
    "chain",
    "choose_chain_form",
    "choose_form",
    "d_gates",
    "general_gates",
    "grid_dag",
    "image",
    "p_code_gates",
    "p_gates",
    "step",
]
