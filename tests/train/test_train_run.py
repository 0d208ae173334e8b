import csv
import errno
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.utilities import rank_zero_only
from small_runs import small_config, small_dataset, three_classes, write_csv

from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.examples import digests_of
from plstm_graph.data.packed import PackedGraphs
from plstm_graph.errors import CheckpointError, ConfigError, DataError, OutOfMemory
from plstm_graph.gates import Gate
from plstm_graph.tasks import Binary, Multiclass, Regression
from plstm_graph.train import train
from plstm_graph.train.callbacks import Keeper, progress_console
from plstm_graph.train.checkpoint import read
from plstm_graph.train.module import warmup_cosine
from plstm_graph.train.provenance import commit
from plstm_graph.train.report import report
from plstm_graph.train.run import fit
from plstm_graph.train.trainer import first_process


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Equal but for the time it took; ``out`` is no part of the result."""
    return {**first, "minutes": 0, "date": ""} == {**second, "minutes": 0, "date": ""}


def test_a_run_without_folder_writes_nothing_and_repeats_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = small_dataset(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    state = torch.get_rng_state()
    first = train(small_config(), dataset)
    torch.rand(3)
    second = train(small_config(), dataset, graphs=add_encodings(dataset.graphs, small_config().model))
    assert same(first, second)
    assert not same(first, train(small_config(seed=1, split_seed=0), dataset))
    assert os.listdir(empty) == []
    assert capfd.readouterr() == ("", "")
    torch.set_rng_state(state)
    before = torch.rand(1)
    torch.set_rng_state(state)
    train(small_config(epochs=1), dataset)
    assert torch.equal(before, torch.rand(1))  # the caller's random numbers are left alone


def test_it_learns_in_the_units_of_the_labels(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path, targets=("z",))  # hundreds: 100 times the length of the SMILES
    found = train(small_config(epochs=60, lr=0.03, model_dropout=0.0), dataset)
    assert found["metric"] == "r2"
    assert found["train"]["r2"] > 0.5
    assert 10 < found["train"]["rmse"] < 500


@pytest.mark.parametrize(
    ("task", "metric"),
    [("regression", "r2"), ("regression", "mae"), ("regression", "rmse"), ("binary", "rocauc"), ("binary", "ap")],
)
def test_tasks_and_metrics(tmp_path: Path, task: str, metric: str) -> None:
    found = train(small_config(metric=metric, out=tmp_path / "run"), small_dataset(tmp_path, task, ("y", "z")))
    assert found["metric"] == metric
    history = read_history(tmp_path / "run")
    values = [row[f"valid_{metric}"] for row in history]
    best = max(values) if metric in ("r2", "rocauc", "ap") else min(values)
    assert len(values) - values[::-1].index(best) == found["best_epoch"]
    assert found["valid"][metric] == pytest.approx(best, abs=1e-5)
    picture = "parity.png" if task == "regression" else "roc.png"
    assert (tmp_path / "run" / picture).stat().st_size > 5000


def test_classes(tmp_path: Path) -> None:
    found = train(small_config(out=tmp_path / "run", split="random"), three_classes(small_dataset(tmp_path)))
    assert set(found["test"]) == {"accuracy"}
    assert (tmp_path / "run" / "roc.png").exists()


def test_missing_labels(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path, targets=("y", "z"))
    for graph in dataset.graphs[::3]:
        graph.y[0, 1] = math.nan
    found = train(small_config(), dataset)
    assert all(math.isfinite(value) for part in ("train", "valid", "test") for value in found[part].values())


def read_history(out: Path) -> list[dict[str, float]]:
    with (out / "metrics.csv").open() as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def test_the_folder_holds_everything(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "small"
    dataset = small_dataset(tmp_path)
    dataset = replace(dataset, rejected=[("3", "C1CC", "ring 1 is not closed")])
    found = train(small_config(out=out), dataset, command="plstm-graph train")
    files = {"metrics.json", "metrics.csv", "config.toml", "curves.png", "parity.png", "rejected.csv", "checkpoints"}
    assert set(os.listdir(out)) == files | {"predictions.csv", "start.json", "card.md"}
    assert sorted(os.listdir(out / "checkpoints")) == ["best.ckpt", "last.ckpt"]
    assert (out / "rejected.csv").read_text() == "row,text,reason\n3,C1CC,ring 1 is not closed\n"
    stored = json.loads((out / "metrics.json").read_text())
    assert stored == found
    assert stored["rejected"] == 1
    assert stored["command"] == "plstm-graph train"
    assert stored["graphs"] == {"train": 32, "valid": 4, "test": 4}
    assert {"torch", "plstm_graph", "python"} <= stored["versions"].keys()
    assert [row["epoch"] for row in read_history(out)] == [0, 1, 2, 3]
    with (out / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(int(row["index"]) for row in rows) == list(range(40))
    for row in rows:
        graph = dataset.graphs[int(row["index"])]
        assert row["smiles"] == graph.smiles
        assert float(row["y"]) == pytest.approx(float(graph.y), rel=1e-6)
    errors = [abs(float(row["y"]) - float(row["y_predicted"])) for row in rows if row["part"] == "test"]
    assert sum(errors) / len(errors) == pytest.approx(found["test"]["mae"], rel=1e-5)


def test_predictions_of_classes_are_probabilities(tmp_path: Path) -> None:
    dataset = three_classes(small_dataset(tmp_path))
    train(small_config(out=tmp_path / "run", epochs=1, split="random"), dataset)
    with (tmp_path / "run" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == [str(int(dataset.graphs[int(row["index"])].y)) for row in rows]
    assert all(sum(float(row[f"p_{k}"]) for k in range(3)) == pytest.approx(1, abs=1e-5) for row in rows)


def test_the_hash_of_a_data_set_sees_every_label(tmp_path: Path) -> None:
    graphs = small_dataset(tmp_path).graphs
    before = digests_of(graphs)
    assert before == digests_of([graph.clone() for graph in graphs])
    graphs[-1].y += 1
    assert all(old != new for old, new in zip(before, digests_of(graphs), strict=True))
    assert digests_of(graphs) != digests_of(graphs[::-1])
    content = digests_of(graphs).content
    graphs[0].smiles = "C"
    assert digests_of(graphs).content == content
    assert digests_of(graphs).whole != digests_of([*graphs[1:], graphs[0]]).whole


@pytest.mark.parametrize(("higher", "scores", "best"), [(True, [1, 3, 2, 3, 2], 3), (False, [3, 1, 2, 1, 2], 3)])
def test_of_epochs_that_score_alike_the_last_is_best(higher: bool, scores: list[float], best: int) -> None:
    keeper = Keeper("valid_metric", higher)
    for epoch, score in enumerate(scores):
        if keeper._as_good(score):
            keeper.best_epoch, keeper.best_score = epoch, score
    assert keeper.best_epoch == best


def test_best_and_last_epoch_are_both_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keeper, "_as_good", lambda self, value: len(self.history) <= 2)
    out = tmp_path / "run"
    found = train(small_config(out=out), small_dataset(tmp_path))
    best, last = (read(out / "checkpoints" / name)["state_dict"] for name in ("best.ckpt", "last.ckpt"))
    assert (found["best_epoch"], found["epochs"]) == (2, 4)
    assert not all(torch.equal(best[key], last[key]) for key in best)
    assert found["test"] != found["test_last_epoch"]


@pytest.mark.parametrize("model", ["plstm", "gine"])
def test_packed_and_plain_batches_train_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    dataset, config = small_dataset(tmp_path), small_config(model_model=model, model_rwse=4)
    with monkeypatch.context() as patch:
        patch.setattr("plstm_graph.train.run.report", spy := Spy(report))
        packed = train(config, dataset)
    (run,) = spy.seen
    assert {type(graphs) for graphs in run.parts.values()} == {PackedGraphs}, "each part is joined once, for all passes"
    monkeypatch.setattr("plstm_graph.train.assembly.pack", lambda graphs, model, device: graphs)
    assert same(packed, train(config, dataset))


class Spy:
    """A function that notes its first arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seen = function, []

    def __call__(self, first: Any, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(first)
        return self.function(first, *args, **kwargs)


def test_runs_with_and_without_folder_agree(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    within = train(small_config(out=tmp_path / "run"), dataset)
    assert same(within, train(small_config(), dataset))


def test_early_stopping(tmp_path: Path) -> None:
    found = train(small_config(epochs=200, patience=2, lr=0.2), small_dataset(tmp_path))
    assert found["epochs"] == found["best_epoch"] + 2 < 200


def test_a_file_where_the_folder_should_be(tmp_path: Path, no_training: None) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write to output folder .*choose another --out"):
        train(small_config(out=tmp_path / "file" / "run"), small_dataset(tmp_path))


def test_a_folder_that_cannot_be_written(tmp_path: Path, no_training: None) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match=r"cannot write to output folder .*Permission denied"):
        train(small_config(out=tmp_path / "closed"), small_dataset(tmp_path))


def test_a_folder_in_use_is_not_touched_unless_told(tmp_path: Path) -> None:
    dataset, out = small_dataset(tmp_path), tmp_path / "run"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty; give --resume, --overwrite or another --out"):
        train(small_config(out=out), dataset)
    train(small_config(out=out, epochs=1), dataset, overwrite=True)
    train(small_config(out=out, epochs=2), dataset, overwrite=True)
    assert (out / "thesis.txt").read_text() == "mine"
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 2
    with pytest.raises(ConfigError, match="give one of them"):
        train(small_config(out=out), dataset, overwrite=True, resume=True)


def test_what_is_wrong_shows_before_training_and_leaves_no_folder(tmp_path: Path, no_training: None) -> None:
    dataset, out = small_dataset(tmp_path), tmp_path / "runs" / "run"
    with pytest.raises(ConfigError, match="unknown metric 'accuracy'"):
        train(small_config(out=out, metric="accuracy"), dataset)
    with pytest.raises(ConfigError, match="the trainer refuses its options"):
        train(small_config(out=out, precision="12-bit"), dataset)
    with pytest.raises(DataError, match="unknown data set"):
        train(small_config(out=out, data="nav71"))
    with pytest.raises(ConfigError, match="unknown model"):
        train(small_config(out=out, model_model="plstn"), dataset)
    for graph in dataset.graphs:
        graph.y = torch.ones(1, 1)
    with pytest.raises(DataError, match="at least two different labels in the valid split"):
        train(small_config(out=out), dataset)
    assert not out.parent.exists()


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        pytest.fail("training started")

    monkeypatch.setattr("pytorch_lightning.Trainer.fit", refuse)


def test_bf16(tmp_path: Path) -> None:
    found = train(small_config(precision="bf16-mixed"), small_dataset(tmp_path))
    assert math.isfinite(found["test"]["r2"])


def test_commit_is_a_hash_or_nothing() -> None:
    found = commit()
    assert found is None or len(found.removesuffix("-dirty")) == 40


def test_progress_goes_to_stderr_line_by_line_without_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checked: Callable[[str], None]
) -> None:
    train(small_config(), small_dataset(tmp_path), progress=True)
    text = capsys.readouterr()
    assert text.out == ""
    checked(text.err)


@pytest.fixture
def checked() -> Callable[[str], None]:
    def check(text: str) -> None:
        last = text.strip().splitlines()[-1]
        assert last.startswith("epoch 4/4  loss ")
        assert "valid R² " in last
        assert "best " in last

    return check


def test_out_of_memory_in_training_names_a_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small_dataset(tmp_path)

    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("plstm_graph.train.module.Learner.training_step", full)
    with pytest.raises(OutOfMemory, match="out of memory at --batch-size 8; try --batch-size 4"):
        train(small_config(), dataset)


def test_the_first_process_of_another_machine_is_not_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)
    assert first_process()
    monkeypatch.setenv("GROUP_RANK", "1")
    assert not first_process()
    monkeypatch.setenv("NODE_RANK", "0")  # as Lightning reads them
    assert first_process()


def test_a_disk_that_fills_up_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run stops with one line that names the file; it goes on from there once there is room."""
    monkeypatch.setattr("plstm_graph.train.callbacks.DURABLE_S", 0.0)
    dataset, config = small_dataset(tmp_path), small_config(out=tmp_path / "run")
    whole = train(small_config(), dataset)
    for name in ("metrics.csv", "last.ckpt", "curves.png", "metrics.json"):
        with monkeypatch.context() as patch:
            patch.setattr("plstm_graph.io.files._sync", Full(name))
            with pytest.raises((OSError, CheckpointError), match=rf"No space left on device.*{name}|{name}: No space"):
                train(config, dataset, resume=(tmp_path / "run").exists())
        assert not [path for path in (tmp_path / "run").rglob("*") if ".tmp" in path.name]
        assert not (tmp_path / "run" / "metrics.json").exists()
    assert same(train(config, dataset, resume=True), whole)


class Full:
    """A disk on which one file finds no room the second time."""

    def __init__(self, name: str) -> None:
        self.stem, self.times = Path(name).stem, 1 + (name in ("metrics.csv", "last.ckpt"))
        self.suffix = Path(name).suffix

    def __call__(self, path: Path) -> None:
        self.times -= path.name.startswith(f".{self.stem}.") and path.suffix == self.suffix
        if not self.times:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("seconds", "written"), [(0.0, 3), (60.0, 1)])
def test_short_epochs_do_not_wait_for_the_disk_but_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, written: int
) -> None:
    monkeypatch.setattr("plstm_graph.train.callbacks.DURABLE_S", seconds)
    synced: list[str] = []
    monkeypatch.setattr("plstm_graph.io.files._sync", lambda path: synced.append(path.name))
    train(small_config(out=tmp_path / "run", epochs=3), small_dataset(tmp_path))
    for start, end in ((".last.", ".ckpt"), (".metrics.", ".csv")):
        assert len([name for name in synced if name.startswith(start) and name.endswith(end)]) == written
    assert any(name in synced for name in ("best.ckpt", *(name for name in synced if name.startswith(".best."))))


def test_heads_that_a_budget_halves_are_announced(tmp_path, caplog) -> None:
    train(small_config(budget="11k", model_heads=8, epochs=1, out=tmp_path / "run"), small_dataset(tmp_path))
    assert "4 heads, not 8, whose widths miss the budget of 11k" in caplog.text
    caplog.clear()
    train(small_config(budget="11k", model_heads=4, epochs=1), small_dataset(tmp_path))
    assert "heads" not in caplog.text


def test_repeated_molecules_are_announced(tmp_path, caplog) -> None:
    """But for a published split, which is what it is."""
    config = small_config(epochs=1)
    dataset = small_dataset(tmp_path)
    graphs = [graph.clone() for graph in dataset.graphs]
    for number, graph in enumerate(graphs):
        graph.smiles = ("CCO", "OCC")[number % 2] if number % 3 else "C" * number
    train(config, replace(dataset, graphs=graphs))
    assert "25 rows repeat a molecule, in any spelling, with labels that contradict each other" in caplog.text
    assert "stand in train" not in caplog.text
    train(replace(config, group_repeats=False), replace(dataset, graphs=graphs))
    told = next(line for line in caplog.messages if "molecules of valid and test stand in train, too" in line)
    assert told.endswith("merge rows that repeat a molecule, or leave out --no-group-repeats")
    caplog.clear()
    third = len(graphs) // 3
    official = {"train": range(third), "valid": range(third, 2 * third), "test": range(2 * third, len(graphs))}
    parts = {name: list(numbers) for name, numbers in official.items()}
    train(config, replace(dataset, graphs=graphs, parts=parts, default_split="official"))
    assert "stand in train" not in caplog.text


def test_molecules_of_a_test_file_that_were_trained_on_are_to_leave_it(tmp_path, caplog) -> None:
    data, tested = write_csv(tmp_path / "my.csv"), write_csv(tmp_path / "tested.csv", count=7)
    train(small_config(data=data, targets="y", epochs=1, test_data=tested))
    told = next(line for line in caplog.messages if "stand in train" in line)
    assert told.endswith(f"merge rows that repeat a molecule, or take them out of {tested}")


@pytest.mark.parametrize(
    ("task", "y", "text"),
    [
        (Regression(("y",)), torch.tensor([1.0]), r"y must be \[1, 1\] for each answer, floating point .* are \[40\]"),
        (Regression(("y",)), torch.tensor([[1]]), "floating point .* torch.int64"),
        (Regression(("y",)), torch.tensor([[math.inf]]), "a label must be a finite number"),
        (Regression(("y",)), None, "all examples must have labels y of one shape"),
        (Binary(("y",)), torch.tensor([[2.0]]), "a binary label must be 0 or 1, or NaN where there is none, got 2"),
        (Multiclass(("y",), classes=3), torch.tensor([[1.0]]), r"y must be \[1\] for each answer, whole numbers"),
    ],
)
def test_labels_that_do_not_suit_the_task_are_refused_by_name(tmp_path, task, y, text) -> None:
    dataset = small_dataset(tmp_path)
    graphs = [graph.clone() for graph in dataset.graphs]
    for graph in graphs[20:] if y is None else graphs:
        graph.y = y
    with pytest.raises(DataError, match=text):
        train(small_config(epochs=1), replace(dataset, graphs=graphs, task=task))


def test_a_list_of_graphs_is_no_data_set(tmp_path) -> None:
    with pytest.raises(DataError, match=r"Dataset or GraphDataset of .* is needed, got list"):
        train(small_config(epochs=1), list(small_dataset(tmp_path).graphs))


def test_a_progress_bar_leaves_room_for_what_a_terminal_shows_of_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    console = progress_console()
    assert console.stderr
    assert console.width + len("^C") < 80


def test_sources_close_by_so_much_of_the_learning_rate(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    still = {"lr": 1e-9, "epochs": 1, "warmup_epochs": 0}  # AdamW alone moves nothing as far
    rest, found = (
        fit(small_config(**still, source_decay=decay), dataset).learner.model.stack.blocks[0].convs[1].gate_bias
        for decay in (0.0, 1e8)
    )
    steps = math.ceil(len(dataset.split("random", 0)["train"]) / 8)
    closed = 0.1 * sum(warmup_cosine(step, 0, steps) for step in range(steps // 2))
    assert torch.allclose(rest[Gate.SOURCE] - found[Gate.SOURCE], torch.tensor(closed), atol=1e-5)
    assert torch.allclose(rest[Gate.TRANSITION :], found[Gate.TRANSITION :], atol=1e-6)
