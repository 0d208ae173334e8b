"""Splits by a column, folds of groups, and a test file."""

import pytest
import torch
from small_runs import molecules, small_config

from plstm_graph.data import load
from plstm_graph.data.column_splits import folds_of_groups, named_split, time_split
from plstm_graph.data.smiles import scaffold
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.train import evaluate, predict, train
from plstm_graph.train.data import load_data, split_of

TEXTS = molecules(40)


@pytest.fixture
def table(tmp_path):
    """Rows with a part, a series and a day that their number decides."""
    lines = ["smiles,y,split,series,day"]
    for row, text in enumerate(TEXTS):
        part = ("Train", "train", "val", "test")[row % 4]
        lines.append(f"{text},{len(text)},{part},s{row % 12},2024-{1 + row % 3:02}-{1 + row % 28:02}")
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_column_with_parts_is_the_split(table, caplog):
    found = load(str(table), targets=["y"], split_column="split").split()
    assert found["valid"] == list(range(2, 40, 4))
    assert found["test"] == list(range(3, 40, 4))
    assert caplog.text == ""
    load(str(table), targets=["y"])
    assert "column 'split' names parts and is not used; give --split-column 'split'" in caplog.text


def test_without_a_valid_part_it_comes_from_train():
    found = named_split(["train"] * 20 + ["holdout"] * 5, seed=1)
    assert found["test"] == list(range(20, 25))
    assert len(found["valid"]) == 2
    assert sorted(found["train"] + found["valid"]) == list(range(20))
    with pytest.raises(DataError, match="got 'other'"):
        named_split(["train", "other"])
    with pytest.raises(DataError, match="no row for training"):
        named_split(["valid", "test"])


def test_groups_stay_together(table):
    dataset = load(str(table), targets=["y"], split_column="series")
    for kind, fold in (("group", 0), ("group-folds", 3)):
        split = dataset.split(kind, fold=fold)
        owners = [{dataset.column[row] for row in part} for part in split.values()]
        assert all(owners)
        assert sum(map(len, owners)) == 12
    with pytest.raises(ConfigError, match="name it with --split-column"):
        load(str(table), targets=["y"]).split("group")
    with pytest.raises(ConfigError, match="has no folds"):
        dataset.split("group", fold=1)


def test_a_column_that_the_split_does_not_read_is_refused(table):
    """It would be random, and rows of one series in all its parts."""
    with pytest.raises(ConfigError, match="the split 'random' does not read column 'series'; with --split-column give"):
        train(small_config(data=table, targets="y", split="random", split_column="series", epochs=1))


def test_rows_without_a_group_are_said(tmp_path, caplog):
    rows = [f"{text},{row},{'' if row < 12 else row}" for row, text in enumerate(TEXTS)]
    (tmp_path / "a.csv").write_text("smiles,y,series\n" + "\n".join(rows) + "\n")
    train(small_config(data=tmp_path / "a.csv", targets="y", split="group", split_column="series", epochs=1))
    assert "12 rows with an empty cell in column 'series' stay together as one group" in caplog.text


def test_folds_of_groups_test_every_row_once_and_are_of_one_size():
    owners = [row % 17 for row in range(100)]
    folds = [folds_of_groups(owners, 10, seed=1, fold=fold)["test"] for fold in range(10)]
    assert sorted(row for part in folds for row in part) == list(range(100))
    assert max(map(len, folds)) <= 12
    with pytest.raises(DataError, match="got 3"):
        folds_of_groups("abc", 10)


def test_scaffold_folds_keep_scaffolds_together(tmp_path):
    rings = [
        "c1ccccc1",
        "C1CCCCC1",
        "c1ccncc1",
        "C1CC1",
        "C1CCC1",
        "c1ccoc1",
        "c1ccsc1",
        "C1CCNCC1",
        "c1cnoc1",
        "C1CO1",
        "C1CCOC1",
    ]
    lines = [f"{'C' * size}{ring},{size}" for ring in rings for size in range(1, 4)]
    (tmp_path / "a.csv").write_text("smiles,y\n" + "\n".join(lines) + "\n")
    dataset = load(str(tmp_path / "a.csv"), targets=["y"])
    tested = []
    for fold in range(10):
        split = dataset.split("scaffold-folds", fold=fold)
        owners = [{scaffold(dataset.graphs[row].smiles) for row in part} for part in split.values()]
        assert sum(map(len, owners)) == len(rings)
        tested += split["test"]
    assert sorted(tested) == list(range(len(lines)))


def test_time_goes_forward(table):
    dataset = load(str(table), targets=["y"], split_column="day")
    split = dataset.split("time")
    days = [[dataset.column[row] for row in split[part]] for part in ("train", "valid", "test")]
    assert max(days[0]) < min(days[1]) <= max(days[1]) < min(days[2])
    assert time_split([str(year) for year in range(2000, 2010)])["test"] == [9]
    zones = [f"2024-05-01T0{hour}:00+0{9 - hour}:00" for hour in range(10)]  # the first is the earliest by far
    assert time_split(zones) == time_split([str(2 * hour) for hour in range(10)])
    assert time_split([f"2024-05-01T09:00+0{zone}:00" for zone in range(10)])["test"] == [0]
    with pytest.raises(DataError, match="got '31"):
        time_split(["2024-05-01", "31.5.2024", "2024-06-01"])


def test_a_file_to_test_on(table, tmp_path):
    """All of it is tested, none of it trained on; what would have been the test part is for training."""
    other = tmp_path / "later.csv"
    other.write_text("y,smiles\n1.5,CCCCN\n2.5,not a molecule\n3.5,CCCCCN\n")
    config = small_config(data=table, targets="y", test_data=other, epochs=1, out=tmp_path / "run")
    dataset = load_data(config)
    split = split_of(config, dataset)
    assert split["test"] == [40, 41]
    assert len(split["train"]) == 36
    assert [row.reason[-18:] for row in dataset.rejected] == ["(of the test data)"]
    found = train(config)
    assert found["graphs"] == {"train": 36, "valid": 4, "test": 2}
    assert evaluate(tmp_path / "run")["mae"] == pytest.approx(found["test"]["mae"])
    assert evaluate(tmp_path / "run", other)["graphs"] == 2


def test_other_data_may_lack_a_class(tmp_path):
    """As a small file of new molecules often does."""
    (tmp_path / "a.csv").write_text("smiles,y\n" + "".join(f"{t},{k % 3}\n" for k, t in enumerate(TEXTS)))
    train(small_config(data=tmp_path / "a.csv", targets="y", task="multiclass", epochs=1, out=tmp_path / "run"))
    truth = [1, 1, 2, 1]
    (tmp_path / "b.csv").write_text("smiles,Z\n" + "".join(f"{t},{k}\n" for t, k in zip(TEXTS, truth, strict=False)))
    chosen = predict(tmp_path / "run", TEXTS[:4]).values[:, 0].tolist()
    found = evaluate(tmp_path / "run", tmp_path / "b.csv", targets=["Z"])
    assert found["accuracy"] == sum(a == b for a, b in zip(chosen, truth, strict=True)) / 4
    assert found["notes"] == ["scores y against column 'Z'"]
    assert evaluate(tmp_path / "run")["why"] == "the data and the split it was trained on"
    (tmp_path / "b.csv").write_text("smiles,y\nCCCCN,2\nCCN,3\n")
    with pytest.raises(DataError, match="row 2: classes are 0 to 2, got 3"):
        evaluate(tmp_path / "run", tmp_path / "b.csv")


def test_a_file_to_test_on_may_lack_a_class(tmp_path):
    (tmp_path / "a.csv").write_text("smiles,y\n" + "".join(f"{t},{k % 3}\n" for k, t in enumerate(TEXTS)))
    (tmp_path / "b.csv").write_text("smiles,y\nCCCCN,2\n")
    config = small_config(data=tmp_path / "a.csv", targets="y", task="multiclass", test_data=tmp_path / "b.csv")
    assert torch.equal(load_data(config).graphs[-1].y, torch.tensor([2]))
    (tmp_path / "b.csv").write_text("smiles,y\nCCCCN,3\n")
    with pytest.raises(DataError, match="classes are 0 to 2, got 3"):
        load_data(config)
