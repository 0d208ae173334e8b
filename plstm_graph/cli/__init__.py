"""The command line: what ``plstm-graph`` and ``python -m plstm_graph`` run."""

from plstm_graph.cli.commands import app, main

__all__ = ["app", "main"]
