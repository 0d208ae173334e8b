"""Gates in one tensor and vectors in one, as kernels and loops of a layer want them."""

from collections.abc import Iterable

import torch
from torch import Tensor

from plstm_graph.line_dag.plan import Plan
from plstm_graph.ops.flat import places, unfold
from plstm_graph.testing import Inputs


def joined(inputs: Inputs) -> Tensor:
    """Query, key and value of each head side by side, and room for terms of the gates, [N, H * (2 * K + V) + 8 * H]."""
    vectors = torch.cat([inputs.query, inputs.key, inputs.value], -1).flatten(1)
    return torch.cat([vectors, vectors.new_full((len(vectors), 8 * inputs.query.size(1)), torch.nan)], 1)


def fold(parts: Iterable[Tensor], plan: Plan, size: int) -> Tensor:
    """Four gates (and their totals), or their gradients, [rows, H] each; ``size``: GATES or GRADIENTS."""
    parts = list(parts)
    heads = parts[0].size(1)
    flat = parts[0].new_empty(places(plan, heads)[size])
    gates, behind = unfold(flat, plan, heads)
    for place, part in zip((*gates, behind), parts, strict=False):
        place.copy_(part)
    return flat
