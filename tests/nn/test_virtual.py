"""A virtual node joins what no edge joins, and never two graphs."""

import pytest
import torch
from torch import nn

from plstm_graph import PLSTM
from plstm_graph.nn.virtual import VirtualNode

EDGE_INDEX = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])  # 0 - 1, 2 - 3
BATCH = torch.tensor([0, 0, 0, 0, 1, 1])


def reached(virtual_node: bool, num_layers: int) -> list[bool]:
    """Which nodes' features the output of node 0 depends on; 4 and 5 are another graph."""
    model = PLSTM(3, 8, num_layers, heads=2, local="gine", virtual_node=virtual_node).double().eval()
    x = torch.randn(6, 3, dtype=torch.double, requires_grad=True)
    model(x, torch.cat([EDGE_INDEX, EDGE_INDEX[:, :2] + 4], 1), batch=BATCH, batch_size=2)[0].sum().backward()
    return (x.grad.abs().sum(1) > 0).tolist()


def test_distant_parts_are_joined_from_the_second_layer_on() -> None:
    assert reached(False, 3) == [True, True, False, False, False, False]
    assert reached(True, 1) == [True, True, False, False, False, False]
    assert reached(True, 2) == [True, True, True, True, False, False]


def test_state_by_hand() -> None:
    virtual = VirtualNode(2, 2, norm="none").eval()
    with torch.no_grad():
        virtual.first.copy_(torch.tensor([[1.0, -1.0]]))
    virtual.updates[0] = nn.Linear(2, 2, bias=False)
    nn.init.eye_(virtual.updates[0].weight)
    x = torch.arange(12.0).view(6, 2)
    state = virtual.start(BATCH, None)
    assert torch.equal(virtual.add(x, state, BATCH), x + torch.tensor([1.0, -1.0]))
    want = 2 * state + torch.stack([x[:4].sum(0), x[4:].sum(0)])
    assert torch.equal(virtual.update(0, x, state, BATCH), want)
    assert virtual.update(1, x, state, BATCH) is state  # nobody reads it after the last layer
    assert torch.equal(virtual.update(0, x, virtual.start(None, None), None), 2 * state[:1] + x.sum(0))


@pytest.mark.parametrize("batch", [None, torch.zeros(0, dtype=torch.long)])
def test_no_nodes(batch: torch.Tensor | None) -> None:
    virtual = VirtualNode(4, 2)
    state = virtual.start(batch, 3 if batch is not None else None)
    assert virtual.update(0, torch.zeros(0, 4), state, batch).isfinite().all()


@pytest.mark.parametrize("norm", ["batch", "rms", "layer"])
def test_reset(norm: str) -> None:
    """Weights and running statistics of the norms, too."""
    virtual, fresh = VirtualNode(4, 3, norm), VirtualNode(4, 3, norm)
    with torch.no_grad():
        for tensor in virtual.state_dict().values():
            tensor.fill_(7)
    virtual.reset_parameters()
    assert not virtual.first.any()
    want = fresh.updates.state_dict()
    for name, tensor in virtual.updates.state_dict().items():
        assert torch.equal(tensor, want[name]) if ".0." in name else (tensor != 7).all(), name
