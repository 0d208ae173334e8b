"""Cones of logic cut from circuits, labelled with what every gate does: DAGs of any size, node by node."""

from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.data import aiger, source
from plstm_graph.data.aiger import FEATURES, Circuit, read_aiger
from plstm_graph.data.dataset import DatasetInfo, GraphDataset
from plstm_graph.data.splits import OFFICIAL, one_after_another
from plstm_graph.data.stacked import Stacked
from plstm_graph.errors import DataError


class Cut(NamedTuple):
    """What a part of a split is cut from, and how.

    Attributes:
        circuits: of the EPFL suite, by name.
        graphs: how many.
        sizes: least and most gates of a cone; None for the circuits as they are.
    """

    circuits: tuple[str, ...]
    graphs: int
    sizes: tuple[int, int] | None = None


UNSEEN = {"train": Cut(("div", "ctrl"), 1200, (20, 500)), "valid": Cut(("adder",), 100, (20, 500))}
"""What is learnt before a whole circuit is asked about, of which no gate stands here."""
PARTS: dict[str, dict[str, Cut]] = {
    "circuits": {
        "train": Cut(("sin", "adder", "ctrl"), 1200, (20, 500)),
        "valid": Cut(("max",), 100, (20, 500)),
        "test": Cut(("div",), 100, (50, 3000)),
    },
    "circuits-sin": UNSEEN | {"test": Cut(("sin",), 1)},
    "circuits-max": UNSEEN | {"test": Cut(("max",), 1)},
}
"""By data set the parts of its split. No circuit stands in two of them, so that no gate does."""

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
    sources = circuit.edge_index[0].view(-1, 2).numpy()
    flips = np.where(circuit.inverted.view(-1, 2, 1).numpy(), ~np.uint64(0), np.uint64(0))
    arrival = np.array(_depths(sources.tolist(), first))
    for depth in range(1, arrival.max() + 1):  # gates of one depth do not read each other
        (gates,) = np.nonzero(arrival == depth)
        read = values[sources[gates - first]] ^ flips[gates - first]
        values[gates] = read[:, 0] & read[:, 1]
    real = min(2**circuit.num_inputs, WORD) if circuit.num_inputs <= EXACT_INPUTS else WORD
    mask = ~np.uint64(0) >> np.uint64(WORD - real)  # few inputs repeat their patterns within a word
    ones = np.bitwise_count(values & mask).sum(1, dtype=np.int64)
    probability = torch.from_numpy(ones / (real * patterns.shape[1])).float()
    return Behaviour(probability, 2 * probability * (1 - probability), torch.from_numpy(arrival).float())


def _depths(sources: list[list[int]], first: int) -> list[int]:
    """Gates on the longest path that ends in each node."""
    depths = [0] * first
    for a, b in sources:
        depths.append(1 + max(depths[a], depths[b]))
    return depths


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
    found: list[int] = []
    waiting = [-gate]  # the last gate that is reached comes first: numbers are topological
    while waiting and len(found) < most:
        node = -heappop(waiting)
        if not found or node != found[-1]:
            found.append(node)
            for source in sources[node - first].tolist():
                if source >= first:
                    heappush(waiting, -source)
    return np.array(found[::-1])


def labelled(circuit: Circuit, seed: int = 0) -> Data:
    """A circuit as a graph with ``y`` [N, 3]: probability, switching and arrival of every gate, NaN elsewhere."""
    data = circuit.data()
    data.y = torch.stack(behave(circuit, seed), 1)
    data.y[: 1 + circuit.num_inputs] = float("nan")
    return data


def cones(circuits: list[Circuit], count: int, sizes: tuple[int, int], seed: int) -> list[Data]:
    """Labelled cones of gates drawn at random, from one circuit after the other.

    Args:
        circuits: to cut from.
        count: number of cones.
        sizes: least and most gates of a cone; the most is drawn for each, evenly over the logarithm.
        seed: of all draws.
    """
    rng = np.random.default_rng(seed)
    found: list[Data] = []
    tries = 0
    while len(found) < count:
        if (tries := tries + 1) > 100 * count:
            raise DataError(f"these circuits have too few cones of at least {sizes[0]} gates")
        circuit = circuits[tries % len(circuits)]
        most = round(float(np.exp(rng.uniform(*np.log(sizes)))))
        part = cone(circuit, 1 + circuit.num_inputs + int(rng.integers(circuit.num_gates)), most)
        if part.num_gates >= sizes[0]:
            found.append(labelled(part, seed=len(found)))
    return found


def load(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """Cones of circuits, or a whole one to test on; every gate says its signal probability, its switching activity and
    its arrival time."""
    files = aiger.circuit_files(info.find(root, aiger.fetch))
    cuts = PARTS[info.name]
    wanted = sorted({name for cut in cuts.values() for name in cut.circuits})
    if missing := [name for name in wanted if name not in files]:
        raise DataError(f"{info.name} is cut from circuits that are not there: {', '.join(missing)}")

    def build() -> dict[str, object]:
        graphs: list[Data] = []
        for number, cut in enumerate(cuts.values()):
            found = [read_aiger(files[name]) for name in cut.circuits]
            graphs += cones(found, cut.graphs, cut.sizes, seed=number) if cut.sizes else map(labelled, found)
        labels = torch.cat([graph.y for graph in graphs])
        for graph in graphs:
            del graph.y
        return Stacked.of(graphs).plain() | {"labels": labels}

    content = source.cached(info.name, [files[name] for name in wanted], build)
    labels = content.pop("labels")
    graphs = Stacked(**content | {"y": labels}).graphs()
    parts = one_after_another({part: cut.graphs for part, cut in cuts.items()})
    return info.dataset(graphs, ("probability", "switching", "arrival"), FEATURES, {"level": "node"}, parts=parts)


SETS = [
    DatasetInfo(
        name,
        graphs=None,
        task="regression",
        metric="mae",
        split=OFFICIAL,
        licence="none stated",
        source="cones of the EPFL combinational benchmarks, Amarú et al. 2015",
        url=aiger.URL,
        places=("dag_EPFL_aig",),
        megabytes=0.1,
        loader=load,
    )
    for name in PARTS
]
