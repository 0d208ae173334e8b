"""Cases worked out by hand, for every backend: the numbers below come from pencil and paper."""

import pytest
import torch
from backends import every

from plstm_graph import Gates, LineDAG, influence, propagate
from plstm_graph.ops import reference


def column(*numbers: float) -> torch.Tensor:
    """One head, [len, 1]."""
    return torch.tensor(numbers, dtype=torch.float64).view(-1, 1)


def scalar(*numbers: float) -> torch.Tensor:
    """One head of width one, [len, 1, 1]."""
    return column(*numbers).unsqueeze(-1)


def on(device, query, key, value, gates, dag):
    """The arguments of a backend, moved."""
    return query.to(device), key.to(device), value.to(device), Gates(*(g.to(device) for g in gates)), dag.to(device)


@pytest.fixture
def diamond():
    """0 -> 1 -> 3 and 0 -> 2 -> 3; edges (0,1), (0,2), (1,3), (2,3); pairs (0,2), (1,3)."""
    dag = LineDAG.from_edge_index(torch.tensor([[0, 0, 1, 2], [1, 2, 3, 3]]))
    gates = Gates(column(0.5, 0.25, 1, 0.5), column(0.5, -1), column(1, 1, 0.5, 2), column(1, 0, 0, 0.5))
    return scalar(1, 2, 3, 4), scalar(1, 2, -1, 1), scalar(2, 1, 3, 5), gates, dag


@every()
def test_diamond(backend, device, diamond):
    # states: C01 = .5*1*2 = 1, C02 = .25*1*2 = .5, C13 = 1*2*1 + .5*C01 = 2.5, C23 = .5*(-1)*3 - C02 = -2
    # outputs: y0 = 1*(1*1)*2, y1 = 2*1*C01, y2 = 3*1*C02, y3 = 4*(.5*C13 + 2*C23) + .5*(4*1)*5
    output = propagate(*on(device, *diamond), backend=backend)
    assert output.flatten().tolist() == pytest.approx([2, 2, 1.5, -1], abs=1e-14)


@every()
def test_gradients_of_the_diamond(backend, device, diamond):
    *inputs, gates, dag = on(device, *diamond)
    leaves = [x.requires_grad_() for x in (*inputs, *gates)]
    propagate(*leaves[:3], Gates(*leaves[3:]), dag, backend=backend).sum().backward()
    # the gradient that reaches the states: C13 gets 4*.5 = 2 and C23 gets 4*2 = 8 from y3;
    # C01 gets 2 from y1 and .5*2 through C13, so 3; C02 gets 3 from y2 and -1*8 through C23, so -5
    expected = {
        "query": [2 / 1, 2 / 2, 1.5 / 3, -1 / 4],  # each output is linear in its own query
        "key": [3 * 0.5 * 2 + -5 * 0.25 * 2 + 1 * 1 * 2, 2 * 1 * 1, 8 * 0.5 * 3, 0.5 * 4 * 5],
        "value": [3 * 0.5 * 1 + -5 * 0.25 * 1 + 1 * 1 * 1, 2 * 1 * 2, 8 * 0.5 * -1, 0.5 * 4 * 1],
        "source": [3 * 1 * 2, -5 * 1 * 2, 2 * 2 * 1, 8 * -1 * 3],
        "transition": [2 * 1, 8 * 0.5],
        "mark": [2 * 1, 3 * 0.5, 4 * 2.5, 4 * -2],
        "direct": [1 * 1 * 2, 2 * 2 * 1, 3 * -1 * 3, 4 * 1 * 5],
    }
    for (name, numbers), leaf in zip(expected.items(), leaves, strict=True):
        assert leaf.grad.flatten().tolist() == pytest.approx(numbers, abs=1e-14), name


@every()
def test_reversed_diamond(backend, device, diamond):
    # edges read 1->0, 2->0, 3->1, 3->2: C31 = 1*1*5 = 5, C32 = .5*5 = 2.5, C10 = .5*2*1 + .5*5 = 3.5,
    # C20 = .25*(-1)*3 - 2.5 = -3.25; y0 = 1*(3.5 - 3.25) + 2, y1 = 2*.5*5, y2 = 3*2*2.5, y3 = .5*(4*1)*5
    *inputs, dag = on(device, *diamond)
    output = propagate(*inputs, dag.reverse(), backend=backend)
    assert output.flatten().tolist() == pytest.approx([2.25, 5, 15, 10], abs=1e-14)


@every()
def test_chain_of_two_dimensional_keys_and_two_heads(backend, device):
    dag = LineDAG.from_edge_index(torch.tensor([[0, 1], [1, 2]]))
    query = torch.tensor([[[1, 0], [0, 1]], [[1, 1], [1, 0]], [[0, 2], [3, 0]]], dtype=torch.float64)
    key = torch.tensor([[[1, 2], [1, 0]], [[0, 1], [2, 0]], [[1, 1], [1, 1]]], dtype=torch.float64)
    value = scalar(1, 2, 3, 4, 5, 6).view(3, 2, 1)
    gates = Gates(
        torch.tensor([[1, 0.5], [0.5, 1]], dtype=torch.float64),
        torch.tensor([[0.5, -0.5]], dtype=torch.float64),
        torch.ones(2, 2, dtype=torch.float64),
        torch.zeros(3, 2, dtype=torch.float64),
    )
    # head 0: C01 = (1, 2)*1, C12 = .5*(0, 1)*3 + .5*(1, 2) = (.5, 2.5); y1 = 1 + 2, y2 = 2*2.5
    # head 1: C01 = .5*(1, 0)*2 = (1, 0), C12 = (2, 0)*4 - .5*(1, 0) = (7.5, 0); y1 = 1, y2 = 3*7.5
    output = propagate(*on(device, query, key, value, gates, dag), backend=backend)
    assert output[..., 0].tolist() == [[0, 0], [3, 1], [5, 22.5]]


def test_influence_of_the_diamond(diamond):
    # 3 from 0: .5*.5*.5 through 1 and .25*(-1)*2 through 2
    matrix, mask = influence(*diamond[3:])
    assert mask.tolist() == [[True] * 4]
    expected = [[1, 0, 0, 0], [0.5, 0, 0, 0], [0.25, 0, 0, 0], [0.125 - 0.5, 0.5, 1, 0.5]]
    assert matrix[0, 0].tolist() == expected


def test_no_node_keeps_its_gradient():
    """An empty graph is a graph: shapes and the autograd graph stay."""
    dag = LineDAG.from_edge_index(torch.zeros(2, 0, dtype=torch.long), 0)
    value = torch.zeros(0, 2, 3, requires_grad=True)
    gates = Gates(*(torch.zeros(0, 2) for _ in range(4)))
    output = reference.propagate(value, value, value, gates, dag)
    assert output.shape == (0, 2, 3)
    assert output.requires_grad
