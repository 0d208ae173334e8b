"""The laws that every backend has to pass, forward and all seven gradients, element by element."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from plstm_graph.errors import BackendUnavailable, ConfigError, ShapeError, unknown
from plstm_graph.gates import Gates
from plstm_graph.line_dag import LineDAG
from plstm_graph.ops import BACKENDS, propagate
from plstm_graph.ops.dispatch import Backend
from plstm_graph.testing.cases import DAGS, NAMES, VIEWS, Inputs, grid_dag, path_sum, random_dag, random_inputs

TOLERANCE = {torch.float64: 1e-10, torch.float32: 5e-6, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Largest element-wise ``|got - want| / (1 + |want|)``, for the output and for every gradient."""


def outcome(backend: Backend, inputs: Inputs, dag: LineDAG, weight: Tensor) -> dict[str, Tensor]:
    """The output and the gradients of ``(weight * output).sum()`` with respect to all seven inputs, by name."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs.flat()]
    output = backend(*Inputs.of(leaves), dag)
    if output.shape != weight.shape:
        raise ShapeError(f"output has shape {list(output.shape)}, must be {list(weight.shape)}")
    if not output.requires_grad:
        raise RuntimeError("the output of the backend does not require grad although its inputs do")
    grads = torch.autograd.grad(output, leaves, weight.to(output.dtype), materialize_grads=True)
    return {"output": output.detach(), **{f"gradient of {n}": g for n, g in zip(NAMES, grads, strict=True)}}


class _Subject(NamedTuple):
    """What a law is about: a backend, a dtype and a device, and the law's own name for messages."""

    law: str
    backend: Backend
    dtype: torch.dtype
    device: torch.device | str

    def inputs(self, dag: LineDAG, widths: tuple[int, int, int] = (2, 3, 4), seed: int = 0) -> Inputs:
        """``widths`` are H, K and V."""
        return random_inputs(dag, *widths, self.dtype, self.device, seed)

    def weight(self, inputs: Inputs) -> Tensor:
        """Output gradient, rounded to the dtype of the inputs so that the expectation sees the same numbers."""
        generator = torch.Generator().manual_seed(7)
        return torch.randn(inputs.value.shape, generator=generator).to(inputs.value)

    @contextmanager
    def blame(self, where: str) -> Iterator[None]:
        """Whatever a backend raises breaks the law, but for its own word that it cannot run here."""
        try:
            yield
        except (AssertionError, BackendUnavailable):
            raise
        except Exception as error:
            raise AssertionError(f"law {self.law!r}, {where}: the backend failed with {error!r}") from error

    def run(self, where: str, inputs: Inputs, dag: LineDAG) -> Tensor:
        with self.blame(where):
            return self.backend(*inputs, dag)

    def outcome(self, where: str, inputs: Inputs, dag: LineDAG, weight: Tensor) -> dict[str, Tensor]:
        with self.blame(where):
            return outcome(self.backend, inputs, dag, weight)

    def same(self, where: str, got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
        for name, wanted in want.items():
            self.close(f"{where}: {name}", got[name], wanted)

    def close(self, what: str, got: Tensor, want: Tensor) -> None:
        """Element by element; a NaN is never close."""
        got, want = got.detach().double(), want.detach().double()
        far = ~((got - want).abs() <= TOLERANCE[self.dtype] * (1 + want.abs()))
        if far.any():
            at = tuple(torch.nonzero(far)[0].tolist())
            raise AssertionError(
                f"law {self.law!r}, {what} is wrong in {int(far.sum())} of {far.numel()} entries, first at {list(at)}: "
                f"{float(got[at]):.9g}, must be {float(want[at]):.9g}"
            )

    def check(self, holds: bool | Tensor, what: str) -> None:
        if not holds:
            raise AssertionError(f"law {self.law!r}, {what}")

    def equals(self, where: str, dag: LineDAG, inputs: Inputs, expected: Backend) -> None:
        """Output and all gradients of the backend against those of ``expected`` in float64."""
        weight = self.weight(inputs)
        wide = Inputs.of([x.double() for x in inputs.flat()])
        want = outcome(expected, wide, dag, weight)
        self.same(where, self.outcome(where, inputs, dag, weight), want)


def _views(subject: _Subject, names: list[str] | None = None) -> Iterator[tuple[str, LineDAG]]:
    for name, view in product(names or DAGS, VIEWS):
        yield f"DAG {name!r}, {view}", VIEWS[view](DAGS[name]().to(subject.device))


def _equals_oracle(subject: _Subject) -> None:
    """Output and all gradients are those of the path sum, on every tricky DAG in all four views."""
    for i, (where, dag) in enumerate(_views(subject)):
        widths = ((2, 3, 4), (1, 1, 1), (3, 4, 2))[i % 3]
        subject.equals(where, dag, subject.inputs(dag, widths, seed=i), path_sum)


def _closed_gates(subject: _Subject) -> None:
    """The same where a third of all gates are exactly zero: their gradients are not."""
    for where, dag in _views(subject, ["grid", "random, medium", "unlike graphs"]):
        query, key, value, gates = subject.inputs(dag)
        generator = torch.Generator().manual_seed(1)
        closed = [gate * (torch.rand(gate.shape, generator=generator) > 1 / 3).to(gate) for gate in gates]
        subject.equals(where, dag, Inputs(query, key, value, Gates(*closed)), path_sum)


def _chain(subject: _Subject) -> None:
    """A chain is the 1D linear recurrence."""

    def recurrence(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
        state, outputs = torch.zeros_like(key[0].unsqueeze(-1) * value[0].unsqueeze(-2)), []
        for t in range(len(value)):
            itself = (gates.direct[t] * (query[t] * key[t]).sum(-1)).unsqueeze(-1) * value[t]
            read = torch.einsum("hk,hkv->hv", query[t], state)
            outputs.append(itself + (gates.mark[t - 1, :, None] * read if t else 0))
            if t < len(value) - 1:
                kept = gates.transition[t - 1, :, None, None] * state if t else 0
                state = kept + gates.source[t, :, None, None] * key[t].unsqueeze(-1) * value[t].unsqueeze(-2)
        return torch.stack(outputs)

    dag = grid_dag(1, 40).to(subject.device)
    subject.equals("chain of 40 nodes", dag, subject.inputs(dag), recurrence)


def _grid(subject: _Subject) -> None:
    """A grid is the 2D recurrence, with edges and pairs numbered in reading order."""
    rows, columns = 7, 6

    def recurrence(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
        arriving: dict[tuple[int, int], list[tuple[int, Tensor]]] = {}  # (edge, its state): from above, from the left
        edge = pair = 0
        outputs = []
        for i, j in product(range(rows), range(columns)):
            n, here = i * columns + j, arriving.pop((i, j), [])
            outputs.append((gates.direct[n] * (query[n] * key[n]).sum(-1)).unsqueeze(-1) * value[n])
            for e, state in here:
                outputs[n] = outputs[n] + torch.einsum("h,hk,hkv->hv", gates.mark[e], query[n], state)
            for cell in [(i, j + 1)] * (j < columns - 1) + [(i + 1, j)] * (i < rows - 1):
                new = torch.einsum("h,hk,hv->hkv", gates.source[edge], key[n], value[n])
                for _, state in here:
                    new, pair = new + gates.transition[pair, :, None, None] * state, pair + 1
                arriving.setdefault(cell, []).append((edge, new))
                edge += 1
        return torch.stack(outputs)

    dag = grid_dag(rows, columns).to(subject.device)
    inputs = subject.inputs(dag)
    damped = inputs.gates._replace(transition=inputs.gates.transition / 2)  # else hundreds of paths would add up
    subject.equals(f"grid of {rows} by {columns}", dag, inputs._replace(gates=damped), recurrence)


def _batch_equals_singles(subject: _Subject) -> None:
    """A batch gives what its graphs give one by one."""
    parts = [DAGS[name]().to(subject.device) for name in ("grid", "no edge", "no node", "random, dense", "star")]
    for name, view in VIEWS.items():
        whole, singles = view(LineDAG.collate(parts)), [view(part) for part in parts]
        inputs = subject.inputs(whole)
        weight = subject.weight(inputs)
        rows = _split(inputs, singles), weight.split([dag.num_nodes for dag in singles])
        alone = [subject.outcome(f"single, {name}", *args) for args in zip(rows[0], singles, rows[1], strict=True)]
        want = {key: torch.cat([one[key] for one in alone]) for key in alone[0]}
        subject.same(f"batch, {name}", subject.outcome(f"batch, {name}", inputs, whole, weight), want)


def _split(inputs: Inputs, dags: list[LineDAG]) -> list[Inputs]:
    """The rows of each graph of a batch."""
    nodes, edges, pairs = ([getattr(dag, n) for dag in dags] for n in ("num_nodes", "num_edges", "num_pairs"))
    vectors = zip(*(x.split(nodes) for x in inputs[:3]), strict=True)
    gates = zip(*(x.split(n) for x, n in zip(inputs.gates, (edges, pairs, edges, nodes), strict=True)), strict=True)
    return [Inputs.of([*vector, *gate]) for vector, gate in zip(vectors, gates, strict=True)]


def _graphs_do_not_mix(subject: _Subject) -> None:
    """No gradient crosses graphs, and a NaN in one graph stays there."""
    parts = [DAGS[name]().to(subject.device) for name in ("grid", "random, dense", "star")]
    for name, view in VIEWS.items():
        dag = view(LineDAG.collate(parts))
        inputs = subject.inputs(dag)
        own = dag.node_graph == 1
        weight = torch.where(own[:, None, None], subject.weight(inputs), 0)
        got = subject.outcome(f"batch, {name}", inputs, dag, weight)
        foreign = [dag.node_graph != 1] * 3 + [dag.edge_graph != 1, dag.edge_graph[dag.next] != 1]
        foreign += [dag.edge_graph != 1, dag.node_graph != 1]
        for field, rows in zip(NAMES, foreign, strict=True):
            leaked = got[f"gradient of {field}"][rows]
            subject.check(not leaked.any(), f"batch, {name}: gradient of {field} crosses graphs")
        spoilt = [x.masked_fill(_along(rows, x), torch.nan) for x, rows in zip(inputs.flat(), foreign, strict=True)]
        output = subject.run(f"batch, {name}", Inputs.of(spoilt), dag)
        subject.close(f"batch, {name}: output beside a graph of NaN", output[own], got["output"][own])


def _along(rows: Tensor, x: Tensor) -> Tensor:
    return rows.view(-1, *[1] * (x.dim() - 1))


def _relabelling(subject: _Subject) -> None:
    """Relabelling the nodes, with their ranks, permutes the output."""
    generator = torch.Generator().manual_seed(3)
    for seed in range(3):
        dag = random_dag(seed, nodes=9)
        rank, moved = torch.randperm(9, generator=generator), torch.randperm(9, generator=generator)
        edge_index, batch = torch.stack([dag.src, dag.dst]), torch.zeros(9, dtype=torch.long)
        old = LineDAG.from_edge_index(edge_index, 9, order=rank, batch=batch).to(subject.device)
        new_rank = torch.empty_like(rank).scatter_(0, moved, rank)
        new = LineDAG.from_edge_index(moved[edge_index], 9, order=new_rank, batch=batch).to(subject.device)
        query, key, value, gates = subject.inputs(old)
        back = torch.argsort(moved).to(subject.device)
        renamed = Inputs(query[back], key[back], value[back], gates._replace(direct=gates.direct[back]))
        where = f"random graph {seed}"
        got, want = subject.run(where, renamed, new), subject.run(where, Inputs(query, key, value, gates), old)
        subject.close(f"{where}: output", got, want[back])


def _linear_in_value(subject: _Subject) -> None:
    """The output is linear in the values."""
    for where, dag in _views(subject, ["grid", "many graphs"]):
        inputs = subject.inputs(dag)
        one, other = inputs.value, subject.inputs(dag, seed=1).value
        values = (one / 2 - 2 * other, one, other)
        runs = [subject.run(where, inputs._replace(value=value), dag).double() for value in values]
        subject.close(f"{where}: output of a sum", runs[0], runs[1] / 2 - 2 * runs[2])


def _transposition(subject: _Subject) -> None:
    """Reading against the edges transposes the operator: swap query and key, source and mark, and the values."""
    for where, dag in _views(subject, ["grid", "unlike graphs"]):
        query, key, value, gates = subject.inputs(dag)
        probe = subject.inputs(dag, seed=1).value
        swapped = Gates(gates.mark, gates.transition, gates.source, gates.direct)
        there = subject.run(where, Inputs(query, key, value, gates), dag).double() * probe
        back = subject.run(where, Inputs(key, query, probe, swapped), dag.reverse()).double() * value
        sums = [x.new_zeros(dag.num_graphs).index_add(0, dag.node_graph, x.sum((1, 2))) for x in (there, back)]
        subject.close(f"{where}: inner product with a probe, per graph", *sums)


def _double_reverse(subject: _Subject) -> None:
    """Reversing twice changes nothing, and where PyTorch can be deterministic not even the last bit."""
    exact = torch.device(subject.device).type == "cpu" or torch.are_deterministic_algorithms_enabled()
    for where, dag in _views(subject, ["grid", "unlike graphs"]):
        inputs = subject.inputs(dag)
        weight = subject.weight(inputs)
        once, twice = (subject.outcome(where, inputs, d, weight) for d in (dag, dag.reverse().reverse()))
        subject.same(f"{where}, reversed twice", twice, once)
        for name in once:
            subject.check(
                not exact or torch.equal(once[name], twice[name]), f"{where}: {name} changes in its last bits"
            )


def _every_gate_matters(subject: _Subject) -> None:
    """Every entry of every gate has a gradient."""
    for where, dag in _views(subject, ["grid", "unlike graphs", "many graphs"]):
        inputs = subject.inputs(dag)
        got = subject.outcome(where, inputs, dag, subject.weight(inputs))
        for name in Gates._fields:
            subject.check(bool((got[f"gradient of {name}"] != 0).all()), f"{where}: a {name} gate has no gradient")


def _any_layout(subject: _Subject) -> None:
    """Strided inputs and expanded gradients are read right, and no input is written to."""
    for where, dag in _views(subject, ["grid", "unlike graphs"]):
        inputs = subject.inputs(dag)
        flat = inputs.flat()
        strided = [torch.stack([x, x + 1], -1).transpose(0, 1)[..., 0].transpose(0, 1).requires_grad_() for x in flat]
        with subject.blame(f"{where}, strided"):
            output = subject.backend(*Inputs.of(strided), dag)
            grads = torch.autograd.grad(output.sum(), strided, materialize_grads=True)
        want = subject.outcome(where, inputs, dag, torch.ones_like(inputs.value))
        got = {"output": output, **{f"gradient of {n}": g for n, g in zip(NAMES, grads, strict=True)}}
        subject.same(f"{where}, strided", got, want)
        kept = all(torch.equal(x, y) for x, y in zip(flat, strided, strict=True))
        subject.check(kept, f"{where}: the backend wrote to its inputs")


Law = Callable[..., None]


def _law(check: Callable[[_Subject], None]) -> Law:
    def law(backend: str | Backend, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> None:
        if dtype not in TOLERANCE:
            raise ConfigError(unknown("dtype", dtype, TOLERANCE))
        check(_Subject(law.__name__, _resolve(backend), dtype, device))

    law.__name__ = law.__qualname__ = check.__name__.lstrip("_")
    law.__doc__ = check.__doc__
    return law


def _resolve(backend: str | Backend) -> Backend:
    """A name goes through ``propagate``, with its checks and dtype policy; a function is called as it is."""
    if callable(backend):
        return backend
    if backend not in BACKENDS:
        raise ConfigError(unknown("backend", backend, BACKENDS))
    return partial(propagate, backend=backend)


LAWS: dict[str, Law] = {
    check.__name__.lstrip("_"): _law(check)
    for check in (
        _equals_oracle,
        _closed_gates,
        _chain,
        _grid,
        _batch_equals_singles,
        _graphs_do_not_mix,
        _relabelling,
        _linear_in_value,
        _transposition,
        _double_reverse,
        _every_gate_matters,
        _any_layout,
    )
}
"""Laws of a backend by name: ``law(backend, *, dtype=torch.float64, device="cpu")`` raises AssertionError."""


def check_backend(
    backend: str | Backend, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> None:
    """Run every law on a backend; raises AssertionError that names the law and the DAG.

    Args:
        backend: a name in ``BACKENDS`` or a function ``(query, key, value, gates, dag) -> output``.
        dtype: of the inputs, one of :data:`TOLERANCE`.
        device: where the inputs live.
    """
    for law in LAWS.values():
        law(backend, dtype=dtype, device=device)
