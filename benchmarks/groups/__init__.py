"""What ``speed.py`` measures, by name."""

from collections.abc import Callable

from bench import Bench

from groups.dags import circuit, deep, random
from groups.grids import grid, grid_size, sequence
from groups.layers import block, layer
from groups.lines import line_dag
from groups.logic import cones
from groups.operators import operator
from groups.training import epoch, step

GROUPS: dict[str, Callable[[Bench], None]] = {
    "operator": operator,
    "layer": layer,
    "block": block,
    "step": step,
    "epoch": epoch,
    "line-dag": line_dag,
    "cones": cones,
    "circuit": circuit,
    "deep": deep,
    "random": random,
    "grid": grid,
    "grid-size": grid_size,
    "chain": sequence,
}
"""In the order in which ``all`` runs them."""
