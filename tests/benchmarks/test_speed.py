"""Speed: nothing is timed before it is right, and a tiny pass through every group leaves its rows."""

from types import SimpleNamespace

import bench
import graphs
import groups.operators
import pytest
import records
import speed
import torch
from bench import Bench, checked, exact, gated_inputs, through
from groups import GROUPS, dags, grids, layers, logic, training
from timing import Case, Disagreement, agree, device_costs, measure, operator_floor, summary

from plstm_graph import LineDAG
from plstm_graph.data import circuits
from plstm_graph.errors import BackendUnavailable
from plstm_graph.ops import BACKENDS
from plstm_graph.testing import grid_dag, outcome

SIZES = {"molecules": 2, "mixed": 3, "large": 1, "layer-molecules": 2, "step-molecules": 2, "epoch-molecules": 3}
MORE = {"line-dag-molecules": 3, "all-molecules": 7, "edges": 40, "rounds": 1, "threads": 1, "epochs": 1, "workers": 0}
TINY = [word for name, value in (SIZES | MORE).items() for word in (f"--{name}", str(value))]


@pytest.fixture
def slow_copy(monkeypatch):
    """Finding the speed of a copy takes a quarter of a gigabyte."""
    monkeypatch.setattr(bench, "bandwidth", lambda device: 1e9)


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


@pytest.fixture
def small_grids(monkeypatch):
    monkeypatch.setattr(grids, "CPU", (grids.Shape(2, 1, 3, 4, 2, "P"), grids.Shape(1, 1, 3, 2, 2, "D-left")))
    monkeypatch.setattr(grids, "SIDES", {"cpu": (2,)})
    monkeypatch.setattr(grids, "PIXELS", {"cpu": 16})
    monkeypatch.setattr(grids, "CHAINS", {"cpu": ((2, 1, 20, 2),)})
    monkeypatch.setattr(grids, "TOKENS", 10)
    monkeypatch.setattr(dags, "CHAINS", (30,))
    grids._image_errors.cache_clear()  # of forms that other tests have measured


def test_every_group_leaves_its_rows(slow_copy, small_grids, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    assert speed.main([*TINY, "--commit", "abc", "--out", str(out)]) == 0
    rows = records.read(out)
    names = {group: [row["name"] for row in rows if row["group"] == group] for group in GROUPS}
    assert {"reference", "scatter", "dense"} <= set(names["operator"])
    assert {"PLSTMConv (scatter)", "GINEConv", "GATv2Conv", "GPSConv", "4 x GINEConv"} <= set(names["layer"])
    assert names["block"] == list(layers.BLOCKS)
    assert names["step"] == list(training.MODELS)
    assert names["epoch"] == ["packed", "DataLoader, 0 workers"]
    assert names["line-dag"] == ["LineDAG", "prune"] * 2
    assert names["circuit"] == names["cones"] == []
    assert {"reference", "scatter"} <= set(names["random"]) & set(names["deep"])
    assert {"log", "rows", "closed", "tiles", "sdpa", "general operator"} <= set(names["grid"])
    assert names["grid"].count("sdpa") == names["grid-size"].count("tiles") == 2  # P and D
    assert {"log", "chunks", "sdpa"} <= set(names["chain"])
    said = capsys.readouterr().out
    assert "circuits are read from --root" in said
    assert "cones are cut from the circuits of --root" in said
    for row in rows:
        assert {"date", "machine", "versions", "commit", "dirty", "command", "run", "sizes"} <= set(row)
        assert row["min_ms"] <= row["q1_ms"] <= row["median_ms"] <= row["q3_ms"]
        assert "device_ms" not in row  # on a CPU there is no other time


def test_grids_go_on_where_they_were_left(small_grids, tmp_path, capsys):
    words = ["grid", "chain", *TINY, "--commit", "abc", "--out", str(tmp_path / "rows.jsonl"), "--continue"]
    assert speed.main(words) == 0
    rows = records.read(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text("")
    for row in rows:
        if row["group"] == "grid":
            records.append(tmp_path / "rows.jsonl", row)
    capsys.readouterr()
    assert speed.main(words) == 0
    assert capsys.readouterr().out.count("has been measured") == 2
    assert len(records.read(tmp_path / "rows.jsonl")) == len(rows)


def test_nothing_is_timed_when_a_form_is_wrong(small_grids, monkeypatch, tmp_path):
    right = grids.FORMS["rows"]
    monkeypatch.setitem(grids.FORMS, "rows", lambda *inputs: 1.001 * right(*inputs))
    with pytest.raises(Disagreement, match="form 'rows' disagrees"):
        speed.main(["grid", *TINY, "--out", str(tmp_path / "rows.jsonl")])
    assert not (tmp_path / "rows.jsonl").exists()


def test_targets_of_grids():
    def found(shape, name="triton", ms=1.0, mib=100.0, ratios=(12.0, 9.0)):
        row = {"device_ms": ms, "peak_mib": mib, "ratios": dict(zip(("sdpa", "general operator"), ratios, strict=True))}
        return grids._targets(True, shape, name, row)

    small, large = grids.GPU[0], grids.GPU[-1]
    assert found(small) == {"<= 1.2 ms": True}
    assert found(small, name="log") == found(small, name="sdpa") == {}
    assert found(large, mib=9000.0) == {">= 10 x sdpa": True, ">= 10 x general operator": False, "<= 8 GiB": False}


def test_dtypes_shapes_and_compiled_peers(slow_copy, monkeypatch, tmp_path):
    monkeypatch.setattr(groups.operators, "TWICE", 2)
    monkeypatch.setattr(Bench, "on_gpu", True)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    out = tmp_path / "rows.jsonl"
    more = ["--mixed", "0", "--large", "0", "--backends", "scatter", "--compiled", "--out", str(out)]
    assert speed.main(["operator", "layer", *TINY, *more]) == 0
    rows = records.read(out)
    name = "2 molecules of 20 to 30 atoms (random graphs)"
    ends = ["", ", bfloat16", ", float16"]
    assert [row["case"] for row in rows if row["group"] == "operator"] == [
        name + shape + end for shape in ("", ", H=4, K=V=32") for end in ends
    ]
    half = next(row for row in rows if row["case"].endswith("bfloat16"))
    assert (half["dtype"], half["floor_bytes"]) == ("bfloat16", rows[0]["floor_bytes"] // 2)
    assert {"GINEConv (compiled)", "PLSTMConv (auto) (compiled)"} <= {row["name"] for row in rows}


def test_what_cannot_run_or_takes_too_long_is_left_out(capsys):
    def refuses(_):
        raise BackendUnavailable("not here")

    options = speed.parse(["--rounds", "2", "--patience", "0", "--no-record"])
    small = Bench(options, graphs.load_sets(fallback=2))
    medians = small.compare("group", "case", {"refuses": Case(refuses), "slow": Case(lambda _: None)}, {"N": 1})
    assert medians == {}
    assert "refuses is left out: not here" in (said := capsys.readouterr().out)
    assert "slow is left out: one call takes" in said


def test_a_large_line_graph_is_checked_by_scatter_a_few_heads_at_a_time(monkeypatch):
    dag = grid_dag(4, 5)
    inputs = gated_inputs(dag, 3, 4)
    weight = torch.randn_like(inputs.value)
    want = exact(inputs, dag, weight)
    monkeypatch.setattr(bench, "REFERENCE_EDGES", 10)
    monkeypatch.setattr(bench, "EXACT_BYTES", 1)
    assert agree("it", exact(inputs, dag, weight), want, 1e-12) < 1e-12
    assert checked(["reference", "scatter"], inputs, dag, weight).keys() == {"scatter"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_compared_with_the_same_rounded_numbers(dtype):
    dag = grid_dag(3, 4)
    inputs = gated_inputs(dag, 2, 4, dtype)
    weight = torch.randn_like(inputs.value)
    assert checked(["scatter"], inputs, dag, weight)["scatter"] < 2e-2
    assert outcome(through("scatter"), inputs, dag, weight)["output"].dtype == dtype


def test_targets_of_the_operator():
    def found(count, dtype="float32", ms=1.0, mib=100.0, name="triton", shape=(8, 16), on_gpu=True):
        row = {"median_ms": ms, "extra_mib": mib, "ratios": {"reference": 12.0}}
        batch = SimpleNamespace(graphs=count)
        return groups.operators.targets(on_gpu, batch, shape, dtype, {"triton": 1.1}, name, row)

    assert found(4096) == {"<= 1.2 ms": True, "<= 400 MiB": True}
    assert found(4096, mib=401.0) == {"<= 1.2 ms": True, "<= 400 MiB": False}
    assert found(512) == {"<= 0.6 ms": False}
    assert found(4096, "bfloat16") == {"faster than float32": True}
    assert found(4096, "bfloat16", ms=1.2) == {"faster than float32": False}
    assert found(64) == found(4096, name="dense") == found(4096, shape=(4, 32)) == {}
    assert found(64, name="scatter", on_gpu=False) == {">= 10x reference": True}


def test_targets_of_layer_dag_and_epoch():
    row = {"ratios": {"GINEConv": 0.5, "GATv2Conv": 3.0, "GPSConv": 12.0}, "median_ms": 40.0, "peak_mib": 41_000.0}
    auto = "PLSTMConv (auto)"
    assert layers.targets(False, 64, auto, row) == {"<= 3 x GINEConv": True, "<= GATv2Conv": True}
    assert layers.targets(True, 512, auto, row) == {"<= GINEConv": False, "<= 0.4 x GATv2Conv": True}
    assert layers.targets(True, 4096, auto, row)["<= 0.1 x GPSConv"]
    without = {"ratios": {"GINEConv": 0.5, "4 x GINEConv": 0.7}}
    assert layers.targets(True, 512, "PLSTMConv (auto, no dag)", without) == {"<= 2 x GINEConv": True}
    assert layers.targets(True, 4096, "4 x PLSTMConv (no dag)", without) == {"<= 1.3 x 4 x GINEConv": False}
    assert layers.targets(False, 64, "4 x PLSTMConv (no dag)", without) == {}
    assert layers.targets(True, 4096, "GINEConv", row) == layers.targets(True, 64, auto, row) == {}
    assert dags.targets(True, "triton", row) == {"<= 50 ms": True, "peak < 40 GiB": False}
    assert dags.targets(False, "triton", row) == {}
    slower = {"ratios": {dags.BY_LEVEL: 2.9}}
    assert dags.targets(False, "triton", slower) == {">= 3 x triton, level by level": False}
    fast = {"median_ms": 1900.0, "busy": 0.7}
    assert training.goals("packed", fast)["targets"] == {"<= 2.0 s": True, "GPU busy > 80 %": False}
    assert training.goals("packed", {"median_ms": 1.0}) == {}


def test_overlapping_kernels_count_once():
    spans = [(0.0, 2.0), (1.0, 3.0), (1.5, 1.7), (5.0, 6.0)]
    assert training.covered(spans) == 4.0


def test_a_layered_dag():
    edge_index, nodes = graphs.layered_edges(2000, 50)
    dag = LineDAG.from_edge_index(edge_index, nodes)
    assert (nodes, dag.num_edges, dag.num_levels) == (1000, 2 * (1000 - 20), 49)
    assert 1.8 * dag.num_edges < dag.num_pairs < 2 * dag.num_edges
    assert not dag.merged


def test_a_small_published_circuit(slow_copy, shared_data, tmp_path):
    if not (shared_data / "dag_EPFL_aig").is_dir() or not (shared_data / "ogb" / "ogbg_molhiv" / "raw").is_dir():
        pytest.skip("no EPFL circuits or molhiv")
    out = tmp_path / "rows.jsonl"
    arguments = ["circuit", "--root", str(shared_data), "--circuits", "ctrl", "--check-gates", "20"]
    assert speed.main([*arguments, *TINY, "--backends", "scatter", "--out", str(out)]) == 0
    small, large = records.read(out)
    assert (small["sizes"]["E"], small["sizes"]["levels"], small["checked_edges"]) == (348, 10, 40)
    assert (small["sizes"]["K"], large["sizes"]["K"], large["case"]) == (4, 16, "ctrl, H=8, K=V=16")
    assert str(shared_data) not in str(small)


def test_a_step_on_cones(shared_data, cache, slow_copy, monkeypatch, tmp_path):
    if not (shared_data / "dag_EPFL_aig").is_dir():
        pytest.skip("no EPFL circuits")
    few = {part: circuits.Cut(("ctrl",), 4, (5, 12)) for part in ("train", "valid", "test")}
    monkeypatch.setattr(circuits, "PARTS", {"circuits": few})
    monkeypatch.setattr(logic, "CASES", (("circuits", "test", 2, "two cones"),))
    monkeypatch.setattr(speed, "load_sets", lambda *_: None)
    out = tmp_path / "rows.jsonl"
    assert speed.main(["cones", "--root", str(shared_data), *TINY, "--out", str(out)]) == 0
    rows = {row["name"]: row for row in records.read(out)}
    assert list(rows) == [logic.PLSTM, logic.DAGNN, logic.DEEPER, logic.GINE]
    shape = rows[logic.PLSTM]["sizes"]
    assert (shape["graphs"], shape["width"], shape["graphs of the part"]) == (2, logic.WIDTH, 4)
    assert shape["levels"] <= shape["greatest depth"] <= 12
    assert set(rows[logic.PLSTM]["targets"]) == {f">= 10 x {logic.DAGNN}", f">= 10 x {logic.DEEPER}"}
    assert rows[logic.DEEPER]["parameters"] > 3 * rows[logic.DAGNN]["parameters"]
    assert "targets" not in rows[logic.DAGNN]


def test_molhiv_from_its_raw_files(shared_data):
    if not (shared_data / "ogb" / "ogbg_molhiv" / "raw").is_dir():
        pytest.skip("no molhiv")
    molecules = graphs.load_sets(str(shared_data)).molecules
    assert (len(molecules), int(molecules.node_ptr[-1]), molecules.bonds.size(1)) == (41127, 1049163, 1129688)
    chosen = molecules.draw(5, atoms=(20, 30))
    edge_index, batch = molecules.batch(chosen)
    assert batch.bincount().tolist() == molecules.atoms[chosen].tolist()
    assert torch.equal(batch[edge_index[0]], batch[edge_index[1]])
    assert torch.equal(edge_index[:, 0::2], edge_index[:, 1::2].flip(0))
    assert molecules.split.bincount().tolist() == [32901, 4113, 4113]
    assert [int(molecules.y[molecules.split == part].sum()) for part in range(3)] == [1232, 81, 130]


def test_random_molecules_are_connected_and_have_rings():
    molecules = graphs.random_molecules(20)
    edge_index, batch = molecules.batch(list(range(20)))
    assert edge_index.max() < batch.numel()
    assert (molecules.bond_ptr.diff() > molecules.atoms - 1).all()
    assert (edge_index[0] != edge_index[1]).all()
    large = graphs.random_molecules(20, atoms=150, spread=3)
    assert 140 <= int(large.atoms.min()) <= int(large.atoms.max()) <= 160


def test_molecules_as_data():
    molecules = graphs.random_molecules(4)
    first, second = molecules.data([2, 0])
    assert first.num_nodes == molecules.atoms[2]
    assert torch.equal(second.x, molecules.x[: molecules.atoms[0]].long())
    assert first.edge_attr.shape == (first.num_edges, 3)
    assert torch.equal(first.edge_attr[0::2], first.edge_attr[1::2])
    assert torch.equal(first.edge_index, molecules.batch([2])[0])


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
    assert text == "(264 + 48) numbers of 4 bytes"


def test_a_cpu_has_no_costs_of_its_own():
    assert device_costs(Case(lambda _: None), "cpu", 2) == {}
