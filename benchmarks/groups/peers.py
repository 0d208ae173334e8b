"""What others have made, where it is installed."""

from torch import Tensor

from plstm_graph.errors import BackendUnavailable

FLA = "flash-linear-attention"


def gated_linear_attention(
    query: Tensor, key: Tensor, value: Tensor, source: Tensor, transition: Tensor, mark: Tensor, direct: Tensor
) -> Tensor:
    """A chain by simple gated linear attention of fla-core, in chunks, for transitions above 0.

    There a token reads a state that has passed it and that it has entered, ``S_t = exp(g_t) S_(t-1) + k_t v_tᵀ`` and
    ``o_t = S_tᵀ q_t``; here it reads the state before that. So the mark is taken over the transition, and what a token
    reads of itself is put right.

    Args:
        query, key, value: [B, H, n, K or V], on a GPU.
        source, transition, mark, direct: [B, H, n].

    Returns:
        [B, H, n, V] as :func:`plstm_graph.grid.chain` without a state.

    Raises:
        BackendUnavailable: fla-core is not installed.
    """
    try:
        from fla.ops.simple_gla import chunk_simple_gla
    except ImportError as error:
        raise BackendUnavailable(f"pip install flash-linear-attention ({error})") from error
    read = mark / transition
    vectors = query * read[..., None], key * source[..., None], value
    q, k, v = (x.to(value.dtype).transpose(1, 2).contiguous() for x in vectors)
    y, _ = chunk_simple_gla(q, k, v, transition.log().transpose(1, 2).contiguous(), scale=1.0)
    own = (direct - read * source) * (query * key).sum(-1)
    return y.transpose(1, 2) + (own[..., None] * value).to(value.dtype)
