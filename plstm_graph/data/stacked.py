"""All graphs of a data set one after the other, as they stand in raw files and in processed copies."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data


@dataclass(frozen=True, eq=False)
class Stacked:
    """G graphs with N nodes and M columns of ``edge_index`` in all.

    Attributes:
        nodes, columns: how many each graph has, [G].
        x: node features, [N, features].
        edge_index: by the numbers of nodes inside their graph, [2, M].
        edge_attr: edge features, [M, features].
        y: labels, [G, ...], or [N, ...] where each node has some.
        rank: rank of each node in its graph, [N].
        smiles: of each graph.
    """

    nodes: Tensor
    columns: Tensor
    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor | None = None
    y: Tensor | None = None
    rank: Tensor | None = None
    smiles: list[str] | None = None

    @classmethod
    def of(cls, graphs: Sequence[Data]) -> "Stacked":
        """Stack graphs that have the same attributes; there must be one."""
        first = graphs[0]

        def joined(key: str) -> Tensor | None:
            return torch.cat([graph[key] for graph in graphs]) if key in first else None

        return cls(
            torch.tensor([graph.num_nodes for graph in graphs]),
            torch.tensor([graph.num_edges for graph in graphs]),
            torch.cat([graph.x for graph in graphs]),
            torch.cat([graph.edge_index for graph in graphs], 1),
            edge_attr=joined("edge_attr"),
            y=joined("y"),
            rank=joined("rank"),
            smiles=[graph.smiles for graph in graphs] if "smiles" in first else None,
        )

    def graphs(self) -> list[Data]:
        """The graphs as PyG's data. Their tensors are views of the stack's, as those of an ``InMemoryDataset`` are."""
        nodes, columns = self.nodes.tolist(), self.columns.tolist()
        parts: dict[str, Any] = {"x": self.x.split(nodes), "edge_index": self.edge_index.split(columns, 1)}
        if self.edge_attr is not None:
            parts["edge_attr"] = self.edge_attr.split(columns)
        if self.y is not None:
            parts["y"] = self.y.split(nodes if len(self.y) == len(self.x) else 1)
        if self.rank is not None:
            parts["rank"] = self.rank.split(nodes)
        if self.smiles is not None:
            parts["smiles"] = self.smiles
        graphs = [Data() for _ in nodes]
        stores = [graph.stores[0] for graph in graphs]  # by which an attribute takes a third of the time
        for name, values in parts.items():
            for store, value in zip(stores, values, strict=True):
                store[name] = value
        return graphs

    def plain(self) -> dict[str, Any]:
        """As a dict of tensors and lists; ``Stacked(**content)`` is the way back."""
        return {item.name: getattr(self, item.name) for item in fields(self)}
