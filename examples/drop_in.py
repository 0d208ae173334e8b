"""PyG's usual GIN on MUTAG, with another layer: two lines differ, both marked.

    python examples/drop_in.py --root DATA

Data: a TUDataset folder, DATA/TUDataset/MUTAG/raw, or what PyG downloads there. It writes a processed copy beside it.
"""

import argparse

import torch
import torch.nn.functional as F
from torch_geometric.data import Batch
from torch_geometric.datasets import TUDataset
from torch_geometric.loader import DataLoader
from torch_geometric.nn import MLP, global_add_pool

from plstm_graph import PLSTMConv  # was: from torch_geometric.nn import GINConv


class Net(torch.nn.Module):
    """Layers, sum pooling, perceptron."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, layers: int) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList()
        for i in range(layers):  # along the edges and against them in turns
            # was: GINConv(MLP([in_channels, channels, channels]))
            self.convs.append(PLSTMConv(in_channels, channels // 4, heads=4, reverse=i % 2 == 1))
            in_channels = channels
        self.mlp = MLP([channels, channels, out_channels], norm=None, dropout=0.5)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor, batch: torch.Tensor, graphs: int) -> torch.Tensor:
        """[N, in_channels] -> [graphs, out_channels]"""
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        return self.mlp(global_add_pool(x, batch, graphs))


def accuracy(model: Net, loader: DataLoader) -> float:
    """Share of the graphs that are put into the right class."""
    model.eval()
    with torch.no_grad():
        right = [(predict(model, data).argmax(-1) == data.y).sum() for data in loader]
    return float(sum(right)) / len(loader.dataset)


def predict(model: Net, data: Batch) -> torch.Tensor:
    """Outputs of a batch."""
    return model(data.x, data.edge_index, data.batch, data.num_graphs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data")
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    torch.manual_seed(12345)
    dataset = TUDataset(f"{arguments.root}/TUDataset", "MUTAG").shuffle()
    train_loader = DataLoader(dataset[:0.9], 32, shuffle=True)
    test_loader = DataLoader(dataset[0.9:], 32)
    model = Net(dataset.num_features, 32, dataset.num_classes, layers=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(1, arguments.epochs + 1):
        model.train()
        for data in train_loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(predict(model, data), data.y)
            loss.backward()
            optimizer.step()
        if epoch % 10 == 0 or epoch == arguments.epochs:
            found = f"train {accuracy(model, train_loader):.4f}, test {accuracy(model, test_loader):.4f}"
            print(f"epoch {epoch}: loss {loss.item():.4f}, {found}")


if __name__ == "__main__":
    main()
