"""Kernels compiled ahead are those that training starts, and none is started then."""

import pytest
import torch

from plstm_graph import PLSTM, PLSTMImage
from plstm_graph.nn import ahead
from plstm_graph.nn.conv import PLSTMConv

pytest.importorskip("triton")


@pytest.fixture
def started(monkeypatch) -> list[set[object]]:
    """What kernels are started with, but for sizes; none is."""
    from plstm_graph.grid.triton import images
    from plstm_graph.ops.triton import call, gates, norm, sweep

    keys: list[set[object]] = [set()]

    def launch(kernel, grid, tensors, tables, numbers, constants, options):
        ends = tuple(x.data_ptr() % 16 for x in tensors)
        keys[-1].add((kernel, constants, options, tuple(x.dtype for x in tensors), ends))

    for module in (call, gates, norm, sweep, images):
        monkeypatch.setattr(module, "launch", launch)
    monkeypatch.setattr("plstm_graph.ops.triton.operator.INTERPRETED", True)
    monkeypatch.setattr("plstm_graph.ops.compiled.unavailable", lambda *_, **__: None)
    monkeypatch.setattr(ahead, "unavailable", lambda *_, **__: None)
    return keys


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_of_a_training_step(started, dtype):
    model = PLSTM(16, 32, 2, 1, heads=4, modes="PD", edge_dim=8, backend="triton")
    edge_index = torch.randint(0, 20, (2, 60), generator=torch.Generator().manual_seed(0)).unique(dim=1)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        for conv in model.modules():
            if isinstance(conv, PLSTMConv):
                ahead._pass(conv, torch.device("cpu"))
        started.append(set())
        x, edge_attr = torch.zeros(20, 16), torch.zeros(edge_index.size(1), 8)
        edge_attr.requires_grad_()
        model(x, edge_index, edge_attr=edge_attr).sum().backward()
    compiled, wanted = started
    assert len(wanted) > 5
    assert wanted <= compiled


def test_a_model_is_left_as_it_is(started, monkeypatch):
    model = PLSTM(16, 32, 1, 1, heads=4, backend="triton")
    before = {name: x.clone() for name, x in model.state_dict().items()}
    state = torch.get_rng_state()
    monkeypatch.setattr(ahead, "compiled_backend", lambda name, device: "triton")
    monkeypatch.setattr(ahead, "_pass", lambda conv, _, run=ahead._pass: run(conv, torch.device("cpu")))
    assert ahead.compile_ahead(model, torch.device("cpu")) == 0
    assert ahead.compile_ahead(model, torch.device("cuda")) == 2, "one reads along the edges, one against them"
    assert started[-1]
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert all(x.grad is None for x in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_layers_on_images_take_an_answer_of_the_model(started):
    """Their kernels depend on the size of an image; nothing stays of the pass, and it is that of an evaluation."""
    model = torch.nn.Sequential(PLSTMImage(16, 8, 2, form="triton"), torch.nn.BatchNorm2d(5))
    images = torch.zeros(1, 5, 6, 16)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    assert ahead.compile_ahead(model, torch.device("cuda")) == 0
    assert ahead.compile_ahead(model, torch.device("cuda"), None, lambda: model(images)) == 1
    started.append(set())
    model(torch.zeros(3, 5, 6, 16)).sum().backward()
    compiled, wanted = started
    assert len(wanted) > 5
    assert wanted <= compiled
    model.zero_grad()
    assert ahead.compile_ahead(model, torch.device("cuda"), None, lambda: model(images)) == 1
    assert all(x.grad is None for x in model.parameters())
    assert all(x.training for x in model.modules())
    model.load_state_dict(before)
    ahead._answered(model, lambda: model(images))
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
