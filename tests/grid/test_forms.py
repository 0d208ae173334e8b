"""Every form is the operator on the line graph of a grid: output and every gradient, element by element."""

from functools import partial

import pytest
from grid_cases import MAKERS, SIZES, Case, ChainCase, chain_operator, close, general_operator

from plstm_graph.grid import chain, image


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", MAKERS)
def test_reference_is_the_operator_on_the_line_graph(size, mode):
    case = Case(*size, mode)
    close(case.outcome(partial(image, form="reference")), case.outcome(general_operator))


@pytest.mark.parametrize("mode", MAKERS)
def test_reference_with_states_is_the_operator_on_parallel_edges(mode):
    case = Case(3, 4, mode, states=2)
    close(case.outcome(partial(image, form="reference")), case.outcome(general_operator))


@pytest.mark.parametrize("states", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_reference_of_a_chain_is_the_operator_on_its_line_graph(size, states):
    case = ChainCase(size, states)
    got = case.outcome(lambda *inputs: chain(*inputs, form="reference")[0])
    close(got, case.outcome(chain_operator))
