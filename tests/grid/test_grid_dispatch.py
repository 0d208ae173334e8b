"""What is checked before a form runs, what ``auto`` stands for, and in what dtype forms compute."""

import pytest
import torch
from grid_cases import Case, ChainCase

from plstm_graph.errors import BackendUnavailable, ConfigError, ShapeError
from plstm_graph.grid import FORMS, GridGates, chain, choose_chain_form, choose_form, grid_dag, image, step
from plstm_graph.grid.as_dag import faster
from plstm_graph.grid.compiled import unfit
from plstm_graph.grid.dispatch import COMPILED
from plstm_graph.grid.gates import MODES
from plstm_graph.ops.dispatch import compiled_backend

GIB = 2**30


@pytest.mark.parametrize(
    ("facts", "want"),
    [
        (("cpu", 144, 2**20, "P"), "log"),
        (("cpu", 144, 2**20, "general"), "log"),
        (("cpu", 144, 2**20, "D-left"), "closed"),
        (("cpu", 144, 2**20, "D-right"), "closed"),
        (("cpu", 1024, 2**20, "D-left"), "tiles"),
        (("cuda", 1024, 2**20, "P"), "log"),
        (("cuda", 1024, 4 * GIB, "P"), "tiles"),
        (("cuda", 2**18, 2**40, "D-left"), "tiles"),
        (("xpu", 401, 2**20, "P"), "tiles"),
        (("cuda", 144, 2**20, "P", "kernels"), "kernels"),
        (("cpu", 1024, 2**20, "P", "loops", True), "propagate"),
    ],
)
def test_auto_for_images(facts, want):
    assert choose_form(*facts) == want


@pytest.mark.parametrize(("facts", "want"), [((256,), "log"), ((257,), "chunks"), ((9, "kernels"), "kernels")])
def test_auto_for_chains(facts, want):
    assert choose_chain_form(*facts) == want


def test_auto_takes_what_the_rule_says(monkeypatch):
    called = []
    case = Case(4, 5, "D-left")
    rule = choose_form("cpu", 20, 1, "D-left")
    monkeypatch.setattr("plstm_graph.grid.dispatch.COMPILED", {})
    right = FORMS[rule]
    monkeypatch.setitem(FORMS, rule, lambda *inputs: called.append(rule) or right(*inputs))
    image(*case.inputs())
    assert called == [rule]


@pytest.mark.parametrize(
    ("pixels", "state", "want"),
    [(1024, 1024, True), (576, 1024, False), (512, 9, False), (4096, 4096, False), (2**17, 256, False)],
)
def test_edges_are_faster_for_large_images_of_narrow_heads(pixels, state, want):
    assert faster(pixels, state) == want


def test_auto_goes_edge_by_edge_where_that_is_faster(monkeypatch):
    called = []
    right = FORMS["propagate"]
    monkeypatch.setitem(FORMS, "propagate", lambda *inputs: called.append(1) or right(*inputs))
    image(*Case(2, 257, "P", images=1, heads=1).inputs(torch.float32))
    image(*Case(2, 256, "P", images=1, heads=1).inputs(torch.float32))
    image(*Case(2, 257, "P", states=2, images=1, heads=1).inputs(torch.float32))
    assert len(called) == int(compiled_backend("auto", torch.device("cpu")) is not None)


@pytest.mark.parametrize(
    ("rows", "columns", "asked", "unasked"),
    [
        (32, 32, "triton", "triton"),
        (50, 32, "triton", "triton"),
        (51, 32, "triton", "triton_tiles"),
        (2, 33, "triton", "triton_tiles"),
        (64, 64, "triton", "triton_tiles"),
        (2, 65, "triton_tiles", "triton_tiles"),
    ],
)
def test_auto_takes_tiles_before_columns_take_minutes_to_compile(rows, columns, asked, unasked):
    vector, gate = torch.empty(1, 1, rows, columns, 8, device="meta"), torch.empty(0, device="meta")
    gates = GridGates(gate, gate, gate, gate, "P")._replace(transition=torch.empty(1, 4, 1, rows, columns, 2, 2))

    def first(unasked):
        return next(form for form in COMPILED["cuda"] if not unfit(form, vector, vector, gates, unasked=unasked))

    assert (first(False), first(True)) == (asked, unasked)


def test_what_does_not_fit_is_refused():
    query, key, value, gates = Case(4, 5, "general").inputs()
    with pytest.raises(ShapeError, match=r"value \[B, H, Y, X, V\]"):
        image(query, key, value[0], gates)
    with pytest.raises(ShapeError, match=r"gate mark must be \[2, 4, 2, 4, 5, 2\]"):
        image(query, key, value, gates._replace(mark=gates.mark[..., 0]))
    with pytest.raises(ShapeError, match="at least 1"):
        image(*(x[:, :, :0] for x in (query, key, value)), gates)
    with pytest.raises(ConfigError, match="did you mean 'tiles'"):
        image(query, key, value, gates, form="tile")
    with pytest.raises(BackendUnavailable, match="'general'; use 'log'"):
        image(query, key, value, gates, form="closed")
    with pytest.raises(ConfigError, match="did you mean 'left-up'"):
        grid_dag(2, 2, "left_up")
    with pytest.raises(ShapeError, match=r"value must be floating point, got torch\.int64"):
        image(query, key, value.long(), gates)
    with pytest.raises(ShapeError, match="gates must be a GridGates, got tuple; p_gates, d_gates and general_gates"):
        image(query, key, value, tuple(gates))


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "general"])
def test_a_promise_that_is_not_kept_is_refused(mode):
    query, key, value, gates = Case(2, 3, "general").inputs()
    with pytest.raises(ShapeError, match=f"not of mode '{mode}'"):
        image(query, key, value, gates._replace(mode=mode))
    with pytest.raises(ConfigError, match="unknown mode"):
        image(query, key, value, gates._replace(mode="Q"))


def test_a_line_graph_of_another_grid_is_refused():
    """As many pixels, at other places."""
    query, _, _, gates = Case(4, 5, "general", images=1).inputs()
    for dag in (grid_dag(5, 4), grid_dag(4, 3), grid_dag(4, 5, images=2)):
        for call, given in ((dag.nodes, query), (dag.gates, gates)):
            with pytest.raises(ShapeError, match=r"\(images, rows, columns\) .*, the tensor of \(1, 4, 5\)"):
                call(given)
    with pytest.raises(ShapeError, match="at least 0, got -1, 2 and 1"):
        grid_dag(-1, 2)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_no_number_breaks_no_promise(mode):
    """A training that diverges says so itself."""
    query, key, value, gates = Case(2, 3, mode).inputs()
    nothing = gates.transition.masked_fill(gates.transition != 0, torch.nan)
    assert image(query, key, value, gates._replace(transition=nothing)).isnan().any()


def test_what_does_not_fit_a_chain_is_refused():
    query, key, value, gates = ChainCase(3).inputs()
    with pytest.raises(ShapeError, match=r"state must be \[2, 2, 3, 2\]"):
        chain(query, key, value, gates, state=torch.zeros(2, 2, 1, 3, 2))
    with pytest.raises(ShapeError, match=r"gate transition must be \[2, 2, 3\]"):
        chain(query, key, value, gates._replace(transition=gates.transition[..., None]))
    with pytest.raises(ShapeError, match="several at a time are for chain"):
        step(query, key, value, gates)
    with pytest.raises(ShapeError, match=r"value must be floating point, got torch\.int64"):
        chain(query, key, value.long(), gates)
    for call in (chain, step):
        with pytest.raises(ShapeError, match="gates must be a ChainGates, got tuple"):
            call(query, key, value, tuple(gates))


def test_matrices_beyond_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr("plstm_graph.grid.matrix.MAX_BYTES", 10)
    with pytest.raises(BackendUnavailable, match="use form='tiles'"):
        image(*Case(2, 2, "P").inputs(), form="log")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    case = Case(3, 4, "P")
    half = image(*case.inputs(dtype), form="tiles")
    assert half.dtype == dtype
    rounded = image(*(x.float() if torch.is_tensor(x) else x for x in case.inputs(dtype)[:3]), _floats(case, dtype))
    torch.testing.assert_close(half, rounded.to(dtype))


def _floats(case, dtype):
    gates = case.inputs(dtype)[3]
    return gates.changed(torch.Tensor.float)._replace(direct=gates.direct.float())


@pytest.mark.parametrize("states", [1, 2])
def test_steps_are_the_chain(states):
    query, key, value, gates = ChainCase(6, states).inputs()
    want, end = chain(query, key, value, gates, form="chunks")
    state, found = None, []
    for t in range(6):
        token = type(gates)(*(gate[:, :, t] for gate in gates))
        output, state = step(query[:, :, t], key[:, :, t], value[:, :, t], token, state)
        found.append(output)
    torch.testing.assert_close(torch.stack(found, 2), want)
    torch.testing.assert_close(state, end)
