"""Speed: nothing is timed before it is right, and a tiny pass through every group leaves its rows."""

import graphs
import pytest
import records
import speed
import torch
from bench import checked, gated_inputs
from timing import Case, Disagreement, agree, measure, operator_floor, summary

from plstm_graph.ops import BACKENDS
from plstm_graph.testing import grid_dag

TINY = ["--rounds", "1", "--molecules", "2", "--layer-molecules", "2", "--line-dag-molecules", "3", "--threads", "1"]


def test_a_wrong_row_is_found():
    want = {"output": torch.arange(6.0).view(3, 2), "gradient": torch.ones(2)}
    assert agree("it", want, want, 1e-6) == 0
    for bad in (1e-3, float("nan"), float("inf")):
        got = {**want, "output": want["output"].clone()}
        got["output"][1, 1] += bad
        with pytest.raises(Disagreement, match="it disagrees with the reference in its output"):
            agree("it", got, want, 1e-6)


def test_nothing_is_timed_when_a_backend_is_wrong(monkeypatch, tmp_path):
    def wrong(query, key, value, gates, dag):
        return BACKENDS["scatter"](query, key, value, gates._replace(direct=gates.direct * 1.001), dag)

    monkeypatch.setitem(BACKENDS, "wrong", wrong)
    dag = grid_dag(3, 3)
    inputs = gated_inputs(dag, 2, 4)
    with pytest.raises(Disagreement, match="'wrong'"):
        checked(["scatter", "wrong"], inputs, dag, torch.ones_like(inputs.value))
    with pytest.raises(SystemExit):
        speed.main(["operator", *TINY, "--out", str(tmp_path / "rows.jsonl")])
    assert not (tmp_path / "rows.jsonl").exists()


def test_every_group_leaves_its_rows(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(speed, "bandwidth", lambda device: 1e9)
    out = tmp_path / "rows.jsonl"
    assert speed.main(["all", *TINY, "--all-molecules", "7", "--out", str(out)]) == 0
    rows = records.read(out)
    names = {group: [row["name"] for row in rows if row["group"] == group] for group in speed.GROUPS}
    assert {"reference", "scatter", "dense"} <= set(names["operator"])
    assert {"PLSTMConv (scatter)", "GINEConv", "GATv2Conv", "GPSConv"} <= set(names["layer"])
    assert names["line-dag"] == ["LineDAG", "prune"] * 2
    assert names["circuit"] == []
    assert "a circuit is read from --root" in capsys.readouterr().out
    for row in rows:
        assert {"date", "machine", "versions", "commit", "dirty", "command", "run", "sizes"} <= set(row)
        assert row["min_ms"] <= row["q1_ms"] <= row["median_ms"] <= row["q3_ms"]


def test_a_small_published_circuit(shared_data, tmp_path):
    if not (shared_data / "dag_EPFL_aig").is_dir() or not (shared_data / "ogb" / "ogbg_molhiv" / "raw").is_dir():
        pytest.skip("no EPFL circuits or molhiv")
    out = tmp_path / "rows.jsonl"
    arguments = ["circuit", "--root", str(shared_data), "--circuit", "ctrl", "--check-gates", "20"]
    assert speed.main([*arguments, *TINY, "--out", str(out)]) == 0
    (row,) = records.read(out)
    assert (row["sizes"]["E"], row["sizes"]["levels"], row["checked_edges"]) == (348, 10, 40)
    assert str(shared_data) not in str(row)


def test_molhiv_from_its_raw_files(shared_data):
    if not (shared_data / "ogb" / "ogbg_molhiv" / "raw").is_dir():
        pytest.skip("no molhiv")
    molecules = graphs.load_molecules(str(shared_data))
    assert (len(molecules), int(molecules.node_ptr[-1]), molecules.bonds.size(1)) == (41127, 1049163, 1129688)
    chosen = molecules.draw(5, atoms=(20, 30))
    edge_index, batch = molecules.batch(chosen)
    assert batch.bincount().tolist() == molecules.atoms[chosen].tolist()
    assert torch.equal(batch[edge_index[0]], batch[edge_index[1]])
    assert torch.equal(edge_index[:, 0::2], edge_index[:, 1::2].flip(0))


def test_random_molecules_are_connected_and_have_rings():
    molecules = graphs.random_molecules(20)
    edge_index, batch = molecules.batch(list(range(20)))
    assert edge_index.max() < batch.numel()
    assert (molecules.bond_ptr.diff() > molecules.atoms - 1).all()
    assert (edge_index[0] != edge_index[1]).all()


def test_missing_data_is_one_line(tmp_path, capsys):
    assert speed.main(["line-dag", "--root", str(tmp_path), "--no-record"]) == 1
    assert "leave out --root" in capsys.readouterr().err


def test_times():
    times = measure({"a": Case(lambda given: given, lambda: 1), "b": Case(lambda _: None)}, rounds=4)
    assert [len(found) for found in times.values()] == [4, 4]
    found = summary([0.001, 0.002, 0.003, 0.004, 0.005])
    assert found == {"median_ms": 3.0, "min_ms": 1.0, "q1_ms": 2.0, "q3_ms": 4.0, "calls": 5}


def test_the_byte_floor_by_hand():
    dag = grid_dag(1, 3)  # 3 nodes, 2 edges, 1 pair
    floor, text = operator_floor(dag, heads=2, keys=4, values=4)
    assert floor == 4 * (11 * 3 * 2 * 4 + 3 * 2 * (2 * 2 + 1 + 3))
    assert "11 passes" in text
