import csv
import json
import math
import os
import pickle
import resource
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import molecules, small_config, small_dataset, three_classes, write_csv

from plstm_graph.cli import app
from plstm_graph.config.architectures import NETWORKS
from plstm_graph.config.models import RENAMED
from plstm_graph.data import load
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.tables import read_rows
from plstm_graph.errors import CheckpointError, ConfigError, DataError, OutOfMemory
from plstm_graph.io.json_csv import apart
from plstm_graph.tasks import Regression
from plstm_graph.tasks import restore as restore_task
from plstm_graph.train import evaluate, predict, train
from plstm_graph.train.checkpoint import read, weights_of
from plstm_graph.train.checkpoint_io import AtomicCheckpointIO, on_host
from plstm_graph.train.inference.molecules import Predictions
from plstm_graph.train.inference.restored import restore
from plstm_graph.train.memory import memory_advice
from plstm_graph.train.record import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished regression run with two targets."""
    folder = tmp_path_factory.mktemp("regression")
    config = small_config(out=folder / "run", data=write_csv(folder / "small.csv"), targets="y,z", epochs=2)
    train(config)
    return folder / "run"


def test_checkpoints_hold_only_plain_values(run: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        content = torch.load(run / "checkpoints" / name, weights_only=True)
        meta = content["plstm_graph"]
        assert meta["featuriser"] == "cip-molecule"
        task = restore_task(meta["task"])
        assert isinstance(task, Regression)
        assert task.targets == ("y", "z")
        assert len(task.mean) == len(task.deviation) == 2
        assert meta["config"]["model"]["width"] == 8
        assert "torch" in meta["versions"]
    assert "optimizer_states" in torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def test_tensors_come_to_the_host_together_and_are_the_same(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two moves, one a dtype, for all of last.ckpt, here from the CPU itself; a state dict keeps what it is."""
    moves, cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moves.append(tensor.dtype) or cpu(tensor))
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    content["state_dict"]["turned"] = torch.arange(6.0).view(2, 3).t()
    found = on_host(content, stays="nowhere")
    torch.save(found, tmp_path / "again.ckpt")
    again = torch.load(tmp_path / "again.ckpt", weights_only=True)
    torch.testing.assert_close(again.pop("state_dict"), content["state_dict"], rtol=0, atol=0)
    states = [part.pop("optimizer_states")[0]["state"] for part in (again, content)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    state = content.pop("state_dict")
    assert again == content
    assert found["state_dict"]._metadata == state._metadata != {}
    assert len(moves) == len(set(moves)) == 2
    assert all(value.untyped_storage().nbytes() == value.nbytes for value in found["state_dict"].values())
    assert on_host(state) is state


def test_predictions_are_those_of_training_in_order_and_units(run: Path) -> None:
    dataset = load(str(run.parent / "small.csv"), targets=("y", "z"))
    found = predict(run, molecules())
    target = torch.cat([graph.y for graph in dataset.graphs])
    rows = dataset.split("random", seed=0)["test"]
    expected = evaluate(run)
    errors = (found.values - target)[rows].abs().mean(0).tolist()
    assert [expected["by_target"][name]["mae"] for name in "yz"] == pytest.approx(errors, rel=1e-5)
    assert "mae" not in expected  # a mean over the units of y and z
    assert found.columns == ["y", "z"]
    assert torch.allclose(predict(run, molecules()[::-1], batch_size=3).values.flip(0), found.values, atol=1e-4)


def test_rows_that_are_no_molecules_keep_their_place(run: Path, tmp_path: Path) -> None:
    texts = ["CCO", "C1CC", "", "c1ccccc1", "not a molecule, at all"]
    found = predict(run, texts)
    assert [row.row for row in found.rejected] == [2, 3, 5]
    assert found.values.isnan().all(1).tolist() == [False, True, True, False, True]
    found.write(tmp_path / "pred.csv")
    with (tmp_path / "pred.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["smiles"] for row in rows] == texts
    assert [row["y"] == "" for row in rows] == [False, True, True, False, True]
    assert [bool(row["error"]) for row in rows] == [False, True, True, False, True]
    assert float(rows[0]["z"]) == pytest.approx(found.values[0, 1].item(), rel=1e-4)


def written(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def test_other_columns_are_carried_through(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('name;SMILES;note\n"a;b";CCO;"x, ""y"""\nbad;C1CC;"two\nlines"\n;c1ccccc1\n')
    table, texts = read_rows(tmp_path / "in.csv")
    found = predict(run, texts)
    found.write(tmp_path / "p.csv", table)
    header, *rows = written(tmp_path / "p.csv")
    assert header == ["name", "SMILES", "note", "y", "z", "unlike_training", "error"]
    kept = [["a;b", "CCO", 'x, "y"'], ["bad", "C1CC", "two\nlines"], ["", "c1ccccc1", ""]]
    assert [row[:3] for row in rows] == kept
    assert [float(cell) for cell in rows[2][3:5]] == pytest.approx(found.values[2].tolist(), rel=1e-5)
    assert rows[1][3:5] == ["", ""]
    assert "C1CC" in rows[1][6]
    assert rows[0][6] == rows[2][6] == ""


def test_a_predicted_column_never_has_the_name_of_another(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("y,smiles,z_predicted,z,error\n7,CCO,8,9,none\n")
    table, texts = read_rows(tmp_path / "in.csv")
    predict(run, texts).write(tmp_path / "p.csv", table)
    header, row = written(tmp_path / "p.csv")
    added = ["y_predicted", "z_predicted_2", "unlike_training", "error_predicted"]
    assert header == ["y", "smiles", "z_predicted", "z", "error", *added]
    assert row[:5] == ["7", "CCO", "8", "9", "none"]


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble whose targets are called like columns that are written beside them."""
    folder = tmp_path_factory.mktemp("awkward")
    names = "error,unlike_training,index,y,y_std,y_predicted"
    lines = [f"{text},{','.join([str(k)] * 6)}" for k, text in enumerate(molecules(30))]
    (folder / "in.csv").write_text("\n".join([f"smiles,{names}", *lines]))
    train(small_config(out=folder / "run", data=folder / "in.csv", targets=names, epochs=1, ensemble=2))
    return folder / "run"


def test_targets_called_like_a_column_of_predict(awkward: Path, tmp_path: Path, capsys: Any) -> None:
    found = predict(awkward, ["CCO", "C1CC"])
    found.write(tmp_path / "p.csv")
    header, _, wrong = written(tmp_path / "p.csv")
    targets = ["error_predicted", "unlike_training_predicted", "index", "y", "y_std_predicted", "y_predicted"]
    assert header[:7] == ["smiles", *targets]
    assert header[-2:] == ["unlike_training", "error"]
    assert header[10] == "y_std"  # the spread of y
    assert len({*header}) == len(header) == 1 + 2 * 6 + 2
    assert "unclosed ring" in wrong[-1]
    (tmp_path / "in.csv").write_text("smiles,error\nC1CC,1\n")
    out = str(tmp_path / "q.csv")
    with pytest.raises(SystemExit):
        app(["predict", "--checkpoint", str(awkward), "--input", str(tmp_path / "in.csv"), "--out", out])
    header, row = written(Path(out))
    assert header[:3] == ["smiles", "error", "error_predicted"]
    assert "unclosed ring" in dict(zip(header, row, strict=True))["error_predicted_2"]
    assert "1 without a prediction (see column error_predicted_2)" in capsys.readouterr().out


def test_targets_called_like_a_column_of_a_run(awkward: Path) -> None:
    header, row, *_ = written(awkward / "predictions.csv")
    labels = ["error", "unlike_training", "index_label", "y", "y_std", "y_predicted"]
    assert header[:10] == ["part", "index", "row", "smiles", *labels]
    own = ["error", "unlike_training", "index", "y", "y_std", "y_predicted"]
    names = {name: f"{name}_predicted" for name in own} | {"y": "y_predicted_2"}  # y_predicted is a label
    assert header[10:16] == list(names.values())
    spreads = ["error_std", "unlike_training_std", "index_std", "y_std_predicted_2", "y_std_std", "y_predicted_std"]
    assert header[16:] == spreads  # y_std is a label, and y_std_predicted what is said of it
    assert read_run(awkward).predictions["train"].target[0].tolist() == [float(row[4])] * 6


def test_names_of_columns_do_not_stack() -> None:
    assert apart(["y", "y", "y", "y_predicted", "z"], ["y"]) == [
        *("y_predicted", "y_predicted_2", "y_predicted_3", "y_predicted_4", "z")
    ]


def test_a_target_may_be_called_class(tmp_path: Path) -> None:
    """A chance, or a quantity, keeps its decimals; the number of a class has none."""
    for value, cell in ((0.7, "0.7"), (2.5, "2.5"), (2.0, "2")):
        found = Predictions(["C"], ["class"], torch.tensor([[value]]), [])
        found.write(tmp_path / "p.csv")
        assert written(tmp_path / "p.csv")[1] == ["C", cell, ""]


def test_only_rows_that_are_no_molecules(run: Path, tmp_path: Path) -> None:
    found = predict(run, ["C1CC"])
    found.write(tmp_path / "pred.csv")
    assert (tmp_path / "pred.csv").read_text().splitlines()[1].startswith("C1CC,,,")
    assert predict(run, []).values.shape == (0, 2)


def test_probabilities_and_classes(tmp_path: Path) -> None:
    train(small_config(out=tmp_path / "binary", epochs=1), small_dataset(tmp_path, "binary"))
    found = predict(tmp_path / "binary", molecules(5))
    assert found.columns == ["y"]
    assert ((found.values > 0) & (found.values < 1)).all()
    dataset = three_classes(small_dataset(tmp_path))
    train(small_config(out=tmp_path / "classes", epochs=1), dataset)
    found = predict(tmp_path / "classes", molecules(5))
    assert found.columns == ["class", "p_0", "p_1", "p_2"]
    assert torch.equal(found.values[:, 0].long(), found.values[:, 1:].argmax(1))
    assert torch.allclose(found.values[:, 1:].sum(1), torch.ones(5))


def test_evaluate(run: Path, tmp_path: Path) -> None:
    stored = json.loads((run / "metrics.json").read_text())
    for part in ("train", "valid", "test"):
        found = evaluate(run / "checkpoints" / "best.ckpt", part=part)
        assert {name: found[name] for name in stored[part]} == pytest.approx(stored[part], abs=1e-5)
        assert found["graphs"] == stored["graphs"][part]
    other = write_csv(tmp_path / "other.csv", count=12)
    assert evaluate(run, str(other), part="all")["graphs"] == 12
    swapped = evaluate(run, str(other), part="all", targets=["z", "y"])
    assert list(swapped["by_target"]) == ["y", "z"]
    assert set(swapped["by_target"]["z"]) == {"r2", "rmse", "mae", "pearson"}
    tested = evaluate(run)["by_target"]
    assert all(stored["by_target"][name]["test"] == pytest.approx(tested[name], abs=1e-5) for name in "yz")
    assert evaluate(run, split_seed=5)["r2"] != stored["test"]["r2"]


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_model_comes_back_from_its_checkpoint(tmp_path: Path, kind: str) -> None:
    dataset = small_dataset(tmp_path)
    config = small_config(model_model=kind, model_rwse=2, model_lap_pe=2, epochs=1, out=tmp_path / "run")
    found = train(config, dataset)
    again = evaluate(tmp_path / "run", dataset, part="valid")
    assert {name: again[name] for name in found["valid"]} == pytest.approx(found["valid"], rel=1e-5)
    model = restore(tmp_path / "run", "cpu")[0].model
    own, stored = weights_of(model), model.state_dict()
    assert own.keys() == stored.keys()
    assert all(torch.equal(own[name], stored[name]) for name in stored)


def test_evaluate_refuses_what_does_not_suit(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown part of the split 'tset'.*did you mean 'test'"):
        evaluate(run, part="tset")
    with pytest.raises(
        DataError,
        match=r"has labels of 2 targets \(binary of y, z\), and the model takes .*\(regression of y, z\)",
    ):
        evaluate(run, small_dataset(tmp_path, "binary", ("y", "z")))
    other = small_dataset(tmp_path)
    with pytest.raises(DataError, match=r"has labels of 1 target .*takes labels of 2 targets"):
        evaluate(run, replace(other, task=replace(other.task, targets=("other",))))
    graphs = replace(
        small_dataset(tmp_path, targets=("y", "z")), features=FeatureSpec((7,), (4, 3), 2), featuriser=None
    )
    with pytest.raises(DataError) as met:
        evaluate(run, graphs)
    assert str(met.value) == (
        "small does not suit the model: it has graphs (nodes: 1 feature of 7 kinds and 2 numbers; edges: 2 features of "
        "4, 3 kinds), and the model takes molecules; give data like those of the training, or train on these"
    )


def test_graphs_that_are_no_molecules_cannot_be_predicted_from_smiles(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    for graph in dataset.graphs:
        del graph.smiles
    train(small_config(out=tmp_path / "run", epochs=1), dataset)
    with pytest.raises(CheckpointError, match="not on molecules given as SMILES; use evaluate"):
        predict(tmp_path / "run", ["CCO"])


def test_a_checkpoint_reads_chirality_as_it_was_trained(tmp_path: Path) -> None:
    """Tags of OGB and CIP labels are other categories: neither may be taken for the other."""
    lines = [f"{text},{number}" for number, text in enumerate(["C[C@H](N)O", "C[C@@H](N)O"] + molecules(30))]
    (tmp_path / "chiral.csv").write_text("smiles,y\n" + "\n".join(lines) + "\n")
    for featuriser, same in (("cip-molecule", True), ("ogb-molecule", False)):
        out = tmp_path / featuriser
        config = small_config(out=out, data=tmp_path / "chiral.csv", targets="y", epochs=2, featuriser=featuriser)
        train(config)
        first, respelled = predict(out, ["C[C@H](N)O", "N[C@@H](C)O"]).values  # one molecule
        assert torch.allclose(first, respelled, atol=1e-6) == same
        assert evaluate(out, tmp_path / "chiral.csv", part="all")["graphs"] == 32
    other = load(str(tmp_path / "chiral.csv"), targets=["y"])
    with pytest.raises(
        DataError,
        match="has molecules read by cip-molecule, and the model takes molecules read by ogb-molecule",
    ):
        evaluate(tmp_path / "ogb-molecule", other, part="all")


def test_bad_checkpoints(run: Path, tmp_path: Path) -> None:
    good = (run / "checkpoints" / "best.ckpt").read_bytes()
    bad = tmp_path / "bad.ckpt"
    advice = "No such file or directory; give best.ckpt or the folder that train was given as --out$"
    with pytest.raises(CheckpointError, match=rf"cannot read checkpoint .*bad.ckpt: {advice}"):
        predict(bad, ["CCO"])
    with pytest.raises(CheckpointError, match=rf"cannot read checkpoint .*best.ckpt: {advice}"):
        predict(tmp_path, ["CCO"])
    for content in (b"", b"hello", good[: len(good) // 2], good[:-10]):
        bad.write_bytes(content)
        with pytest.raises(CheckpointError, match="is truncated, or not a checkpoint of plstm-graph") as error:
            predict(bad, ["CCO"])
        assert "\n" not in str(error.value)
    torch.save({"state_dict": {}}, bad)
    with pytest.raises(CheckpointError, match="was not written by plstm-graph"):
        predict(bad, ["CCO"])
    torch.save(read(run) | {"plstm_graph": {"format": 99}}, bad)
    with pytest.raises(CheckpointError, match="has checkpoint format 99, this version reads 4"):
        predict(bad, ["CCO"])
    torch.save(read(run) | {"plstm_graph": {"format": torch.zeros(2, 1), "versions": {"plstm_graph": "1\n2"}}}, bad)
    with pytest.raises(
        CheckpointError, match=r"has checkpoint format tensor\(\[\[0.\], \[0.\]\]\), .* plstm-graph 1 2"
    ):
        predict(bad, ["CCO"])
    (tmp_path / "folder.ckpt" / "checkpoints" / "best.ckpt").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"cannot read checkpoint .*best.ckpt: Is a directory"):
        predict(tmp_path / "folder.ckpt", ["CCO"])


def test_names_of_the_last_format_are_read(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "small.csv")
    sizes = {"model_rwse": 4, "model_lap_pe": 2}
    train(small_config(data=data, targets="y", epochs=1, out=tmp_path / "run", model_edge_values=False, **sizes))
    content = read(tmp_path / "run")
    model = content["plstm_graph"]["config"]["model"]
    model |= {then: model.pop(now) for then, now in RENAMED.items()}
    weights = {".encoder.rwse.": ".encoder.walk.", ".encoder.lap_pe.": ".encoder.eigenvectors."}
    for now, then in weights.items():
        content["state_dict"] = {name.replace(now, then): value for name, value in content["state_dict"].items()}
    content["plstm_graph"]["format"] = 3
    torch.save(content, tmp_path / "old.ckpt")
    assert torch.equal(predict(tmp_path / "old.ckpt", ["CCO"]).values, predict(tmp_path / "run", ["CCO"]).values)


def changed(run: Path, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    content = read(run)
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["state_dict"].popitem(), r"do not fit its model config: head\.\S+ is missing"),
        (lambda c: c["state_dict"].update({"model.extra": torch.ones(1)}), "extra is unknown"),
        (lambda c: c["state_dict"].update({"model.head.0.weight": torch.ones(3, 3)}), r"is \[3, 3\], not \[2, 8\]"),
        (lambda c: c["state_dict"].update({"model.head.0.bias": torch.ones(2).int()}), "int32, not torch.float32"),
        (lambda c: c["state_dict"].update({"model.head.0.bias": [1.0, 2.0]}), "is a list, not a tensor"),
        (lambda c: c["state_dict"]["model.head.0.bias"].fill_(math.nan), r"not finite \(head.0.bias\): .*lower --lr"),
        (lambda c: c["plstm_graph"]["task"].pop("mean"), r"wrongly \(task 'regression' .* wrongly \(mean\)\)"),
        (lambda c: c["plstm_graph"].update(featuriser=2, more=1), r"describes itself wrongly \(more, featuriser\)"),
        (lambda c: c["plstm_graph"]["task"].update(deviation=[math.nan, 1.0]), "a finite number for each of 2 targets"),
        (lambda c: c["plstm_graph"]["task"].update(targets=["y", 2]), r"wrongly \(task 'regression' .* \(targets\)\)"),
        (lambda c: c["plstm_graph"].pop("featuriser"), r"describes itself wrongly \(featuriser\)"),
        (lambda c: c["plstm_graph"]["task"]["mean"].clear(), "a finite number for each of 2 targets"),
        (
            lambda c: c["plstm_graph"]["task"].update(name="binary"),
            r"'binary' .* wrongly \(bounded, deviation, error, mean\)",
        ),
        (lambda c: c["plstm_graph"]["task"].update(name="sums"), "unknown task 'sums'"),
        (lambda c: c["plstm_graph"]["config"]["model"].update(width=10**9), "not fit its model config"),
        (lambda c: c["plstm_graph"]["config"]["model"].update(layers=10**9), "tensors for more layers"),
        (lambda c: c["plstm_graph"]["config"]["model"].update(head_layers=10**9), "tensors for more layers"),
        (lambda c: c["plstm_graph"]["config"]["model"].update(heads=0), "makes no model"),
        (lambda c: c["plstm_graph"]["features"].update(node_sizes="x"), "makes no model"),
        (lambda c: c["plstm_graph"].update(format=torch.ones(0)), r"format tensor\(\[\]\), this version reads"),
        (lambda c: c["plstm_graph"].update(format=1, versions=None), "format 1, .* plstm-graph unknown: install that"),
    ],
)
def test_a_changed_checkpoint_is_one_line(
    run: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    torch.save(changed(run, change), tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match=message) as error:
        predict(tmp_path / "bad.ckpt", ["CCO"])
    assert "\n" not in str(error.value)


def test_a_flipped_bit_is_noticed(run: Path, tmp_path: Path) -> None:
    content = bytearray((run / "checkpoints" / "best.ckpt").read_bytes())
    weights = read(run)["state_dict"]["model.head.0.weight"].numpy().tobytes()
    content[content.index(weights) + 5] ^= 1
    (tmp_path / "bad.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match="is truncated, or not a checkpoint"):
        predict(tmp_path / "bad.ckpt", ["CCO"])


def test_archives_of_others_are_not_unpacked(tmp_path: Path) -> None:
    """Gigabytes of zeros take a megabyte when deflated: torch would inflate what it takes for its own record."""
    with zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
        archive.writestr("archive/version", b"3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.load", lambda *args, **kwargs: pytest.fail("was unpacked"))
        with pytest.raises(CheckpointError, match="was not written by plstm-graph"):
            read(tmp_path / "bomb.ckpt")


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_checkpoint_is_not_run(run: Path, tmp_path: Path, write: Callable[[Any, Path], Any]) -> None:
    marker, path = tmp_path / "pwned", tmp_path / "evil.ckpt"
    evil = Evil(f"touch {marker}")
    for content in (evil, read(run) | {"more": evil}, read(run) | {"plstm_graph": evil}):
        write(content, path)
        with pytest.raises(CheckpointError):
            predict(path, ["CCO"])
    assert not marker.exists()
    pickle.loads(pickle.dumps(evil))  # it would have
    assert marker.exists()


def test_out_of_memory_names_a_batch_size(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, batch: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nand more")

    monkeypatch.setattr("plstm_graph.train.answering.Answering.forward", full)
    with pytest.raises(OutOfMemory, match=r"^the GPU is out of memory at --batch-size 512; try --batch-size 256$"):
        predict(run, ["CCO"], batch_size=512)
    with pytest.raises(OutOfMemory, match=r"at --batch-size 7; try --batch-size 3$"):
        evaluate(run, batch_size=7)
    with pytest.raises(OutOfMemory, match=r"at --batch-size 1; try a smaller --width or fewer --layers$"):
        evaluate(run, batch_size=1)


def test_other_errors_keep_their_names() -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), memory_advice(8):
        raise RuntimeError("something else")
    with pytest.raises(OutOfMemory, match="the computer is out of memory"), memory_advice(8):
        torch.empty(2**60)


def test_unknown_device(run: Path) -> None:
    with pytest.raises(ConfigError, match="device 'abacus' cannot be used here"):
        restore(run, "abacus")


def test_nan_is_written_as_nothing(run: Path) -> None:
    assert math.isnan(predict(run, ["x"]).values[0, 0].item())


@contextmanager
def little_room(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("numbers", [10, 100_000])
def test_a_full_disk_is_one_line_and_keeps_the_checkpoint(tmp_path: Path, numbers: int) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
    before = path.read_bytes()
    message = r"^cannot write checkpoint \S+last.ckpt: File too large; an earlier one is untouched$"
    with little_room(600), pytest.raises(CheckpointError, match=message):
        AtomicCheckpointIO().save_checkpoint({"epoch": torch.ones(numbers)}, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_predictions_that_find_no_room_leave_the_old_ones(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("old")
    found = predict(run, molecules())
    with little_room(600), pytest.raises(OSError, match=r"File too large: '\S+/p.csv'$"):
        found.write(path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["p.csv"]


@pytest.mark.parametrize(
    ("header", "asked"), [("smiles,z,y", ["*"]), ("smiles,y,z", ["z", "y"]), ("z,smiles,y", ["y", "z"])]
)
def test_targets_are_joined_by_name(run: Path, tmp_path: Path, header: str, asked: list[str]) -> None:
    rows = list(csv.DictReader((run.parent / "small.csv").open()))
    names = header.split(",")
    (tmp_path / "other.csv").write_text("\n".join([header, *(",".join(row[name] for name in names) for row in rows)]))
    found = evaluate(run, tmp_path / "other.csv", targets=asked)
    assert found["by_target"] == evaluate(run)["by_target"]
    assert (found["part"], found["notes"]) == ("test", [])
    data = load(str(tmp_path / "other.csv"), targets=asked)
    assert evaluate(run, data)["by_target"] == found["by_target"]


@pytest.mark.parametrize("asked", [None, ["z"]])
def test_data_may_have_some_of_the_targets(run: Path, tmp_path: Path, asked: list[str] | None) -> None:
    rows = list(csv.DictReader((run.parent / "small.csv").open()))
    (tmp_path / "z.csv").write_text("\n".join(["smiles,z", *(f"{row['smiles']},{row['z']}" for row in rows)]))
    found = evaluate(run, tmp_path / "z.csv", targets=asked)
    expected = evaluate(run, run.parent / "small.csv", part="all")["by_target"]["z"]
    assert found["by_target"] == {"z": expected}
    assert (found["part"], found["why"]) == ("all", "not the data it was trained on")
    assert (found["r2"], found["interval"]["metric"]) == (expected["r2"], "r2")
    assert found["notes"] == ["no labels of y in the data, so no score"]
    of_own = evaluate(run, targets=["z"])
    assert (of_own["by_target"], of_own["why"]) == ({"z": expected}, "not the targets it was trained on")


def test_a_score_that_is_not_defined_is_explained(run: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "same.csv").write_text("\n".join(["smiles,y", *(f"{text},1.5" for text in molecules(5))]))
    with pytest.raises(SystemExit):
        app(["evaluate", "--checkpoint", str(run), "--data", str(tmp_path / "same.csv")])
    told = capsys.readouterr()
    assert "note: no R²: labels are all alike" in told.err
    assert "lies between" not in told.out


def test_a_model_is_restored_without_a_draw(run: Path) -> None:
    """Its weights are read, not drawn first: no seed of the caller's moves on."""
    before = torch.get_rng_state()
    learner, _ = restore(run, "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    stored = read(run)["state_dict"]
    for name, value in learner.model.state_dict().items():
        assert torch.equal(value, stored[f"model.{name}"]), name
