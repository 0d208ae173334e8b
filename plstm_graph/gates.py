"""Gate: the four gates of eqs 5 and 6, their activations, the P-mode normalisation and their initial values."""

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from plstm_graph.errors import ConfigError, ShapeError, unknown
from plstm_graph.line_dag import LineDAG

MODES = ("P", "D")
TRANSITIONS = ("tanh", "saturating")

# What is cut off counts as such from SATURATED on (a normalised gate times its divisor need not be 1 to the last digit)
# and passes LEAK of its gradient, so that a gate which is open or closed for good can still learn. So the gradient is a
# function of the gate alone, and no kernel has to keep pre-activations. All these numbers are exact in any dtype.
SATURATED = 1 - 2**-20
LEAK = 2**-5
# The slope of a sigmoid at 0.
SOURCE_SLOPE = 0.25

# Pöppel et al. 2025, table 5. Sources, marks and direct terms start almost closed.
SOURCE_BIAS = -4.0
MARK_BIAS = -4.0
DIRECT_BIAS = -6.0
# tanh of these is .76 to .995: transitions start near criticality, heads with reaches from 4 to 200 edges.
TRANSITION_BIAS = (1.0, 3.0)
# With saturating transitions, some start where they are cut off; sources and marks half open, for a source of -4 would
# be shut.
SATURATING_BIAS = (0.9, 1.2)


class NodeTerm(IntEnum):
    """Chunks of H columns of what a node adds to gates: to those of edges it is the src and the dst of, to transitions
    as the node where prev starts (tail), where the two edges meet (joint) and where next ends (head), and to itself."""

    SOURCE_SRC, SOURCE_DST, MARK_SRC, MARK_DST, TAIL, JOINT, HEAD, DIRECT = range(8)


class EdgeTerm(IntEnum):
    """Chunks of H columns of what an edge adds: to its own source and mark, and to transitions as prev and as next."""

    SOURCE, MARK, AS_PREV, AS_NEXT = range(4)


class Gate(IntEnum):
    """Rows of the bias of gates, [4, H]: the order of :class:`Gates`."""

    SOURCE, TRANSITION, MARK, DIRECT = range(4)


class Gates(NamedTuple):
    """Gates of a line graph with E edges, P pairs, N nodes and H heads.

    Attributes:
        source: how much of its src node enters an edge, [E, H].
        transition: how much of the state of ``prev`` enters ``next``, [P, H].
        mark: how much of an edge its dst node reads, [E, H].
        direct: how much a node reads itself, [N, H].
    """

    source: Tensor
    transition: Tensor
    mark: Tensor
    direct: Tensor


def check_gates(gates: Gates, dag: LineDAG, heads: int) -> None:
    """Raise ShapeError unless ``gates`` belong to a line graph of this size, on its device."""
    edges, device = dag.num_edges, dag.src.device
    for number, (gate, count) in enumerate(zip(gates, (edges, dag.num_pairs, edges, dag.num_nodes), strict=True)):
        if gate.shape != (count, heads):
            raise ShapeError(
                f"gate {Gates._fields[number]} must be [{count}, {heads}] for this dag, got {list(gate.shape)}; "
                "gates belong to one line graph: was it rebuilt, pruned or reordered after they were computed?"
            )
        if gate.device != device:
            name = Gates._fields[number]
            raise ShapeError(f"gate {name} is on {gate.device}, the dag on {device}; move both to one device")


def check_mode(mode: str) -> None:
    """Raise ConfigError unless ``mode`` is ``"P"`` or ``"D"``."""
    if mode not in MODES:
        raise ConfigError(unknown("mode", mode, MODES))


def check_transition(transition: str) -> None:
    """Raise ConfigError unless ``transition`` is ``"tanh"`` or ``"saturating"``."""
    if transition not in TRANSITIONS:
        raise ConfigError(unknown("transition", transition, TRANSITIONS))


def view(dag: LineDAG, mode: str, reverse: bool) -> LineDAG:
    """The line graph that a layer reads: pruned for D mode, against the edges if ``reverse``."""
    check_mode(mode)
    dag = dag.prune() if mode == "D" else dag
    return dag.reverse() if reverse else dag


def normalize_transition(transition: Tensor, dag: LineDAG) -> Tensor:
    """P mode (eq. 9): divide by max(1, Σ|transition| over the pairs with the same prev), [P, H] -> [P, H].

    Columns of the transition matrix then sum to at most 1, so its powers stay bounded in the 1-norm; on a chain
    nothing is divided, and a gate can still forget.
    """
    total = transition.new_zeros(dag.num_edges, *transition.shape[1:]).index_add(0, dag.prev, transition.abs())
    return transition / total.clamp(min=1.0).index_select(0, dag.prev)


def activate_transition(raw: Tensor, transition: str = "tanh") -> Tensor:
    """Pre-activations to transitions in [-1, 1], of any shape.

    ``"tanh"`` never is 1, so what is carried over many edges fades. ``"saturating"`` is ``clamp(raw, -1, 1)``, which
    can be exactly 1, over any number of edges. Its gradient is 1, and ``LEAK`` where it is cut off.
    """
    check_transition(transition)
    return raw.tanh() if transition == "tanh" else _cut_off(raw, raw.detach().clamp(-1, 1), raw.detach())


def activate_source(raw: Tensor, transition: str = "tanh") -> Tensor:
    """Pre-activations to sources in [0, 1], of any shape.

    A sigmoid never is 0, so what many closed sources add along a path gathers. With ``"saturating"`` transitions a
    source is ``clamp(raw / 4 + 1 / 2, 0, 1)``. Its gradient is 1 / 4, and ``LEAK`` of that where it is cut off.
    """
    check_transition(transition)
    if transition == "tanh":
        return raw.sigmoid()
    line = SOURCE_SLOPE * raw + 0.5
    value = line.detach().clamp(0, 1)
    return _cut_off(line, value, 2 * value - 1)


def _cut_off(line: Tensor, value: Tensor, place: Tensor) -> Tensor:
    """``value`` with the gradient of ``line``, and ``LEAK`` of it where ``place`` is not within (-1, 1)."""
    slope = torch.where(place.abs() < SATURATED, 1.0, LEAK).to(line.dtype)
    return value + slope * (line - line.detach())


def activate(raw: Gates, dag: LineDAG, mode: str, transition: str = "tanh") -> Gates:
    """Pre-activations to gates: sigmoids, and transitions normalised in P mode; float32 at least.

    ``dag`` is the line graph as it is read, see :func:`view`; ``transition`` as for :func:`activate_transition` and
    :func:`activate_source`.
    """
    check_mode(mode)
    source, carried, mark, direct = (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in raw)
    carried = activate_transition(carried, transition)
    if mode == "P":
        carried = normalize_transition(carried, dag)
    return Gates(activate_source(source, transition), carried, mark.sigmoid(), direct.sigmoid())


def initial_gate_bias(
    heads: int, transition: str = "tanh", open_gates: bool = False, source_bias: float | None = None
) -> Tensor:
    """Biases of source, transition (spread over the heads), mark and direct, [4, H].

    ``open_gates``: all but transitions begin half open. ``source_bias``: that of sources, in place of the usual.
    """
    check_transition(transition)
    tanh = transition == "tanh"
    low, high = TRANSITION_BIAS if tanh else SATURATING_BIAS
    source, mark = (SOURCE_BIAS, MARK_BIAS) if tanh and not open_gates else (0.0, 0.0)
    source = source if source_bias is None else source_bias
    bias = torch.tensor([source, (low + high) / 2, mark, 0.0 if open_gates else DIRECT_BIAS])
    bias = bias.unsqueeze(-1).repeat(1, heads)
    if heads > 1:
        bias[Gate.TRANSITION] = torch.linspace(low, high, heads)
    return bias
