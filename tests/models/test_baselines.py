"""Every model by name: with and without bonds, on graphs of any size; what each of them promises."""

from dataclasses import replace

import networkx as nx
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GPSConv, ResGatedGraphConv

from plstm_graph.config.architectures import NETWORKS, architecture
from plstm_graph.config.models import ModelConfig
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import ConfigError
from plstm_graph.line_dag import LineDAG
from plstm_graph.models.baselines import DMPNN
from plstm_graph.models.graph import GraphModel
from plstm_graph.models.reachable import paths
from plstm_graph.nn.dagnn import NodeLevels
from plstm_graph.nn.directed import Returning
from plstm_graph.nn.onehop import LOCALS, DirectedGINE

FEATURES, BONDS = FeatureSpec(node_dim=4, edge_dim=3), FeatureSpec(node_dim=4)
WIDTH = 16
NO_BONDS = ("gin",)  # read none by design
HAS_VIRTUAL = ("plstm", "gine", "gcn", "gin-virtual", "gat", "gatedgcn", "gatedgcn-edges", "gps")


def config(model: str, **changes: object) -> ModelConfig:
    small = {"width": WIDTH, "heads": 4, "layers": 3, "dropout": 0.0, "order": "index", "rwse": 3, "lap_pe": 2}
    return ModelConfig(model=model, **{**small, **changes})  # type: ignore[arg-type]


def graph(pairs: list[tuple[int, int]], nodes: int, seed: int = 0) -> Data:
    """Undirected: every pair in both directions, with the same features both ways."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.tensor(pairs, dtype=torch.long).view(-1, 2).t()
    bond = torch.randn(half.size(1), 3, generator=generator)
    return Data(
        x=torch.randn(nodes, 4, generator=generator),
        edge_index=torch.cat([half, half.flip(0)], 1),
        edge_attr=torch.cat([bond, bond]),
    )


def graphs() -> list[Data]:
    """A ring with a tail, a chain, one atom, two atoms that no bond joins."""
    ring = graph([(0, 1), (1, 2), (2, 3), (3, 0), (3, 4)], 5, 1)
    return [ring, graph([(0, 1), (1, 2)], 3, 2), graph([], 1, 3), graph([], 2, 4)]


def network(chosen: ModelConfig, features: FeatureSpec = FEATURES, outputs: int = 2) -> GraphModel:
    torch.manual_seed(3)
    return GraphModel(features, outputs, chosen)


@pytest.mark.parametrize("edge_features", [True, False])
@pytest.mark.parametrize("model", NETWORKS)
def test_any_graph_with_and_without_bonds(model: str, edge_features: bool) -> None:
    chosen = config(model, edge_features=edge_features)
    found = network(chosen)
    ready = add_encodings(graphs(), chosen)
    for batch in (ready, ready[2:3], ready[2:], ready[3:]):
        out = found(Batch.from_data_list(batch))
        assert out.shape == (len(batch), 2)
        out.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in found.parameters())
    # A data set without bond features builds the same network as one whose bonds are not to be read.
    plain = network(config(model), BONDS)
    assert (sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in found.parameters())) == (
        not edge_features
    )


@pytest.mark.parametrize("model", NETWORKS)
def test_bonds_matter_where_they_are_read(model: str) -> None:
    chosen = config(model)
    ready = add_encodings(graphs()[:2], chosen)
    other = [item.clone() for item in ready]
    for item in other:
        item.edge_attr = item.edge_attr + 1
    found = network(chosen).eval()
    same = torch.allclose(found(Batch.from_data_list(ready)), found(Batch.from_data_list(other)), atol=1e-6)
    assert same == (model in NO_BONDS)
    blind = network(replace(chosen, edge_features=False)).eval()
    assert torch.equal(blind(Batch.from_data_list(ready)), blind(Batch.from_data_list(other)))


@pytest.mark.parametrize("model", NETWORKS)
def test_renumbered_graphs_give_the_same_output(model: str) -> None:
    """With ranks that move with the nodes. Eigenvectors have no sign of their own, so they are left out."""
    chosen = config(model, lap_pe=0)
    found = network(chosen).double().eval()
    item = graphs()[0]
    item.x, item.edge_attr, item.rank = item.x.double(), item.edge_attr.double(), torch.arange(5)
    place = torch.tensor([3, 0, 4, 1, 2])  # where each node goes
    back = place.argsort()
    moved = Data(x=item.x[back], edge_index=place[item.edge_index], edge_attr=item.edge_attr, rank=item.rank[back])
    out = []
    for graph in (item, moved):
        ready = add_encodings([graph], replace(chosen, model="gine"))[0]  # encodings without other ranks
        ready.rwse = ready.rwse.double()
        out.append(found(ready))
    torch.testing.assert_close(out[1], out[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", NETWORKS)
def test_gradients_reach_every_parameter(model: str) -> None:
    chosen = config(model, virtual_node=model in HAS_VIRTUAL, pooling="attention")
    found = network(chosen).eval()  # in training a batch norm takes away the bias of the layer before it
    batch = Batch.from_data_list(add_encodings(graphs()[:2], chosen))
    (found(batch) * torch.randn(2, 2)).sum().backward()
    for name, parameter in found.named_parameters():
        if model in NO_BONDS and name.startswith("encoder.edge"):
            continue
        if name == "pool.gate_nn.bias":  # a softmax takes no notice of a constant
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("model", [name for name in NETWORKS if not architecture(name).oriented])
def test_a_baseline_reads_its_neighbourhood_and_no_more(model: str) -> None:
    """Three layers see three bonds far: on a chain of six the fifth atom's features do not reach the first's output."""
    chosen = config(model, rwse=0, lap_pe=0)
    stack = architecture(model).stacked(chosen, WIDTH).double().eval()
    chain = graph([(i, i + 1) for i in range(5)], 6)
    x = torch.randn(6, WIDTH, dtype=torch.double, requires_grad=True)
    edge_features = torch.randn(chain.edge_index.size(1), WIDTH, dtype=torch.double)
    stack(x, chain.edge_index, edge_attr=edge_features, batch=torch.zeros(6, dtype=torch.long), batch_size=1)[
        0
    ].sum().backward()
    reached = x.grad.abs().sum(1) > 0
    whole = model in ("gin-virtual", "gps")
    assert reached.tolist() == ([True] * 6 if whole else [True, True, True, True, False, False])


def pairs_without_return(edge_index: Tensor) -> list[tuple[int, int]]:
    columns = edge_index.t().tolist()
    return [(i, j) for i, (u, v) in enumerate(columns) for j, (w, z) in enumerate(columns) if v == w and z != u]


@pytest.mark.parametrize("model", [name for name in NETWORKS if name not in ("gin", "dmpnn")])
def test_of_no_layers_every_node_is_read_alone(model: str) -> None:
    chosen = config(model, layers=0)
    found = GraphModel(FEATURES, 2, chosen, level="node").eval()
    (ring, *_) = add_encodings(graphs(), chosen)
    before = found(ring)
    ring.x[0] += 1
    after = found(ring)
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before[0], after[0])


@pytest.mark.parametrize("directed", [False, True])
def test_dmpnn_never_passes_a_message_straight_back(directed: bool) -> None:
    """States are those of the sum over pairs of edges that do not return; a ring closes on itself, a bond does not."""
    item = graphs()[0]
    edge_index, edge_features = item.edge_index, torch.randn(10, WIDTH).double()
    if directed:  # some columns without their opposite, one of them twice
        keep = torch.tensor([0, 1, 2, 3, 4, 5, 5, 8])
        edge_index, edge_features = edge_index[:, keep], edge_features[keep]
    model = DMPNN(config("dmpnn", layers=4), WIDTH).double().eval()
    x = torch.randn(5, WIDTH).double()
    first = model.input(torch.cat([x[edge_index[0]], edge_features], 1))
    state = first.relu()
    for _ in range(3):
        message = torch.zeros_like(state)
        for prev, next in pairs_without_return(edge_index):
            message[next] += state[prev]
        state = (first + model.pass_on(message)).relu()
    reached = torch.zeros(5, WIDTH).double().index_add(0, edge_index[1], state)
    want = model.norm(model.output(torch.cat([x, reached], 1)).relu())
    torch.testing.assert_close(model(x, edge_index, edge_features), want, rtol=1e-9, atol=1e-9)


def test_two_atoms_of_dmpnn_hear_nothing_of_themselves() -> None:
    edge_index = torch.tensor([[0, 1], [1, 0]])
    state = torch.randn(2, WIDTH, requires_grad=True)
    arriving = torch.zeros(2, WIDTH).index_add(0, edge_index[1], state)
    message = arriving[edge_index[0]] - Returning(edge_index, 2)(state)
    assert torch.equal(message, torch.zeros(2, WIDTH))
    (message * torch.randn(2, WIDTH)).sum().backward()
    assert torch.equal(state.grad, torch.zeros(2, WIDTH))


@pytest.mark.parametrize("seed", range(3))
def test_paths_are_those_of_the_transitive_closure(seed: int) -> None:
    """Of a batch of random DAGs, one of them a single node, against networkx."""
    generator = torch.Generator().manual_seed(seed)
    sizes, columns, start = [7, 1, 5], [], 0
    for size in sizes:
        upper = (torch.rand(size, size, generator=generator) < 0.3).triu(1).nonzero().t()
        columns.append(torch.randperm(size, generator=generator)[upper] + start)
        start += size
    edge_index, batch = torch.cat(columns, 1), torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    dag = LineDAG.from_edge_index(edge_index, start, order="given", batch=batch)
    found = paths(dag, NodeLevels(dag), batch, 3)
    whole = nx.DiGraph(edge_index.t().tolist())
    whole.add_nodes_from(range(start))
    closure = torch.eye(start, dtype=torch.bool)
    for node in whole:
        closure[node, list(nx.descendants(whole, node))] = True
        assert found.depth[node] == max(
            (len(p) - 1 for s in whole for p in nx.all_simple_paths(whole, s, node)), default=0
        )
    closure = closure | closure.t()
    begin = 0
    for number, size in enumerate(sizes):
        own = slice(begin, begin + size)
        assert torch.equal(found.joined[number, :size, :size], closure[own, own])
        assert not found.joined[number, :size, size:].any()
        begin += size


@pytest.mark.parametrize("model", ["dag-transformer", "flowerformer"])
def test_one_block_reads_what_a_path_joins(model: str) -> None:
    """Of a tree with two branches the tip of one reads no node of the other, unless a walk back and forth does."""
    torch.manual_seed(0)
    stack = architecture(model).stacked(config(model, layers=1, norm="none", order="given"), None).eval()
    x = torch.randn(5, WIDTH, requires_grad=True)
    stack(x, torch.tensor([[0, 1, 0, 3], [1, 2, 3, 4]]))[2].sum().backward()  # 0 -> 1 -> 2 and 0 -> 3 -> 4
    assert (x.grad.abs().sum(1) > 0).tolist() == [True, True, True, False, False]


def test_attention_over_paths_is_a_softmax_over_them() -> None:
    torch.manual_seed(0)
    stack = architecture("dag-transformer").stacked(config("dag-transformer", layers=1), None).double().eval()
    block, x = stack.blocks[0], torch.randn(4, WIDTH).double()
    batch = torch.tensor([0, 0, 0, 1])
    dag = LineDAG.from_edge_index(torch.tensor([[0, 0], [1, 2]]), 4, order="given", batch=batch)
    found = paths(dag, NodeLevels(dag), batch, 2)
    query, key, value = block.read(x).chunk(3, 1)
    want = torch.zeros(4, WIDTH).double()
    for node, others in enumerate(([0, 1, 2], [0, 1], [0, 2], [3])):
        for head in range(4):
            own = slice(4 * head, 4 * head + 4)
            weight = (key[others, own] @ query[node, own] / 2).softmax(0)
            want[node, own] = weight @ value[others, own]
    torch.testing.assert_close(block._attend(block.read(x), found), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", ["dagnn", "dvae"])
def test_one_layer_of_a_walk_reads_the_whole_chain(model: str) -> None:
    for directions, reached in (("along", [1, 1, 1, 0]), ("against", [0, 0, 1, 1]), ("both", [1, 1, 1, 1])):
        torch.manual_seed(0)
        stack = architecture(model).stacked(config(model, layers=1, directions=directions, norm="none"), None).eval()
        x = torch.randn(4, WIDTH, requires_grad=True)
        stack(x, torch.tensor([[0, 1, 2], [1, 2, 3]]))[2].sum().backward()
        assert (x.grad.abs().sum(1) > 0).int().tolist() == reached


def test_an_edge_of_the_only_predecessor_is_heard() -> None:
    """The softmax of DAGNN leaves nothing of it, so it is added to the node."""
    torch.manual_seed(0)
    stack = architecture("dagnn").stacked(config("dagnn", norm="none"), 3).eval()
    x, bond = torch.randn(3, WIDTH), torch.randn(2, 3, requires_grad=True)
    stack(x, torch.tensor([[0, 1], [1, 2]]), bond)[2].sum().backward()
    assert (bond.grad.abs().sum(1) > 0).all()


def test_blocks_are_what_their_names_say() -> None:
    assert isinstance(architecture("gps").stacked(config("gps"), WIDTH).blocks[0], GPSConv)
    assert isinstance(architecture("gatedgcn").stacked(config("gatedgcn"), WIDTH).blocks[0].local, ResGatedGraphConv)
    assert architecture("gat").stacked(config("gat"), WIDTH).blocks[0].local.heads == 4
    assert architecture("gin-virtual").stacked(config("gin-virtual"), WIDTH).virtual is not None
    assert architecture("gine").stacked(config("gine"), WIDTH).virtual is None


def test_directed_gine_hears_both_sides_with_weights_of_their_own() -> None:
    torch.manual_seed(0)
    conv = DirectedGINE(4, 3).double()
    x, bond = torch.randn(3, 4).double(), torch.randn(2, 3).double()
    edges = torch.tensor([[0, 1], [1, 2]])
    parts = [conv.along(x, edges, bond), conv.against(x, edges.flip(0), bond)]
    assert torch.equal(conv(x, edges, bond), parts[0] + parts[1])
    old = conv.against.nn[0].weight.clone()
    conv.reset_parameters()
    assert not torch.equal(conv.against.nn[0].weight, old)
    assert not torch.equal(conv.against.nn[0].weight, conv.along.nn[0].weight)


@pytest.mark.parametrize("local", LOCALS)
def test_every_local_branch_beside_plstm(local: str) -> None:
    chosen = config("plstm", local=local)
    found = network(chosen)
    assert (found.stack.blocks[0].local is None) == (local == "none")
    assert found(Batch.from_data_list(add_encodings(graphs(), chosen))).isfinite().all()


@pytest.mark.parametrize(
    ("model", "changes", "match"),
    [
        ("gps", {"heads": 5}, "width must be a multiple of heads"),
        ("gat", {"heads": 3}, "width must be a multiple of heads"),
        ("gin", {"virtual_node": True}, "'gin' takes no virtual node"),
        ("dmpnn", {"virtual_node": True}, "'dmpnn' takes no virtual node"),
        ("lstm-gnn", {"jk": "cat"}, "'lstm-gnn' takes no jk"),
        ("dagnn", {"virtual_node": True}, "'dagnn' takes no virtual node"),
        ("adgn", {"virtual_node": True}, "'adgn' takes no virtual node"),
        ("flowerformer", {"virtual_node": True}, "'flowerformer' takes no virtual node"),
        ("dag-transformer", {"heads": 3}, "width must be a multiple of heads"),
        ("dag-transformer", {"width": 15, "heads": 3}, "needs an even width, for depths"),
        ("gin", {"layers": 0}, "'gin' needs 1 layer at least"),
        ("dmpnn", {"layers": 0}, "'dmpnn' needs 1 layer at least"),
        ("dvae", {"directions": "alternating"}, "unknown directions 'alternating'"),
        ("gps", {"norm": "rms"}, "unknown norm of model 'gps' 'rms'"),
        ("gcn", {"norm": "rmss"}, "unknown norm 'rmss'.*did you mean 'rms'"),
        ("gatedgnc", {}, "unknown model.*did you mean 'gatedgcn'"),
        ("fingerprint", {}, "no network of graphs: it has no layers"),
    ],
)
def test_refusals(model: str, changes: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        network(config(model, **changes))
