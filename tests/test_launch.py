"""What is compiled once is started again with plain numbers, as Triton's launcher takes them."""

from contextlib import nullcontext

import pytest
import torch

launching = pytest.importorskip("plstm_graph.launch")


class Kernel:
    """Stands for one that Triton compiles: notes how it is called, and how what comes of it is started."""

    def __init__(self) -> None:
        self.calls, self.fn, self.function, self.packed_metadata = [], object(), "function", "metadata"

    def __getitem__(self, grid):
        return lambda *given, **how: self.calls.append(("compiled", grid, given, how)) or self

    def warmup(self, *given, grid, **how):
        self.calls.append(("only compiled", grid, given, how))

    def run(self, *given):
        self.calls.append(("started", given))


@pytest.fixture
def kernel(monkeypatch) -> Kernel:
    monkeypatch.setattr(launching, "INTERPRETED", False)
    monkeypatch.setattr(launching, "_compiled", {})
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: None, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda _: "stream", raising=False)
    return Kernel()


@pytest.mark.parametrize("first_is_a_place", [True, False])
def test_places_and_tensors_become_pointers(kernel, first_is_a_place):
    whole = torch.arange(32, dtype=torch.float32)
    place, other = launching.At(whole, 8), torch.zeros(3, dtype=torch.long)
    tensors = (place, other) if first_is_a_place else (other, place)
    for _ in range(2):
        launching.launch(kernel, (5, 2), tensors, (), (7, 9), ("C",), (("num_warps", 4),))
    (compiled, grid, given, how), (started, again) = kernel.calls
    assert (compiled, grid, how) == ("compiled", (5, 2), {"num_stages": 1, "num_warps": 4})
    assert given[tensors.index(place)].tolist() == list(range(8, 32))
    assert given[2:] == (7, 9, "C")
    pointers = {place: whole.data_ptr() + 32, other: other.data_ptr()}
    assert started == "started"
    assert again[:9] == (5, 2, 1, "stream", "function", "metadata", None, None, None)
    assert again[9:] == (*(pointers[x] for x in tensors), 7, 9, "C")


def test_what_was_compiled_otherwise_is_compiled_anew(kernel):
    whole = torch.zeros(32)
    given = [
        (launching.At(whole, 0), 1),
        (launching.At(whole, 1), 1),  # aligned to 4 bytes
        (launching.At(whole.long(), 0), 1),
        (launching.At(whole, 0), 2),
    ]
    for _ in range(2):
        for place, constant in given:
            launching.launch(kernel, (1,), (place,), (), (), (constant,), ())
    assert [call[0] for call in kernel.calls] == 4 * ["compiled"] + 4 * ["started"]


def test_compiled_only_starts_nothing(kernel):
    given = kernel, (1,), (torch.zeros(1),), (), (), (), ()
    with launching.compiled_only():
        launching.launch(*given)
        launching.launch(*given)
    for _ in range(2):
        launching.launch(*given)
    assert [call[0] for call in kernel.calls] == 2 * ["only compiled"] + ["compiled", "started"]


@pytest.mark.parametrize(
    ("strides", "itemsize", "found"),
    [([64, 0, 8], 2, ([8, 0, 1], 8)), ([64, 12], 2, ([64, 12], 1)), ([64, 12], 4, ([16, 3], 4)), ([3], 8, ([3], 1))],
)
def test_strides_are_told_in_units_of_sixteen_bytes_where_all_are_multiples(strides, itemsize, found):
    assert launching.in_units(strides, itemsize) == found
