"""The profile of data: two ways to get batches, each with a row that adds up."""

import profile_data
import records
from small_runs import small_dataset

from plstm_graph.data import write_prepared


def test_a_row_for_each_way(tmp_path, capsys):
    write_prepared(tmp_path / "small.pt", small_dataset(tmp_path))
    words = [str(tmp_path / "small.pt"), "--batch-size", "8", "--device", "cpu", "--out", str(tmp_path / "rows.jsonl")]
    assert profile_data.main(words) == 0
    rows = records.read(tmp_path / "rows.jsonl")
    assert [(row["data"], row["name"], row["steps"]) for row in rows] == [
        ("small", "packed", 4),
        ("small", "DataLoader", 4),
    ]
    for row in rows:
        assert 0 < row["share"] < 1
        assert row["batch_ms"] > 0 < row["step_ms"]
        assert row["versions"]["torch"]
    assert capsys.readouterr().out.count("% of the time") == 2
    assert profile_data.main(["no-such-set"]) == 1
    assert "unknown data set" in capsys.readouterr().err
