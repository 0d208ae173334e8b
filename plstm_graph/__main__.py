"""``python -m plstm_graph``, as torchrun starts it."""

from plstm_graph.cli import run

if __name__ == "__main__":
    run()
