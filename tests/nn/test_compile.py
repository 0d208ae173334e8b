"""torch.compile(fullgraph=True): one graph for the first batch, one more for all others."""

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from plstm_graph import PLSTM, LineDAG, PLSTMConv
from plstm_graph.config.models import ModelConfig
from plstm_graph.data import PackedGraphs
from plstm_graph.data.features import FeatureSpec
from plstm_graph.models.graph import GraphModel
from plstm_graph.ops.dispatch import has_compiled

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]

# torch 2.6 compiles once more before it takes all sizes for free ones.
MOST = 2 if tuple(map(int, torch.__version__.split(".")[:2])) > (2, 6) else 3

MODELS = {
    "layer": lambda: PLSTMConv(8, 4, heads=2, edge_dim=3),
    "layer, D, reverse": lambda: PLSTMConv(8, 4, heads=2, edge_dim=3, mode="D", reverse=True),
    "stack, edge states": lambda: PLSTM(8, 16, 2, heads=4, edge_dim=3, local="gatedgcn-edges", norm="layer"),
    "stack": lambda: PLSTM(8, 16, 2, heads=4, edge_dim=3, local="gine", norm="layer"),
}


def batch(seed: int, device: str) -> tuple[Tensor, Tensor, Tensor, LineDAG]:
    """Two graphs of sizes that differ from batch to batch; the dag is prepared."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([12 + seed, 9 + 2 * seed])
    edges = [torch.randint(int(n), (2, int(n) + 5), generator=generator) for n in sizes]
    edges[1] = edges[1] + sizes[0]
    columns = torch.cat(edges, 1)
    columns = to_undirected(columns[:, columns[0] != columns[1]])
    owner = torch.repeat_interleave(torch.arange(2), sizes)
    dag = LineDAG.from_edge_index(columns, owner.numel(), batch=owner).prepare()  # and then to the device
    x = torch.randn(owner.numel(), 8, generator=generator)
    edge_attr = torch.randn(columns.size(1), 3, generator=generator)
    return x.to(device), columns.to(device), edge_attr.to(device), dag.to(device)


def outcome(model: nn.Module, seed: int, device: str) -> list[Tensor]:
    """Output and all gradients."""
    x, edge_index, edge_attr, dag = batch(seed, device)
    x.requires_grad_()
    output = model(x, edge_index, edge_attr=edge_attr, dag=dag)
    return [output, *torch.autograd.grad(output.sin().sum(), [x, *model.parameters()])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODELS)
def test_ten_batches_make_at_most_two_graphs(name, device):
    if not has_compiled(torch.device(device)):
        pytest.skip(f"the compiled backend of {device} cannot run here")
    torch._dynamo.reset()
    graphs = []

    def count(module, _):
        graphs.append(module)
        return module

    model = MODELS[name]().to(device)
    compiled = torch.compile(model, fullgraph=True, backend=count)
    for seed in range(10):
        for got, want in zip(outcome(compiled, seed, device), outcome(model, seed, device), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert 1 <= len(graphs) <= MOST


def test_sizes_that_repeat_make_no_third_graph_where_all_are_free():
    if not has_compiled(torch.device("cpu")):
        pytest.skip("the compiled backend of cpu cannot run here")
    torch._dynamo.reset()
    graphs = []

    def count(module, _):
        graphs.append(module)
        return module

    model = MODELS["stack"]()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=count)
    for seed in (0, 0, 3, 0, 1):
        for got, want in zip(outcome(compiled, seed, "cpu"), outcome(model, seed, "cpu"), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert 1 <= len(graphs) <= 2


@pytest.mark.parametrize("device", DEVICES)
def test_through_autograd_with_fake_tensors(device):
    """aot_eager runs forward and backward through the fake implementations of the registered ops."""
    if not has_compiled(torch.device(device)):
        pytest.skip(f"the compiled backend of {device} cannot run here")
    torch._dynamo.reset()
    model = MODELS["stack"]().to(device)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        for got, want in zip(outcome(compiled, seed, device), outcome(model, seed, device), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_compiled_code_refuses_a_dag_of_another_edge_index():
    torch._dynamo.reset()
    x, edge_index, edge_attr, dag = batch(0, "cpu")
    layer = torch.compile(MODELS["layer"](), fullgraph=True, backend="aot_eager")
    assert layer(x, edge_index.clone(), edge_attr, dag=dag).isfinite().all()
    with pytest.raises(RuntimeError, match="the dag was built from another edge_index"):
        layer(x, edge_index.flip(1), edge_attr, dag=dag)


@pytest.mark.parametrize("kind", ["layer", "stack"])
def test_without_a_dag_one_graph_is_refused_in_one_sentence(kind):
    torch._dynamo.reset()
    x, edge_index, edge_attr, _ = batch(0, "cpu")
    model = MODELS[kind]()
    sentence = "pass dag=dag" if MOST == 2 else ""  # PyTorch 2.6 tells no reason
    with pytest.raises(Exception, match=sentence):
        torch.compile(model, fullgraph=True, dynamic=True, backend="eager")(x, edge_index, edge_attr=edge_attr)
    with pytest.raises(Exception, match=sentence):
        torch.export.export(model, (x, edge_index), {"edge_attr": edge_attr})
    broken = torch.compile(model, backend="eager")
    torch.testing.assert_close(broken(x, edge_index, edge_attr=edge_attr), model(x, edge_index, edge_attr=edge_attr))


def test_a_dag_that_is_not_prepared_is_refused_in_one_sentence():
    torch._dynamo.reset()
    x, edge_index, edge_attr, _ = batch(0, "cpu")
    dag = LineDAG.from_edge_index(edge_index, x.size(0))
    with pytest.raises(Exception, match="prepare()" if MOST == 2 else ""):
        torch.compile(MODELS["layer"](), fullgraph=True, backend="eager")(x, edge_index, edge_attr, dag=dag)


@pytest.mark.skipif(MOST > 2, reason="PyTorch 2.6 does not export it")
@pytest.mark.parametrize("mode", ["P", "D"])
@pytest.mark.parametrize("backend", ["auto", "dense", "scatter"])
def test_export_leaves_nothing_of_its_own_in_a_line_graph(backend, mode):
    """What torch.export asks of a line graph first is worked out from its numbers, not from tensors without any."""
    x, edge_index, _, _ = batch(0, "cpu")

    class OfOneGraph(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = PLSTMConv(8, 4, heads=2, mode=mode, backend=backend)
            self.dag = LineDAG.from_edge_index(edge_index, x.size(0))

        def forward(self, x):
            return self.layer(x, None, dag=self.dag)

    model = OfOneGraph()
    program = torch.export.export(model, (x,)).module()
    want = model.layer(x, edge_index)
    torch.testing.assert_close(model(x), want)
    torch.testing.assert_close(program(x), want)


@pytest.mark.parametrize("device", DEVICES)
def test_the_stack_of_a_model_on_packed_batches(device):
    """Views and tables are made outside of what is compiled; graphs of several size classes come and go."""
    if not has_compiled(torch.device(device)):
        pytest.skip(f"the compiled backend of {device} cannot run here")
    torch._dynamo.reset()
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for size in (13, 15, 19, 14, 40, 17, 70, 22, 16, 130, 18, 21):
        columns = to_undirected(torch.randint(size, (2, 3 * size // 2), generator=generator), num_nodes=size)
        columns = columns[:, columns[0] != columns[1]]
        edge_attr = torch.randint(2, (columns.size(1), 1), generator=generator)
        graphs.append(Data(torch.randint(3, (size, 1), generator=generator), columns, edge_attr))
    packed = PackedGraphs.from_data_list(graphs, order="index", prune=True).to(device)
    config = ModelConfig(width=16, layers=2, heads=4, norm="layer", rwse=0, order="index", dropout=0.0)
    model = GraphModel(FeatureSpec(node_sizes=(3,), edge_sizes=(2,)), 1, config).to(device)
    made = []

    def count(module, _):
        made.append(module)
        return module

    batches = [[0, 1], [2, 3, 1], [4, 5], [6, 7, 2], [0, 1, 2, 3], [8, 9], [10, 11, 1]]
    want = [model(packed.batch(numbers)) for numbers in batches]
    model.stack.compile(fullgraph=True, dynamic=True, backend=count)
    for numbers, expected in zip(batches, want, strict=True):
        torch.testing.assert_close(model(packed.batch(numbers)), expected, rtol=1e-4, atol=1e-5)
    assert 1 <= len(made) <= 2
