"""Layers of images and chains: what they are made of, against PLSTMConv and against themselves."""

from itertools import product

import pytest
import torch

from plstm_graph import PLSTMChain, PLSTMImage
from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.gates import DIRECT_BIAS
from plstm_graph.grid.tracking import bounded, rotation

MODES = ("P", "D", "D-right", "general")


def gates_of(layer: PLSTMImage, x: torch.Tensor):
    _, raw, direct = layer._project(x)
    return layer._gates(raw, direct)


def stir(layer: torch.nn.Module) -> torch.nn.Module:
    """Gates that are open and differ from place to place."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "bias" in name:
                parameter.normal_()
        layer.lin.weight.normal_()
    return layer


@pytest.mark.parametrize(("mode", "states"), [*product(MODES, (1, 2)), ("P-code", 1)])
def test_every_form_gives_the_same_and_every_weight_a_gradient(mode, states):
    layer = stir(PLSTMImage(6, 4, heads=2, mode=mode, states=states, key_channels=3, form="reference")).double()
    x = torch.randn(2, 3, 5, 6).double()
    want = layer(x)
    assert want.shape == (2, 3, 5, 8)
    for form in ("log", "rows", "tiles", "auto"):
        layer.form = form
        torch.testing.assert_close(layer(x), want)
    layer(x).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().amax(-1).min() > 0, name


@pytest.mark.parametrize("states", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_what_leaves_an_edge_never_grows(mode, states):
    """Columns of P and general mode, and single paths of D mode, have norms of at most 1, whatever the weights."""
    layer = stir(PLSTMImage(6, 4, heads=2, mode=mode, states=states)).double()
    with torch.no_grad():
        layer.lin.weight *= 10
    gates = gates_of(layer, torch.randn(2, 3, 5, 6).double()).widened()
    norm = torch.linalg.matrix_norm(gates.transition, 2)
    limit = norm if mode.startswith("D") else norm.sum(-2)
    assert limit.max() <= 1 + 1e-12
    assert limit.max() > 0.99


def test_initial_gates_are_those_of_the_paper():
    layer = PLSTMImage(6, 4, heads=3)
    gates = gates_of(layer, torch.zeros(1, 2, 2, 6))
    angle = torch.sigmoid(torch.tensor([-2.0, 0.0, 2.0]))
    source = torch.sigmoid(torch.tensor(-4.0))
    torch.testing.assert_close(gates.source[0, 1, :, 0, 0], source * torch.stack([angle, 1 - angle], -1))
    torch.testing.assert_close(gates.mark, source.expand_as(gates.mark))
    torch.testing.assert_close(gates.direct, torch.sigmoid(torch.tensor(-6.0)).expand_as(gates.direct))
    torch.testing.assert_close(gates.transition.sum(-2), torch.tensor(5.0).tanh().expand(1, 4, 3, 2, 2, 2))
    assert PLSTMImage(6, 4, mode="D").mode == "D-left"


def test_p_mode_of_the_authors_code_has_no_decay():
    layer = stir(PLSTMImage(6, 4, heads=2, mode="P-code"))
    _, raw, direct = layer._project(torch.randn(1, 3, 5, 6))
    found, ours = layer._gates(raw, direct), PLSTMImage._gates(PLSTMImage(6, 4, heads=2), raw, direct)
    torch.testing.assert_close(found.transition[..., 0, :], ours.transition[..., 0, :])
    torch.testing.assert_close(found.source[..., 0], ours.source[..., 0])
    for gate in (found.transition.sum(-2), found.source.sum(-1)):
        torch.testing.assert_close(gate, torch.ones_like(gate))
    assert (ours.transition.sum(-2) < 0.9).any()
    with pytest.raises(ConfigError, match="has one state an edge, got 2; use mode 'P'"):
        PLSTMImage(6, 4, mode="P-code", states=2)(torch.randn(1, 3, 5, 6))


def test_a_saturating_transition_can_be_one():
    layer = PLSTMChain(6, 4, transition="saturating")
    with torch.no_grad():
        layer.gate_bias[..., 2] = 3.0
    _, raw, _ = layer._project(torch.randn(1, 4, 6))
    assert (layer._transitions(raw["transition"])[0] == 1).all()
    fresh = PLSTMChain(6, 4, heads=3, transition="saturating")
    _, raw, _ = fresh._project(torch.zeros(1, 1, 6))
    source, mark = fresh._sources_and_marks(raw)
    assert (source == 0.5).all()
    assert (mark == 0.5).all()
    torch.testing.assert_close(raw["transition"].flatten(), torch.tensor([0.9, 1.05, 1.2]))


def test_a_flipped_image_with_exchanged_directions_is_the_flipped_output():
    layer = stir(PLSTMImage(6, 4, heads=2, mode="general"))
    other = PLSTMImage(6, 4, heads=2, mode="general")
    other.load_state_dict(layer.state_dict())
    vectors = layer.lin.widths[0]
    with torch.no_grad():  # right-down with left-down, right-up with left-up
        gates = layer.lin.weight[vectors:-2].unflatten(0, (4, -1))
        other.lin.weight[vectors:-2] = gates[[1, 0, 3, 2]].flatten(0, 1)
        other.gate_bias.copy_(layer.gate_bias[[1, 0, 3, 2]])
    x = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(other(x.flip(2)), layer(x).flip(2))


@pytest.mark.parametrize("states", [1, 2])
def test_a_chain_reads_what_stands_before(states):
    layer = stir(PLSTMChain(6, 4, heads=2, states=states)).double()
    x = torch.randn(2, 9, 6).double()
    want = layer(x)
    changed = x.clone()
    changed[:, 5] += 1
    torch.testing.assert_close(layer(changed)[:, :5], want[:, :5])
    assert not torch.isclose(layer(changed)[:, 8], want[:, 8]).any()
    layer.reverse = True
    torch.testing.assert_close(layer(x.flip(1)), want.flip(1))
    with pytest.raises(ConfigError, match="reverse=True"):
        layer.step(x)


def test_one_row_is_a_chain():
    """Of right-down alone: marks of the other directions are closed."""
    row, line = PLSTMImage(6, 4, heads=2, mode="D"), PLSTMChain(6, 4, heads=2)
    vectors = row.lin.widths[0]
    with torch.no_grad():
        line.lin.weight[:vectors] = row.lin.weight[:vectors]
        line.lin.bias.copy_(row.lin.bias)
        for module in (row, line):
            module.lin.weight[vectors:] = 0
        row.gate_bias[1:, :, 2:4] = -100.0  # mark, to the right and down
    x = torch.randn(2, 7, 6)
    torch.testing.assert_close(row(x.unsqueeze(1)).squeeze(1), line(x))


@pytest.mark.parametrize("layer", [PLSTMImage, PLSTMChain])
def test_options_and_shapes(layer):
    places = (3, 5) if layer is PLSTMImage else (5,)
    lazy = layer(-1, 4, heads=2, concat=False, bias=False)
    assert lazy(torch.randn(2, *places, 6)).shape == (2, *places, 4)
    assert lazy.bias is None
    assert repr(layer(6, 4, heads=2)) == f"{layer.__name__}(6, 4, heads=2)"
    with pytest.raises(ShapeError, match="channels stand last"):
        layer(6, 4)(torch.randn(2, 6, *places))
    with pytest.raises(ShapeError, match=r"torch\.int64"):
        layer(6, 4)(torch.zeros(2, *places, 6, dtype=torch.long))
    with pytest.raises(ConfigError, match="did you mean 'log'"):
        layer(6, 4, form="logs")
    with pytest.raises(ConfigError, match="at least 1"):
        layer(6, 4, states=0)
    with pytest.raises(ConfigError, match="saturating"):
        layer(6, 4, transition="relu")


@pytest.mark.parametrize("states", [1, 2, 3])
def test_orthogonal_factors(states):
    eye = torch.eye(states).double().expand(5, states, states)
    found = rotation(torch.randn(5, states * (states - 1) // 2).double(), states)
    torch.testing.assert_close(found @ found.mT, eye)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(5).double())
    values = torch.linspace(-1, 1, states).double().expand(5, states)
    skew = torch.randn(5, states * (states - 1) // 2).double()
    size = torch.linalg.svdvals(bounded(values, skew, 2 * skew))
    torch.testing.assert_close(size, values.abs().sort(-1, descending=True).values)


def test_a_plane_is_turned_as_by_the_exponential_of_a_matrix():
    skew = torch.randn(5, 1).double()
    upper = torch.zeros(5, 2, 2).double()
    upper[:, 0, 1] = skew[:, 0]
    torch.testing.assert_close(rotation(skew, 2), torch.linalg.matrix_exp(upper - upper.mT))


@pytest.mark.parametrize("mode", ["P", "D", "general"])
def test_gates_may_read_slices_or_nothing(mode):
    """A gate feels the channels of its own slice alone, the angle all of them."""
    torch.manual_seed(0)
    layer = PLSTMImage(16, 3, heads=2, mode=mode, gate_inputs="slices").double()
    for weight in layer.slices.parameters():
        torch.nn.init.normal_(weight)
    x = torch.randn(1, 3, 3, 16, dtype=torch.double, requires_grad=True)
    _, parts, direct = layer._project(x)
    for kind, raw in parts.items():
        for direction, head in ((0, 1), (3, 0)):
            (felt,) = torch.autograd.grad(raw[0, direction, head, 1, 2].sum(), x, retain_graph=True)
            channels = felt[0, 1, 2].nonzero().flatten().tolist()
            first = 2 * (direction * 2 + head)  # eight gates share 16 channels
            assert channels == (list(range(16)) if kind == "angle" else [first, first + 1]), (kind, direction, head)
    assert torch.equal(direct, torch.full_like(direct, torch.tensor(DIRECT_BIAS, dtype=torch.double).sigmoid()))
    with pytest.raises(ConfigError, match="multiple of 8"):
        PLSTMImage(12, 3, heads=2, gate_inputs="slices")

    plain = PLSTMImage(16, 3, heads=2, mode=mode, gate_inputs="none").double()
    _, ours, _ = plain._project(x)
    _, theirs, _ = PLSTMImage(16, 3, heads=2, mode=mode, gate_inputs="slices").double()._project(x)
    for kind, raw in ours.items():  # at first slices read nothing either
        assert raw.shape == theirs[kind].shape
        assert torch.equal(raw, theirs[kind]), kind
    plain(x).square().sum().backward()
    assert plain.gate_bias.grad is not None
    assert plain.gate_bias.grad.abs().min() > 0


def test_an_unknown_mode_names_all_that_the_layer_takes() -> None:
    with pytest.raises(ConfigError, match="'X'; choose one of D, P-code, general, P, D-left"):
        PLSTMImage(4, 4, mode="X")


@pytest.mark.parametrize("mode", [*MODES, "P-code"])
def test_each_image_has_gradients_of_its_own_by_vmap(mode) -> None:
    layer = PLSTMImage(6, 4, heads=2, mode=mode).double()
    x, weights = torch.randn(3, 2, 4, 6).double(), dict(layer.named_parameters())

    def loss(weights, x):
        return torch.func.functional_call(layer, weights, (x.unsqueeze(0),)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, x)
    for number, one in enumerate(x):
        own = torch.autograd.grad(loss(weights, one), list(weights.values()))
        torch.testing.assert_close([each[number] for each in found.values()], list(own))


@pytest.mark.parametrize("states", [1, 2])
def test_shapes_without_numbers(states) -> None:
    """On the device ``meta``, as ViT has them, too."""
    with torch.device("meta"):
        assert PLSTMImage(6, 4, states=states)(torch.empty(2, 3, 50, 6)).shape == (2, 3, 50, 4)
        assert PLSTMImage(6, 4, mode="D", states=states)(torch.empty(2, 30, 50, 6)).shape == (2, 30, 50, 4)
        output, state = PLSTMChain(6, 4, states=states).step(torch.empty(2, 300, 6))
    assert (output.shape, state.device.type) == ((2, 300, 4), "meta")
