"""Padded graphs: the same line graph, the same outputs as the model on PyG's batch, whatever lies in the padding."""

import pytest
import torch
from torch_geometric.data import Batch, Data

from plstm_graph import LineDAG
from plstm_graph.config.architectures import NETWORKS, architecture
from plstm_graph.config.models import ModelConfig
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.models.graph import GraphModel
from plstm_graph.models.padded import Padded, PaddedModel, _multitree, line_dag

FEATURES, EDGE_FEATURES = 4, 3


def graph(nodes: int, *columns: tuple[int, int]) -> Data:
    edge_index = torch.tensor(columns, dtype=torch.long).view(-1, 2).t().contiguous()
    return Data(torch.randn(nodes, FEATURES), edge_index, torch.randn(len(columns), EDGE_FEATURES))


def graphs() -> list[Data]:
    """A bicycle stored both ways, one stored anyhow (loop, duplicates, one way), no edge, one node, a dense one."""
    ends = [(0, 1), (1, 2), (2, 3), (3, 0), (1, 3), (3, 4), (4, 5), (5, 3)]
    return [
        graph(6, *ends, *(end[::-1] for end in ends)),
        graph(5, (1, 1), (3, 1), (0, 1), (1, 0), (0, 1), (4, 3), (4, 0), (3, 4), (2, 4), (0, 2)),
        graph(3),
        graph(1, (0, 0)),
        graph(6, *((i, j) for i in range(6) for j in range(i))),
    ]


def trained(**changes: object) -> GraphModel:
    """Weights, and statistics of norms, that are not those at the start."""
    config = ModelConfig(**{"width": 8, "heads": 4, "layers": 2, "order": "degree", "rwse": 3, **changes})
    model = GraphModel(FeatureSpec(node_dim=FEATURES, edge_dim=EDGE_FEATURES), 2, config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


@pytest.mark.parametrize(
    "changes",
    [
        *({"model": model} for model in NETWORKS if architecture(model).padded),
        {"modes": "P", "local": "none", "directions": "against", "pooling": "max", "norm": "layer"},
        {"local": "gatedgcn-edges"},
        {"model": "gatedgcn-edges", "edge_features": False},
        {"modes": "D", "degrees": True, "rwse": 0, "pooling": "sum", "order": "bfs"},
        {"order": "index", "pooling": "mean+sources+sinks", "jk": "cat"},
        {"model": "gine", "pooling": "sinks", "both_ways": True},
    ],
    ids=str,
)
def test_equals_the_model(changes: dict) -> None:
    model = trained(**changes)
    prepared = add_encodings(graphs(), model.config)
    padded = PaddedModel(model)
    for chosen in (prepared, prepared[1:2], prepared[2:4]):
        want = model(Batch.from_data_list(chosen))
        torch.testing.assert_close(padded(*Padded.from_data_list(chosen)), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"modes": "-"}, {"layers": 0}], ids=str)
def test_no_line_graph_is_built_of_the_edges(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sizes would depend on them, which torch.export does not take."""
    padded = PaddedModel(trained(**changes))
    plain = Padded.from_data_list(add_encodings(graphs(), padded.model.config))
    monkeypatch.setattr("plstm_graph.line_dag.LineDAG.from_edge_index", None)
    assert padded(*plain).isfinite().all()


def test_what_lies_in_the_padding_plays_no_part() -> None:
    model = PaddedModel(trained())
    plain = Padded.from_data_list(add_encodings(graphs(), model.model.config))
    nodes = torch.arange(plain.x.size(1)) >= plain.num_nodes.unsqueeze(1)
    columns = torch.arange(plain.edge_index.size(2)) >= plain.num_edges.unsqueeze(1)
    assert nodes.any()
    assert columns.any()
    filled = plain._replace(
        x=torch.where(nodes.unsqueeze(2), torch.nan, plain.x),
        edge_index=torch.where(columns.unsqueeze(1), -7, plain.edge_index),
        edge_attr=torch.where(columns.unsqueeze(2), torch.nan, plain.edge_attr),
        rank=torch.where(nodes, -7, plain.rank),
    )
    assert torch.equal(model(*filled), model(*plain))


def pairs_of(dag: LineDAG, graph: int, nodes: int, none: int) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of a graph by the numbers of their nodes, without those that stand for none."""
    offset = graph * nodes
    ends = [(u - offset, v - offset) for u, v in zip(dag.src.tolist(), dag.dst.tolist(), strict=True)]
    mine = (dag.edge_graph == graph).tolist()
    found = zip(dag.prev.tolist(), dag.next.tolist(), strict=True)
    return {(ends[a], ends[b]) for a, b in found if mine[a] and ends[a] != (none, none)}


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"model": "gps"}, "'gps'"), ({"order": "random"}, "'random'"), ({"lap_pe": 2}, "lap_pe")],
)
def test_what_padded_tensors_do_not_tell_is_refused(changes: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        PaddedModel(trained(**changes))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("prune", [False, True])
def test_line_graph_is_the_usual_one(prune: bool, reverse: bool) -> None:
    batch = graphs()
    padded = Padded.from_data_list(batch)
    nodes = padded.x.size(1) + 1
    columns = torch.arange(padded.edge_index.size(2)) < padded.num_edges.unsqueeze(1)
    edge_index = torch.where(columns.unsqueeze(1), padded.edge_index, nodes - 1)
    rank = torch.randint(4, (len(batch), nodes))  # with ties
    is_node = torch.arange(nodes) < padded.num_nodes.unsqueeze(1)
    dag = line_dag(edge_index, rank, is_node, prune=prune)

    def view(dag: LineDAG) -> LineDAG:
        dag = dag.prune() if prune else dag
        return dag.reverse() if reverse else dag

    gathered = view(dag).gather_edges(padded.edge_attr.flatten(0, 1))
    for number, data in enumerate(batch):
        want = LineDAG.from_edge_index(data.edge_index, data.num_nodes, order=rank[number, : data.num_nodes])
        assert pairs_of(view(dag), number, nodes, nodes - 1) == pairs_of(view(want), 0, nodes, -1) or not want.num_edges
        mine = (dag.edge_graph == number) & (dag.src != dag.dst)
        local = dag.src[mine] - number * nodes, dag.dst[mine] - number * nodes
        assert torch.equal(torch.stack(local), torch.stack([want.src, want.dst]))
        assert torch.equal(dag.degree[number * nodes :][: data.num_nodes], want.degree)
        torch.testing.assert_close(gathered[mine], view(want).gather_edges(data.edge_attr))


def test_multitree_is_that_of_the_line_graph() -> None:
    """Dense graphs, where most pairs go."""
    real = torch.zeros(4, 15, 15, dtype=torch.bool)
    want = torch.zeros_like(real)
    for number in range(4):
        columns = torch.combinations(torch.arange(6)).t()
        columns = columns[:, torch.rand(15) < 0.3 + 0.2 * number]
        dag = LineDAG.from_edge_index(columns, 6)
        real[number, dag.next, dag.prev] = True
        want[number, dag.prune().next, dag.prune().prev] = True
    assert want.sum() < real.sum()
    assert torch.equal(_multitree(real), want)


def test_shapes_and_refusals() -> None:
    padded = Padded.from_data_list([graph(2, (0, 1)), Data(torch.randn(3, FEATURES), torch.tensor([[0], [2]]))][:1])
    assert padded.x.shape == (1, 2, FEATURES)
    bare = Padded.from_data_list([Data(torch.randn(3, FEATURES), torch.zeros(2, 0, dtype=torch.long))])
    assert bare.edge_index.shape == (1, 2, 1)
    assert bare.edge_attr.shape == (1, 1, 0)
    assert bare.rank.tolist() == [[0, 1, 2]]
    weights = Data(torch.randn(2, 1), torch.tensor([[0], [1]]), torch.ones(1))
    assert Padded.from_data_list([weights]).edge_attr.shape == (1, 1, 1)
    for wrong in ([], [graph(0)]):
        with pytest.raises(ShapeError, match="at least one node"):
            Padded.from_data_list(wrong)


def test_the_model_is_left_as_it_is() -> None:
    model = trained().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    PaddedModel(model)(*Padded.from_data_list(add_encodings(graphs(), model.config)))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {module.backend for module in model.modules() if hasattr(module, "backend")} == {"auto"}
