"""The command line: what ``plstm-graph`` and ``python -m plstm_graph`` run.

A command is a function that wears :func:`~plstm_graph.cli.program.command`, in the module of its subject; heavy imports
wait in it until it needs them.
"""

from plstm_graph.cli import blend, data, predict, serve, show, train
from plstm_graph.cli.program import app, main, run

__all__ = ["app", "blend", "data", "main", "predict", "run", "serve", "show", "train"]
