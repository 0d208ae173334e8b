"""MultiHeadRMSNorm: each head on its own, in float32 at least."""

import pytest
import torch

from plstm_graph.nn import MultiHeadRMSNorm, PLSTMConv
from plstm_graph.nn.norm import OUTPUT_NORMS


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


def test_output_norms_of_a_layer():
    """``soft`` leaves small outputs alone and bounds large ones; ``none`` scales; all of them share what is small."""
    small, large = torch.full((1, 2, 4), 1e-3), torch.full((1, 2, 4), 1e6)
    made = {name: make(2, 4, 16) for name, make in OUTPUT_NORMS.items()}
    for name in ("soft", "none"):
        torch.testing.assert_close(made[name](small), small / 4, rtol=1e-5, atol=0)
    torch.testing.assert_close(made["log"](small), small / 4, rtol=2e-3, atol=0)
    torch.testing.assert_close(made["log"](large), torch.full((1, 2, 4), 1e6 / 4).log1p())
    for name in ("rms", "soft"):
        torch.testing.assert_close(made[name](large), torch.ones(1, 2, 4))
    torch.testing.assert_close(made["none"](large), large / 4)
    for norm in made.values():
        torch.testing.assert_close(norm(small), small * norm.scale(small) * norm.weight)
    assert "2, 4" in str(made["none"])


def test_a_layer_without_a_norm_tells_how_many_paths_arrive():
    """Two paths from one node give twice as much as one; under the norm that cannot be seen."""
    one = torch.tensor([[0, 1, 2], [1, 2, 5]])
    two = torch.tensor([[0, 1, 0, 3, 2, 4], [1, 2, 3, 4, 5, 5]])
    torch.manual_seed(0)
    x = torch.zeros(6, 3)
    x[0], x[5] = torch.randn(3), torch.randn(3)
    read = {}
    for name in OUTPUT_NORMS:
        conv = PLSTMConv(3, 4, mode="D", order="given", bias=False, output_norm=name, open_gates=True)
        assert conv.gate_bias[[0, 2, 3]].eq(0).all()
        with torch.no_grad():
            conv.lin.weight[-8:] = 0  # gates are those of the biases
            conv.gate_bias[3] = -100  # nor does a node read itself
            outs = [conv(x, edges)[5] for edges in (one, two)]
        read[name] = (outs[1] / outs[0]).mean().item()
    assert read["none"] == pytest.approx(2, rel=1e-4)
    assert read["rms"] < 1.1
    assert 1.3 < read["soft"] <= 2.0001
    assert 1.3 < read["log"] <= 2.0001
