"""A layer as one under Triton's interpreter: the launches that tests/ops/test_layer.py makes on a GPU only."""

import pytest
import torch
from torch_geometric.utils import to_undirected

pytest.importorskip("triton")

from plstm_graph import PLSTMConv

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs tests/ops/test_layer.py")

EDGES = to_undirected(torch.tensor([[0, 1, 2, 2, 3, 5, 5], [1, 2, 3, 4, 4, 6, 4]]))  # node 7 has no edge


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ({"edge_dim": 3}, EDGES),
        ({"edge_dim": 3, "mode": "D", "reverse": True, "bias": False, "concat": False}, EDGES),
        ({"reverse": True, "key_channels": 2}, EDGES),
        ({"edge_dim": 3}, torch.cat([EDGES, EDGES[:, :4]], 1)),
    ],
    ids=["P", "D", "no edge features", "columns twice"],
)
def test_equals_the_steps_and_itself(form, options, columns):
    """Output and every gradient in float64, whatever form the graph takes; a second backward pass, which finds states
    anew, to the same bits."""
    conv = PLSTMConv(5, 3, heads=2, backend="triton", **options).double()
    x = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    edge_attr = torch.randn(columns.size(1), 3, dtype=torch.float64, requires_grad=True) if conv.lin_edge else None
    assert conv._as_one(x) == "triton"
    leaves = [x, *conv.parameters(), *([] if edge_attr is None else [edge_attr])]

    def outcome() -> list[torch.Tensor]:
        out = conv(x, columns, edge_attr)
        found = [torch.autograd.grad(out.sin().sum(), leaves, retain_graph=True) for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        return [out, *found[0]]

    got, conv.backend = outcome(), "reference"
    for a, b in zip(got, outcome(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
