"""A layer as one under Triton's interpreter: the launches that tests/ops/test_layer.py makes on a GPU only."""

import pytest
import torch
from forms import FORMS
from torch_geometric.utils import to_undirected

pytest.importorskip("triton")

from plstm_graph import LineDAG, PLSTMConv
from plstm_graph.line_dag import plan
from plstm_graph.line_dag.plan import Host
from plstm_graph.testing import DAGS

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs tests/ops/test_layer.py")

EDGES = to_undirected(torch.tensor([[0, 1, 1, 2, 3], [1, 2, 3, 3, 4]]))  # node 5 has no edge
CASES = {
    "P": ({"edge_dim": 3}, EDGES),
    "D": ({"edge_dim": 3, "mode": "D", "reverse": True, "bias": False, "concat": False}, EDGES),
    "no edge features, saturating": (
        {"reverse": True, "key_channels": 2, "transition": "saturating", "output_norm": "soft"},
        EDGES,
    ),
    "columns twice": ({"edge_dim": 3}, torch.cat([EDGES, EDGES[:, :4]], 1)),
}


@pytest.mark.parametrize(
    ("form", "case"),
    # one graph beyond all tiles is to "mixed" what it is to "recurrent"
    [(form, case) for form in FORMS for case in CASES if form != "mixed" or case == "P"],
    indirect=["form"],
)
def test_equals_the_steps_and_itself(form, case):
    """Output and every gradient in float64, whatever form the graph takes; a second backward pass, which finds states
    anew, to the same bits."""
    options, columns = CASES[case]
    conv = PLSTMConv(5, 3, heads=2, backend="triton", **options).double()
    x = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    edge_attr = torch.randn(columns.size(1), 3, dtype=torch.float64, requires_grad=True) if conv.lin_edge else None
    assert conv._as_one(x, LineDAG.from_edge_index(columns, 6)) == "triton"
    leaves = [x, *conv.parameters(), *([] if edge_attr is None else [edge_attr])]

    def outcome() -> list[torch.Tensor]:
        out = conv(x, columns, edge_attr)
        found = [torch.autograd.grad(out.sin().sum(), leaves, retain_graph=True) for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        return [out, *found[0]]

    got, conv.backend = outcome(), "reference"
    for a, b in zip(got, outcome(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


BATCH = ("diamond", "complete", "one node", "diamond", "no edge", "complete", "star", "no node")
PRECISION = {torch.float64: 1e-10, torch.float16: 2e-2}


@pytest.mark.parametrize("form", ["tiles", "mixed", "recurrent"], indirect=True)
@pytest.mark.parametrize(("dtype", "bias"), [(torch.float64, False), (torch.float16, True)], ids=str)
def test_several_graphs_of_a_class(form, bias, dtype):
    """Sums over nodes come from several programs of each class; half precision as under autocast."""
    dag = LineDAG.collate([DAGS[name]() for name in BATCH])
    graphs = dag.plan(plan.served_classes(3, 3)).host[Host.GRAPHS].tolist()
    assert (min(graphs[:2]) > 1) == (form == "tiles")
    torch.manual_seed(1)
    conv = PLSTMConv(5, 3, heads=2, backend="triton", bias=bias).double()
    x = torch.randn(dag.num_nodes, 5, dtype=torch.float64)

    def outcome(dtype: torch.dtype) -> list[torch.Tensor]:
        conv.to(torch.float32 if dtype == torch.float16 else dtype)
        given = x.to(next(conv.parameters()).dtype).requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype == torch.float16):
            out = conv(given, None, dag=dag)
        return [out, *torch.autograd.grad(out.float().sin().sum(), [given, *conv.parameters()])]

    got, conv.backend = outcome(dtype), "reference"
    for a, b in zip(got, outcome(torch.float64), strict=True):
        scale = 1 + b.abs().max().item()
        torch.testing.assert_close(a.double() / scale, b / scale, rtol=0, atol=PRECISION[dtype])
