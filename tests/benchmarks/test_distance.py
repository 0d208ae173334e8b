"""Rows and picture of the benchmark of long paths, on a few steps of each network."""

import distance
import pytest
import records


@pytest.mark.parametrize("name", distance.STYLES)
def test_every_network_learns_a_step(name, monkeypatch) -> None:
    monkeypatch.setattr(distance, "TESTS", ((20, 0.9, 2), (12, 0.98, 2)))
    monkeypatch.setattr(distance, "BATCH", 2)
    row = distance.run(name, seed=0, steps=2, lr=1e-3, device="cpu")
    assert list(row["errors"])[:2] == ["1", "2"]
    assert all(0 < error < 10 for error in row["errors"].values())
    assert row["parameters"] > 1000


def test_rows_and_picture(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(distance, "TESTS", ((20, 0.9, 2),))
    rows = tmp_path / "distance.jsonl"
    words = ["--steps", "1", "--out", str(rows), "--plot"]
    assert distance.main(["dagnn", "--seeds", "0", "1", *words]) == 0
    found = records.read(rows)
    assert [row["seed"] for row in found] == [0, 1]
    assert found[0]["errors"] != found[1]["errors"]
    assert (tmp_path / "error_against_distance.png").stat().st_size > 5000
    assert distance.main(words) == 0
    assert "as it was" in capsys.readouterr().out
