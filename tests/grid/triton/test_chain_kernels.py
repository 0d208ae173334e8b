"""The kernels of a chain against the reference: output, last state and every gradient, element by element."""

import pytest
import torch
from grid_cases import ChainCase, close

from plstm_graph.errors import BackendUnavailable
from plstm_graph.grid import ChainGates, chain

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def by(form: str, dtype: torch.dtype = torch.float64):
    """A form, on the device that has kernels; without a state nothing arrives."""

    def run(query, key, value, gates, state=None):
        here = [x.to(DEVICE, dtype) for x in (query, key, value, *gates)]
        begin = None if state is None else state.to(DEVICE, torch.promote_types(dtype, torch.float32))
        found = chain(*here[:3], ChainGates(*here[3:]), form=form, state=begin)
        return tuple(x.cpu().double() for x in found)

    return run


# One chunk that is not full, one that is, two, and more than are carried at once.
@pytest.mark.parametrize("size", [1, 16, 70, 600])
@pytest.mark.parametrize("begin", [False, True], ids=["from nothing", "from a state"])
def test_kernels_are_the_reference(size, begin):
    case = ChainCase(size, begin=begin, batch=1, heads=2 if size < 100 else 1)
    close(case.outcome(by("triton")), case.outcome(by("reference" if size < 100 else "chunks")))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_other_dtypes(dtype, tolerance):
    case = ChainCase(90, begin=True)
    close(case.outcome(by("triton", dtype)), case.outcome(by("reference")), tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_vectors_of_which_a_thread_reads_sixteen_bytes(dtype):
    """Parts of one map, whose strides are multiples of that."""
    case = ChainCase(20, begin=True, widths=(8, 4))

    def joined(query, key, value, *rest):
        return by("triton", dtype)(*torch.cat([query, key, value], -1).to(DEVICE, dtype).split([8, 8, 4], -1), *rest)

    close(case.outcome(joined), case.outcome(by("reference")), 1e-10 if dtype == torch.float64 else 1e-5)


def test_transitions_of_zero_and_below():
    """Nothing is divided by what passes a token."""
    case = ChainCase(40)
    transition = case.leaves[4]
    transition[:, :, ::3] = 0
    transition[:, :, 1::3] *= -1
    close(case.outcome(by("triton")), case.outcome(by("reference")))


def test_second_derivatives_are_refused_and_not_left_out():
    query, key, value, gates = ChainCase(4).inputs()
    direct = gates.direct.detach()

    def cubed(direct):
        return by("triton")(query, key, value, gates._replace(direct=direct))[0].pow(3).sum()

    with pytest.raises(RuntimeError, match="compiled forms have no second derivatives; use form='chunks'"):
        torch.autograd.functional.hvp(cubed, direct, direct)


def test_several_states_are_refused():
    with pytest.raises(BackendUnavailable, match="one state an edge, these gates have 2; use form='chunks'"):
        chain(*ChainCase(3, 2).inputs()[:4], form="triton")
