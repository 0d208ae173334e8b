"""Loops for images and chains on the CPU, beside what ``test_forms`` says of every form."""

import pytest
import torch
from grid_cases import MAKERS, Case, ChainCase, begun, close

from plstm_graph.errors import BackendUnavailable
from plstm_graph.grid import CHAIN_FORMS, chain, image, reference

pytest.importorskip("numba")


def by_loops(*inputs):
    return image(*inputs, form="numba")


@pytest.fixture
def filled(monkeypatch):
    """Memory that nobody has written to is NaN."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("mode", MAKERS)
def test_loops_are_the_reference_in_memory_that_is_filled(mode, filled):
    case = Case(6, 4, mode)
    close(case.outcome(by_loops), case.outcome(reference.image))
    close(case.outcome(by_loops, torch.float32), case.outcome(reference.image), 1e-5)


@pytest.mark.parametrize(("size", "states"), [(1, 1), (32, 1), (33, 2), (70, 3)])
def test_loops_are_the_reference_of_chains_of_one_chunk_or_more(size, states, filled):
    case = ChainCase(size, states, begin=True)
    want = case.outcome(begun("reference"))
    close(case.outcome(begun("numba")), want)
    scale = max(float(x.abs().max()) for x in want)
    close([x / scale for x in case.outcome(begun("numba"), torch.float32)], [x / scale for x in want], 1e-5)


def test_auto_takes_them_where_they_can_run(monkeypatch):
    called = []
    monkeypatch.setattr("plstm_graph.grid.numba.image", lambda q, k, v, gates: called.append(gates.mode) or v)
    image(*Case(2, 3, "P").inputs())
    image(*Case(2, 3, "P", states=2).inputs())
    assert called == ["P"]
    right = CHAIN_FORMS["numba"]
    monkeypatch.setitem(CHAIN_FORMS, "numba", lambda *inputs: called.append(inputs[3].states) or right(*inputs))
    chain(*ChainCase(4, 2).inputs())
    assert called == ["P", 2]


def test_what_they_cannot_do_is_refused():
    with pytest.raises(BackendUnavailable, match="up to 1600 pixels, this one has 1604"):
        by_loops(*Case(401, 4, "P", images=1, heads=1).inputs())
    query, key, value, gates = Case(2, 2, "P").inputs()
    with pytest.raises(BackendUnavailable, match="cannot look into it"):
        torch.func.grad(lambda v: by_loops(query, key, v, gates).sum())(value)


@pytest.mark.parametrize("transform", [torch.autograd.functional.hvp, torch.autograd.functional.jvp])
def test_second_derivatives_are_refused_and_not_left_out(transform):
    def asked(run, gates):
        direct = gates.direct.detach()
        transform(lambda direct: run(gates._replace(direct=direct)).pow(3).sum(), direct, direct)

    query, key, value, gates = Case(2, 3, "P").inputs()
    with pytest.raises(RuntimeError, match="compiled forms have no second derivatives; use form='tiles'"):
        asked(lambda gates: by_loops(query, key, value, gates), gates)
    query, key, value, gates = ChainCase(4).inputs()
    with pytest.raises(RuntimeError, match="compiled forms have no second derivatives; use form='chunks'"):
        asked(lambda gates: chain(query, key, value, gates, form="numba")[0], gates)
