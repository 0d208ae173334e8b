"""Planted bugs: each must turn the laws red that are named beside it, and every law must catch at least one."""

import pytest
import torch
from torch import Tensor

from plstm_graph.gates import Gates
from plstm_graph.line_dag import LineDAG
from plstm_graph.line_dag.prune import multitree_pairs
from plstm_graph.line_dag.topology import Levels
from plstm_graph.ops import scatter
from plstm_graph.testing import LAWS, NAMES, Inputs, check_distribution, check_propagation


def run(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
    return scatter.propagate(query, key, value, gates, dag)


def tampered(dag: LineDAG, **changes) -> LineDAG:
    known = {"levels": Levels.of(changes.pop("level"))} if "level" in changes else {}
    return LineDAG.of(dag.lines._replace(**changes), **known)


def first_of(group: Tensor) -> Tensor:
    """For each entry the first entry of the same group."""
    size = int(group.max()) + 1 if group.numel() else 0
    number = torch.arange(group.numel())
    return group.new_full((size,), group.numel()).scatter_reduce_(0, group, number, "amin")[group]


def shared_gate_slots(query, key, value, gates, dag):
    """All pairs with the same prev read one gate, as in the authors' released code."""
    return run(query, key, value, gates._replace(transition=gates.transition[first_of(dag.prev)]), dag)


def rolled_gates(query, key, value, gates, dag):
    return run(query, key, value, gates._replace(transition=gates.transition.roll(1, 0)), dag)


def mixed_heads(query, key, value, gates, dag):
    return run(query, key, value, gates._replace(source=gates.source.flip(1)), dag)


def swapped_ends(query, key, value, gates, dag):
    return run(query, key, value, gates, tampered(dag, src=dag.dst, dst=dag.src))


def transposed_pairs(query, key, value, gates, dag):
    level = dag.num_levels - 1 - dag.level
    return run(query, key, value, gates, tampered(dag, prev=dag.next, next=dag.prev, level=level))


def dropped_last_level(query, key, value, gates, dag):
    kept = dag.level[dag.next] < dag.num_levels - 1
    return run(query, key, value, gates._replace(transition=gates.transition * kept[:, None]), dag)


def one_step_only(query, key, value, gates, dag):
    """States of the first step are carried on, later ones are not."""
    kept = ~torch.isin(dag.prev, dag.next)
    return run(query, key, value, gates._replace(transition=gates.transition * kept[:, None]), dag)


def missing_direct(query, key, value, gates, dag):
    return run(query, key, value, gates._replace(direct=torch.zeros_like(gates.direct)), dag)


def by_node_number(query, key, value, gates, dag):
    """Believes that edges run from low to high node numbers."""
    up = (dag.src < dag.dst) != dag.reversed
    return run(query, key, value, gates._replace(source=gates.source * up[:, None]), dag)


def one_wrong_row(query, key, value, gates, dag):
    """In a tensor of more than a hundred nodes one row is off by a hair; a norm would not notice."""
    output = run(query, key, value, gates, dag)
    if len(output) < 100:
        return output
    scale = torch.ones(len(output), 1, 1, dtype=output.dtype)
    scale[77] += 1e-3
    return output * scale


def leaking_graphs(query, key, value, gates, dag):
    return run(query, key, value, gates, dag) + 1e-3 * value.mean(0)


def nan_times_zero(query, key, value, gates, dag):
    """Right in every number, but a masked sum over the batch lets a NaN through."""
    return run(query, key, value, gates, dag) + 0 * value.detach().sum()


def saturating(query, key, value, gates, dag):
    return run(query, key, value.tanh(), gates, dag)


def closed_gates_stay_closed(query, key, value, gates, dag):
    """The gradient at a gate of zero is lost, as where a backend divides by the gate."""
    opened = torch.where(gates.transition == 0, torch.zeros_like(gates.transition), gates.transition)
    return run(query, key, value, gates._replace(transition=opened), dag)


def noisy(query, key, value, gates, dag):
    """Differs from run to run in the last bits, as with atomics."""
    return run(query, key, value, gates, dag) * (1 + 1e-14 * torch.rand(()).to(value.dtype))


def single_precision(query, key, value, gates, dag):
    flat = [x.float() for x in Inputs(query, key, value, gates).flat()]
    return run(*Inputs.of(flat), dag).to(value.dtype)


def contiguous_memory(query, key, value, gates, dag):
    """Reads memory as if every tensor were contiguous."""
    plain = torch.empty(value.shape).stride()
    return run(query, key, value + (value.as_strided(value.shape, plain) - value).detach(), gates, dag)


def writes_inputs(query, key, value, gates, dag):
    flat = Inputs(query, key, value, gates).flat()
    output = run(*Inputs.of([x.clone() for x in flat]), dag)
    gates.source.data.mul_(0.5)
    return output


def unwritten_rows(query, key, value, gates, dag):
    """Rows of nodes that no edge reaches are never written."""
    reached = torch.zeros(dag.num_nodes, dtype=torch.bool).index_fill_(0, dag.dst, True)
    output = run(query, key, value, gates, dag)
    return torch.where(reached[:, None, None], output, torch.empty_like(output))


def adjoint_along_the_edges(query, key, value, gates, dag):
    """The backward pass solves the line graph as it is, not the reversed one."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, right, transition):
            ctx.save_for_backward(transition)
            return scatter.Solve.apply(right, transition, dag)

        @staticmethod
        def backward(ctx, grad):
            return scatter.Solve.apply(grad, ctx.saved_tensors[0], dag), None

    fed = gates.source[:, :, None, None] * key[dag.src].unsqueeze(-1) * value[dag.src].unsqueeze(-2)
    state = Wrong.apply(fed.flatten(2), gates.transition).view(fed.shape)
    message = torch.einsum("eh,ehk,ehkv->ehv", gates.mark, query[dag.dst], state)
    return ((gates.direct * (query * key).sum(-1)).unsqueeze(-1) * value).index_add(0, dag.dst, message)


def without_gradient(position: int):
    def mutant(query, key, value, gates, dag):
        flat = Inputs(query, key, value, gates).flat()
        flat[position] = flat[position].detach()
        return run(*Inputs.of(flat), dag)

    mutant.__name__ = f"no_gradient_of_{NAMES[position]}"
    return mutant


MUTANTS = {
    shared_gate_slots: ["equals_oracle", "grid", "closed_gates", "every_gate_matters"],
    rolled_gates: ["equals_oracle", "chain", "grid", "batch_equals_singles"],
    mixed_heads: ["equals_oracle", "chain", "grid"],
    swapped_ends: ["equals_oracle", "chain", "grid"],
    transposed_pairs: ["equals_oracle", "chain", "grid"],
    dropped_last_level: ["equals_oracle", "chain", "grid", "every_gate_matters", "batch_equals_singles"],
    one_step_only: ["equals_oracle", "chain", "grid", "every_gate_matters", "transposition"],
    missing_direct: ["equals_oracle", "chain", "grid", "every_gate_matters"],
    by_node_number: ["equals_oracle", "relabelling"],
    one_wrong_row: ["equals_oracle"],
    leaking_graphs: ["equals_oracle", "batch_equals_singles", "graphs_do_not_mix"],
    nan_times_zero: ["graphs_do_not_mix"],
    saturating: ["equals_oracle", "linear_in_value", "transposition"],
    closed_gates_stay_closed: ["closed_gates"],
    noisy: ["double_reverse"],
    single_precision: ["equals_oracle", "chain", "grid"],
    contiguous_memory: ["any_layout"],
    writes_inputs: ["any_layout"],
    unwritten_rows: ["equals_oracle", "chain", "grid"],
    adjoint_along_the_edges: ["equals_oracle", "chain", "grid"],
    **{without_gradient(i): ["equals_oracle", "closed_gates", "chain", "grid"] for i in range(7)},
}


def red(backend) -> set[str]:
    laws = set()
    for name, law in LAWS.items():
        try:
            law(backend)
        except AssertionError:
            laws.add(name)
    return laws


@pytest.mark.parametrize(("mutant", "expected"), MUTANTS.items(), ids=[m.__name__ for m in MUTANTS])
def test_mutant_turns_laws_red(mutant, expected):
    assert set(expected) <= red(mutant)


def test_what_the_mutants_are_made_of_is_green():
    assert red(run) == set()


def test_every_law_catches_a_mutant():
    assert {law for laws in MUTANTS.values() for law in laws} == set(LAWS)


def by_rows(transition, dag):
    """Divides by the sum over the pairs with the same next, as in the authors' released code."""
    total = torch.zeros(dag.num_edges, transition.size(1)).to(transition).index_add(0, dag.next, transition.abs())
    return transition / total.clamp(min=1)[dag.next]


def by_signed_sum(transition, dag):
    total = torch.zeros(dag.num_edges, transition.size(1)).to(transition).index_add(0, dag.prev, transition)
    return transition / total.abs().clamp(min=1)[dag.prev]


def always_to_one(transition, dag):
    """Never forgets: small columns are blown up to a sum of 1."""
    total = torch.zeros(dag.num_edges, transition.size(1)).to(transition).index_add(0, dag.prev, transition.abs())
    return transition / total[dag.prev]


@pytest.mark.parametrize("normalize", [by_rows, by_signed_sum, always_to_one, lambda transition, dag: transition])
def test_wrong_normalisation_is_noticed(normalize):
    with pytest.raises(AssertionError, match="DAG"):
        check_propagation(normalize)


def keep(dag, kept):
    kept = torch.tensor(kept, dtype=torch.bool)
    return tampered(dag, prev=dag.prev[kept], next=dag.next[kept])


def spanning_tree(dag):
    """Keeps one pair for each next edge: single paths, but more goes than must."""
    group = dag.prev if dag.reversed else dag.next
    return keep(dag, (first_of(group) == torch.arange(dag.num_pairs)).tolist())


def in_caller_order(dag):
    """Visits pairs in the order of the caller's columns."""
    first = torch.argsort(torch.argsort(dag.edge_id))
    pairs = torch.argsort(first[dag.next] * dag.num_edges + first[dag.prev]) if dag.num_pairs else dag.prev
    order = torch.argsort(dag.level[dag.next][pairs], stable=True)
    pairs = pairs[order]
    kept = multitree_pairs(dag.prev[pairs].tolist(), dag.next[pairs].tolist(), dag.edge_ptr.tolist())
    return keep(dag, torch.zeros(len(kept), dtype=torch.bool).scatter_(0, pairs, torch.tensor(kept).bool()).tolist())


def as_read(dag):
    """Prunes the reversed reading by its own order, so that the two readings keep different pairs."""
    pair = torch.argsort(dag.level[dag.next], stable=True)
    kept = multitree_pairs(dag.prev[pair].tolist(), dag.next[pair].tolist(), dag.edge_ptr.tolist())
    return keep(dag, torch.zeros(len(kept), dtype=torch.bool).scatter_(0, pair, torch.tensor(kept).bool()).tolist())


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        (lambda dag: dag, "more than one path"),
        (spanning_tree, "without need|lost a pair"),
        (in_caller_order, "order of the columns|other pairs"),
        (as_read, "other pairs"),
        (lambda dag: dag.reverse(), "changed the edges"),
        (lambda dag: keep(dag, [False] * dag.num_pairs), "without need"),
    ],
)
def test_wrong_pruning_is_noticed(prune, message):
    with pytest.raises(AssertionError, match=message):
        check_distribution(prune)
