import importlib

import pytest
import torch

from plstm_graph import influence
from plstm_graph.errors import BackendUnavailable, ShapeError
from plstm_graph.gates import Gates
from plstm_graph.ops.influence import local_numbers, padded_bytes
from plstm_graph.testing import DAGS, VIEWS, grid_dag, path_sum, random_dag, random_inputs

module = importlib.import_module("plstm_graph.ops.influence")  # the package exports the function by this name


def by_paths(gates: Gates, dag) -> torch.Tensor:
    """How much node m reaches node n, [H, N, N]: queries and keys of one, values that say where they come from."""
    heads = gates.source.size(1)
    one = torch.ones(dag.num_nodes, heads, 1, dtype=torch.float64)
    origin = torch.eye(dag.num_nodes, dtype=torch.float64).unsqueeze(1).expand(-1, heads, -1)
    return path_sum(one, one, origin, gates, dag).transpose(0, 1)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", DAGS)
def test_equals_the_sum_over_all_paths(name, view):
    dag = VIEWS[view](DAGS[name]())
    gates = random_inputs(dag, heads=3).gates
    matrix, mask = influence(gates, dag)
    sizes = dag.graph_ptr.diff().tolist()
    assert matrix.shape == (len(sizes), 3, dag.max_nodes, dag.max_nodes)
    assert mask.sum(1).tolist() == sizes
    if dag.num_nodes:
        blocks = [matrix[g, :, :n, :n] for g, n in enumerate(sizes)]
        whole = torch.stack([torch.block_diag(*(block[h] for block in blocks)) for h in range(3)])
        torch.testing.assert_close(whole, by_paths(gates, dag), rtol=1e-12, atol=1e-12)
    padding = ~(mask[:, None, :, None] & mask[:, None, None, :]).expand_as(matrix)
    assert not matrix[padding].any()


def test_gradients_equal_those_of_the_paths():
    dag = random_dag(3, nodes=6, density=0.6)
    gates = Gates(*(gate.requires_grad_() for gate in random_inputs(dag).gates))
    weight = torch.randn(2, 6, 6, dtype=torch.float64)
    got = torch.autograd.grad((influence(gates, dag)[0][0] * weight).sum(), gates)
    want = torch.autograd.grad((by_paths(gates, dag) * weight).sum(), gates)
    for name, g, w in zip(Gates._fields, got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-12, atol=1e-12, msg=name)


def test_refuses_beyond_its_limit(monkeypatch):
    dag = grid_dag(4, 4)  # 16 nodes, 24 edges
    gates = random_inputs(dag, heads=2).gates
    needed = padded_bytes(dag, 2, 8)
    assert needed == 2 * 8 * (24 * 24 + 3 * 24 * 16 + 16 * 16)
    monkeypatch.setattr(module, "MAX_BYTES", needed)
    assert influence(gates, dag)[0].shape == (1, 2, 16, 16)
    monkeypatch.setattr(module, "MAX_BYTES", needed - 1)
    with pytest.raises(BackendUnavailable, match=r"1 graphs of up to 16 nodes and 24 edges .* use backend='scatter'"):
        influence(gates, dag)


def test_local_numbers_restart_in_every_graph():
    node, edge = local_numbers(DAGS["empty graph in the batch"]())
    assert node.tolist() == [0, 1, 2, 0, 1, 2]
    assert edge.tolist() == [0, 1, 0, 1, 2]


def test_gates_of_another_view_are_refused():
    dag = grid_dag(3, 3)
    with pytest.raises(ShapeError, match=r"gate transition .* was it rebuilt, pruned"):
        influence(random_inputs(dag).gates, dag.prune())


def test_half_precision_and_autocast_are_solved_in_float32():
    dag = random_dag(3, nodes=6, density=0.6)
    gates = Gates(*(gate.float() for gate in random_inputs(dag).gates))
    with torch.autocast("cpu", torch.bfloat16):
        under = influence(gates, dag)[0]
    assert torch.equal(under, influence(gates, dag)[0])
    low = Gates(*(gate.bfloat16() for gate in gates))
    assert torch.equal(influence(low, dag)[0], influence(Gates(*(gate.float() for gate in low)), dag)[0])
