"""Binary AIGER, on a circuit made by hand and on a published one."""

import gzip

import pytest
import torch

from plstm_graph import LineDAG
from plstm_graph.data import aiger
from plstm_graph.errors import DataError

# Inputs are variables 1 to 3. Gate 4 = 2 and not 1, gate 5 = not 4 and 3: literals (8: 4, 3) and (10: 9, 6).
GATES = bytes([8 - 4, 4 - 3, 10 - 9, 9 - 6])
HALF = b"aig 5 3 0 2 2\n" + b"10\n9\n" + GATES + b"i0 a\nc\na comment\n"


def test_a_circuit_by_hand():
    found = aiger.parse_aiger(HALF)
    assert (found.num_inputs, found.num_gates, found.num_nodes) == (3, 2, 6)
    assert found.edge_index.tolist() == [[2, 1, 4, 3], [4, 4, 5, 5]]
    assert found.inverted.tolist() == [False, True, True, False]
    assert found.outputs.tolist() == [10, 9]


def test_numbers_of_several_bytes():
    # One gate after 200 inputs: its literal 402 reads literals 200 and 2; deltas 202 = 0x4a + 1 * 128 and 198.
    content = b"aig 201 200 0 0 1\n" + bytes([202 & 127 | 128, 202 >> 7, 198 & 127 | 128, 198 >> 7])
    found = aiger.parse_aiger(content)
    assert found.edge_index.tolist() == [[100, 1], [201, 201]]


def test_no_gate():
    found = aiger.parse_aiger(b"aig 1 1 0 1 0\n2\n")
    assert found.edge_index.shape == (2, 0)
    assert LineDAG.from_edge_index(found.edge_index, found.num_nodes, order="given").num_edges == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"aag 1 1 0 1 0\n2\n", "ASCII"),
        (b"", "starts with"),
        (b"aig 2 1 1 0 0\n2\n", "latches"),
        (b"aig 7 3 0 2 2\n10\n9\n" + GATES, "M = I"),
        (b"aig 5 3 0 2 2\n10\n9\n" + GATES[:3], "cut short: 3 of 4"),
        (b"aig 5 3 0 2 2\n10\n", "cut short"),
        (b"aig 2 1 0 0 1\n\x00\x01", "itself"),
        (b"aig 2 1 0 0 1\n\x03\x02", "negative"),
    ],
)
def test_what_is_refused(content, reason):
    with pytest.raises(DataError, match=reason):
        aiger.parse_aiger(content)


def test_files(tmp_path):
    (tmp_path / "plain.aig").write_bytes(HALF)
    (tmp_path / "packed.aig.gz").write_bytes(gzip.compress(HALF))
    plain, packed = (aiger.read_aiger(tmp_path / name) for name in ("plain.aig", "packed.aig.gz"))
    assert torch.equal(plain.edge_index, packed.edge_index)
    (tmp_path / "short.aig.gz").write_bytes(gzip.compress(HALF)[:-12])
    with pytest.raises(DataError, match=r"short\.aig\.gz"):
        aiger.read_aiger(tmp_path / "short.aig.gz")


def test_the_published_controller(shared_data):
    path = shared_data / "dag_EPFL_aig" / "ctrl.aig.gz"
    if not path.exists():
        pytest.skip("no EPFL circuits")
    found = aiger.read_aiger(path)  # header: aig 181 7 0 26 174
    assert (found.num_inputs, found.num_gates, found.outputs.numel()) == (7, 174, 26)
    assert found.edge_index.shape == (2, 348)
    dag = LineDAG.from_edge_index(found.edge_index, found.num_nodes, order="given").validate()
    assert dag.gather_edges(found.inverted.view(-1, 1).float()).sum() == found.inverted.sum()
    leaving = torch.bincount(found.edge_index[0], minlength=found.num_nodes)
    read = set(torch.nonzero(leaving).view(-1).tolist()) | set((found.outputs // 2).tolist())
    assert set(range(8, found.num_nodes)) <= read  # no gate of a synthesised circuit is useless


def test_as_a_graph():
    graph = aiger.parse_aiger(HALF).data()
    assert graph.x.tolist() == [[0, 0], [1, 0], [1, 0], [1, 0], [2, 1], [2, 1]]  # outputs 10 and 9: gates 5 and not 4
    assert graph.edge_attr.view(-1).tolist() == [0, 1, 1, 0]
    dag = LineDAG.from_edge_index(graph.edge_index, 6, order=graph.rank)
    given = LineDAG.from_edge_index(graph.edge_index, 6, order="given")
    assert torch.equal(dag.src, given.src)
    assert torch.equal(dag.dst, given.dst)
