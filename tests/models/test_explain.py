import importlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph import LineDAG, PLSTMConv
from plstm_graph.config.models import ModelConfig
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.features import ATOM_SIZES, BOND_SIZES, FeatureSpec
from plstm_graph.data.molecules import smiles_to_data
from plstm_graph.errors import BackendUnavailable, ConfigError
from plstm_graph.models.explain import Explanation, as_sum, explain, parts
from plstm_graph.models.graph import GraphModel
from plstm_graph.testing import DAGS

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
ONE_GRAPH = ("one node", "no edge", "no pair", "isolated nodes", "diamond", "ring with a short cut", "star", "grid")
MOLECULE = FeatureSpec(node_sizes=ATOM_SIZES, edge_sizes=BOND_SIZES)


def first(out: Tensor) -> Tensor:
    return out[:, 0]


def stirred(module: Any, size: float = 0.1) -> Any:
    """Away from its initial weights, where gates are almost closed."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return module


def graph_model(**options: Any) -> GraphModel:
    config = ModelConfig(**({"width": 16, "layers": 2, "heads": 4, "local": "none", "rwse": 4} | options))
    return stirred(GraphModel(MOLECULE, 2, config)).eval()


def explained(model: GraphModel, smiles: str = ASPIRIN, **options: Any) -> Explanation:
    return explain(model, add_encodings([smiles_to_data(smiles)], model.config)[0], first, **options)


# ------------------------------------------------------------------ one layer


@pytest.mark.parametrize("concat", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("mode", ["P", "D"])
@pytest.mark.parametrize("name", ONE_GRAPH)
def test_parts_add_up_to_the_output(name: str, mode: str, reverse: bool, concat: bool) -> None:
    dag = DAGS[name]()
    options = {"heads": 3, "mode": mode, "reverse": reverse, "concat": concat, "key_channels": 4, "edge_dim": 2}
    conv = stirred(PLSTMConv(5, 6, **options).double(), 1.0)
    x, edge_attr = torch.randn(dag.num_nodes, 5).double(), torch.randn(dag.column.numel(), 2).double()
    out = conv(x, None, edge_attr, dag=dag) - conv.bias
    found = parts(conv, x, edge_attr, dag=dag)
    torch.testing.assert_close(found.output(), out, rtol=1e-10, atol=1e-12)
    gradient = torch.randn_like(out)
    flow = found.flow(gradient)
    torch.testing.assert_close(flow.sum((0, 2)), (out * gradient).sum(-1), rtol=1e-10, atol=1e-12)
    step = torch.eye(dag.num_nodes)
    step[dag.dst, dag.src] = 1
    reached = step.matrix_power(dag.num_nodes) > 0
    assert not flow[:, ~(reached.T if reverse else reached)].any()


def test_a_part_is_what_disappears_with_its_value() -> None:
    """With the norm held fixed; and by hand, who can reach whom."""
    dag = LineDAG.from_edge_index(torch.tensor([[0, 1, 1], [1, 2, 3]]), 4)
    conv = stirred(PLSTMConv(3, 4, heads=2).double(), 1.0)
    found = parts(conv, torch.randn(4, 3).double(), dag=dag)
    gradient = torch.randn(4, 8).double()
    flow = found.flow(gradient).sum(0)
    for source in range(4):
        value = found.value.clone()
        value[source] = 0
        lost = (found.output() - found._replace(value=value).output()) * gradient
        torch.testing.assert_close(flow[:, source], lost.sum(-1), rtol=1e-10, atol=1e-12)
    assert flow[0, 1:].abs().max() == 0  # nothing runs against the edges
    assert (flow[3, [0, 1, 3]].abs() > 0).all()
    assert flow[3, 2] == 0


def test_a_graph_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("plstm_graph.ops.influence")  # the package exports the function by this name
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(BackendUnavailable, match="gating matrices of 1 graphs"):
        explained(graph_model())


# ------------------------------------------------------------------ a model


@pytest.mark.parametrize("smiles", [ASPIRIN, "[Na+].CC(=O)[O-].O", "[Na+]", "CC"])
@pytest.mark.parametrize(
    "options",
    [{}, {"local": "gine"}, {"local": "gatedgcn-edges"}, {"modes": "P", "directions": "against"}, {"norm": "rms"}],
)
def test_sums_come_out(options: dict[str, Any], smiles: str) -> None:
    model = graph_model(**options)
    found = explained(model, smiles, steps=256)
    (graph,) = add_encodings([smiles_to_data(smiles)], model.config)
    assert found.value == pytest.approx(model(graph)[0, 0].item(), abs=1e-5)
    scale = max(abs(found.value - found.blank), float(found.scores.abs().max()))
    assert abs(found.gap) < 0.02 * scale  # kinks of ReLU and norms near zero: not exact
    flows = max(abs(found.value - found.silent), float(found.pairs().abs().max()))
    assert abs(found.flow_gap) < (1e-3 if "local" in options else 1e-9) * flows
    assert found.scores.sum() == pytest.approx(float(found.nodes.sum() + found.edges.sum()), abs=1e-12)


def test_more_steps_make_the_gap_smaller() -> None:
    coarse = fine = 0.0
    for seed in range(4):  # of one model, one step may come close by chance
        torch.manual_seed(seed)
        model = graph_model(local="gine")
        coarse += abs(explained(model, steps=1).gap)
        fine += abs(explained(model, steps=512).gap)
    assert fine < 0.01 * coarse


def test_one_linear_readout_makes_flows_the_gradient() -> None:
    """One block without feed-forward, sum pooling, a linear head: the output is linear in what the layers put out."""
    model = graph_model(layers=1, expansion=0.0, pooling="sum", head_layers=1).double()
    for conv in model.stack.blocks[0].convs:
        conv.backend = "scatter"
    found = explained(model, steps=1)
    (graph,) = add_encodings([smiles_to_data(ASPIRIN)], model.config)
    graph.rwse = graph.rwse.double()
    outs: list[Tensor] = []
    convs = list(model.stack.blocks[0].convs)
    for conv in convs:
        conv.register_forward_hook(lambda _, args, out: outs.append(out) or out.retain_grad())
    first(model(graph)).sum().backward()
    for conv, out, flow in zip(convs, outs, found.flows, strict=True):
        want = ((out - conv.bias) * out.grad).sum(-1)
        torch.testing.assert_close(flow.scores.sum((0, 2)), want.detach(), rtol=1e-8, atol=1e-10)


def test_flows_are_named_by_layer_mode_and_direction() -> None:
    found = explained(graph_model(layers=3))
    kinds = [(flow.layer, flow.mode, flow.direction) for flow in found.flows]
    both = ("along", "against")
    assert kinds == [(layer, mode, direction) for layer, mode in enumerate("PDP") for direction in both]
    assert found.readings == [("P", "along"), ("P", "against"), ("D", "along"), ("D", "against")]
    torch.testing.assert_close(sum(found.pairs(*reading) for reading in found.readings), found.pairs())
    torch.testing.assert_close(found.pairs("P"), found.pairs("P", "along") + found.pairs("P", "against"))
    along, against = found.pairs(direction="along"), found.pairs(direction="against")
    assert not (along * along.T).triu(1).any()  # one of two atoms has the lower rank
    assert not (along * against).fill_diagonal_(0).any()


def test_renumbered_atoms_keep_their_scores() -> None:
    model = graph_model()
    there, back = explained(model, "OCCN"), explained(model, "NCCO")
    torch.testing.assert_close(there.scores, back.scores.flip(0), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(there.pairs(), back.pairs().flip(0, 1), rtol=1e-6, atol=1e-8)


def test_graphs_that_are_no_molecules_with_float_features() -> None:
    config = ModelConfig(width=8, layers=1, heads=2, local="none", rwse=0, order="index")
    model = stirred(GraphModel(FeatureSpec(node_dim=3), 1, config))
    graph = Data(x=torch.randn(4, 3), edge_index=torch.tensor([[0, 1, 2, 1, 2, 3], [1, 2, 3, 0, 1, 2]]))
    found = explain(model, graph, first, steps=256)
    assert found.edges.tolist() == [0.0] * 6
    assert abs(found.gap) < 0.02 * float(found.nodes.abs().sum())
    assert model.training  # a copy was explained
    assert model.head[0].weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["gin", "gine"])
def test_a_model_without_plstm_layers_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no pLSTM layer.*torch_geometric\.explain"):
        explained(graph_model(model=name, local="gine"))


def test_no_steps() -> None:
    with pytest.raises(ConfigError, match="at least one step, got 0"):
        explained(graph_model(), steps=0)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((2.87, 6.86, -0.0949), "blank 6.86 − atoms 3.90 − gap 0.09 = 2.87"),
        ((2.874, 6.855, 1e-5), "blank 6.86 − atoms 3.99 = 2.87"),
        ((-0.00123, 0.002, 0.0001), "blank 0.00200 − atoms 0.00333 + gap 0.00010 = −0.00123"),
        ((1234.0, -1000.4, 0.6), "blank −1000 + atoms 2233 + gap 1 = 1234"),
    ],
)
def test_a_sum_on_paper_is_right(numbers: tuple[float, float, float], text: str) -> None:
    assert as_sum(*numbers, "blank", "atoms") == text
