import importlib

import pytest
import torch

from plstm_graph import propagate
from plstm_graph.errors import BackendUnavailable
from plstm_graph.ops import dense
from plstm_graph.testing import DAGS, grid_dag, random_inputs

module = importlib.import_module("plstm_graph.ops.influence")


def test_is_attention_under_the_gating_matrix():
    """((Q Kᵀ) ⊙ G) V, graph by graph."""
    dag = DAGS["empty graph in the batch"]()
    query, key, value, gates = random_inputs(dag)
    matrix, _ = module.influence(gates, dag)
    output = dense.propagate(query, key, value, gates, dag)
    for graph, rows in ((0, slice(0, 3)), (2, slice(3, 6))):
        score = torch.einsum("nhk,mhk->hnm", query[rows], key[rows]) * matrix[graph]
        want = torch.einsum("hnm,mhv->nhv", score, value[rows])
        torch.testing.assert_close(output[rows], want, rtol=1e-12, atol=1e-12)


def test_refuses_beyond_the_limit(monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    dag = grid_dag(4, 4)
    inputs = random_inputs(dag)
    with pytest.raises(BackendUnavailable, match=r"more than the limit .* use backend='scatter'"):
        propagate(*inputs, dag, backend="dense")
