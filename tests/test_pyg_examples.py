"""The models of PyG's examples with the layer in place of theirs learn what is more hops away than they are deep."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.explain import Explainer, GNNExplainer, PGExplainer
from torch_geometric.loader import DataLoader
from torch_geometric.nn import MLP, DirGNNConv, GPSConv, HeteroConv, SAGEConv, global_add_pool
from torch_geometric.transforms import AddRandomWalkPE, Compose

from plstm_graph import PLSTM, LineDAG, PLSTMConv
from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.transforms import AddLineDAG, line_dag

LENGTH = 8


def chains(count: int) -> list[Data]:
    """Paths of eight nodes of two kinds; y is that of the first node."""
    torch.manual_seed(0)
    ends = torch.stack([torch.arange(LENGTH - 1), torch.arange(1, LENGTH)])
    graphs = []
    for kinds in torch.randint(2, (count, LENGTH)):
        y = kinds[:1]
        edge_attr = torch.zeros(2 * LENGTH - 2, dtype=torch.long)
        graphs.append(Data(F.one_hot(kinds, 2).float(), torch.cat([ends, ends.flip(0)], 1), edge_attr, y=y))
    return graphs


def final_loss(model: nn.Module, graphs: list[Data], epochs: int = 15) -> float:
    """Mean loss of the last epoch."""
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses: list[float] = []
    for _ in range(epochs):
        losses = []
        for data in DataLoader(graphs, 32, shuffle=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(data), data.y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


class GIN(nn.Module):
    """examples/mutag_gin.py"""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(PLSTMConv(width, 8, heads=4) for width in (2, 32))
        self.mlp = MLP([32, 32, 2], norm=None, dropout=0.0)

    def forward(self, data: Batch) -> Tensor:
        x = data.x
        for conv in self.convs:
            x = conv(x, data.edge_index).relu()
        return self.mlp(global_add_pool(x, data.batch, size=data.num_graphs))


class GPS(nn.Module):
    """examples/graph_gps.py, with a line graph that the data carry past other transforms."""

    def __init__(self) -> None:
        super().__init__()
        self.node_emb, self.edge_emb = nn.Linear(2, 12), nn.Embedding(4, 16)
        self.pe_lin, self.pe_norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.convs = nn.ModuleList(
            GPSConv(16, PLSTMConv(16, 4, heads=4, edge_dim=16), heads=4, attn_type="multihead") for _ in range(2)
        )
        self.mlp = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, data: Batch) -> Tensor:
        x = torch.cat([self.node_emb(data.x), self.pe_lin(self.pe_norm(data.pe))], 1)
        edge_attr, dag = self.edge_emb(data.edge_attr), line_dag(data)
        for conv in self.convs:
            x = conv(x, data.edge_index, data.batch, edge_attr=edge_attr, dag=dag)
        return self.mlp(global_add_pool(x, data.batch))


def test_gin() -> None:
    assert final_loss(GIN(), chains(128)) < 0.3


def test_graph_gps() -> None:
    prepare = Compose([AddRandomWalkPE(4, "pe"), AddLineDAG()])
    assert final_loss(GPS(), [prepare(graph) for graph in chains(128)]) < 0.3


def test_lightning_dataset() -> None:
    """examples/pytorch_lightning/gin.py"""
    lightning = pytest.importorskip("pytorch_lightning")
    from torch_geometric.data.lightning import LightningDataset

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.gnn = PLSTM(2, 16, 2, dropout=0.0)
            self.classifier = MLP([16, 16, 2], norm=None)

        def forward(self, data: Batch) -> Tensor:
            x = self.gnn(data.x, data.edge_index, batch=data.batch, dag=data.line_dag)
            return self.classifier(global_add_pool(x, data.batch, size=data.num_graphs))

        def training_step(self, data: Batch, number: int) -> Tensor:
            return F.cross_entropy(self(data), data.y)

        def test_step(self, data: Batch, number: int) -> None:
            right = (self(data).argmax(-1) == data.y).float().mean()
            self.log("right", right, batch_size=data.num_graphs)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 0.01)

    graphs = [AddLineDAG(prune=True)(graph) for graph in chains(192)]
    data = LightningDataset(graphs[:128], test_dataset=graphs[128:], batch_size=32, num_workers=0)
    options = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=8, **options)
    model = Model()
    trainer.fit(model, data)
    assert trainer.test(model, data, verbose=False)[0]["right"] > 0.9


def test_explainer() -> None:
    """examples/explain/gnn_explainer.py: what the last node says of the first rests on the edges between them."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = PLSTMConv(2, 8, heads=2), nn.Linear(16, 2)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv2(self.conv1(x, edge_index).relu()).log_softmax(1)

    graphs, model = chains(64), Net()
    batch = Batch.from_data_list(graphs)
    last, first = batch.ptr[1:] - 1, batch.x[batch.ptr[:-1]].argmax(1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = F.nll_loss(model(batch.x, batch.edge_index)[last], first)
        loss.backward()
        optimizer.step()
    assert loss < 0.2
    explainer = Explainer(
        model,
        GNNExplainer(epochs=30),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "log_probs"},
    )
    middle = LENGTH // 2  # reads what lies before it, and nothing behind it
    mask = explainer(graphs[0].x, graphs[0].edge_index, index=middle).edge_mask
    reaches = graphs[0].edge_index.amax(0) <= middle
    assert mask[reaches].max() > 0
    assert (mask[~reaches] == 0).all()


def test_a_sampled_subgraph_is_ranked_as_the_whole_graph() -> None:
    """NeighborLoader puts the nodes that it samples for first, as here the last of a chain."""
    graph = chains(1)[0]
    conv = PLSTMConv(2, 4, heads=2)
    whole = conv(graph.x, graph.edge_index)
    n_id = torch.arange(LENGTH).flip(0)
    edge_index, x = LENGTH - 1 - graph.edge_index, graph.x[n_id]
    by_index = conv(x, edge_index)
    torch.testing.assert_close(by_index[0], conv(x[:1], edge_index[:, :0])[0])  # it reads itself alone
    assert not torch.allclose(by_index, whole[n_id])
    dag = LineDAG.from_edge_index(edge_index, LENGTH, order=n_id)
    torch.testing.assert_close(conv(x, edge_index, dag=dag), whole[n_id])


@pytest.mark.parametrize("order", ["given", "index"])
def test_both_directions_by_flipped_columns(order: str) -> None:
    """DirGNNConv reads along the edges and against them where these have a direction."""
    edge_index, x = torch.tensor([[0, 1, 1], [1, 2, 3]]), torch.randn(4, 2)
    model = DirGNNConv(PLSTMConv(2, 3, order=order), alpha=0.5)
    against = PLSTMConv(2, 3, order=order, reverse=order == "given")
    against.load_state_dict(model.conv_out.state_dict())
    want = (model.conv_in(x, edge_index) + against(x, edge_index)) / 2 + model.lin(x)
    torch.testing.assert_close(model(x, edge_index), want)


def test_types_of_nodes() -> None:
    """HeteroConv takes the layer for edges within a type, and is told how to go about edges between two."""
    data = HeteroData(a={"x": torch.randn(4, 3)}, b={"x": torch.randn(5, 3)})
    data["a", "to", "a"].edge_index = torch.tensor([[0, 2, 1], [1, 3, 2]])
    data["a", "to", "b"].edge_index = torch.tensor([[0, 1], [4, 2]])
    within, between = ("a", "to", "a"), ("a", "to", "b")
    conv = PLSTMConv(3, 2)
    model = HeteroConv({within: conv, between: SAGEConv((3, 3), 2)})
    found = model(data.x_dict, data.edge_index_dict)
    torch.testing.assert_close(found["a"], conv(data["a"].x, data[within].edge_index))
    with pytest.raises(ShapeError, match=r"by data.to_homogeneous\(\), with embeddings of node_type"):
        HeteroConv({between: conv})(data.x_dict, data.edge_index_dict)
    with pytest.raises(
        ConfigError, match=r"bipartite\); several types of nodes become one graph by data.to_homogeneous"
    ):
        PLSTMConv((3, 3), 2)
    one = data.to_homogeneous()
    assert conv(one.x, one.edge_index).shape == (9, 2)


def test_a_node_explained_by_pg_explainer_has_edges_of_as_many_hops_as_layers() -> None:
    """So docs/layer.md says; when PyG looks farther, the sentence goes."""
    graph, model = chains(1)[0], PLSTMConv(2, 2)
    config = {"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"}
    explainer = Explainer(model, PGExplainer(epochs=1), "phenomenon", edge_mask_type="object", model_config=config)
    call = {"target": torch.zeros(LENGTH, dtype=torch.long), "index": LENGTH - 1}
    explainer.algorithm.train(0, model, graph.x, graph.edge_index, **call)
    mask = explainer(graph.x, graph.edge_index, **call).edge_mask
    near = (graph.edge_index == LENGTH - 1).any(0)
    assert (mask[~near] == 0).all()
