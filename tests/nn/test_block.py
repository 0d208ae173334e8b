"""PLSTMBlock: any PyG conv as local branch, bond content in the values, options refused by name."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks
from torch_geometric.nn import GATv2Conv, GCNConv, GINConv, GINEConv, SAGEConv
from torch_geometric.testing import assert_module

from plstm_graph import LineDAG, PLSTMBlock
from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.nn.block import DIRECTIONS, edge_content
from plstm_graph.nn.linear import GATE_STD
from plstm_graph.nn.norm import NORMS

EDGE_INDEX = torch.tensor([[0, 1, 1, 2, 2, 3, 0, 2, 3, 4], [1, 0, 2, 1, 3, 2, 2, 0, 4, 3]])
NODES, CHANNELS, EDGE_FEATURES = 5, 8, 3


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.ReLU(), nn.Linear(CHANNELS, CHANNELS))


LOCALS: dict[str, Callable[[], nn.Module]] = {
    "GINEConv": lambda: GINEConv(perceptron(), edge_dim=EDGE_FEATURES),
    "GATv2Conv": lambda: GATv2Conv(CHANNELS, CHANNELS // 2, heads=2, edge_dim=EDGE_FEATURES),
    "GCNConv": lambda: GCNConv(CHANNELS, CHANNELS),
    "SAGEConv": lambda: SAGEConv(CHANNELS, CHANNELS),
    "GINConv": lambda: GINConv(perceptron()),
}


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(NODES, CHANNELS), torch.randn(EDGE_INDEX.size(1), EDGE_FEATURES)


@pytest.mark.parametrize("mode", ["P", "D", None])
@pytest.mark.parametrize("name", LOCALS)
def test_any_conv_as_local_branch(name: str, mode: str | None) -> None:
    x, edge_attr = inputs()
    block = PLSTMBlock(CHANNELS, 4, mode, edge_dim=EDGE_FEATURES, local=LOCALS[name]())
    out = block(x, EDGE_INDEX, edge_attr)
    assert out.shape == x.shape
    out.square().sum().backward()
    for parameter, value in block.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.abs().sum() > 0, parameter


@pytest.mark.parametrize("name", ["GINEConv", "GATv2Conv"])
def test_local_branch_reads_edge_features(name: str) -> None:
    x, edge_attr = inputs()
    block = PLSTMBlock(CHANNELS, mode=None, local=LOCALS[name](), norm="none", expansion=0)
    want = x + block.local(x, EDGE_INDEX, edge_attr=edge_attr)
    torch.testing.assert_close(block(x, EDGE_INDEX, edge_attr), want)
    assert len(block.convs) == 0


@pytest.mark.parametrize("mode", ["P", "D"])
def test_equals_its_parts(mode: str) -> None:
    """x + project(convs(norm(x) + content)) + local(norm(x)), then x + feed_forward(x)."""
    x, edge_attr = inputs()
    block = PLSTMBlock(CHANNELS, 4, mode, edge_dim=EDGE_FEATURES, local=LOCALS["GINEConv"](), norm="layer").eval()
    dag = LineDAG.from_edge_index(EDGE_INDEX, NODES)
    normed = block.norm(x)
    read = normed + block.content(edge_content(edge_attr, dag))
    heads = torch.cat([conv(read, EDGE_INDEX, edge_attr) for conv in block.convs], -1)
    middle = x + block.project(heads) + block.local(normed, EDGE_INDEX, edge_attr)
    torch.testing.assert_close(block(x, EDGE_INDEX, edge_attr), middle + block.feed_forward(middle))
    assert [conv.reverse for conv in block.convs] == [False, True]
    assert [conv.heads for conv in block.convs] == [2, 2]


def test_edge_content_is_the_mean_over_touching_edges() -> None:
    columns = torch.tensor([[0, 1, 2, 1], [1, 0, 1, 2]])
    attr = torch.tensor([[1.0], [1.0], [5.0], [5.0]])
    content = edge_content(attr, LineDAG.from_edge_index(columns, 4))
    assert content.flatten().tolist() == [1, 3, 5, 0]


def test_edge_content_reads_both_columns_of_an_edge() -> None:
    columns = torch.tensor([[0, 1, 2, 1, 1], [1, 0, 1, 2, 2]])  # 1 - 2 has two columns along and one against
    attr = torch.tensor([[1.0], [3.0], [5.0], [7.0], [9.0]])
    dag = LineDAG.from_edge_index(columns, 3)
    for read in (dag, dag.reverse(), LineDAG.from_edge_index(columns, 3, order=torch.tensor([2, 1, 0]))):
        assert edge_content(attr, read).flatten().tolist() == [2, 4.25, 6.5]


@pytest.mark.parametrize("mode", ["P", "D"])
def test_bond_content_reaches_the_values(mode: str) -> None:
    """Also with the gates deaf to edges."""
    x, edge_attr = inputs()
    block = PLSTMBlock(CHANNELS, 4, mode, edge_dim=EDGE_FEATURES, norm="layer").eval()
    for conv in block.convs:
        nn.init.zeros_(conv.lin_edge.weight)
    changed = edge_attr.clone()
    changed[:2] += 1  # both columns of the edge 0 - 1
    difference = (block(x, EDGE_INDEX, edge_attr) - block(x, EDGE_INDEX, changed)).abs().sum(1)
    assert (difference > 1e-6).all()


@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_directions_and_norms(norm: str, directions: str) -> None:
    x, edge_attr = inputs()
    block = PLSTMBlock(CHANNELS, 2, directions=directions, norm=norm, edge_dim=EDGE_FEATURES)
    assert block(x, EDGE_INDEX, edge_attr).shape == x.shape
    assert [conv.reverse for conv in block.convs] == list(DIRECTIONS[directions])
    assert sum(conv.heads for conv in block.convs) == 2


def test_directions_reach_the_other_way() -> None:
    x, changed = torch.randn(NODES, CHANNELS), None
    changed = x.clone()
    changed[2] += 1
    reached = {}
    for directions in DIRECTIONS:
        block = PLSTMBlock(CHANNELS, 2, directions=directions, norm="none", expansion=0)
        moved = (block(changed, EDGE_INDEX) - block(x, EDGE_INDEX)).abs().sum(1) > 1e-7
        reached[directions] = moved.nonzero().flatten().tolist()
    assert reached == {"both": [0, 1, 2, 3, 4], "along": [2, 3, 4], "against": [0, 1, 2]}


def test_a_given_dag_is_the_one_it_builds() -> None:
    x, edge_attr = inputs()
    block = PLSTMBlock(CHANNELS, 4, edge_dim=EDGE_FEATURES, order="degree").eval()
    dag = LineDAG.from_edge_index(EDGE_INDEX, NODES, order="degree")
    assert torch.equal(block(x, EDGE_INDEX, edge_attr, dag=dag), block(x, EDGE_INDEX, edge_attr))


def test_assert_module() -> None:
    x, edge_attr = inputs()
    block = PLSTMBlock(CHANNELS, 4, edge_dim=EDGE_FEATURES).eval()
    assert_module(block, x, EDGE_INDEX, edge_attr=edge_attr, expected_size=(NODES, CHANNELS), test_sparse_layouts=[])


def test_one_dimensional_edge_features() -> None:
    x, weight = torch.randn(NODES, CHANNELS), torch.rand(EDGE_INDEX.size(1))
    for local in (None, GINEConv(perceptron(), edge_dim=1)):
        block = PLSTMBlock(CHANNELS, 4, edge_dim=1, local=local).eval()
        assert torch.equal(block(x, EDGE_INDEX, weight), block(x, EDGE_INDEX, weight.unsqueeze(-1)))


@pytest.mark.parametrize("nodes", [1, 3])
def test_graphs_without_edges(nodes: int) -> None:
    block = PLSTMBlock(CHANNELS, 4, edge_dim=EDGE_FEATURES, local=LOCALS["GINEConv"]())
    nothing = torch.zeros(2, 0, dtype=torch.long)
    out = block(torch.randn(nodes, CHANNELS), nothing, torch.zeros(0, EDGE_FEATURES))
    assert out.isfinite().all()


def test_reset_keeps_the_distribution_of_every_weight() -> None:
    """A reset of the parts alone would draw gate weights like those of any linear map."""
    block = PLSTMBlock(64, 4, edge_dim=32, local=GINEConv(nn.Sequential(nn.Linear(64, 64)), edge_dim=32))
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    block.reset_parameters()
    for name, tensor in block.named_parameters():
        constant = bool((before[name] == before[name].flatten()[0]).all()) or name.endswith("gate_bias")
        assert torch.equal(tensor, before[name]) == constant, name
        if tensor.dim() == 2 and not constant:
            assert float(tensor.detach().std()) == pytest.approx(float(before[name].std()), rel=0.1), name
    conv = block.convs[0]
    assert float(conv.lin.weight[-8 * conv.heads :].detach().std()) == pytest.approx(GATE_STD / 8, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"heads": 3}, "multiple of heads"),
        ({"heads": 1}, "2 reading directions"),
        ({"heads": 0}, "heads=0"),
        ({"directions": "forward"}, "unknown directions"),
        ({"mode": None}, "needs a local branch"),
        ({"mode": "Q"}, "unknown mode"),
        ({"norm": "bach"}, "did you mean 'batch'"),
        ({"order": "degre"}, "did you mean 'degree'"),
        ({"backend": "numbaa"}, "unknown backend 'numbaa'.*did you mean 'numba'"),
        ({"backend": "numbaa", "mode": None, "local": nn.Identity()}, "unknown backend 'numbaa'"),
    ],
)
def test_refusals(arguments: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        PLSTMBlock(CHANNELS, **arguments)


def test_edge_features_that_were_not_announced() -> None:
    x, edge_attr = inputs()
    with pytest.raises(ConfigError, match="without edge_dim"):
        PLSTMBlock(CHANNELS, 4)(x, EDGE_INDEX, edge_attr)
    with pytest.raises(ShapeError):
        PLSTMBlock(CHANNELS, 4, edge_dim=EDGE_FEATURES)(x, EDGE_INDEX, edge_attr[:-1])
    assert PLSTMBlock(CHANNELS, 4, edge_dim=0)(x, EDGE_INDEX).shape == x.shape


def test_a_dag_of_another_graph_is_refused() -> None:
    x, edge_attr = inputs()
    block = PLSTMBlock(CHANNELS, 4, edge_dim=EDGE_FEATURES)
    dag = LineDAG.from_edge_index(EDGE_INDEX, NODES)
    with pytest.raises(ShapeError, match=f"the dag has {NODES} nodes, but x has {NODES - 1}"):
        block(x[:-1], EDGE_INDEX, edge_attr, dag=dag)
    with pytest.raises(ShapeError, match="plain dag"):
        block(x, EDGE_INDEX, edge_attr, dag=dag.prune())
    local = PLSTMBlock(CHANNELS, mode=None, local=GCNConv(CHANNELS, CHANNELS))
    for module in (block, local):
        with pytest.raises(ShapeError, match="the dag was built from 10 columns, but edge_index has 0"):
            module(x, EDGE_INDEX[:, :0], dag=dag)


def test_a_masked_edge_says_nothing() -> None:
    """With every edge masked away, neither gates, nor paths, nor the content of bonds reach the output."""
    x, edge_attr = inputs()
    block = PLSTMBlock(CHANNELS, 4, edge_dim=EDGE_FEATURES).eval()
    set_masks(block, torch.zeros(EDGE_INDEX.size(1)), EDGE_INDEX, apply_sigmoid=False)
    first = block(x, EDGE_INDEX, edge_attr)
    assert torch.equal(first, block(x, EDGE_INDEX, torch.randn_like(edge_attr)))
    moved = torch.cat([x[:1] + 1, x[1:]])
    assert torch.equal(first[1:], block(moved, EDGE_INDEX, edge_attr)[1:])
    clear_masks(block)
    assert not torch.equal(first, block(x, EDGE_INDEX, edge_attr))
