"""The laws that make the two modes stable: column sums in P mode, single paths in D mode."""

from collections.abc import Callable

import torch
from torch import Tensor

from plstm_graph.gates import normalize_transition
from plstm_graph.line_dag import LineDAG
from plstm_graph.testing.cases import DAGS, grid_dag, random_dag

SLACK = 1e-12
SMALL = 12
"""Line graphs of at most this many edges have all their antichains listed."""


def transition_matrix(transition: Tensor, dag: LineDAG) -> Tensor:
    """T of every head, [P, H] -> [H, E, E]: row next, column prev."""
    matrix = transition.new_zeros(transition.size(1), dag.num_edges, dag.num_edges)
    matrix[:, dag.next, dag.prev] = transition.t()
    return matrix


def path_counts(dag: LineDAG) -> Tensor:
    """How many directed paths lead from edge to edge (row next, column prev), by matrix powers, [E, E]."""
    step = transition_matrix(torch.ones(dag.num_pairs, 1, dtype=torch.float64), dag)[0]
    total = power = torch.eye(dag.num_edges, dtype=torch.float64)
    for _ in range(dag.num_edges):
        power = step @ power
        total = total + power
    return total


def _line_graphs() -> dict[str, LineDAG]:
    """Small line graphs, read along and against their edges."""
    plain = {name: DAGS[name]() for name in DAGS if name != "many graphs"}
    plain |= {f"random {seed}": random_dag(seed, nodes=6, density=0.5) for seed in range(8)}
    plain |= {"bigger grid": grid_dag(5, 5), "chain of 20 nodes": grid_dag(1, 20)}
    return plain | {f"{name}, reversed": dag.reverse() for name, dag in plain.items()}


def check_propagation(normalize: Callable[[Tensor, LineDAG], Tensor] = normalize_transition) -> None:
    """P mode: with scalar states and B = source, signals are carried, never amplified.

    Columns of T sum to at most 1; ``‖Tⁱ‖₁ ≤ 1``; on every level, and on every set of edges of which none reaches
    another, ``Σ|C_e| ≤ Σ|source|``; and a column whose sum is at most 1 is left alone, so that a gate can forget.
    """
    for name, dag in _line_graphs().items():
        generator = torch.Generator().manual_seed(dag.num_pairs)
        raw = torch.randn(dag.num_pairs, 3, generator=generator, dtype=torch.float64).mul(2).tanh()
        source = torch.rand(3, dag.num_edges, 1, generator=generator, dtype=torch.float64)
        transition = normalize(raw, dag)
        matrix = transition_matrix(transition, dag)
        power = matrix
        for i in range(dag.num_levels):
            _require(_column_sums(power) <= 1 + SLACK, name, f"the columns of T^{i + 1} sum to more than 1")
            power = power @ matrix
        state = torch.linalg.solve(torch.eye(dag.num_edges, dtype=torch.float64) - matrix, source)[..., 0].abs()
        bound = source.sum((1, 2)) + SLACK
        for level in range(dag.num_levels):
            carried = state[:, dag.level == level].sum(-1)
            _require(carried <= bound, name, f"level {level} holds more than the sources gave")
        if dag.num_edges <= SMALL:
            carried = state @ _antichains(dag).t()
            _require(carried <= bound[:, None], name, "an antichain of edges holds more than the sources gave")
        alone = (_column_sums(transition_matrix(raw, dag)) <= 1).t()[dag.prev]
        _require(transition[alone] == raw[alone], name, "a column that sums to at most 1 is changed")


def _column_sums(matrix: Tensor) -> Tensor:
    return matrix.abs().sum(-2)


def _antichains(dag: LineDAG) -> Tensor:
    """Every set of edges of which none reaches another, as rows of zeros and ones, [A, E]."""
    joined = (path_counts(dag) - torch.eye(dag.num_edges, dtype=torch.float64)).clamp(max=1)
    sets = torch.arange(2**dag.num_edges)[:, None] >> torch.arange(dag.num_edges) & 1
    sets = sets.double()
    return sets[((sets @ joined) * sets).sum(-1) == 0]


def check_distribution(prune: Callable[[LineDAG], LineDAG] = LineDAG.prune) -> None:
    """D mode: no two edges are joined by more than one path.

    So gates of size 1 keep every entry of ``(I - T)⁻¹`` within 1. Edges stay, pairs only go; the result is maximal
    (any dropped pair makes a second path), independent of the order of the caller's columns and the same when read
    against the edges; a multitree stays whole.
    """
    for name, dag in _line_graphs().items():
        pruned = prune(dag)
        same = torch.equal(pruned.src, dag.src) and torch.equal(pruned.dst, dag.dst)
        _require(same, name, "pruning changed the edges")
        left = set(zip(pruned.prev.tolist(), pruned.next.tolist(), strict=True))
        pairs = set(zip(dag.prev.tolist(), dag.next.tolist(), strict=True))
        _require(left <= pairs and len(left) == pruned.num_pairs, name, "pruning made up pairs")
        counts = path_counts(pruned)
        _require(counts <= 1, name, "two edges are joined by more than one path")
        for prev, next in pairs - left:
            through = counts[:, next, None] * counts[None, prev]
            _require((counts + through).max() > 1, name, f"the pair ({prev}, {next}) was dropped without need")
        backward = prune(dag.reverse())
        swapped = set(zip(backward.next.tolist(), backward.prev.tolist(), strict=True))
        _require(left == swapped, name, "read against the edges other pairs are kept")
    for seed in range(6):
        _check_column_order(prune, seed)
        _check_multitree(prune, seed)


def _check_column_order(prune: Callable[[LineDAG], LineDAG], seed: int) -> None:
    dag = random_dag(seed, nodes=7, density=0.6)
    columns = torch.stack([dag.src, dag.dst])
    shuffled = columns[:, torch.randperm(dag.num_edges, generator=torch.Generator().manual_seed(seed))]
    first, second = (prune(LineDAG.from_edge_index(c, 7, order="given")) for c in (columns, shuffled))
    same = torch.equal(first.prev, second.prev) and torch.equal(first.next, second.next)
    _require(same, f"random {seed}", "pruning depends on the order of the columns")


def _check_multitree(prune: Callable[[LineDAG], LineDAG], seed: int) -> None:
    """An undirected tree, however its edges point, has one path at most between any two edges."""
    generator = torch.Generator().manual_seed(seed)
    parent = torch.stack([torch.randint(i, (), generator=generator) for i in range(1, 12)])
    rank = torch.randperm(12, generator=generator)
    tree = LineDAG.from_edge_index(torch.stack([torch.arange(1, 12), parent]), 12, order=rank)
    _require(prune(tree).num_pairs == tree.num_pairs, f"tree {seed}", "a multitree lost a pair")


def _require(holds: bool | Tensor, dag: str, what: str) -> None:
    if not bool(torch.as_tensor(holds).all()):
        raise AssertionError(f"DAG {dag!r}: {what}")
