"""Binary AIGER: and-inverter graphs of combinational circuits, as DAGs."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.data import source
from plstm_graph.data.dataset import DatasetInfo, GraphDataset
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import DataError
from plstm_graph.tasks import Unlabelled

URL = "https://raw.githubusercontent.com/lsils/benchmarks/master"
EPFL = ("random_control/ctrl", "arithmetic/adder", "arithmetic/div", "arithmetic/max", "arithmetic/sin")
FEATURES = FeatureSpec(node_sizes=(3, 2), edge_sizes=(2,))


class Circuit(NamedTuple):
    """An and-inverter graph. Node i is variable i: node 0 is the constant false, then inputs, then gates.

    Every gate has two arriving edges; ``inverted`` says which of them carry the negation.
    """

    num_inputs: int
    num_gates: int
    edge_index: Tensor  # [2, 2 * gates]; a gate's edges stand side by side
    inverted: Tensor  # [2 * gates], bool
    outputs: Tensor  # [outputs] literals: twice the node, plus one if negated

    @property
    def num_nodes(self) -> int:
        return 1 + self.num_inputs + self.num_gates

    def data(self) -> Data:
        """As a graph: ``x`` [N, 2] says what a node is (0 the constant, 1 an input, 2 a gate) and whether it is an
        output, ``edge_attr`` [M, 1] whether an edge negates; nodes are numbered topologically, hence ``rank``."""
        kind = torch.tensor([0, 1, 2]).repeat_interleave(torch.tensor([1, self.num_inputs, self.num_gates]))
        output = torch.zeros_like(kind).index_fill_(0, self.outputs // 2, 1)
        rank = torch.arange(self.num_nodes)
        inverted = self.inverted.long()[:, None]
        return Data(x=torch.stack([kind, output], 1), edge_index=self.edge_index, edge_attr=inverted, rank=rank)


def read_aiger(path: str | Path) -> Circuit:
    """A circuit from a ``.aig`` or ``.aig.gz`` file.

    Raises:
        DataError: not binary AIGER, cut short, or with latches (it would not be a DAG).
    """
    path = Path(path)
    content = source.read_bytes(path)
    try:
        return parse_aiger(content)
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from error


def parse_aiger(content: bytes) -> Circuit:
    """See :func:`read_aiger`. Format: Biere, Heljanko and Wieringa 2011, "AIGER 1.9 and beyond", section 2."""
    header, _, rest = content.partition(b"\n")
    words = header.split()
    if len(words) < 6 or words[0] != b"aig" or not all(word.isdigit() for word in words[1:]):
        raise DataError(f"binary AIGER starts with 'aig M I L O A' (got {header[:40]!r}); ASCII 'aag' is not read")
    maximum, inputs, latches, outputs, gates = map(int, words[1:6])
    if latches or any(map(int, words[6:])):
        raise DataError("only combinational circuits are DAGs; this one has latches or properties")
    if maximum != inputs + gates:
        raise DataError(f"the header must have M = I + L + A (got {maximum} for {inputs} + {latches} + {gates})")
    lines = rest.split(b"\n", outputs)
    if len(lines) <= outputs:
        raise DataError(f"cut short: {outputs} outputs announced")
    deltas = _numbers(lines[outputs], 2 * gates).view(-1, 2)
    gate = torch.arange(inputs + 1, maximum + 1)
    first = 2 * gate - deltas[:, 0]  # literals of a gate: its own > first >= second
    literals = torch.stack([first, first - deltas[:, 1]], 1)
    if gates and (int(deltas[:, 0].min()) < 1 or int(literals.min()) < 0):
        raise DataError("a gate reads itself, a later gate or a negative literal")
    edge_index = torch.stack([literals.view(-1) // 2, gate.repeat_interleave(2)])
    readings = torch.tensor([int(line) for line in lines[:outputs]], dtype=torch.long)
    return Circuit(inputs, gates, edge_index, literals.view(-1) % 2 == 1, readings)


def _numbers(content: bytes, count: int) -> Tensor:
    """``count`` numbers of seven bits a byte, lowest first; the highest bit of a byte says that more follow."""
    numbers: list[int] = []
    position = 0
    for _ in range(count):
        value = shift = 0
        while True:
            if position == len(content):
                raise DataError(f"cut short: {len(numbers)} of {count} numbers")
            byte = content[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        numbers.append(value)
    return torch.tensor(numbers, dtype=torch.long)


def circuit_files(folder: Path) -> dict[str, Path]:
    """The ``.aig`` and ``.aig.gz`` files of a folder by name, in its order."""
    paths = sorted(path for path in folder.iterdir() if path.name.endswith((".aig", ".aig.gz")))
    return {path.name.partition(".aig")[0]: path for path in paths}


def load_folder(folder: str | Path, name: str | None = None) -> GraphDataset:
    """All circuits of a folder as graphs without labels, for depth and speed.

    Raises:
        DataError: no such folder, no circuits in it, or one that cannot be read.
    """
    folder = Path(folder)
    files = circuit_files(folder) if folder.is_dir() else {}
    if not files:
        raise DataError(f"there are no .aig or .aig.gz files in {folder}")
    graphs = [read_aiger(path).data() for path in files.values()]
    return GraphDataset(name or folder.name, graphs, Unlabelled(), FEATURES)


fetch = source.fetched({f"{Path(circuit).name}.aig": (f"{URL}/{circuit}.aig", None) for circuit in EPFL})
"""Downloads the circuits into a folder."""


def load(info: DatasetInfo, root: str | Path | None = None) -> GraphDataset:
    """The circuits of the EPFL suite that a root folder holds; five of them are downloaded."""
    data = load_folder(info.find(root, fetch), info.name)
    info.check_count(len(data.graphs))
    return data


SETS = [
    DatasetInfo(
        "epfl",
        graphs=5,
        task=Unlabelled.name,
        metric="",
        split="",
        licence="none stated",
        source="EPFL combinational benchmarks, Amarú et al. 2015",
        url=URL,
        places=("dag_EPFL_aig",),
        megabytes=0.1,
        loader=load,
    )
]
