"""Graphs that are DAGs by nature keep their directions: how long is the longest weighted path?

    python examples/dag_regression.py

Each graph is a random DAG with a weight on every edge; the target is computed exactly, by levels. Layers that look one
hop far need as many of them as a path has edges; pLSTM reads whole paths in each.
"""

import argparse

import torch
import torch.nn.functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import global_add_pool

from plstm_graph import PLSTM
from plstm_graph.dag import topological_levels
from plstm_graph.transforms import AddLineDAG


def random_graph(nodes: int) -> Data:
    """A DAG whose node numbers say nothing about its order, with weights between 0 and 1 and its longest path."""
    pairs = torch.combinations(torch.arange(nodes)).t()
    near = (pairs[1] - pairs[0] <= 3) & (torch.rand(pairs.size(1)) < 0.5)
    edge_index = torch.randperm(nodes)[pairs[:, near]]
    weight = torch.rand(edge_index.size(1), 1)
    longest = longest_path(edge_index, weight.view(-1), nodes)
    return Data(torch.ones(nodes, 1), edge_index, weight, y=longest.view(1, 1), num_nodes=nodes)


def longest_path(edge_index: torch.Tensor, weight: torch.Tensor, nodes: int) -> torch.Tensor:
    """The largest sum of weights along a directed path: one pass over the topological levels."""
    level = topological_levels(edge_index, nodes)
    reach = torch.zeros(nodes)
    for step in range(1, int(level.max()) + 1):
        src, dst = edge_index[:, arriving := level[edge_index[1]] == step]
        reach = reach.scatter_reduce(0, dst, reach[src] + weight[arriving], "amax")
    return reach.max()


class Net(torch.nn.Module):
    """A stack that reads the DAG both ways, sum over the nodes, one output."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.stack = PLSTM(1, channels, num_layers=2, edge_dim=1, norm="layer", order="given")
        self.out = torch.nn.Linear(channels, 1)

    def forward(self, batch: Batch) -> torch.Tensor:
        """[graphs, 1]"""
        x = self.stack(batch.x, batch.edge_index, edge_attr=batch.edge_attr, dag=batch.line_dag)
        return self.out(global_add_pool(x, batch.batch, batch.num_graphs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--graphs", type=int, default=600)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    prepare = AddLineDAG(order="given", prune=True)  # line graphs once, not in every epoch
    graphs = [prepare(random_graph(int(torch.randint(8, 20, ())))) for _ in range(arguments.graphs)]
    train, test = graphs[: -len(graphs) // 4], graphs[-len(graphs) // 4 :]
    held_out = next(iter(DataLoader(test, len(test))))
    mean = torch.cat([graph.y for graph in train]).mean()
    baseline = F.l1_loss(mean.expand_as(held_out.y), held_out.y)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.epochs)
    for epoch in range(1, arguments.epochs + 1):
        model.train()
        for batch in DataLoader(train, 32, shuffle=True):
            optimizer.zero_grad()
            F.l1_loss(model(batch) + mean, batch.y).backward()
            optimizer.step()
        schedule.step()
        if epoch % 5 == 0 or epoch == arguments.epochs:
            model.eval()
            with torch.no_grad():
                error = F.l1_loss(model(held_out) + mean, held_out.y)
            print(f"epoch {epoch}: mean absolute error {error:.4f} (always the mean: {baseline:.4f})")


if __name__ == "__main__":
    main()
