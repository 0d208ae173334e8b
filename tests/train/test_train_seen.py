"""Which part of a data set is scored, and what a reader is told about it."""

import os
from pathlib import Path
from typing import Any

import pytest
from small_runs import molecules, small_config, small_dataset, write_csv
from typer.testing import CliRunner

from plstm_graph.cli import app
from plstm_graph.config.names import placed
from plstm_graph.data import load, write_prepared
from plstm_graph.errors import ConfigError
from plstm_graph.train import evaluate, train
from plstm_graph.train.config import TrainConfig, config_hash, differences, read_toml
from plstm_graph.train.inference.seen import same_source


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on column ``y`` of ``small.csv`` beside it: 40 molecules, 4 of them for testing."""
    folder = tmp_path_factory.mktemp("seen")
    train(small_config(out=folder / "run", data=write_csv(folder / "small.csv"), targets="y", epochs=1))
    return folder / "run"


def scored(run: Path, *data: Any, **options: Any) -> tuple[str, str, int]:
    found = evaluate(run, *data, **options)
    return found["part"], found["why"], found["graphs"]


def test_its_own_data_give_the_test_part(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ("test", "the data and the split it was trained on", 4)
    own = run.parent / "small.csv"
    assert scored(run) == scored(run, str(own)) == scored(run, own) == expected
    assert scored(run, own, targets=["y"], smiles_column="smiles", split="random", split_seed=0) == expected
    monkeypatch.chdir(run)
    assert scored(run, "../small.csv") == expected
    (run.parent / "link.csv").symlink_to(own)
    assert scored(run, str(run.parent / "link.csv")) == expected


def test_other_data_are_scored_whole(run: Path, tmp_path: Path) -> None:
    other = write_csv(tmp_path / "small.csv", count=16)
    assert scored(run, other) == ("all", "not the data it was trained on", 16)
    part, why, graphs = scored(run, other, split_seed=3)
    assert (part, graphs) == ("all", 16)
    assert why == "not the data it was trained on; give --split-part for a part of another split"


def test_other_columns_and_splits_of_its_own_data_are_scored_whole(run: Path, tmp_path: Path) -> None:
    assert scored(run, targets=["z"]) == ("all", "not the targets it was trained on", 40)
    part, why, graphs = scored(run, split_seed=5)
    assert (part, graphs) == ("all", 40)
    assert why == "not the split it was trained on; give --split-part for a part of another split"
    lines = [f"{text},{text}O,{len(text)}" for text in molecules(20)]
    (tmp_path / "two.csv").write_text("\n".join(["smiles,product,y", *lines]))
    train(small_config(out=tmp_path / "run", data=tmp_path / "two.csv", targets="y", epochs=1))
    assert scored(tmp_path / "run", smiles_column="SMILES")[0] == "test"
    assert scored(tmp_path / "run", smiles_column="product")[:2] == ("all", "not the data it was trained on")


def test_molecules_are_read_from_the_column_of_the_training(tmp_path: Path) -> None:
    """Beside them may stand others in a column of a usual name, such as those with their salts."""
    rows = [f"{text}.[Na+],{text},{len(text)}" for text in molecules(20)]
    for name, lines in (("a.csv", rows), ("b.csv", rows[1:])):
        (tmp_path / name).write_text("\n".join(["smiles,Parent,y", *lines]))
    run, out = tmp_path / "run", tmp_path / "out.csv"
    train(small_config(out=run, data=tmp_path / "a.csv", smiles_column="parent", targets="y", epochs=1))
    rmse = evaluate(run, tmp_path / "b.csv", smiles_column="Parent")["rmse"]
    assert evaluate(run, tmp_path / "b.csv")["rmse"] == rmse
    assert evaluate(run, tmp_path / "b.csv", smiles_column="smiles")["rmse"] != rmse
    invoke = CliRunner().invoke
    for command in ("predict", "embed"):
        found = []
        for column in ([], ["--smiles-column", "parent"], ["--smiles-column", "smiles"]):
            words = ["--checkpoint", str(run), "--input", str(tmp_path / "b.csv"), "--out", str(out)]
            assert invoke(app, [command, *words, *column]).exit_code == 0
            found.append(out.read_text())
        assert found[0] == found[1] != found[2]
    (tmp_path / "c.csv").write_text("smiles\nCC\n")
    words = ["--checkpoint", str(run), "--input", str(tmp_path / "c.csv"), "--out", str(out)]
    assert invoke(app, ["predict", *words]).exit_code == 0


def test_content_decides_not_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    write_csv(second / "data.csv", count=41)
    monkeypatch.chdir(first)
    write_csv(Path("data.csv"))
    train(small_config(out="run", data="data.csv", targets="y", epochs=2))
    config = read_toml(first / "run" / "config.toml")
    assert (config["data"], config["out"]) == (str(first / "data.csv"), str(first / "run"))
    expected = ("test", "the data and the split it was trained on", 4)
    monkeypatch.chdir(second)
    run = first / "run"
    assert scored(run) == expected
    assert scored(run, "data.csv") == ("all", "not the data it was trained on", 41)
    write_csv(second / "copy.csv")
    assert scored(run, "copy.csv") == expected
    write_prepared(second / "data.pt", load("copy.csv", targets=["y"]), smiles=False)
    assert scored(run, "data.pt") == expected
    first.rename(tmp_path / "third")  # a run may be moved, and go on from its data
    whole = train(small_config(out="../third/run", data="../third/data.csv", targets="y", epochs=2), resume=True)
    assert whole["graphs"]["test"] == 4
    path = tmp_path / "third" / "data.csv"
    path.write_text(path.read_text() + "CCO,1,2\n")
    part, why, graphs = scored(tmp_path / "third" / "run", path)
    assert (part, why, graphs) == ("all", "not the data it was trained on", 41)


def test_data_that_changed_in_place_are_said_to(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "data.csv")
    train(small_config(out=tmp_path / "run", data=path, targets="y", epochs=1))
    path.write_text(path.read_text() + "CCO,1,2\n")
    changed = "the data have changed since it was trained, and some may have been trained on"
    assert scored(tmp_path / "run") == scored(tmp_path / "run", path) == ("all", changed, 41)


def test_paths_that_mean_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "MUTAG", "set"):
        (tmp_path / name).write_text("")
    for name in ("nav17", "MUTAG", "mutag", "ENZYMES+attr", "tu:x", "gone.csv"):
        assert placed(name) == name
    assert placed("./a.csv") == placed(str(tmp_path / "a.csv")) == str(tmp_path / "a.csv")
    assert placed("aig:set") == f"aig:{tmp_path}/set"
    assert placed("set+attr") == f"{tmp_path}/set+attr"
    one, other = TrainConfig(data=tmp_path / "a.csv", root="x"), TrainConfig(data=tmp_path / "x" / "a.csv")
    assert config_hash(one) == config_hash(other)
    assert differences(one, TrainConfig(data="a.csv")) == differences(one, other) == []
    assert len(differences(one, TrainConfig())) == 1


def test_a_part_that_is_given_wins(run: Path, tmp_path: Path) -> None:
    other = write_csv(tmp_path / "other.csv", count=20)
    assert scored(run, part="all") == ("all", "as asked", 40)
    assert scored(run, other, part="test") == ("test", "as asked", 2)
    assert scored(run, part="test", split_seed=5) == ("test", "as asked", 4)


def test_a_wrong_split_of_its_own_data_is_an_error(run: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'scaffold'"):
        evaluate(run, split="skaffold")


def test_graphs_in_hand_give_the_test_part(run: Path, tmp_path: Path) -> None:
    assert scored(run, small_dataset(tmp_path)) == ("test", "the data and the split it was trained on", 4)
    other = small_dataset(tmp_path)
    other.graphs[7].y += 1
    assert scored(run, other) == ("all", "not the data it was trained on", 40)


def test_names_and_paths_of_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert same_source("MUTAG", "mutag")
    assert same_source("a.csv", str(tmp_path / "a.csv"))
    assert same_source("./x/../a.csv", "a.csv")
    assert not same_source("a.csv", "x/a.csv")
    assert not same_source("nav17", "MUTAG")
    assert not same_source("nav17", "nav17.csv")


def test_a_prepared_file_is_the_set_it_was_made_of(tmp_path: Path) -> None:
    write_prepared(tmp_path / "some.pt", load("nav17"))
    path = str(tmp_path / "some.pt")
    assert same_source("nav17", path)
    assert same_source(path, "nav17", "nav17")
    assert not same_source("MUTAG", path)
    assert not same_source(path, "MUTAG", "nav17")
    os.unlink(path)
    assert not same_source("nav17", path)  # nothing tells any more


def test_notes_name_columns_and_rejected_rows(run: Path, tmp_path: Path) -> None:
    assert evaluate(run)["notes"] == []
    path = tmp_path / "other.csv"
    rows = [*(f"{text},{len(text)}" for text in molecules(5)), "C1CC,1", "CCO,", "xyz,2", ",3"]
    path.write_text("\n".join(["smiles,act", *rows]))
    found = evaluate(run, path, targets=["act"])
    assert (found["graphs"], found["rejected"]) == (5, 4)
    columns, rejected = found["notes"]
    assert columns == "scores y against column 'act'"
    assert rejected.startswith("4 rows rejected: row 6: rdkit cannot read the SMILES 'C1CC': ")
    assert "; row 7: no label in act; row 8: rdkit" in rejected
    assert rejected.endswith("; ...")
    assert "\n" not in rejected


def test_notes_name_all_columns_in_order(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "small.csv")
    train(small_config(out=tmp_path / "run", data=data, targets="y,z", epochs=1))
    data.write_text(data.read_text().replace("smiles,y,z", "smiles,a,b"))
    assert evaluate(tmp_path / "run", targets=["b", "a"])["notes"] == ["scores y, z against columns 'b', 'a'"]
    data.write_text(data.read_text().replace("smiles,a,b", "smiles,y,z"))
    assert evaluate(tmp_path / "run", targets=["y", "z"])["notes"] == []
