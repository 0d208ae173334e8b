"""Batch norms over some of the rows: PyTorch's own on those rows, and nothing on the others."""

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import BatchNorm

from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.nn.counted import batch_norm, counted, told
from plstm_graph.nn.norm import norm_layer
from plstm_graph.nn.virtual import VirtualNode

ROWS, REAL, CHANNELS = 30, 21, 5


def rows(dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """Features far from their mean, with what must not be looked at in between, and the rows that count."""
    x = 3 * torch.randn(ROWS, CHANNELS, dtype=torch.float64) + 7
    counts = torch.zeros(ROWS, dtype=torch.bool)
    counts[torch.randperm(ROWS)[:REAL]] = True
    x[~counts] = torch.tensor([float("inf"), float("nan"), 1e30]).double().repeat(3).unsqueeze(1)
    return x.to(device, dtype), counts.to(device)


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str
)
def test_it_is_the_norm_of_those_rows(options: dict[str, object], device: str) -> None:
    x, counts = rows(torch.float64, device)
    pair = [nn.BatchNorm1d(CHANNELS, dtype=torch.float64, device=device, **options) for _ in range(2)]  # type: ignore[arg-type]
    one, two = pair
    for _ in range(3):
        few, all = x[counts].requires_grad_(), x.clone().requires_grad_()
        want, got = one(few), batch_norm(two, all, counts)
        grad = torch.zeros_like(got)
        grad[counts] = torch.randn_like(want)
        want.backward(grad[counts])
        got.backward(grad)
        torch.testing.assert_close(got[counts], want, rtol=0, atol=1e-12)
        torch.testing.assert_close(all.grad[counts], few.grad, rtol=0, atol=1e-12)
        assert not all.grad[~counts].any()
        assert got.isfinite().all()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value, rtol=0, atol=1e-12)
    for weight, other in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(other.grad, weight.grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype, device: str) -> None:
    x, counts = rows(dtype, device)
    norm = nn.BatchNorm1d(CHANNELS, device=device)
    got = batch_norm(norm, x, counts)
    assert got.dtype == dtype
    want = nn.BatchNorm1d(CHANNELS, device=device)(x[counts].float())
    torch.testing.assert_close(got[counts].float(), want, rtol=1e-2, atol=1e-2)
    assert norm.running_mean is not None
    assert norm.running_mean.dtype == torch.float32


def test_one_row_that_counts_is_no_error() -> None:
    norm = nn.BatchNorm1d(CHANNELS)
    x, counts = torch.randn(3, CHANNELS), torch.tensor([False, True, False])
    assert batch_norm(norm, x, counts).isfinite().all()
    assert torch.stack(list(norm.buffers())[:2]).isfinite().all()


def test_of_no_row_nothing_is_learnt() -> None:
    """As of the edges of a batch of single atoms."""
    for momentum in (0.1, None):
        norm = nn.BatchNorm1d(CHANNELS, momentum=momentum)
        before = {name: value.clone() for name, value in norm.state_dict().items()}
        assert batch_norm(norm, torch.randn(3, CHANNELS), torch.zeros(3, dtype=torch.bool)).isfinite().all()
        assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_columns_that_are_read_both_ways_count_twice() -> None:
    x, columns = torch.randn(2 * ROWS, CHANNELS), torch.arange(ROWS) < REAL
    model = nn.Sequential(norm_layer("batch", CHANNELS, rows="columns"))
    twice = columns.repeat(2)
    with counted(model, columns=columns):
        got = model(x)[twice]
    torch.testing.assert_close(got, model(x[twice]))


def test_a_model_has_its_norms_back_afterwards() -> None:
    model = nn.Sequential(BatchNorm(CHANNELS), nn.Linear(CHANNELS, CHANNELS), nn.BatchNorm1d(CHANNELS))
    x, counts = torch.randn(ROWS, CHANNELS), torch.arange(ROWS) < REAL
    with counted(model, nodes=counts):
        some = model(x)
        assert not torch.allclose(some[counts], model(x.roll(1, 0))[counts])
    torch.testing.assert_close(some[counts], model(x[counts]))
    with pytest.raises(ZeroDivisionError), counted(model, nodes=counts):
        raise ZeroDivisionError
    assert all("forward" not in vars(module) for module in model.modules())
    model.eval()
    want = model(x)
    with counted(model, nodes=counts):
        torch.testing.assert_close(model(x), want)


def test_a_norm_is_told_what_its_rows_are() -> None:
    """It does not go by lengths: here there are as many nodes as graphs and columns."""
    x, nodes = torch.randn(ROWS, CHANNELS), torch.arange(ROWS) < REAL
    counts = {"nodes": nodes, "columns": nodes.flip(0), "graphs": nodes.roll(3)}
    for rows, mask in counts.items():
        model = nn.Sequential(norm_layer("batch", CHANNELS, rows=rows))
        with counted(model, **counts):
            got = model(x)[mask]
        torch.testing.assert_close(got, model(x[mask]))
    virtual = VirtualNode(CHANNELS, 2)
    with counted(virtual, nodes=nodes, columns=nodes, graphs=nodes[:3]):
        state = virtual.update(0, x, virtual.start(None, 1).expand(3, -1), torch.arange(ROWS) % 3)
    assert state.shape == (3, CHANNELS)
    text = "a batch norm of 30 nodes was given 29 rows; what its rows are is said by plstm_graph.nn.counted.told"
    norm = nn.BatchNorm1d(CHANNELS)
    with counted(norm, nodes=nodes), pytest.raises(ShapeError, match=text):
        norm(x[1:])
    with pytest.raises(ConfigError, match="unknown rows 'atoms'; choose one of nodes"):
        told(norm, "atoms")
