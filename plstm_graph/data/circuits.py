"""Cones of logic cut from circuits, labelled with what every gate does: DAGs of any size, node by node."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from plstm_graph.data.aiger import Circuit
from plstm_graph.errors import DataError

EXACT_INPUTS = 15
"""Up to so many inputs every pattern is tried; beyond, 2^15 patterns are drawn."""
WORD = 64

# Six inputs vary within a word of 64 patterns, the others from word to word.
WITHIN = tuple(sum(((pattern >> bit) & 1) << pattern for pattern in range(WORD)) for bit in range(6))


class Behaviour(NamedTuple):
    """What the nodes of a circuit do, [N] each, float32.

    Attributes:
        probability: share of the input patterns for which a node is true.
        switching: chance that a node changes between two patterns drawn independently, 2 p (1 - p).
        arrival: gates on the longest path that ends in a node.
    """

    probability: Tensor
    switching: Tensor
    arrival: Tensor


def behave(circuit: Circuit, seed: int = 0) -> Behaviour:
    """Simulate a circuit, 64 patterns at once: exact for up to 15 inputs, 2^15 random patterns beyond.

    Args:
        circuit: an and-inverter graph.
        seed: of the random patterns.
    """
    patterns = _patterns(circuit.num_inputs, seed)
    first = 1 + circuit.num_inputs
    values = np.zeros((circuit.num_nodes, patterns.shape[1]), dtype=np.uint64)
    values[1:first] = patterns
    arrival = np.zeros(circuit.num_nodes, dtype=np.int64)
    sources = circuit.edge_index[0].view(-1, 2).numpy()
    flips = np.where(circuit.inverted.view(-1, 2).numpy(), ~np.uint64(0), np.uint64(0))
    for gate, ((a, b), (flip_a, flip_b)) in enumerate(zip(sources, flips, strict=True), start=first):
        values[gate] = (values[a] ^ flip_a) & (values[b] ^ flip_b)
        arrival[gate] = 1 + max(arrival[a], arrival[b])
    real = min(2**circuit.num_inputs, WORD) if circuit.num_inputs <= EXACT_INPUTS else WORD
    mask = ~np.uint64(0) >> np.uint64(WORD - real)  # few inputs repeat their patterns within a word
    ones = np.bitwise_count(values & mask).sum(1, dtype=np.int64)
    probability = torch.from_numpy(ones / (real * patterns.shape[1])).float()
    return Behaviour(probability, 2 * probability * (1 - probability), torch.from_numpy(arrival).float())


def _patterns(inputs: int, seed: int) -> np.ndarray:
    """Values of the inputs, [inputs, words] of 64 patterns each."""
    if inputs > EXACT_INPUTS:
        rng = np.random.default_rng(seed)
        return rng.integers(0, 2**WORD, (inputs, 2**EXACT_INPUTS // WORD), dtype=np.uint64)
    word = np.arange(max(1, 2**inputs // WORD))
    rows = [np.full(len(word), WITHIN[bit], dtype=np.uint64) for bit in range(min(inputs, 6))]
    rows += [np.where(word >> (bit - 6) & 1, ~np.uint64(0), np.uint64(0)) for bit in range(6, inputs)]
    return np.stack(rows) if rows else np.zeros((0, 1), dtype=np.uint64)


def cone(circuit: Circuit, gate: int, most: int) -> Circuit:
    """What feeds a gate: the last ``most`` gates (by number) of its fan-in, the gate among them, as a circuit.

    What they read from outside of the cone are its inputs, in the order of their numbers.

    Args:
        circuit: an and-inverter graph.
        gate: number of a gate node.
        most: gates of the cone at most.

    Raises:
        DataError: ``gate`` is no gate, or ``most`` is not positive.
    """
    first = 1 + circuit.num_inputs
    if not first <= gate < circuit.num_nodes or most < 1:
        raise DataError(f"gate must be from {first} to {circuit.num_nodes - 1} and most positive, got {gate}, {most}")
    sources = circuit.edge_index[0].view(-1, 2)
    inside = _fan_in(sources.numpy(), gate, first, most)
    gates = torch.from_numpy(inside)
    read = sources[gates - first]
    outside = read[(read != 0) & ~torch.isin(read, gates)].unique()
    names = torch.zeros(circuit.num_nodes, dtype=torch.long)  # node 0 stays the constant
    names[outside] = 1 + torch.arange(len(outside))
    names[gates] = 1 + len(outside) + torch.arange(len(gates))
    edge_index = torch.stack([names[read].view(-1), names[gates].repeat_interleave(2)])
    inverted = circuit.inverted.view(-1, 2)[gates - first].view(-1)
    return Circuit(len(outside), len(gates), edge_index, inverted, names[gate].view(1) * 2)


def _fan_in(sources: np.ndarray, gate: int, first: int, most: int) -> np.ndarray:
    """Gates from which a path leads to ``gate``, the ``most`` last ones, rising."""
    found = []
    reached = np.zeros(gate + 1, dtype=bool)
    reached[gate] = True
    for node in range(gate, first - 1, -1):  # numbers are topological: all readers of a node have been here
        if reached[node]:
            found.append(node)
            if len(found) == most:
                break
            reached[sources[node - first]] = True
    return np.array(found[::-1])
