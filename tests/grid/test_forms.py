"""Every form is the operator on the line graph of a grid: output and every gradient, element by element."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from grid_cases import MAKERS, SIZES, Case, ChainCase, begun, chain_operator, close, general_operator

from plstm_graph import propagate
from plstm_graph.errors import BackendUnavailable
from plstm_graph.grid import CHAIN_FORMS, DIRECTIONS, FORMS, chain, grid_dag, image
from plstm_graph.grid.chains import chunks
from plstm_graph.grid.tiled import tiled

TORCH = ("reference", "log", "rows", "closed", "tiles")


def check(case: Case, want: list[torch.Tensor], forms: list[str]) -> None:
    """Some forms against what is right; a form may refuse what it cannot do, but those of torch alone must not."""
    for form in forms:
        try:
            close(case.outcome(partial(image, form=form)), want)
        except BackendUnavailable:
            assert form not in TORCH or (form == "closed" and not case.mode.startswith("D")), form


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", MAKERS)
def test_forms_are_the_operator_on_the_line_graph(size, mode):
    case = Case(*size, mode)
    check(case, case.outcome(general_operator), list(FORMS))


@pytest.mark.parametrize("mode", MAKERS)
def test_forms_with_states_are_the_operator_on_parallel_edges(mode):
    case = Case(3, 5, mode, states=2)
    check(case, case.outcome(general_operator), list(FORMS))


@pytest.mark.parametrize("mode", ["P", "D-left"])
def test_forms_of_a_larger_grid(mode):
    case = Case(33, 18, mode, images=1, heads=1)
    check(case, case.outcome(general_operator), [form for form in FORMS if form != "reference"])


@pytest.mark.parametrize("at", range(4), ids=list(DIRECTIONS))
def test_each_direction_on_its_own(at):
    """The others are read with marks of zero: what they carry cannot make up for anything."""
    case = Case(3, 4, "general")
    case.mark[:, [number for number in range(4) if number != at]] = 0
    case.direct.zero_()
    grid = grid_dag(3, 4, list(DIRECTIONS)[at], images=2)

    def alone(query, key, value, gates):
        nodes = (grid.nodes(x) for x in (query, key, value))
        return grid.images(propagate(*nodes, grid.gates(gates), grid.dag, backend="reference"))

    want = case.outcome(alone)[0]
    for form in ("reference", "log", "rows", "tiles"):
        close(case.outcome(partial(image, form=form))[:1], [want])


@pytest.mark.parametrize("form", ["log", "chain"])
def test_the_graph_of_autograd_grows_by_a_constant_for_each_doubling(form):
    counts = []
    for side in (2, 4, 8, 16):
        case = ChainCase(side**2) if form == "chain" else Case(side, side, "general", images=1, heads=1)
        inputs = case.inputs()
        output = chain(*inputs, form="log")[0] if form == "chain" else image(*inputs, form="log")
        counts.append(nodes(output.grad_fn))
    steps = [after - before for before, after in pairwise(counts)]
    assert len(set(steps)) == 1, counts


def nodes(root) -> int:
    """Nodes of autograd that lead to a tensor."""
    seen, left = set(), [root]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [before for before, _ in node.next_functions]
    return len(seen)


@pytest.mark.parametrize("tile", [(1, 1), (2, 3), (4, 4)], ids=str)
def test_tiles_may_have_any_size(tile):
    case = Case(7, 5, "general", states=2)
    close(case.outcome(lambda *x: tiled(*x, *tile)), case.outcome(partial(image, form="reference")))


@pytest.mark.parametrize("states", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_forms_of_a_chain_are_the_operator_on_its_line_graph(size, states):
    case = ChainCase(size, states)
    want = case.outcome(chain_operator)
    for form in CHAIN_FORMS:
        check_chain(form, case, lambda *inputs, form=form: chain(*inputs, form=form)[0], want)


def check_chain(form, case, run, want):
    """A form may refuse what it cannot do, but those of torch alone must not."""
    try:
        close(case.outcome(run), want)
    except BackendUnavailable:
        assert form in ("numba", "triton"), form


@pytest.mark.parametrize("states", [1, 2])
def test_forms_of_a_chain_begin_with_a_state_and_leave_one(states):
    case = ChainCase(11, states, begin=True)
    want = case.outcome(begun("reference"))
    for form in CHAIN_FORMS:
        check_chain(form, case, begun(form), want)


@pytest.mark.parametrize("parallel", [True, False])
def test_chunks_may_have_any_size(parallel):
    case = ChainCase(11, 2, begin=True)
    want = case.outcome(begun("reference"))
    for size in (1, 3, 4):
        close(case.outcome(partial(chunks, size=size, parallel=parallel)), want)
