"""The definition is MultiHeadRMSNorm and the end of PLSTMConv.forward, with gradients by autograd.

Triton's kernels and numba's loops keep the same contract.
"""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from plstm_graph.nn.norm import MultiHeadRMSNorm
from plstm_graph.ops.flat import Norm
from plstm_graph.ops.triton import norm as kernels
from plstm_graph.ops.triton.norm import TILE, backward_norm, forward_norm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONCAT = pytest.mark.parametrize("concat", [True, False], ids=["concat", "mean"])
EPS = 1e-5


pytestmark = pytest.mark.usefixtures("backend")
OF_A_BACKEND = "norm", ("forward_norm", "backward_norm")  # see conftest.py


def inputs(
    nodes: int, heads: int, width: int, concat: bool, biased: bool = True
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """y, weight, bias and a gradient of the output. Rows are of very different size, around the root of EPS too."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, device=DEVICE)

    outputs = heads * width if concat else width
    y = normal(nodes, heads, width) * 10 ** (3 * torch.rand(nodes, heads, 1, dtype=torch.float64, device=DEVICE) - 3)
    return y, normal(heads, width), normal(outputs) if biased else None, normal(nodes, outputs)


def reference(y: Tensor, weight: Tensor, bias: Tensor | None, d_out: Tensor, concat: bool) -> tuple[Tensor, ...]:
    """Output and gradients in plain PyTorch."""
    norm = MultiHeadRMSNorm(*weight.shape, eps=EPS).to(y)
    with torch.no_grad():
        norm.weight.copy_(weight)
    y = y.clone().requires_grad_()
    out = norm(y)
    out = out.flatten(1) if concat else out.mean(1)
    bias = None if bias is None else bias.clone().requires_grad_()
    out = out if bias is None else out + bias
    out.backward(d_out)
    return out.detach(), y.grad, norm.weight.grad, None if bias is None else bias.grad


def fused(y: Tensor, weight: Tensor, bias: Tensor | None, d_out: Tensor, concat: bool) -> tuple[Tensor, ...]:
    return forward_norm(y, Norm(weight, bias, EPS, concat)), *gradients(y, weight, bias, d_out, concat, EPS)


def gradients(
    y: Tensor, weight: Tensor, bias: Tensor | None, d_out: Tensor, concat: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of y, weight and bias."""
    d_y, parts = backward_norm(d_out, y, Norm(weight, bias, eps, concat))
    d_weight, d_bias = parts.sum(0).split([weight.numel(), parts.size(1) - weight.numel()])
    return d_y, d_weight.view_as(weight), None if bias is None else d_bias


def check(given: tuple[Tensor, Tensor, Tensor | None, Tensor], concat: bool) -> None:
    for result, expected in zip(fused(*given, concat), reference(*given, concat), strict=True):
        assert (result is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)


@CONCAT
@pytest.mark.parametrize(
    ("heads", "width"), [(1, 1), (8, 16), (3, 5), (2, 128), (5, 200), (1, 7), (100, 3), (1, TILE + 1), (3, TILE)]
)
def test_output_and_gradients(heads, width, concat):
    """Heads and widths that fill a tile and that do not, and heads that need several tiles."""
    check(inputs(5, heads, width, concat), concat)


@CONCAT
def test_without_bias(concat):
    check(inputs(4, 2, 6, concat, biased=False), concat)


@CONCAT
@pytest.mark.parametrize("nodes", [0, 1, 50])
def test_number_of_nodes(nodes, concat, monkeypatch):
    """Also where programs take several blocks of nodes each, the last of them not full."""
    monkeypatch.setattr(kernels, "PROGRAMS", 2)
    assert nodes < 50 or nodes > 5 * TILE // (4 * 32)
    check(inputs(nodes, 3, 20, concat), concat)


@CONCAT
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_lower_precision(dtype, concat):
    """Computed in float32 and rounded once; parameters may stay in float32, as under autocast."""
    y, weight, bias, d_out = (x.to(dtype) for x in inputs(6, 4, 8, concat))
    right = reference(*(x.double() for x in (y, weight, bias, d_out)), concat)
    # the interpreter does not round bfloat16 but cuts it off
    eps = torch.finfo(dtype).eps * (1 if dtype == torch.bfloat16 and DEVICE == "cpu" else 0.5)
    for out, d_y, d_weight, d_bias in (
        fused(y, weight, bias, d_out, concat),
        fused(y, weight.float(), bias.float(), d_out.float(), concat),
    ):
        assert d_y.dtype == dtype
        assert d_weight.dtype == d_bias.dtype == torch.float32
        for result, expected in zip((out, d_y, d_weight, d_bias), right, strict=True):
            rounding = 0 if result.dtype == torch.float32 else eps
            torch.testing.assert_close(result.double(), expected, rtol=1e-5 + rounding, atol=1e-5)
    assert forward_norm(y, Norm(weight, bias, EPS, concat)).dtype == dtype
    assert forward_norm(y, Norm(weight, bias.float(), EPS, concat)).dtype == torch.float32
    assert forward_norm(y, Norm(weight.float(), None, EPS, concat)).dtype == dtype


@CONCAT
def test_gradients_need_not_be_contiguous(concat):
    y, weight, bias, d_out = inputs(3, 2, 4, concat)
    check((y, weight, bias, d_out[:1].expand_as(d_out)), concat)


@CONCAT
def test_a_row_does_not_feel_its_batch(concat):
    """Bit for bit; a NaN stays in its row."""
    y, weight, bias, d_out = (x.float() for x in inputs(300, 4, 16, concat))
    out, d_y, *_ = fused(y, weight, bias, d_out, concat)
    spoilt = y.clone()
    spoilt[:256] = torch.nan
    for first, rows in ((257, y[257:]), (256, spoilt[256:]), (256, spoilt)):
        part = slice(first - 300, None)
        again, d_again, *_ = fused(rows, weight, bias, d_out[-len(rows) :], concat)
        assert torch.equal(again[part], out[part])
        assert torch.equal(d_again[part], d_y[part])


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@CONCAT
def test_zeros(concat):
    """An output of zero, as where all gates are shut, has a finite gradient; without eps, all others do."""
    y, weight, bias, d_out = inputs(3, 3, 5, concat)  # a tile has room for a fourth head
    check((torch.zeros_like(y), weight, bias, d_out), concat)
    right, free = (
        (forward_norm(y, Norm(weight, bias, eps, concat)), *gradients(y, weight, bias, d_out, concat, eps))
        for eps in (1e-30, 0.0)
    )
    for result, expected in zip(free, right, strict=True):
        torch.testing.assert_close(result, expected)
