"""DAGNN against its equations node by node, with every gradient by autograd over plain Python."""

import pytest
import torch

from plstm_graph.errors import ConfigError
from plstm_graph.line_dag import LineDAG
from plstm_graph.nn import dagnn
from plstm_graph.nn.dagnn import DAGNN, Attention, LevelGRU, NodeLevels


def by_hand(layer: LevelGRU, x: torch.Tensor, dag: LineDAG, edges: torch.Tensor | None) -> torch.Tensor:
    states: dict[int, torch.Tensor] = {}
    waiting = list(range(dag.num_nodes))
    pairs = list(zip(dag.src.tolist(), dag.dst.tolist(), strict=True))
    while waiting:
        for node in list(waiting):
            before = [(u, number) for number, (u, v) in enumerate(pairs) if v == node]
            if any(u not in states for u, _ in before):
                continue
            message = torch.zeros_like(x[node])
            if before:
                read = torch.stack([states[u] for u, _ in before])
                add = 0 if edges is None else torch.stack([layer.edge(edges[number]) for _, number in before])
                if isinstance(layer.message, Attention):
                    message = (layer.message.score(read) + add).squeeze(-1).softmax(0) @ read
                else:
                    message = ((layer.message.gate(read) + add).sigmoid() * layer.message.map(read)).sum(0)
            states[node] = layer.cell(x[node][None], message[None])[0]
            waiting.remove(node)
    return torch.stack([states[node] for node in range(dag.num_nodes)])


@pytest.mark.parametrize("small", [True, False], ids=["copying", "walking twice"])
@pytest.mark.parametrize("edge_dim", [None, 3])
@pytest.mark.parametrize(("reverse", "message"), [(False, "attention"), (True, "attention"), (True, "gated")])
def test_against_its_equations(
    edge_dim: int | None, reverse: bool, message: str, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dagnn, "SMALL", 2**20 if small else 0)
    torch.manual_seed(0)
    edge_index = torch.tensor([[0, 0, 1, 2, 0, 5, 5, 3], [1, 2, 3, 3, 3, 6, 4, 4]])  # diamonds, a jump, node 7 alone
    plain = LineDAG.from_edge_index(edge_index, 8, order="given")
    dag = plain.reverse() if reverse else plain
    layer = LevelGRU(4, edge_dim, message).double()
    x = torch.randn(8, 4, dtype=torch.double, requires_grad=True)
    attr = torch.randn(8, 3, dtype=torch.double, requires_grad=True) if edge_dim else None
    edges = dag.gather_edges(attr) if attr is not None else None
    out, expected = layer(x, NodeLevels(dag), edges), by_hand(layer, x, dag, edges)
    assert torch.allclose(out, expected, atol=1e-12, rtol=0)
    wanted = [x, *([attr] if attr is not None else []), *layer.parameters()]
    seed = torch.randn_like(out)
    found = torch.autograd.grad(out, wanted, seed, retain_graph=True)  # both read the same rows of attr
    for ours, theirs in zip(found, torch.autograd.grad(expected, wanted, seed), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-11, rtol=0)
        assert ours.abs().max() > 0


def test_second_derivatives_of_large_graphs_are_refused_and_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, levels = LevelGRU(4, None).double(), NodeLevels(LineDAG.from_edge_index(torch.tensor([[0, 1], [1, 2]]), 3))
    x = torch.randn(3, 4, dtype=torch.double)

    def product() -> torch.Tensor:
        return torch.autograd.functional.hvp(lambda x: layer(x, levels).square().sum(), x, x)[1]

    assert product().abs().max() > 0
    monkeypatch.setattr(dagnn, "SMALL", 0)
    with pytest.raises(RuntimeError, match="no second derivatives on graphs as large"):
        product()


def test_both_directions_see_the_whole_chain() -> None:
    torch.manual_seed(0)
    chain = LineDAG.from_edge_index(torch.stack([torch.arange(4), torch.arange(1, 5)]), 5, order="given")
    x = torch.randn(5, 3, requires_grad=True)
    DAGNN(3, 8, 2)(x, chain)[2].sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(1) > 0).all()
    x = torch.randn(5, 3, requires_grad=True)
    DAGNN(3, 8, 2, directions="along")(x, chain)[2].sum().backward()
    assert x.grad is not None
    assert x.grad[3:].abs().sum() == 0


def test_names_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"unknown directions 'boht'.*did you mean 'both'"):
        DAGNN(3, 4, 1, directions="boht")
    with pytest.raises(ConfigError, match=r"unknown message 'gate'.*did you mean 'gated'"):
        DAGNN(3, 4, 1, message="gate")


def test_no_nodes_and_no_edges() -> None:
    alone = LineDAG.from_edge_index(torch.empty(2, 0, dtype=torch.long), 2, order="given")
    assert DAGNN(3, 4, 1)(torch.randn(2, 3), alone).shape == (2, 4)
