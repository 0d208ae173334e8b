"""The kernels of an image against the reference: output and every gradient, element by element."""

from functools import partial

import pytest
import torch
from grid_cases import MAKERS, Case, close

from plstm_graph.errors import BackendUnavailable
from plstm_graph.grid import image, reference

pytest.importorskip("triton")
from plstm_graph.grid.triton import images, large

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# One block of sources, of a power of two of columns or not; two, of which the second begins within a row; and on a GPU
# wider than 32 columns.
ON_GPU = torch.cuda.is_available()
SIZES = ((1, 1), (2, 4), (2, 7), (9, 4)) if ON_GPU else ((1, 1), (2, 2), (2, 3), (3, 3))
WIDER = ((24, 20), (12, 40)) if ON_GPU else ()
MORE_TILES = (("P", (20, 9)), ("general", (17, 70))) if ON_GPU else ()


def by_kernels(*inputs, form="triton"):
    """On the device that has them."""
    gates = inputs[3]._replace(**{name: getattr(inputs[3], name).to(DEVICE) for name in inputs[3]._fields[:4]})
    return image(*(x.to(DEVICE) for x in inputs[:3]), gates, form=form).cpu()


in_tiles = partial(by_kernels, form="triton_tiles")


@pytest.mark.parametrize("size", SIZES + WIDER, ids=str)
@pytest.mark.parametrize("mode", MAKERS)
def test_kernels_are_the_reference(size, mode, monkeypatch):
    if not ON_GPU:  # the interpreter takes long for each pixel
        monkeypatch.setattr(images, "LANES", (8, 64))
    case = Case(*size, mode, images=1, heads=1 if size[0] > 2 else 2)
    close(case.outcome(by_kernels), case.outcome(reference.image))


@pytest.mark.parametrize("mode", ["P", "D-right"])
def test_images_one_after_the_other_where_matrices_take_much_room(mode, monkeypatch):
    monkeypatch.setattr(images, "ROOM", 1)
    case = Case(2, 3, mode, heads=1)
    close(case.outcome(by_kernels), case.outcome(reference.image))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.02)])
def test_other_dtypes(dtype, tolerance):
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16 as if they were whole numbers")
    case = Case(2, 4, "P", images=1)
    close(case.outcome(by_kernels, dtype), case.outcome(reference.image), tolerance)


def test_what_comes_down_keeps_its_digits():
    """Where nearly all of what leaves a pixel goes to the right, the little that goes down is no difference of sums."""
    case = Case(3, 2, "P", images=1, heads=1)
    case.parts[0] = 0.4 + 0.2 * case.parts[0]
    case.parts[0][:, :, :, 0, 1] = 1 - 1e-6

    def of_marks(run, dtype):
        query, key, value, gates = case.inputs(dtype)
        mark = gates.mark.detach().requires_grad_()
        weight = torch.linspace(0.5, 1, value.numel(), dtype=torch.float64).view(value.shape).to(dtype)
        return torch.autograd.grad(run(query, key, value, gates._replace(mark=mark)), mark, weight)[0].double()

    rounded = [x.float().double() for x in case.leaves()]
    case.query, case.key, case.value, case.direct, case.source, case.mark, *case.parts = rounded
    torch.testing.assert_close(
        of_marks(by_kernels, torch.float32), of_marks(reference.image, torch.float64), rtol=2e-6, atol=0
    )


def test_the_same_bits_again():
    case = Case(2, 3, "general", images=1, heads=1)
    first, second = case.outcome(by_kernels, torch.float32), case.outcome(by_kernels, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def small_tiles(monkeypatch):
    """The interpreter takes long for each pixel of a tile, and tiles of any size."""
    if DEVICE == "cpu":
        monkeypatch.setattr(large, "SIDE", 2)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(("mode", "size"), [("general", (3, 5)), ("P", (1, 3)), ("D-right", (4, 2)), *MORE_TILES])
def test_tiles_are_the_reference(mode, size):
    case = Case(*size, mode, images=1, heads=1)
    close(case.outcome(in_tiles), case.outcome(reference.image))


@pytest.mark.usefixtures("small_tiles")
def test_tiles_of_images_one_after_the_other_and_more_rows_of_states_than_go_at_once(monkeypatch):
    monkeypatch.setattr(large, "ROOM", 1)
    monkeypatch.setattr(large, "ROWS", 2)
    monkeypatch.setattr(large, "GROUPS", 1)
    case = Case(2, 3, "general", images=2, heads=1)
    close(case.outcome(in_tiles), case.outcome(reference.image))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 0.02)])
def test_tiles_in_other_dtypes(dtype, tolerance):
    case = Case(2, 3, "P", images=1, heads=1)
    first = case.outcome(in_tiles, dtype)
    close(first, case.outcome(reference.image), tolerance)
    if DEVICE == "cuda":
        assert all(torch.equal(a, b) for a, b in zip(first, case.outcome(in_tiles, dtype), strict=True))


def test_strided_vectors():
    """As they come out of a linear map, with heads behind the pixels."""
    query, key, value, gates = Case(3, 5, "D-left").inputs()
    apart = (x.permute(0, 2, 3, 1, 4).contiguous().permute(0, 3, 1, 2, 4) for x in (query, key, value))
    close([by_kernels(*apart, gates).detach()], [reference.image(query, key, value, gates).detach()])


DTYPES = ((torch.float64, 1e-10), (torch.float32, 1e-5), (torch.float16, 0.02))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("form", "dtype", "tolerance"),
    [("triton", *each) for each in DTYPES]
    + [("triton_tiles", *each) for each in DTYPES[:: 1 if DEVICE == "cuda" else 2]],
)
def test_vectors_of_which_a_thread_reads_sixteen_bytes(form, dtype, tolerance):
    """Parts of one map, whose strides are multiples of that."""
    case = Case(2, 3, "D-left", images=2, heads=1, widths=(8, 16))

    def joined(*inputs):
        whole = torch.cat(inputs[:3], -1).to(DEVICE)
        return by_kernels(*whole.split([8, 8, 16], -1), inputs[3], form=form)

    close(case.outcome(joined, dtype), case.outcome(reference.image), tolerance)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("form", ["triton", "triton_tiles"])
def test_second_derivatives_are_refused_and_not_left_out(form):
    query, key, value, gates = Case(1, 2, "P", images=1, heads=1).inputs()
    direct = gates.direct.detach().to(DEVICE)

    def cubed(direct):
        return by_kernels(query, key, value, gates._replace(direct=direct), form=form).pow(3).sum()

    with pytest.raises(RuntimeError, match="compiled forms have no second derivatives; use form='tiles'"):
        torch.autograd.functional.hvp(cubed, direct, direct)


def test_what_they_cannot_do_is_refused():
    run = partial(image, form="triton")
    with pytest.raises(BackendUnavailable, match="up to 64 columns, this one has 65; use form='triton_tiles'"):
        run(*Case(1, 65, "P").inputs())
    with pytest.raises(BackendUnavailable, match="up to 4096 pixels, this one has 4160"):
        run(*Case(65, 64, "P", images=1, heads=1).inputs())
    with pytest.raises(BackendUnavailable, match="one state an edge"):
        run(*Case(2, 2, "P", states=2).inputs())
    query, key, value, gates = Case(2, 2, "P").inputs()
    with pytest.raises(BackendUnavailable, match="K and V of up to 128"):
        run(query, key, value.repeat(1, 1, 1, 1, 70), gates)


MORE_COMPILED = ("D-right", "triton"), ("P", "triton_tiles")
ON_A_GPU = pytest.mark.skipif(not ON_GPU, reason="half a minute under the interpreter")


@pytest.mark.parametrize(
    ("mode", "form"), [("P", "triton"), *(pytest.param(*each, marks=ON_A_GPU) for each in MORE_COMPILED)]
)
def test_torch_compile_sees_one_op(mode, form):
    """Of known shapes and strides, with the same numbers and gradients."""
    case = Case(2, 2, mode, images=1)
    query, key, value, gates = case.inputs()
    inputs = [x.detach().to(DEVICE).requires_grad_() for x in (query, key, value, *gates[:4])]
    if form == "triton":  # the ops and their shapes are the same in tiles, which the interpreter takes seconds for
        torch.library.opcheck(
            torch.ops.plstm_graph.image.default,
            (*inputs, gates.mode, form),
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )
        torch.library.opcheck(
            torch.ops.plstm_graph.image_backward.default,
            (torch.ones_like(inputs[2]).detach(), *(x.detach() for x in inputs), gates.mode, form),
            test_utils=("test_schema", "test_faketensor"),
        )

    def whole(*tensors):
        return image(*tensors[:3], gates._replace(**dict(zip(gates._fields[:4], tensors[3:], strict=True))), form=form)

    compiled = torch.compile(whole, fullgraph=True, backend="aot_eager")
    want, found = whole(*inputs), compiled(*inputs)
    close([found.detach().cpu()], [want.detach().cpu()])
    seed = torch.randn_like(want)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, seed), torch.autograd.grad(want, inputs, seed), strict=True
    ):
        close([ours.cpu()], [theirs.cpu()])
