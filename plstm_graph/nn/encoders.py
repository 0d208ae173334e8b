"""From stored node and edge features to vectors."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FeatureSpec:
    """What node and edge features of a data set look like.

    Args:
        node_sizes: vocabulary sizes of categorical node columns; empty where node features are floats.
        edge_sizes: the same for edge columns.
        node_dim: width of float node features (0: none).
        edge_dim: width of float edge features (0: none).
    """

    node_sizes: tuple[int, ...] = ()
    edge_sizes: tuple[int, ...] = ()
    node_dim: int = 0
    edge_dim: int = 0
