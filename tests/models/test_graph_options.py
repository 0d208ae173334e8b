"""Options of graph models: each changes what it should, and none lets the numbering of atoms matter."""

from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Batch, Data

from plstm_graph.config.models import ModelConfig
from plstm_graph.data import PackedGraphs, smiles_to_data
from plstm_graph.data.dataset import MOLECULE
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.features import FeatureSpec, rings
from plstm_graph.errors import ConfigError
from plstm_graph.models.graph import POOLINGS, GraphModel
from plstm_graph.nn import PLSTMBlock
from plstm_graph.nn.directed import DirectedMessages
from plstm_graph.orient import SEARCHES, search_rank

SMALL = ModelConfig(width=16, layers=2, heads=4, rwse=0)
OPTIONS = {
    "output_gate": True,
    "pooling": "mean+sum+max+sources+sinks",
    "jk": "cat",
    "edge_readout": True,
    "head_norm": "batch",
    "rings": True,
    "local": "dmpnn",
    "order": "canonical-dfs",
}
SPELLINGS = "CC(=O)Oc1ccccc1C(=O)O", "OC(=O)c1ccccc1OC(C)=O", "c1ccc(OC(C)=O)c(C(O)=O)c1"


def model_of(config: ModelConfig, seed: int = 0) -> GraphModel:
    torch.manual_seed(seed)
    return GraphModel(MOLECULE, 1, config).double().eval()


@pytest.mark.parametrize("name", [*OPTIONS, "all"])
def test_an_option_counts_and_a_spelling_does_not(name):
    config = replace(SMALL, **(OPTIONS if name == "all" else {name: OPTIONS[name]}))
    graphs = add_encodings([smiles_to_data(text) for text in (*SPELLINGS, "CCO")], config)
    model, plain = model_of(config), model_of(SMALL)
    out = model(Batch.from_data_list(graphs))
    assert torch.allclose(out[:3], out[:1].expand(3, -1), atol=1e-9)
    singles = torch.cat([model(graph) for graph in graphs])
    assert torch.allclose(singles, out, atol=1e-9)
    assert sum(p.numel() for p in model.parameters()) != sum(p.numel() for p in plain.parameters()) or name == "order"
    out.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def hidden(model: GraphModel, batch: Batch) -> torch.Tensor:
    """What the activation of the head is given, in training."""
    found = []
    next(part for part in model.head if isinstance(part, torch.nn.GELU)).register_forward_pre_hook(
        lambda module, given: found.append(given[0])
    )
    model.train()(batch)
    return found[0]


def test_a_norm_in_the_head_spreads_what_large_graphs_have_in_common():
    graphs = [smiles_to_data("C" * length + end) for length in (60, 70, 80) for end in "NOF"]
    batch = Batch.from_data_list(add_encodings(graphs, SMALL))
    plain, spread = (hidden(model_of(replace(SMALL, head_norm=name)), batch) for name in ("none", "batch"))
    assert plain.std(0).median() < 0.2
    assert torch.allclose(spread.mean(0), torch.zeros_like(spread[0]), atol=1e-9)
    assert 0.9 < spread.std(0, correction=0).median() <= 1


def test_a_norm_in_the_head_of_nodes_and_one_without_a_place():
    model = GraphModel(
        FeatureSpec(node_dim=4), 1, replace(SMALL, order="index", head_norm="batch"), level="node"
    ).train()
    data = Data(x=torch.randn(5, 4), edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]))
    assert model(data).shape == (5, 1)
    assert len(hidden(model, data)) == 5
    with pytest.raises(ConfigError, match="head_norm is of hidden layers"):
        replace(SMALL, head_norm="batch", head_layers=1)


def test_an_open_gate_is_no_gate():
    torch.manual_seed(0)
    block = PLSTMBlock(8, 4, output_gate=True, norm="none").eval()
    plain = PLSTMBlock(8, 4, norm="none").eval()
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if not k.startswith("gate.")})
    x, edge_index = torch.randn(3, 8), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    assert not torch.allclose(block(x, edge_index), plain(x, edge_index))
    torch.nn.init.zeros_(block.gate.weight)
    torch.nn.init.constant_(block.gate.bias, 50.0)
    assert torch.allclose(block(x, edge_index), plain(x, edge_index))


def test_ends_of_a_dag_by_hand():
    """0 -> 1 -> 2 and 3 -> 2, 4 alone is both; 5 -> 6 in the second graph; the third has no nodes."""
    edges = torch.tensor([[0, 1, 3, 5], [1, 2, 2, 6]])
    x, batch = torch.arange(7.0)[:, None], torch.tensor([0, 0, 0, 0, 0, 1, 1])
    assert POOLINGS["sources"](1)(x, batch, dim_size=2, edges=edges).flatten().tolist() == pytest.approx([7 / 3, 5])
    assert POOLINGS["sinks"](1)(x, batch, dim_size=3, edges=edges).flatten().tolist() == [3, 6, 0]
    ring = torch.tensor([[0, 1], [1, 0]])
    assert POOLINGS["sinks"](1)(x[:2], None, dim_size=1, edges=ring).tolist() == [[0]]


def test_ends_are_those_of_the_orientation():
    """A chain that is stored both ways is read from the node that is ranked first; without ranks it has no end."""
    columns = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    chain = Data(x=torch.randn(3, 4), edge_index=columns, rank=torch.tensor([2, 1, 0]))
    for model, dag_edges in (("plstm", [[1, 2], [0, 1]]), ("gine", columns.tolist())):
        config = replace(SMALL, model=model, pooling="sources", head_layers=1)
        found = GraphModel(FeatureSpec(node_dim=4), 1, config).eval()
        seen = []
        found.pool.register_forward_hook(lambda _, __, kwargs, ___, seen=seen: seen.append(kwargs), with_kwargs=True)
        found(chain)
        pairs = sorted(zip(*(end.tolist() for end in seen[0]["edges"]), strict=True))
        assert pairs == sorted(zip(*(dag_edges if model == "gine" else [[2, 1], [1, 0]]), strict=True))


@pytest.mark.parametrize("model", ["plstm", "gine", "dagnn"])
def test_all_blocks_are_read(model):
    """With jumping knowledge an answer may hang on what the first blocks left, and not on the last."""
    config = replace(SMALL, model=model, local="none", jk="cat", layers=3, order="index")
    stack = GraphModel(FeatureSpec(node_dim=4), 1, config).stack.eval()
    assert stack.norm.lin.in_features == 4 * SMALL.width
    torch.nn.init.zeros_(stack.norm.lin.weight[:, -SMALL.width :])  # nothing of the last block
    x = torch.randn(3, SMALL.width, requires_grad=True)
    stack(x, torch.tensor([[0, 1], [1, 2]])).sum().backward()
    assert x.grad.abs().sum() > 0
    with pytest.raises(ConfigError, match="unknown jk 'lstm'"):
        model_of(replace(config, jk="lstm"))


def test_both_ways_hears_what_comes_after():
    chain = Data(x=torch.randn(3, 4), edge_index=torch.tensor([[0, 1], [1, 2]]))
    config = replace(SMALL, model="gine", head_layers=1)
    heard = {}
    for both in (False, True):
        torch.manual_seed(0)
        model = GraphModel(FeatureSpec(node_dim=4), 1, replace(config, both_ways=both), level="node").eval()
        chain.x = chain.x.detach().requires_grad_()
        heard[both] = torch.autograd.grad(model(chain)[0], chain.x)[0].abs().sum(1) > 0
    assert heard[False].tolist() == [True, False, False]
    assert heard[True].all()
    along, against = model.both_ways.way.unbind()
    columns, attributes = model.both_ways(chain.edge_index, torch.ones(2, 16))
    assert columns.tolist() == [[0, 1, 1, 2], [1, 2, 0, 1]]
    assert torch.equal(attributes, torch.stack([along, along, against, against]) + 1)
    with pytest.raises(ConfigError, match="'dagnn' has directions of its own; leave out both_ways"):
        model_of(replace(SMALL, model="dagnn", both_ways=True))


def test_unknown_poolings_are_told():
    with pytest.raises(ConfigError, match="median"):
        model_of(replace(SMALL, pooling="mean+median"))


def test_rings_by_hand():
    # A triangle 0-1-2 and a square 0-2-3-4 share an edge; 5 hangs on, 6 loops on itself.
    pairs = torch.tensor([[0, 1, 2, 2, 3, 4, 4, 6], [1, 2, 0, 3, 4, 0, 5, 6]])
    nodes, edges = rings(torch.cat([pairs, pairs.flip(0)], 1), 7)
    assert nodes.tolist() == [[1, 3], [1, 2], [1, 3], [2, 2], [2, 2], [0, 0], [0, 0]]
    assert edges.tolist() == 2 * [1, 1, 1, 2, 2, 2, 0, 0]


def test_rings_of_molecules_are_rdkits():
    from rdkit import Chem

    for text in ("C1CC2CCC1C2", "c1ccc2c(c1)CCN2C3CCCCCC3", "C1CCCCCCCCC1.CCO"):
        mol = Chem.MolFromSmiles(text)
        info = mol.GetRingInfo()
        sizes = [info.MinAtomRingSize(atom) for atom in range(mol.GetNumAtoms())]
        data = smiles_to_data(text)
        assert rings(data.edge_index, data.num_nodes)[0][:, 0].tolist() == [min(s, 9) - 2 if s else 0 for s in sizes]


@pytest.mark.parametrize("order", SEARCHES)
def test_a_search_starts_where_it_should_and_only_looks_at_ranks(order):
    path = torch.tensor([[0, 1, 2, 3, 5], [1, 2, 3, 4, 6]])  # 0-1-2-3-4 and 5-6
    rank = torch.tensor([4, 1, 3, 0, 2, 6, 5])
    found = search_rank(path, rank, order)
    if order == "canonical-center":  # from 2; of its neighbours 3 is ranked before 1
        assert found.tolist() == [4, 2, 0, 1, 3, 6, 5]
    else:  # from 4, which is ranked before 0
        assert found.tolist() == [4, 3, 2, 1, 0, 6, 5]
    shuffle = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    moved = torch.empty_like(rank)
    moved[shuffle] = rank
    assert torch.equal(search_rank(shuffle[path], moved, order)[shuffle], found)


def test_depth_first_makes_a_ring_one_path():
    ring = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
    assert search_rank(ring, torch.arange(6), "canonical-dfs").tolist() == [0, 1, 2, 3, 4, 5]
    assert search_rank(ring, torch.arange(6), "canonical-bfs").tolist() == [0, 1, 3, 5, 4, 2]


def test_no_message_returns():
    """With one node in the middle of two, what a leaf sends never comes back to it."""
    torch.manual_seed(0)
    conv = DirectedMessages(4, None, steps=6).double()
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    x = torch.randn(3, 4, dtype=torch.double, requires_grad=True)
    slope = torch.autograd.grad(conv(x, edge_index)[0].sum(), x)[0]
    assert slope[1].any()
    assert slope[2].any()
    only = torch.cat([conv.output.weight.data[:, :4].t(), torch.zeros(4, 4)]).t()
    conv.output.weight.data -= only  # leaf 0 no longer sees itself but by what comes in
    assert not torch.autograd.grad(conv(x, edge_index)[0].sum(), x)[0][0].any()


def test_descriptors_join_the_answer():
    features = replace(MOLECULE, descriptors=3)
    model = GraphModel(features, 1, SMALL).eval()
    graphs = add_encodings([smiles_to_data(text) for text in ("CCO", "CCO")], SMALL)
    for graph, value in zip(graphs, (0.0, 1.0), strict=True):
        graph.descriptors = torch.full((1, 3), value)
    first, second = model(Batch.from_data_list(graphs))
    assert not torch.allclose(first, second)


def test_graph_without_edges():
    config = replace(SMALL, **OPTIONS)
    graph = Data(
        x=torch.zeros(1, 9, dtype=torch.long),
        edge_index=torch.empty(2, 0, dtype=torch.long),
        rank=torch.zeros(1, dtype=torch.long),
    )
    graph.edge_attr = torch.empty(0, 3, dtype=torch.long)
    assert model_of(config)(Batch.from_data_list(add_encodings([graph], config))).isfinite().all()


def test_a_filled_batch_says_the_same():
    """What CUDA graphs need: the options read nothing of the graph that fills a batch up."""
    config = replace(SMALL, **OPTIONS | {"local": "gine"})
    graphs = add_encodings([smiles_to_data(text) for text in (*SPELLINGS, "CCO", "c1ccccc1", "CN")], config)
    for number, graph in enumerate(graphs):
        graph.descriptors = torch.full((1, 3), float(number))
        del graph.smiles
    torch.manual_seed(0)
    model = GraphModel(replace(MOLECULE, descriptors=3), 1, config).eval()
    packed = PackedGraphs.from_data_list(graphs, order=config.order).with_filler(4)
    batch = packed.batch([5, 0, 3, 1], filled=True)
    assert batch.num_graphs == 5
    torch.testing.assert_close(model(batch)[:4], model(packed.batch([5, 0, 3, 1])), rtol=1e-5, atol=1e-6)
