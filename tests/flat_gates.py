"""Gates in one tensor, as kernels and loops of a layer want them."""

from collections.abc import Iterable

from torch import Tensor

from plstm_graph.ops.flat import places, unfold
from plstm_graph.plan import Plan


def fold(parts: Iterable[Tensor], plan: Plan, size: int) -> Tensor:
    """Four gates (and their totals), or their gradients, [rows, H] each; ``size``: GATES or GRADIENTS."""
    parts = list(parts)
    heads = parts[0].size(1)
    flat = parts[0].new_empty(places(plan, heads)[size])
    gates, behind = unfold(flat, plan, heads)
    for place, part in zip((*gates, behind), parts, strict=False):
        place.copy_(part)
    return flat
