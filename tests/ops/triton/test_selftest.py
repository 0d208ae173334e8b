"""The self-test of kernels, on graphs that the interpreter can take: it passes, and notices planted faults."""

import pytest
import torch

from plstm_graph.ops import selftest

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def small(form, monkeypatch) -> None:
    if DEVICE.type == "cpu":
        monkeypatch.setattr(selftest, "SIZES", (4, 6))


@pytest.mark.parametrize("form", ["mixed"], indirect=True)
def test_passes_whatever_the_caller_is_in_the_middle_of() -> None:
    state = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        assert selftest.run("triton", DEVICE) == ""
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("form", ["mixed"], indirect=True)
def test_names_what_is_wrong(monkeypatch) -> None:
    layer = selftest.layer

    def skewed(setting, inputs, plan):
        return layer(setting, inputs._replace(lin=inputs.lin * 1.001), plan)

    monkeypatch.setattr(selftest, "layer", skewed)
    assert "output of a layer in mode P and torch.float32 is off by" in selftest.run("triton", DEVICE)

    def failing(setting, inputs, plan):
        raise RuntimeError("no kernel image is available\nfor this device")

    monkeypatch.setattr(selftest, "layer", failing)
    assert selftest.run("triton", DEVICE) == "RuntimeError: no kernel image is available"
