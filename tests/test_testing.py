"""The oracle and the harness themselves; that the laws can fail is shown by the mutants."""

import pytest
import torch

from plstm_graph import Gates, LineDAG
from plstm_graph.errors import BackendUnavailable, ConfigError, ShapeError
from plstm_graph.ops import BACKENDS, reference
from plstm_graph.testing import (
    DAGS,
    LAWS,
    NAMES,
    TOLERANCE,
    Inputs,
    cases,
    check_backend,
    grid_dag,
    path_counts,
    path_sum,
    random_dag,
    random_inputs,
)


def test_path_sum_by_hand():
    # 0 -> 1 -> 2 and 0 -> 2: edges (0,1), (0,2), (1,2); one pair (0, 2)
    dag = LineDAG.from_edge_index(torch.tensor([[0, 1, 0], [1, 2, 2]]))
    gates = Gates(*(torch.tensor(g).view(-1, 1) for g in ([2.0, 3, 5], [7.0], [11.0, 13, 17], [1.0, 0, 0])))
    one = torch.ones(3, 1, 1)
    value = torch.tensor([1.0, 100, 0]).view(3, 1, 1)
    # y1 = 2*11; y2 = 3*13 (straight) + 2*7*17 (through 1) + 5*17*100 (from 1); y0 = direct
    output = path_sum(2 * one, one, value, gates, dag).flatten().tolist()
    assert output == [2, 2 * 22, 2 * (39 + 238 + 8500)]


def test_path_sum_lists_every_path():
    """With all gates, keys and values at 1 it counts the paths that end in a node, with the one of no edge."""
    dag = grid_dag(3, 3)
    ones = [torch.ones_like(x) for x in random_inputs(dag, 1, 1, 1).flat()]
    # from each cell above and to the left: binomials; row by row, the numbers of paths that end there
    expected = [path_counts(dag)[dag.dst == n].sum().item() + 1 for n in range(9)]
    assert path_sum(*Inputs.of(ones), dag).flatten().tolist() == expected
    assert expected == [1, 2, 3, 2, 5, 9, 3, 9, 19]


def test_path_sum_refuses_what_is_too_large_or_cyclic(monkeypatch):
    monkeypatch.setattr(cases, "MAX_PATHS", 100)
    dag = grid_dag(5, 5)
    with pytest.raises(ShapeError, match="over 100"):
        path_sum(*random_inputs(dag), dag)
    ring = LineDAG.of(grid_dag(1, 3).lines._replace(prev=torch.tensor([0, 1]), next=torch.tensor([1, 0])))
    inputs = random_inputs(ring)
    with pytest.raises(ShapeError, match="has a cycle"):
        path_sum(*inputs, ring)


@pytest.mark.parametrize("name", DAGS)
def test_dags_are_valid(name):
    dag = DAGS[name]().validate()
    assert torch.equal(dag.src, DAGS[name]().src)


def test_dags_cover_what_their_names_say():
    built = {name: make() for name, make in DAGS.items()}
    assert built["no node"].num_nodes == 0
    assert (built["no edge"].num_edges, built["no edge"].num_graphs) == (0, 1)
    assert (built["no pair"].num_pairs, built["no pair"].num_edges) == (0, 3)
    assert built["empty graph in the batch"].graph_ptr.tolist() == [0, 3, 3, 6]
    assert built["many graphs"].num_graphs == 60
    assert any(dag.src.gt(dag.dst).any() for dag in built.values())  # an order unlike that of the numbers
    assert any(dag.prune().num_pairs < dag.num_pairs for dag in built.values())


def test_random_dag():
    one, again, other = random_dag(1, 8, 0.5, 3), random_dag(1, 8, 0.5, 3), random_dag(2, 8, 0.5, 3)
    assert torch.equal(one.src, again.src)
    assert torch.equal(one.edge_id, again.edge_id)
    assert not torch.equal(one.src, other.src)
    assert (one.num_graphs, one.num_nodes) == (3, 24)
    assert random_dag(0, density=0).num_edges == 0
    assert random_dag(0, nodes=7, density=1).num_edges == 21


def test_random_inputs():
    dag = grid_dag(2, 3)
    inputs = random_inputs(dag, 3, 2, 5, torch.float32, seed=4)
    assert [list(x.shape) for x in inputs.flat()] == [[6, 3, 2]] * 2 + [[6, 3, 5], [7, 3], [6, 3], [7, 3], [6, 3]]
    assert all(x.dtype == torch.float32 and x.abs().min() >= 0.5 and x.abs().max() <= 1 for x in inputs.flat())
    again, other = random_inputs(dag, 3, 2, 5, torch.float32, seed=4), random_inputs(dag, 3, 2, 5, torch.float32)
    assert all(torch.equal(x, y) for x, y in zip(inputs.flat(), again.flat(), strict=True))
    assert not torch.equal(inputs.query, other.query)
    assert Inputs.of(inputs.flat()).gates.mark is inputs.gates.mark
    assert NAMES == ("query", "key", "value", "source", "transition", "mark", "direct")


# ---------------------------------------------------------------------- the harness


def test_check_backend_takes_names_and_functions():
    check_backend("dense")
    check_backend(reference.propagate, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["scatter", "dense"])
def test_half_precision_passes_by_name(backend, dtype):
    check_backend(backend, dtype)


def test_unknown_names():
    with pytest.raises(ConfigError, match=r"unknown backend 'densee'; .* did you mean 'dense'"):
        check_backend("densee")
    with pytest.raises(ConfigError, match=r"unknown dtype torch.int64"):
        check_backend("dense", torch.int64)


def test_the_message_names_law_dag_tensor_and_entry():
    def wrong(query, key, value, gates, dag):
        output = BACKENDS["scatter"](query, key, value, gates, dag)
        return output * torch.where(torch.arange(len(output)) == 3, 2, 1).view(-1, 1, 1)

    with pytest.raises(AssertionError) as caught:
        LAWS["equals_oracle"](wrong)
    assert str(caught.value).startswith(
        "law 'equals_oracle', DAG 'no pair', plain: output is wrong in 1 of 5 entries, first at [3, 0, 0]: "
    )


@pytest.mark.parametrize("law", ["chain", "every_gate_matters"])
def test_wrong_shape_is_named(law):
    def wrong(query, key, value, gates, dag):
        return BACKENDS["scatter"](query, key, value, gates, dag).unsqueeze(-1)

    with pytest.raises(AssertionError, match=rf"law '{law}', .* shape \[.*, 1\], must be"):
        LAWS[law](wrong)


def test_nan_is_never_close():
    with pytest.raises(AssertionError, match="nan, must be"):
        LAWS["linear_in_value"](lambda query, key, value, gates, dag: value * torch.nan)


def test_an_output_cut_off_from_its_inputs_is_named():
    with pytest.raises(AssertionError, match="does not require grad"):
        LAWS["grid"](lambda *args: BACKENDS["scatter"](*args).detach())


@pytest.mark.parametrize("law", LAWS)
def test_a_backend_that_raises_breaks_the_law(law):
    def broken(query, key, value, gates, dag):
        raise KeyError("lost")

    with pytest.raises(AssertionError, match=f"law '{law}'.*lost"):
        LAWS[law](broken)


def test_a_backend_that_cannot_run_says_so_itself():
    def absent(query, key, value, gates, dag):
        raise BackendUnavailable("no such device")

    with pytest.raises(BackendUnavailable, match="no such device"):
        check_backend(absent)


@pytest.mark.parametrize("law", LAWS)
def test_laws_have_names_and_one_sentence(law):
    assert LAWS[law].__name__ == law
    assert LAWS[law].__doc__.endswith(".")


def test_tolerances_are_tight():
    """A few hundred roundings at most, so that a wrong row cannot hide (see ``one_wrong_row`` of the mutants)."""
    assert all(tolerance < 500 * torch.finfo(dtype).eps for dtype, tolerance in TOLERANCE.items() if dtype.itemsize < 8)
    assert TOLERANCE[torch.float64] == 1e-10
