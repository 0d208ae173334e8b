"""Test a backend of your own: the path-sum oracle, tricky DAGs, and the laws that every backend has to pass.

>>> from plstm_graph.testing import check_backend
>>> check_backend("dense")  # or a function (query, key, value, gates, dag) -> output
"""

from plstm_graph.testing.cases import DAGS, NAMES, VIEWS, Inputs, grid_dag, path_sum, random_dag, random_inputs
from plstm_graph.testing.laws import LAWS, TOLERANCE, check_backend, outcome
from plstm_graph.testing.modes import check_distribution, check_propagation, path_counts, transition_matrix

__all__ = [
    "DAGS",
    "LAWS",
    "NAMES",
    "TOLERANCE",
    "VIEWS",
    "Inputs",
    "check_backend",
    "check_distribution",
    "check_propagation",
    "grid_dag",
    "outcome",
    "path_counts",
    "path_sum",
    "random_dag",
    "random_inputs",
    "transition_matrix",
]
