"""MultiHeadRMSNorm: each head on its own, in float32 at least."""

import torch

from plstm_graph.nn import MultiHeadRMSNorm


def test_equals_the_formula_head_by_head() -> None:
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    norm = MultiHeadRMSNorm(3, 4).double()
    torch.nn.init.normal_(norm.weight)
    for node in range(5):
        for head in range(3):
            row = x[node, head]
            want = [float(v) / (sum(float(w) ** 2 for w in row) / 4 + 1e-5) ** 0.5 for v in row]
            torch.testing.assert_close(norm(x)[node, head], torch.tensor(want).double() * norm.weight[head])


def test_heads_do_not_mix_and_scale_drops_out() -> None:
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    norm = MultiHeadRMSNorm(3, 4, eps=0.0).double()
    louder = x.clone()
    louder[:, 1] *= 100
    torch.testing.assert_close(norm(louder), norm(x))


def test_small_inputs_stay_small() -> None:
    """Outputs of almost closed gates lie below the root of eps, and start small."""
    assert MultiHeadRMSNorm(1, 4)(torch.full((1, 1, 4), 1e-4)).max() < 0.04


def test_half_precision_is_computed_in_float32() -> None:
    x = torch.full((1, 1, 4), 1e-4, dtype=torch.float16)  # its square is zero in float16
    norm = MultiHeadRMSNorm(1, 4, eps=1e-9)
    out = norm(x)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.float(), norm(x.float()), rtol=1e-2, atol=1e-3)
    assert out.max() > 0.9


def test_empty_input_gradient_and_reset() -> None:
    norm = MultiHeadRMSNorm(2, 3)
    assert norm(torch.zeros(0, 2, 3)).shape == (0, 2, 3)
    zeros = torch.zeros(4, 2, 3, requires_grad=True)
    norm(zeros).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()
    torch.nn.init.zeros_(norm.weight)
    norm.reset_parameters()
    assert (norm.weight == 1).all()
    assert "2, 3, eps=1e-05" in str(norm)
