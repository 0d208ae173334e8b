"""PLSTM is called like a BasicGNN; GraphModel predicts graphs, however they are batched or written."""

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import GCN, GATv2Conv, summary
from torch_geometric.testing import assert_module

from plstm_graph import PLSTM, LineDAG
from plstm_graph.config.architectures import NETWORKS
from plstm_graph.config.models import ModelConfig
from plstm_graph.data import smiles_to_data
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.features import ATOM_SIZES, BOND_SIZES, FeatureSpec
from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.line_dag import derived
from plstm_graph.models.graph import POOLINGS, GraphModel
from plstm_graph.nn.onehop import LOCALS
from plstm_graph.transforms import AddLineDAG, LineDAGData

EDGE_INDEX = torch.tensor([[0, 1, 1, 2, 2, 3, 0, 2, 3, 4], [1, 0, 2, 1, 3, 2, 2, 0, 4, 3]])
NODES, FEATURES, EDGE_FEATURES = 5, 6, 3
MOLECULES = FeatureSpec(node_sizes=ATOM_SIZES, edge_sizes=BOND_SIZES)


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(NODES, FEATURES), torch.randn(EDGE_INDEX.size(1), EDGE_FEATURES)


# ---------------------------------------------------------------------- PLSTM


@pytest.mark.parametrize("in_channels", [FEATURES, -1])
@pytest.mark.parametrize("out_channels", [None, 2])
def test_called_like_a_basic_gnn(in_channels: int, out_channels: int | None) -> None:
    x, _ = inputs()
    batch = torch.zeros(NODES, dtype=torch.long)
    for model in (PLSTM(in_channels, 16, 3, out_channels, 0.1), GCN(in_channels, 16, 3, out_channels, 0.1)):
        out = model(x, EDGE_INDEX, batch=batch, batch_size=1)
        assert out.shape == (NODES, out_channels or 16)
        assert str(model).endswith(f"({in_channels}, {out_channels or 16}, num_layers=3)")
        assert not model.supports_edge_weight or isinstance(model, GCN)
    assert PLSTM.supports_edge_attr


def test_edge_weight_is_refused() -> None:
    x, _ = inputs()
    weight = torch.rand(EDGE_INDEX.size(1))
    with pytest.raises(ConfigError, match="edge_dim=1"):
        PLSTM(FEATURES, 16, 2)(x, EDGE_INDEX, weight)
    assert PLSTM(FEATURES, 16, 2, edge_dim=1)(x, EDGE_INDEX, edge_attr=weight).shape == (NODES, 16)


@pytest.mark.parametrize("local", [*LOCALS])
def test_narrow_integers_have_the_same_gradients(local: str) -> None:
    """torch gathers by expanded int32 indices wrongly, by which PyG's sums of messages have gradients."""
    x, weight = torch.randn(NODES, FEATURES), torch.linspace(-1, 1, 16)
    model, found = PLSTM(FEATURES, 16, 2, local=local).eval(), []
    for columns in (EDGE_INDEX, EDGE_INDEX.int()):
        leaf = x.clone().requires_grad_()
        found.append(torch.autograd.grad((model(leaf, columns) * weight).sum(), [leaf, *model.parameters()]))
    for wanted, gradient in zip(*found, strict=True):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("model", NETWORKS)
def test_every_network_has_the_gradients_of_narrow_integers(model: str) -> None:
    config = ModelConfig(model=model, width=16, layers=2, heads=4, rwse=0, dropout=0.0)
    network, found = GraphModel(FeatureSpec(node_dim=FEATURES), 2, config).eval(), []
    x, *_ = inputs()
    for columns in (EDGE_INDEX, EDGE_INDEX.int()):
        (graph,) = add_encodings([Data(x=x, edge_index=columns)], config)
        out = network(Batch.from_data_list([graph, graph]))
        found.append(torch.autograd.grad(out[:, 0].sum(), [*network.parameters()], allow_unused=True))
    for wanted, gradient in zip(*found, strict=True):
        assert (wanted is None) == (gradient is None)
        if wanted is not None:
            torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("local", [None, "gine", "dir-gine"])
@pytest.mark.parametrize("edge_dim", [None, 1])
def test_a_sparse_adjacency_is_the_graph_it_stands_for(edge_dim: int | None, local: str | None) -> None:
    """As a BasicGNN takes it, transposed; its values are the edge features."""
    x, weight = torch.randn(NODES, FEATURES), torch.rand(EDGE_INDEX.size(1), 1)
    coo = torch.sparse_coo_tensor(EDGE_INDEX.flip(0), weight[:, 0], (NODES, NODES)).coalesce()
    stack = PLSTM(FEATURES, 16, 2, edge_dim=edge_dim, local=local).eval()
    edge_attr = None if edge_dim is None else weight
    for adjacency in (coo, coo.to_sparse_csr(), coo.to_sparse_csc()):
        torch.testing.assert_close(stack(x, adjacency), stack(x, EDGE_INDEX, edge_attr=edge_attr))
        hidden, block = torch.randn(NODES, 16), stack.blocks[0]
        torch.testing.assert_close(block(hidden, adjacency), block(hidden, EDGE_INDEX, edge_attr))
        with pytest.raises(ShapeError, match="edge features are its values"):
            stack(x, adjacency, edge_attr=weight)
    if edge_dim is None:
        dag = LineDAG.from_edge_index(EDGE_INDEX, NODES)
        torch.testing.assert_close(stack(x, coo, dag=dag), stack(x, EDGE_INDEX))


@pytest.mark.parametrize(
    ("modes", "layers", "want"),
    [("PD", 4, "PDPD"), ("P", 3, "PPP"), ("PPD", 4, "PPDP"), ("P-", 4, "P-P-"), ("D", 1, "D")],
)
def test_modes_repeat(modes: str, layers: int, want: str) -> None:
    model = PLSTM(FEATURES, 16, layers, modes=modes, local="gine")
    assert "".join(block.convs[0].mode if len(block.convs) else "-" for block in model.blocks) == want


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"modes": ""}, "at least one mode"),
        ({"modes": "PX"}, "unknown mode 'X'"),
        ({"modes": "-"}, "needs a local branch"),
        ({"local": "gin"}, "unknown local branch 'gin'.*did you mean 'gine'"),
        ({"heads": 5}, "multiple of heads"),
        ({"num_layers": -1}, "num_layers must be at least 1, got -1"),
        ({"num_layers": "3"}, "num_layers must be a whole number, got '3'"),
        ({"hidden_channels": -4}, "hidden_channels must be at least 1, got -4"),
        ({"out_channels": 0}, "out_channels must be at least 1, got 0"),
        ({"in_channels": (3, 4)}, "PLSTM reads one graph: .*bipartite"),
        ({"edge_dim": -3}, "edge_dim must be a whole number, or -1 to read it off the first input, got -3"),
        ({"expansion": -1}, "expansion must be 0 .* or more, got -1"),
        ({"order": "breadth"}, "unknown order"),
        ({"directions": "alternate"}, "unknown directions.*did you mean 'alternating'"),
        ({"backend": "numbaa"}, "unknown backend 'numbaa'.*did you mean 'numba'"),
    ],
)
def test_refusals(arguments: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        PLSTM(**{"in_channels": FEATURES, "hidden_channels": 16, "num_layers": 2, **arguments})


def test_directions_alternate_from_block_to_block() -> None:
    model = PLSTM(FEATURES, 16, 4, modes="PPDD", directions="alternating", heads=4)
    assert [[(conv.mode, conv.reverse, conv.heads) for conv in block.convs] for block in model.blocks] == [
        [("P", False, 4)],
        [("P", True, 4)],
        [("D", False, 4)],
        [("D", True, 4)],
    ]


def test_edge_features_may_be_kept_out_of_the_values() -> None:
    x, edge_attr = inputs()
    model = PLSTM(FEATURES, 16, 2, edge_dim=EDGE_FEATURES, edge_values=False).eval()
    assert all(block.content is None and block.convs[0].lin_edge is not None for block in model.blocks)
    assert not torch.allclose(
        model(x, EDGE_INDEX, edge_attr=edge_attr), model(x, EDGE_INDEX, edge_attr=edge_attr + 5), rtol=1e-6
    )


@pytest.mark.parametrize(("modes", "builds"), [("PD", 1), ("-", 0)])
def test_line_graph_is_built_once(modes: str, builds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = inputs()
    calls = []
    build, prune = LineDAG.from_edge_index, derived.multitree_pairs
    monkeypatch.setattr(LineDAG, "from_edge_index", lambda *a, **k: calls.append("build") or build(*a, **k))
    monkeypatch.setattr(derived, "multitree_pairs", lambda *pairs: calls.append("prune") or prune(*pairs))
    model = PLSTM(FEATURES, 16, 6, modes=modes, local="gine")
    model(x, EDGE_INDEX)
    assert calls.count("build") == builds
    assert calls.count("prune") == builds
    calls.clear()
    model(x, EDGE_INDEX, dag=build(EDGE_INDEX, NODES))
    assert "build" not in calls


@pytest.mark.parametrize("built", [False, True])
def test_a_line_graph_is_compared_once_per_call(built: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the stack, not by each of its blocks and layers again; what it built itself, not at all."""
    x, _ = inputs()
    checks = []
    check = LineDAG.check_edge_index
    monkeypatch.setattr(LineDAG, "check_edge_index", lambda dag, columns: checks.append(dag) or check(dag, columns))
    model, dag = PLSTM(FEATURES, 16, 4, local="gine").eval(), LineDAG.from_edge_index(EDGE_INDEX, NODES)
    want = model(x, EDGE_INDEX)
    assert not checks
    if not built:
        assert torch.equal(model(x, EDGE_INDEX, dag=dag), want)
        assert len(checks) == 1
        model.blocks[0](torch.randn(NODES, 16), EDGE_INDEX, dag=dag)
        assert len(checks) == 2


def test_columns_dropped_after_the_dag_was_built_are_refused() -> None:
    x, _ = inputs()
    model, dag = PLSTM(FEATURES, 16, 2), LineDAG.from_edge_index(EDGE_INDEX, NODES)
    with pytest.raises(ShapeError, match="the dag was built from 10 columns, but edge_index has 9"):
        model(x, EDGE_INDEX[:, 1:], dag=dag)


def test_local_branch_by_function_and_by_name() -> None:
    x, edge_attr = inputs()

    def gat(channels: int, edge_dim: int | None) -> nn.Module:
        return GATv2Conv(channels, channels // 2, heads=2, edge_dim=edge_dim)

    for local in (gat, "gine", "none", None):
        model = PLSTM(FEATURES, 16, 2, edge_dim=EDGE_FEATURES, local=local)
        assert model(x, EDGE_INDEX, edge_attr=edge_attr).shape == (NODES, 16)
        assert model.blocks[0].local is None or local in (gat, "gine")
    # without edge features the named branch sums neighbours alone
    assert PLSTM(FEATURES, 16, 2, local="gine")(x, EDGE_INDEX).shape == (NODES, 16)


def test_every_parameter_has_a_gradient() -> None:
    x, edge_attr = inputs()
    model = PLSTM(FEATURES, 16, 2, 3, edge_dim=EDGE_FEATURES, local="gine")
    (model(x, EDGE_INDEX, edge_attr=edge_attr) * torch.randn(NODES, 3)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_reset_redraws_every_weight_from_its_own_distribution() -> None:
    model = PLSTM(32, 64, 2, 8, edge_dim=16, local="gine")
    first = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(123.0)
    torch.manual_seed(3)
    model.reset_parameters()
    again = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    for name, tensor in again.items():
        assert (tensor != 123).all(), name
        if tensor.numel() > 500:
            assert float(tensor.std()) == pytest.approx(float(first[name].std()), rel=0.15), name
    torch.manual_seed(3)
    model.reset_parameters()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.named_parameters())


def test_same_seed_same_output() -> None:
    x, edge_attr = inputs()
    outputs = []
    for _ in range(2):
        torch.manual_seed(11)
        model = PLSTM(FEATURES, 16, 2, dropout=0.3, edge_dim=EDGE_FEATURES, local="gine")
        outputs.append(model(x, EDGE_INDEX, edge_attr=edge_attr))
    assert torch.equal(*outputs)


def test_order_within_a_batch() -> None:
    """Orders are taken per graph: with and without the batch vector, and graph by graph."""
    x, _ = inputs()
    model = PLSTM(FEATURES, 16, 2, order="random").eval()
    columns = torch.cat([EDGE_INDEX, EDGE_INDEX + NODES], 1)
    batch = torch.tensor([0] * NODES + [1] * NODES)
    want = model(x, EDGE_INDEX)
    both = torch.cat([x, x])
    for out in (model(both, columns, batch=batch), model(both, columns)):
        torch.testing.assert_close(out, torch.cat([want, want]), rtol=1e-4, atol=1e-5)


def test_the_stack_of_a_canonical_model_does_not_rank_by_index() -> None:
    model = GraphModel(FeatureSpec(node_dim=3), 1, ModelConfig(width=8, layers=1, heads=4, rwse=0))
    with pytest.raises(ConfigError, match="order 'canonical' needs the molecule"):
        model.stack(torch.randn(3, 8), torch.tensor([[0, 1], [1, 2]]))


def test_summary_and_explainer() -> None:
    x, _ = inputs()
    model = PLSTM(FEATURES, 8, 2, 1, heads=2, modes="P", norm="layer")
    assert "PLSTMBlock" in summary(model, x, EDGE_INDEX)
    explainer = Explainer(
        model=model,
        algorithm=GNNExplainer(epochs=5),
        explanation_type="model",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    mask = explainer(x, EDGE_INDEX).edge_mask
    assert mask.isfinite().all()
    assert mask.std() > 0


@pytest.mark.parametrize("local", ["none", "gine"])
def test_assert_module(local: str) -> None:
    x, edge_attr = inputs()
    model = PLSTM(FEATURES, 8, 2, 3, edge_dim=EDGE_FEATURES, local=local, norm="layer")
    options = {"edge_attr": edge_attr, "expected_size": (NODES, 3), "test_sparse_layouts": []}
    assert_module(model, x, EDGE_INDEX, test_node_permutation=False, atol=1e-6, **options)


def test_autocast_is_close_to_float32() -> None:
    """Matrix products in bfloat16, gates and states in float32; gradients are finite."""
    x, edge_attr = inputs()
    model = PLSTM(FEATURES, 16, 3, 2, edge_dim=EDGE_FEATURES, local="gine", norm="layer")
    want = model(x, EDGE_INDEX, edge_attr=edge_attr)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x, EDGE_INDEX, edge_attr=edge_attr)
    assert not torch.equal(out.float(), want)
    torch.testing.assert_close(out.float(), want, rtol=0.05, atol=0.05)
    out.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# ---------------------------------------------------------------------- GraphModel


def config(**changes: object) -> ModelConfig:
    return ModelConfig(**{"width": 16, "heads": 4, "layers": 2, "order": "canonical", **changes})


def need_rdkit_and_ogb() -> None:
    """A GPU machine may have the layers' packages alone."""
    for package in ("rdkit", "ogb"):
        pytest.importorskip(package)


def molecules() -> list[Data]:
    """A ring, a chain, one atom, and two parts that no bond joins (salt), one of them a single atom."""
    need_rdkit_and_ogb()
    return [smiles_to_data(text) for text in ("c1ccccc1C(=O)O", "CCOC(C)=O", "[Na+]", "CC(=O)[O-].[K+]", "[He].[He]")]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("model", "pooling"), [*((model, "mean") for model in NETWORKS), *(("plstm", pooling) for pooling in POOLINGS)]
)
def test_molecules_without_bonds(model: str, pooling: str, training: bool) -> None:
    chosen = config(model=model, pooling=pooling, lap_pe=3)
    network = GraphModel(MOLECULES, 2, chosen).train(training)
    graphs = add_encodings(molecules(), chosen)
    for batch in (graphs, graphs[2:3], graphs[4:], graphs[2:4]):
        out = network(Batch.from_data_list(batch))
        assert out.shape == (len(batch), 2)
        out.sum().backward()
        assert out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("model", "order"),
    [*((model, "canonical") for model in NETWORKS), ("plstm", "degree"), ("plstm", "random")],
)
def test_batch_equals_graphs_one_by_one(model: str, order: str) -> None:
    chosen = config(model=model, order=order)
    network = GraphModel(MOLECULES, 2, chosen).eval()
    graphs = add_encodings(molecules(), chosen)
    together = network(Batch.from_data_list(graphs))
    single = torch.cat([network(Batch.from_data_list([graph])) for graph in graphs])
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([network(graph) for graph in graphs]), single, rtol=1e-4, atol=1e-5)


def test_random_orientations_are_drawn_anew_in_training_and_averaged_outside() -> None:
    chosen = config(order="random", test_orientations=3, dropout=0.0, norm="layer", rwse=0)
    network = GraphModel(FeatureSpec(node_dim=FEATURES), 2, chosen)
    data = add_encodings([Data(x=inputs()[0], edge_index=EDGE_INDEX) for _ in range(2)], chosen)
    assert "rank" not in data[0]
    batch = Batch.from_data_list(data)
    single = []
    for seed in range(3):
        network.train().orientation = seed
        single.append(network(batch))
        assert torch.equal(single[-1], network(batch))
        dag = LineDAG.from_edge_index(batch.edge_index, 2 * NODES, order="random", batch=batch.batch, seed=seed)
        read = network.stack(network.encoder.node(batch.x), batch.edge_index, dag=dag)
        torch.testing.assert_close(single[-1], network.head(network.pool(read, batch.batch)))
    assert not torch.allclose(single[0], single[1], rtol=1e-4)
    torch.testing.assert_close(network.eval()(batch), torch.stack(single).mean(0))
    with pytest.raises(ConfigError, match="test_orientations must be at least 1"):
        GraphModel(MOLECULES, 1, config(test_orientations=0))


def test_the_canonical_order_is_the_rank_that_graphs_come_with() -> None:
    """So that a native DAG keeps its directions, and molecules are not parsed again."""
    dag = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[2, 1], [1, 0]]), rank=torch.tensor([2, 1, 0]))
    bare = Data(x=dag.x, edge_index=dag.edge_index)
    assert add_encodings([dag], config(rwse=0))[0].rank.tolist() == [2, 1, 0]
    assert add_encodings([bare], config(rwse=0))[0].rank.tolist() != [2, 1, 0]
    assert add_encodings([dag], config(rwse=0, order="index"))[0].rank.tolist() == [0, 1, 2]
    assert "rank" not in bare


def test_stored_line_graphs_change_nothing() -> None:
    chosen = config()
    network = GraphModel(MOLECULES, 1, chosen).eval()
    graphs = add_encodings(molecules(), chosen)
    stored = [AddLineDAG(prune=True)(graph) for graph in graphs]
    assert all(isinstance(graph, LineDAGData) for graph in stored)
    want = network(Batch.from_data_list(graphs))
    assert torch.equal(network(Batch.from_data_list(stored)), want)


@pytest.mark.parametrize("local", ["none", "gine"])
def test_prediction_does_not_depend_on_how_the_molecule_is_written(local: str) -> None:
    """Renumbered molecules, some of them symmetric. (OGB's chirality column does depend on it; see below.)"""
    need_rdkit_and_ogb()
    from rdkit import Chem

    chosen = config(local=local)
    network = GraphModel(MOLECULES, 1, chosen).eval()
    for text in ("CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "C1CC2CCC1CC2", "F/C=C/F", "CCO.[Na+].[Cl-]"):
        written = [text, *Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(text), 8, 7)]
        assert len(set(written)) > 2
        out = network(Batch.from_data_list(add_encodings([smiles_to_data(w) for w in written], chosen)))
        torch.testing.assert_close(out, out[:1].expand_as(out), rtol=1e-5, atol=1e-6)


def test_chirality_tags_alone_depend_on_the_writing() -> None:
    """rdkit's CW/CCW tags count neighbours in the order they are written, and OGB's column holds the tag."""
    need_rdkit_and_ogb()
    from rdkit import Chem

    chosen = config()
    network = GraphModel(MOLECULES, 1, chosen).eval()
    text = "CC(C)C[C@H](NC(=O)[C@@H](C)N)C(=O)O"
    graphs = [smiles_to_data(w) for w in (text, *Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(text), 8, 7))]
    for graph in graphs:
        graph.x[:, 1] = 0
    out = network(Batch.from_data_list(add_encodings(graphs, chosen)))
    torch.testing.assert_close(out, out[:1].expand_as(out), rtol=1e-5, atol=1e-6)


def test_prepare_leaves_its_input_alone() -> None:
    graphs = molecules()  # with encodings of every kind
    before = [{key: value.clone() if isinstance(value, Tensor) else value for key, value in g} for g in graphs]
    prepared = add_encodings(graphs, config(order="degree", rwse=4, lap_pe=2))
    for graph, kept, new in zip(graphs, before, prepared, strict=True):
        assert set(graph.keys()) == set(kept)
        assert all(torch.equal(graph[key], value) for key, value in kept.items() if isinstance(value, Tensor))
        assert new.rwse.shape == (graph.num_nodes, 4)
        assert new.lap_pe.shape == (graph.num_nodes, 2)
        assert sorted(new.rank.tolist()) == list(range(graph.num_nodes))


def test_edge_features_are_optional() -> None:
    """The default model on a data set without edge features, as PROTEINS is."""
    chosen = config(order="index", degrees=True)
    network = GraphModel(FeatureSpec(node_dim=FEATURES), 2, chosen)
    graphs = add_encodings([Data(x=inputs()[0], edge_index=EDGE_INDEX) for _ in range(3)], chosen)
    assert network(Batch.from_data_list(graphs)).shape == (3, 2)


def test_graph_without_nodes_in_a_batch() -> None:
    chosen = config(rwse=0, order="index")
    network = GraphModel(FeatureSpec(node_dim=FEATURES), 2, chosen).eval()
    empty = Data(x=torch.zeros(0, FEATURES), edge_index=torch.zeros(2, 0, dtype=torch.long))
    full = Data(x=inputs()[0], edge_index=EDGE_INDEX)
    out = network(Batch.from_data_list([full, empty]))
    assert out.shape == (2, 2)
    torch.testing.assert_close(out[:1], network(Batch.from_data_list([full])), rtol=1e-4, atol=1e-5)


def test_unknown_names_and_missing_encodings() -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'plst'.*did you mean 'plstm'"):
        GraphModel(MOLECULES, 1, config(model="plst"))
    with pytest.raises(ConfigError, match="unknown pooling"):
        GraphModel(MOLECULES, 1, config(pooling="men"))
    with pytest.raises(ShapeError, match="add_encodings"):
        GraphModel(MOLECULES, 1, config())(Batch.from_data_list(molecules()))
    with pytest.raises(ConfigError, match="unknown order"):
        add_encodings(molecules(), config(order="canonic"))


def test_options_of_other_stacks_are_refused_by_name() -> None:
    for name in ("act", "act_first", "act_kwargs", "norm_kwargs", "concat", "add_self_loops"):
        with pytest.raises(ConfigError, match=f"PLSTM has no option '{name}': (?!unknown)"):
            PLSTM(4, 8, 1, **{name: None})
    with pytest.raises(ConfigError, match="'hidden': unknown keyword argument"):
        PLSTM(4, 8, 1, hidden=8)
    model, x, edge_index = PLSTM(4, 8, 1), torch.randn(2, 4), torch.tensor([[0], [1]])
    with pytest.raises(ConfigError, match="PLSTM takes no num_sampled_nodes_per_hop: a path"):
        model(x, edge_index, num_sampled_nodes_per_hop=[1, 1])
