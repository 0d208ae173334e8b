import json
from pathlib import Path

import blends
import pytest
from small_runs import small_config, small_dataset
from tables import blends_table

from plstm_graph.train import train


def test_each_seed_has_members_of_its_own_and_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_dataset(tmp_path, task="binary")
    for name, seed in (("trees/a", 0), ("trees/a", 1), ("trees/b", 0), ("trees/b", 1), ("network", 0)):
        model = {"model_model": "gine"} if name == "network" else {"model_model": "fingerprint", "model_trees": 5}
        where = tmp_path / "network" if name == "network" else tmp_path / name / f"seed-{seed}"
        config = small_config(data=str(tmp_path / "small.csv"), seed=seed, split_seed=0, out=str(where), **model)
        train(config, dataset)
    words = ["trees", f"{tmp_path}/trees/*/seed-{{seed}}", "--out", str(tmp_path / "forests"), "--equal"]
    more = ["all", f"{tmp_path}/forests/seed-{{seed}}", f"{tmp_path}/network", "--out", str(tmp_path / "all")]
    where = ["--results", str(tmp_path)]
    assert blends.main([*words, *where, "--seeds", "0"]) == 0
    assert blends.main([*words, *where, "--seeds", "0-1"]) == 0  # the first is there
    assert blends.main([*more, *where, "--seeds", "0-1"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "blends.jsonl").read_text().splitlines()]
    assert [(row["blend"], row["seed"]) for row in rows] == [("trees", 0), ("trees", 1), ("all", 0), ("all", 1)]
    assert [each["weight"] for each in rows[0]["members"]] == [0.5, 0.5]
    assert sum(each["weight"] for each in rows[2]["members"]) == pytest.approx(1)
    assert all({"valid", "test"} <= each.keys() for row in rows for each in [*row["members"], row["mean"]])
    stored = json.loads((tmp_path / "all" / "seed-1" / "metrics.json").read_text())
    assert rows[3]["test"] == stored["test"]
    assert f"seed 1: valid {stored['valid']['rocauc']:.4f}" in capsys.readouterr().out
    lines = blends_table(rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| trees", "| all"]

    assert blends.main([*words, *where, "--seeds", "2"]) == 1
    assert "no folder fits" in capsys.readouterr().err
