"""What a layer is given: dtypes are named where PyTorch would fail on them, and only there."""

from collections.abc import Callable
from contextlib import suppress
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from plstm_graph import PLSTM, LineDAG, PLSTMBlock, PLSTMChain, PLSTMConv, PLSTMImage, PLSTMVision
from plstm_graph.errors import BackendUnavailable, ConfigError, ShapeError
from plstm_graph.nn.checked import CAST, check_dtype
from plstm_graph.nn.dagnn import DAGNN
from plstm_graph.nn.onehop import LOCALS

EDGE_INDEX = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
X, EDGES = torch.randn(3, 4), torch.randn(4, 3)


def fails(call: Callable[..., object], *given: object) -> bool:
    with suppress(RuntimeError, ShapeError):
        call(*given)
        return False
    return True


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("given", "own"), list(product((*CAST, torch.int64), CAST)))
def test_refused_is_what_a_product_fails_on(given: torch.dtype, own: torch.dtype, autocast: bool, device: str) -> None:
    linear, x = nn.Linear(4, 2, bias=False, dtype=own, device=device), torch.ones(3, 4, dtype=given, device=device)
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        assert fails(check_dtype, "x", x, linear) == fails(F.linear, x, linear.weight)


LAYERS: dict[str, tuple[nn.Module, Callable[[nn.Module, torch.dtype], Tensor]]] = {
    "conv": (PLSTMConv(4, 2), lambda layer, dtype: layer(X.to(dtype), EDGE_INDEX)),
    "conv, edges": (PLSTMConv(4, 2, edge_dim=3), lambda layer, dtype: layer(X, EDGE_INDEX, EDGES.to(dtype))),
    "block": (PLSTMBlock(4, 2), lambda layer, dtype: layer(X.to(dtype), EDGE_INDEX)),
    "block, edges": (PLSTMBlock(4, 2, edge_dim=3), lambda layer, dtype: layer(X, EDGE_INDEX, EDGES.to(dtype))),
    "stack": (PLSTM(4, 4, 1, heads=2), lambda layer, dtype: layer(X.to(dtype), EDGE_INDEX)),
    "stack, edges": (
        PLSTM(4, 4, 1, heads=2, edge_dim=3),
        lambda layer, dtype: layer(X, EDGE_INDEX, edge_attr=EDGES.to(dtype)),
    ),
    "image": (PLSTMImage(4, 2), lambda layer, dtype: layer(torch.randn(1, 2, 2, 4, dtype=dtype))),
    "chain": (PLSTMChain(4, 2), lambda layer, dtype: layer(torch.randn(1, 2, 4, dtype=dtype))),
    "vision": (
        PLSTMVision(2, width=16, heads=4, layers=1, image_size=16, patch_size=8),
        lambda layer, dtype: layer(torch.randn(1, 3, 16, 16).to(dtype)),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_names_what_it_takes(name: str) -> None:
    layer, call = LAYERS[name]
    with pytest.raises(
        ShapeError, match=r"must be torch.float32, as the weights that read it, got torch.float64; call "
    ):
        call(layer, torch.float64)
    assert call(layer, torch.float32).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert call(layer, torch.bfloat16).isfinite().all()
        with pytest.raises(ShapeError, match=r"got torch.float64"):
            call(layer, torch.float64)


def test_a_stack_names_a_wrong_width_and_whole_numbers() -> None:
    stack = PLSTM(4, 4, 1, heads=2)
    with pytest.raises(ShapeError, match=r"x must be \[N, 4\], got \[3, 3\]"):
        stack(X[:, 1:], EDGE_INDEX)
    with pytest.raises(ShapeError, match=r"floating point, got torch.int64; embed whole numbers first"):
        stack(X.long(), EDGE_INDEX)
    with pytest.raises(ShapeError, match=r"edge_attr must be floating point, \[M, 3\], got torch.float32, \[4, 2\]"):
        PLSTM(4, 4, 1, heads=2, edge_dim=3)(X, EDGE_INDEX, edge_attr=EDGES[:, 1:])


def test_a_lazy_layer_names_a_wrong_width_once_it_has_its_own() -> None:
    conv, image = PLSTMConv(-1, 4, edge_dim=-1), PLSTMImage(-1, 4)
    conv(X, EDGE_INDEX, EDGES)
    image(torch.randn(1, 2, 3, 5))
    with pytest.raises(ShapeError, match=r"x must be \[N, 4\], got \[3, 3\]"):
        conv(X[:, 1:], EDGE_INDEX, EDGES)
    with pytest.raises(ShapeError, match=r"\[M, 3\], got torch.float32, \[4, 2\]"):
        conv(X, EDGE_INDEX, EDGES[:, 1:])
    with pytest.raises(ShapeError, match=r"\[B, Y, X, 5\], got torch.float32, \[1, 2, 3, 6\]; channels stand last"):
        image(torch.randn(1, 2, 3, 6))


@pytest.mark.parametrize("layer", [PLSTMConv, PLSTMImage, PLSTMChain])
def test_a_width_of_zero_is_not_taken_for_none(layer: type[nn.Module]) -> None:
    with pytest.raises(ConfigError, match="key_channels must be at least 1, got 0"):
        layer(4, 4, key_channels=0)


def test_what_is_no_tensor_is_named() -> None:
    chain, x = PLSTMChain(4, 4), torch.randn(1, 2, 4)
    with pytest.raises(ShapeError, match=r"x must be a tensor \[B, n, 4\], got ndarray"):
        chain(x.numpy())
    with pytest.raises(ShapeError, match=r"state must be \[1, 1, 4, 4\] for these values and gates, got tuple"):
        chain.step(x, chain.step(x))


def test_only_a_pair_or_types_of_nodes_are_told_of_one_graph() -> None:
    with pytest.raises(ShapeError, match=r"got dict; pLSTM reads one graph"):
        PLSTM(4, 4, 1, heads=2)({"a": X}, EDGE_INDEX)
    for wrong in (None, X.numpy()):
        with pytest.raises(ShapeError, match=rf"x must be a tensor \[N, in_channels\], got {type(wrong).__name__}$"):
            PLSTM(4, 4, 1, heads=2)(wrong, EDGE_INDEX)


@pytest.mark.parametrize("local", sorted(set(LOCALS) - {"none"}))
def test_edge_features_that_a_local_branch_lacks_are_named(local: str) -> None:
    stack = PLSTM(4, 4, 1, heads=2, edge_dim=3, local=local)
    if local in ("gcn", "gat"):
        assert stack(X, EDGE_INDEX).isfinite().all()
    else:
        with pytest.raises(
            ShapeError, match=r"edge_attr \[M, 3\] is missing, which the local branch reads; pass it, or"
        ):
            stack(X, EDGE_INDEX)


def test_a_weight_that_is_replaced_is_not_looked_at() -> None:
    """It may read what it is given in its own way, as one that is quantised does."""

    class Wide(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros(3, 6), torch.zeros(3, 8)

    conv = PLSTMConv(4, 2)
    conv.lin = Wide()
    assert conv(X.double(), EDGE_INDEX).shape == (3, 2)
    check_dtype("x", X.double(), parametrizations.weight_norm(nn.Linear(4, 2)))


@pytest.mark.parametrize("wrong", ["x", EDGE_INDEX, 1, True], ids=lambda wrong: type(wrong).__name__)
def test_a_dag_that_is_none_is_named(wrong: object) -> None:
    said = f"dag must be a LineDAG, got {type(wrong).__name__}; make one with LineDAG.from_edge_index"
    for layer in (PLSTMConv(4, 2), PLSTMBlock(4, 2), PLSTM(4, 8, 1)):
        with pytest.raises(ShapeError, match=said):
            layer(X, EDGE_INDEX, dag=wrong)
    with pytest.raises(ShapeError, match=said):
        DAGNN(4, 8, 1)(X, wrong)


OF_GRAPHS = [lambda: PLSTMConv(4, 2), lambda: PLSTMBlock(4, 2), lambda: PLSTM(4, 8, 1)]


@pytest.mark.parametrize("make", OF_GRAPHS)
def test_what_a_batch_makes_of_line_graphs_is_told_how_to_be_joined(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ShapeError, match=r"got list; join them with LineDAG.collate\(dags\)"):
        make()(X, EDGE_INDEX, dag=[LineDAG.from_edge_index(EDGE_INDEX, 3)])


@pytest.mark.parametrize("width", [1, 3])
def test_edge_features_nobody_announced_name_their_width(width: int) -> None:
    """With a width of 1 they may be weights, which stand third in calls of GCNConv."""
    edge_attr = torch.ones(4) if width == 1 else EDGES
    for backend in ("auto", "scatter"):
        with pytest.raises(ConfigError, match=f"give it edge_dim={width}, or leave edge_attr out"):
            PLSTMConv(4, 2, backend=backend)(X, EDGE_INDEX, edge_attr)


@pytest.mark.parametrize("make", OF_GRAPHS)
def test_graphs_on_meta_are_refused_in_words(make: Callable[[], nn.Module]) -> None:
    layer, x = make().to("meta"), X.to("meta")
    for mode in ("", "P", "PD"):
        dag = LineDAG.from_edge_index(EDGE_INDEX, 3).prepare(mode) if mode else None
        dag = dag if dag is None else dag.to("meta")
        with pytest.raises(ShapeError, match="on meta, where tensors hold no numbers"):
            layer(x, EDGE_INDEX.to("meta") if dag is None else None, dag=dag)


@pytest.mark.parametrize("make", OF_GRAPHS)
def test_a_map_over_graphs_says_what_to_do(make: Callable[[], nn.Module]) -> None:
    layer = make().eval()
    with pytest.raises(ShapeError, match="put the graphs side by side, as PyG's Batch does, or map over x"):
        torch.func.vmap(lambda edge_index: layer(X, edge_index))(torch.stack([EDGE_INDEX, EDGE_INDEX]))
    found = torch.func.vmap(lambda x: layer(x, EDGE_INDEX))(torch.stack([X, 2 * X]))
    torch.testing.assert_close(found[1], layer(2 * X, EDGE_INDEX))


@pytest.mark.parametrize("make", OF_GRAPHS)
def test_torch_script_says_what_else_there_is(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(BackendUnavailable, match=r"use torch.compile, or torch.export with a prepared dag"):
        torch.jit.script(nn.ModuleList([make()]))
