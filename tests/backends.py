"""Which backends run on which device of this machine, for tests that every backend has to pass."""

from importlib.util import find_spec

import pytest
import torch

from plstm_graph.ops import BACKENDS

ELSEWHERE = {"cpu": ["triton"] if find_spec("numba") else ["triton", "numba"], "cuda": ["numba"]}
DEVICES = ELSEWHERE if torch.cuda.is_available() else ["cpu"]
HERE = [(backend, device) for device in DEVICES for backend in BACKENDS if backend not in ELSEWHERE[device]]


def every(*places: tuple[str, str]) -> pytest.MarkDecorator:
    """Run a test of ``backend`` and ``device`` in each of some places, or in all there are."""
    places = places or tuple(HERE)
    return pytest.mark.parametrize(("backend", "device"), places, ids=["-".join(place) for place in places])
