"""What others have made, where it is installed."""

from importlib import import_module

from torch import Tensor

from plstm_graph.errors import BackendUnavailable

FLA = {
    "flash-linear-attention, a gate a head": "simple_gla",
    "flash-linear-attention, a gate a channel": "gla",
}
"""Gated linear attentions of fla-core by name, each with its module. The second has more gates than a chain needs; the
backward pass of the first is refused by fla-core on Hopper GPUs with Triton 3.4 to 3.7.0, which compiles it wrongly."""


def gated_linear_attention(
    name: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    source: Tensor,
    transition: Tensor,
    mark: Tensor,
    direct: Tensor,
) -> Tensor:
    """A chain by gated linear attention of fla-core, in chunks, for transitions above 0.

    There a token reads a state that has passed it and that it has entered, ``S_t = exp(g_t) S_(t-1) + k_t v_tᵀ`` and
    ``o_t = S_tᵀ q_t``; here it reads the state before that. So the mark is taken over the transition, and what a token
    reads of itself is put right.

    Args:
        name: a key of ``FLA``.
        query, key, value: [B, H, n, K or V], on a GPU.
        source, transition, mark, direct: [B, H, n].

    Returns:
        [B, H, n, V] as :func:`plstm_graph.grid.chain` without a state.

    Raises:
        BackendUnavailable: fla-core is not installed.
    """
    kind = FLA[name]
    try:
        chunked = getattr(import_module(f"fla.ops.{kind}"), f"chunk_{kind}")
    except ImportError as error:
        raise BackendUnavailable(f"pip install flash-linear-attention ({error})") from error
    read = mark / transition
    vectors = query * read[..., None], key * source[..., None], value
    q, k, v = (x.to(value.dtype).transpose(1, 2).contiguous() for x in vectors)
    gate = transition.log().transpose(1, 2)
    gate = gate.unsqueeze(-1).expand(k.shape) if kind == "gla" else gate
    y, _ = chunked(q, k, v, gate.contiguous(), scale=1.0)
    own = (direct - read * source) * (query * key).sum(-1)
    return y.transpose(1, 2) + (own[..., None] * value).to(value.dtype)
