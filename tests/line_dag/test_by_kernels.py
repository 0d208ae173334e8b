"""Kernels build line graphs that equal, number by number, those that torch's operations build. On a GPU, or else under
Triton's interpreter (see tests/conftest.py), there in blocks so short that small graphs fill several."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from test_building import cases, columns
from torch import Tensor

from plstm_graph.line_dag import building, by_kernels

kernels = pytest.importorskip("plstm_graph.line_dag.triton.build")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch) -> Iterator[None]:
    if DEVICE == "cpu":
        monkeypatch.setattr(kernels, "BLOCK", 8)
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


@pytest.fixture
def longer(short_blocks, monkeypatch) -> None:
    monkeypatch.setattr(kernels, "BLOCK", 64)


def built(edge_index: Tensor, nodes: int, batch: Tensor | None = None):
    return kernels.build(edge_index.to(DEVICE), nodes, batch if batch is None else batch.to(DEVICE))


def check(edge_index: Tensor, nodes: int, batch: Tensor | None = None) -> None:
    wanted = building.by_operations(edge_index, nodes, "index", batch, 0, True)
    assert by_kernels._difference(built(edge_index, nodes, batch), wanted) == ""


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases())
def test_equal_operations(case):
    edge_index, nodes, batch = case
    if batch is None or len(batch.unique()) == int(batch[-1:].sum()) + len(batch[-1:]):
        check(edge_index, nodes, batch)
    else:
        assert built(edge_index, nodes, batch) is None, "an empty graph is for operations"


@pytest.mark.parametrize("nodes", [0, 1, 20])
def test_no_edges(nodes):
    check(columns(), nodes)
    check(columns(*[(node, node) for node in range(nodes)]), nodes, torch.zeros(nodes, dtype=torch.long))


def test_columns_may_stand_apart_in_memory():
    edge_index = torch.randint(9, (30, 2), generator=torch.Generator().manual_seed(0))
    check(edge_index.t(), 9)
    check(torch.cat([edge_index.t(), edge_index.t()], 1)[:, 7:40], 12)


def test_hubs(longer):
    """Nodes where many edges arrive, where many leave, and both, with duplicates."""
    first = torch.arange(1, 40)
    arriving, leaving = torch.stack([first, first * 0 + 40]), torch.stack([first * 0, first])
    check(torch.cat([arriving, leaving, leaving.flip(0), arriving, arriving], 1), 41)
    check(torch.stack([first, torch.full_like(first, 20)]), 40)


def test_graphs_of_every_class(longer):
    sizes = [20, 60, 100, 250, 300, 3, 64, 32]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    chains = [torch.stack([torch.arange(n - 1), torch.arange(1, n)]) for n in sizes]
    check(torch.cat([start + chain for start, chain in zip(starts, chains, strict=True)], 1), sum(sizes))


@pytest.mark.parametrize(
    ("edge_index", "batch"),
    [
        (columns((0, 3), (1, 2)), None),
        (columns((0, 1), (-1, 2)), None),
        (columns((0, 2)), [0, 0, 1]),
        (columns((0, 1)), [0, 0, 2]),
        (columns((0, 1)), [1, 1, 0]),
        (columns((0, 1)), [-1, -1, 0]),
    ],
)
def test_what_is_not_as_it_should_be_is_left_to_operations(edge_index, batch):
    assert built(edge_index, 3, batch if batch is None else torch.tensor(batch)) is None


def test_too_many_pairs_are_left_to_operations(longer):
    middle = torch.full((300,), 150)
    assert built(torch.stack([torch.arange(301)[torch.arange(301) != 150], middle]), 301) is None


def test_the_trial_finds_what_differs(monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", 1024)

    def other(*graph):
        topology, known = building._with_tables(*graph)
        known["tables"][False].work[1, -1] += 1
        return topology, known

    assert by_kernels.trial(torch.device(DEVICE), building._with_tables) == ""
    assert by_kernels.trial(torch.device(DEVICE), other) == "work"
    monkeypatch.setattr(kernels, "build", lambda *graph: 1 / 0)
    assert by_kernels.trial(torch.device(DEVICE), other) == "ZeroDivisionError: division by zero"
