"""Cones and what their gates do, against truth tables gate by gate."""

import itertools

import pytest
import torch

from plstm_graph.data import circuits, load
from plstm_graph.data.aiger import Circuit, read_aiger
from plstm_graph.data.circuits import PARTS, Cut, behave, cone
from plstm_graph.errors import DataError


def random_circuit(inputs: int, gates: int, seed: int) -> Circuit:
    generator = torch.Generator().manual_seed(seed)
    gate = torch.arange(1 + inputs, 1 + inputs + gates)
    sources = torch.stack([(torch.rand(2, generator=generator) * int(node)).long() for node in gate])
    inverted = torch.rand(2 * gates, generator=generator) < 0.5
    edge_index = torch.stack([sources.view(-1), gate.repeat_interleave(2)])
    return Circuit(inputs, gates, edge_index, inverted, gate[-1:] * 2)


def truth(circuit: Circuit) -> list[float]:
    """Share of all patterns for which each node is true."""
    patterns = torch.tensor(list(itertools.product((False, True), repeat=circuit.num_inputs)))
    value = [torch.zeros(len(patterns), dtype=torch.bool), *patterns.T]
    for a, b, x, y in zip(*circuit.edge_index[0].view(-1, 2).T, *circuit.inverted.view(-1, 2).T, strict=True):
        value.append((value[a] ^ x) & (value[b] ^ y))
    return [each.double().mean().item() for each in value]


@pytest.mark.parametrize("inputs", [1, 3, 6, 8])
def test_exact_probabilities(inputs: int) -> None:
    circuit = random_circuit(inputs, 30, seed=inputs)
    found = behave(circuit)
    assert found.probability.tolist() == pytest.approx(truth(circuit), abs=1e-7)
    assert torch.equal(found.switching, 2 * found.probability * (1 - found.probability))


def test_many_inputs_are_sampled() -> None:
    circuit = random_circuit(18, 12, seed=0)
    found, again = behave(circuit, seed=1), behave(circuit, seed=1)
    assert torch.equal(found.probability, again.probability)
    assert (found.probability - torch.tensor(truth(circuit))).abs().max() < 5 * 0.5 / 2**7.5  # five deviations
    assert not torch.equal(found.probability, behave(circuit, seed=2).probability)


def test_arrival_is_the_longest_path() -> None:
    circuit = random_circuit(4, 40, seed=3)
    arrival = [0] * 5
    for a, b in circuit.edge_index[0].view(-1, 2).tolist():
        arrival.append(1 + max(arrival[a], arrival[b]))
    assert behave(circuit).arrival.tolist() == arrival


def test_a_whole_cone_does_what_its_gates_do_in_the_circuit() -> None:
    circuit = random_circuit(6, 60, seed=4)
    part = cone(circuit, 66, most=1000)
    whole = behave(circuit)
    assert part.num_inputs <= 6
    # The cone has fewer inputs, all of which vary freely in both.
    assert behave(part).probability[-1] == whole.probability[66]
    assert behave(part).arrival[-1] == whole.arrival[66]
    assert part.outputs.tolist() == [2 * (part.num_nodes - 1)]


def test_a_cut_cone_reads_its_edge_as_inputs() -> None:
    circuit = random_circuit(3, 50, seed=5)
    part = cone(circuit, 53, most=7)
    assert part.num_gates == 7
    read = part.edge_index[0].view(-1, 2)
    assert (read < torch.arange(1 + part.num_inputs, part.num_nodes)[:, None]).all()  # numbers stay topological
    assert set(range(1, part.num_inputs + 1)) <= set(read.flatten().tolist())  # no input stands idle
    used = read.flatten().tolist()
    assert all(node in used for node in range(1 + part.num_inputs, part.num_nodes - 1))  # every gate feeds another


def test_no_gate() -> None:
    with pytest.raises(DataError, match="gate must be from 4 to 13"):
        cone(random_circuit(3, 10, seed=0), 2, most=5)


def test_the_data_set_asks_every_gate(shared_data, cache, monkeypatch):
    monkeypatch.setattr(
        circuits,
        "PARTS",
        {
            "circuits": {
                "train": Cut(("ctrl",), 6, (5, 30)),
                "valid": Cut(("adder",), 2, (5, 30)),
                "test": Cut(("adder",), 2, (20, 60)),
            }
        },
    )
    data = load("circuits", root=shared_data)
    assert data.split() == {"train": [0, 1, 2, 3, 4, 5], "valid": [6, 7], "test": [8, 9]}
    assert (data.task.level, data.task.targets) == ("node", ("probability", "switching", "arrival"))
    for graph in data.graphs:
        gates = graph.x[:, 0] == 2
        assert 5 <= int(gates.sum()) <= 60
        assert graph.y.isnan().all(1).equal(~gates)
        assert (graph.edge_index[0] < graph.edge_index[1]).all()
        assert graph.y[gates, 2].max() >= graph.y[gates, 2].min() >= 1
    again = load("circuits", root=shared_data)  # from the cache
    assert all(a.y.nan_to_num().equal(b.y.nan_to_num()) for a, b in zip(data.graphs, again.graphs, strict=True))


@pytest.mark.parametrize("name", list(PARTS))
def test_no_circuit_stands_in_two_parts(name):
    circuits_of = [set(cut.circuits) for cut in PARTS[name].values()]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(circuits_of, 2))
    assert all(cut.sizes or cut.graphs == len(cut.circuits) for cut in PARTS[name].values())


def test_a_whole_circuit_is_tested_on(shared_data, cache, monkeypatch):
    small = {"train": Cut(("adder",), 2, (5, 30)), "valid": Cut(("adder",), 1, (5, 30)), "test": Cut(("ctrl",), 1)}
    monkeypatch.setattr(circuits, "PARTS", {"circuits-sin": small})
    data = load("circuits-sin", root=shared_data)
    whole = data.graphs[data.split()["test"][0]]
    file = next((shared_data / "dag_EPFL_aig").glob("ctrl*"))
    circuit = read_aiger(file)
    assert torch.equal(whole.edge_index, circuit.edge_index)
    first = 1 + circuit.num_inputs
    assert whole.y[:first].isnan().all()
    assert torch.equal(whole.y[first:], torch.stack(behave(circuit), 1)[first:])
