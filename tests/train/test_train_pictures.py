"""Pictures in folders through the one trainer: classes by name from the folder to the checkpoint and back."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_files import COLOURS, paint, paint_folder
from typer.testing import CliRunner

from plstm_graph.cli import app
from plstm_graph.data import load
from plstm_graph.data.image_folder import Pictures
from plstm_graph.data.source import read_bytes
from plstm_graph.errors import CheckpointError, ConfigError, DataError
from plstm_graph.models.patches import resized
from plstm_graph.models.vision import ImageModel, PLSTMVision
from plstm_graph.tasks import Multiclass, restore
from plstm_graph.train import evaluate, predict_pictures, train
from plstm_graph.train import predict as predict_molecules
from plstm_graph.train.checkpoint import read, read_meta
from plstm_graph.train.config import TrainConfig, config_hash, override
from plstm_graph.train.defaults import default_config
from plstm_graph.train.page import write_page

SMALL = {"model.width": 16, "model.heads": 2, "model.layers": 2, "epochs": 6, "warmup_epochs": 1, "batch_size": 8}
WORDS = ["--width", 16, "--heads", 2, "--layers", 2, "--epochs", 6, "--warmup-epochs", 1, "--batch-size", 8]
WORDS += ["--lr", 0.003, "--accelerator", "cpu"]


def config(folder: Path, side: int = 16, **values: Any) -> TrainConfig:
    data = f"images-{side}:{folder}"
    return override(default_config(data), SMALL | {"lr": 3e-3, "accelerator": "cpu"} | values)


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours, thirty pictures each, of which one is no picture."""
    top = paint_folder(tmp_path_factory.mktemp("pictures") / "colours", count=30)
    (top / "red" / "29.png").write_bytes(b"")
    return top


@pytest.fixture(scope="module")
def run(pictures: Path) -> Path:
    out = pictures.parent / "run"
    found = invoke("train", "--data", f"images-16:{pictures}", "--out", out, *WORDS)
    assert found.exit_code == 0, found.output
    assert "accuracy: train " in found.stdout
    assert "1 row rejected, see rejected.csv" in found.stdout
    return out


def test_a_folder_is_learnt(run: Path, pictures: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.8
    assert (metrics["data"], metrics["split"], metrics["rejected"]) == ("colours", "random", 1)
    assert metrics["classes"] == ["blue", "green", "red"]
    assert rows(run / "rejected.csv") == [{"row": "90", "text": "red/29.png", "reason": "it is empty (0 bytes)"}]
    told = rows(run / "predictions.csv")
    assert len(told) == 89
    assert {row["id"] for row in told} == {
        path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png")
    } - {"red/29.png"}
    assert list(told[0])[-3:] == ["p_blue", "p_green", "p_red"]
    assert all(sorted(COLOURS)[int(row["class"])] == row["id"].split("/")[0] for row in told)


def test_the_page_names_classes_and_files(run: Path) -> None:
    text = write_page([run]).read_text()
    assert re.search(r"true class.{0,80}(blue|green|red), probability", text, re.DOTALL)
    assert re.search(r"graph \d+, (blue|green|red)/\d\d\.png", text)
    assert "red/29.png" in text


def test_the_checkpoint_names_its_classes(run: Path) -> None:
    meta = read_meta(read(run), run)
    assert meta.asked == Multiclass(("class",), classes=3, names=("blue", "green", "red"))
    assert meta.asked.choices == ["blue", "green", "red"]
    assert meta.asked.chosen("green")[1] == meta.asked.chosen("p_green")[1] == "log-odds of class green"


def test_a_checkpoint_without_names_goes_on_working(run: Path, pictures: Path, tmp_path: Path) -> None:
    """As those of earlier versions are; it says that classes are taken by their numbers."""
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    del content["plstm_graph"]["task"]["names"]
    torch.save(content, tmp_path / "old.ckpt")
    assert read_meta(read(tmp_path / "old.ckpt"), "old").asked.names == ()
    found = evaluate(tmp_path / "old.ckpt", f"images:{pictures}")
    assert found["accuracy"] == evaluate(run, f"images:{pictures}")["accuracy"]
    assert (
        "classes have names in the data and none in the checkpoint: they are taken by their numbers" in found["notes"]
    )
    paint_folder(tmp_path / "two", "red", "blue", count=2)
    with pytest.raises(DataError, match="has labels of 2 classes"):
        evaluate(tmp_path / "old.ckpt", f"images:{tmp_path / 'two'}")
    (answers, _) = predict_pictures(tmp_path / "old.ckpt", tmp_path / "two")
    assert answers.columns == ["class", "p_0", "p_1", "p_2"]
    assert next(answers.rows())[0] in ("0", "1", "2")


def test_images_of_another_origin_are_told(run: Path, pictures: Path, tmp_path: Path) -> None:
    """Nobody knows with which mean and deviation a caller made them."""
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    del content["plstm_graph"]["features"]["pictures"]
    torch.save(content, tmp_path / "other.ckpt")
    (note, _) = evaluate(tmp_path / "other.ckpt", f"images:{pictures}")["notes"]
    assert note.startswith("the images of the training were not made of pictures as these are")
    with pytest.raises(CheckpointError, match="not on pictures in files"):
        predict_pictures(tmp_path / "other.ckpt", pictures)


def test_damaged_names_are_no_names(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    for names in (["a", "b"], ["a", "a", "b"], ["a", "b", 3]):
        content["plstm_graph"]["task"]["names"] = names
        torch.save(content, tmp_path / "bad.ckpt")
        with pytest.raises(CheckpointError, match="describes itself wrongly"):
            evaluate(tmp_path / "bad.ckpt")


def test_classes_of_another_folder_are_those_of_their_names(run: Path, tmp_path: Path) -> None:
    """One is missing there, so that by numbers red would be green."""
    paint_folder(tmp_path / "two", "red", "blue", count=8)
    found = evaluate(run, f"images:{tmp_path / 'two'}")
    assert (found["part"], found["graphs"], found["notes"]) == ("all", 16, [])
    assert found["accuracy"] > 0.8
    paint_folder(tmp_path / "one", "red", count=8)
    assert evaluate(run, f"images:{tmp_path / 'one'}")["accuracy"] > 0.8
    (tmp_path / "one" / "red").rename(tmp_path / "one" / "blue")
    assert evaluate(run, f"images:{tmp_path / 'one'}")["accuracy"] < 0.5


def test_an_unknown_class_is_refused_with_both_lists(run: Path, tmp_path: Path) -> None:
    top = paint_folder(tmp_path / "more", count=2)
    paint(top / "violet" / "a.png", (255, 0, 255))
    with pytest.raises(
        DataError,
        match="more has the classes blue, green, red, violet, and the model knows blue, green, red: violet is unknown",
    ):
        evaluate(run, f"images:{top}")
    found = invoke("evaluate", "--checkpoint", run, "--data", f"images:{top}")
    assert found.exit_code == 2
    assert found.stderr.startswith("error: more has the classes blue, green, red, violet, and the model knows")


def test_further_data_have_the_same_names(pictures: Path, tmp_path: Path) -> None:
    top = paint_folder(tmp_path / "also" / "test", "red", "blue", count=6).parent
    found = train(config(pictures, also=(f"images:{top}",)))
    (scores,) = found["also"].values()
    assert scores["accuracy"] > 0.8
    paint(top / "test" / "violet" / "a.png", (255, 0, 255))
    with pytest.raises(DataError, match="violet is unknown"):
        train(config(pictures, also=(f"images:{top}",)))


def test_the_data_of_the_training_are_known_wherever_they_are(run: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "elsewhere")
    found = evaluate(run, f"images:{tmp_path / 'elsewhere'}")
    assert (found["part"], found["why"]) == ("test", "the data and the split it was trained on")
    assert found["notes"] == ["1 file rejected: red/29.png: it is empty (0 bytes)"]
    assert found["accuracy"] == json.loads((run / "metrics.json").read_text())["test"]["accuracy"]
    paint(tmp_path / "elsewhere" / "red" / "00.png", (200, 0, 0))
    assert evaluate(run, f"images:{tmp_path / 'elsewhere'}")["part"] == "all"
    assert evaluate(run, f"images:{tmp_path / 'elsewhere'}")["why"] == "not the data it was trained on"


def test_data_that_were_changed_since_are_known_by_their_place(tmp_path: Path) -> None:
    top = paint_folder(tmp_path / "colours", count=4)
    train(config(top, epochs=1, out=tmp_path / "run"))
    paint(top / "red" / "00.png", (200, 0, 0))
    found = evaluate(tmp_path / "run", f"images:{top / '..' / 'colours'}/")
    assert found["part"] == "all"
    assert found["why"] == "the data have changed since it was trained, and some may have been trained on"


def test_pictures_become_images_of_the_size_of_the_training(run: Path, pictures: Path, monkeypatch: Any) -> None:
    sides: list[int] = []
    ahead = Pictures.ahead
    monkeypatch.setattr(Pictures, "ahead", lambda self, groups: sides.append(self.side) or ahead(self, groups))
    evaluate(run, f"images:{pictures}")
    evaluate(run, f"images-32:{pictures}")
    assert sides == [16, 32]


@pytest.mark.parametrize("interrupted", [3, 20])
def test_a_run_goes_on_to_the_same_result(interrupted: int, pictures: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from small_runs import in_a_batch

    whole = train(config(pictures, epochs=3, out=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        in_a_batch(interrupted)(patch)
        with pytest.raises(KeyboardInterrupt):
            train(config(pictures, epochs=3, out=tmp_path / "run"))
    shutil.copytree(pictures, tmp_path / "moved")
    again = train(config(tmp_path / "moved", epochs=3, out=tmp_path / "run"), resume=True)
    assert again["test"] == whole["test"]
    first, second = (torch.load(tmp_path / name / "checkpoints/best.ckpt") for name in ("whole", "run"))
    assert all(torch.equal(value, second["state_dict"][name]) for name, value in first["state_dict"].items())


def test_other_data_are_not_gone_on_with(pictures: Path, tmp_path: Path) -> None:
    top = shutil.copytree(pictures, tmp_path / "colours")
    train(config(top, epochs=1, out=tmp_path / "run"))
    with pytest.raises(ConfigError, match="other options: data is 'images-16:"):
        train(config(top, 32, epochs=1, out=tmp_path / "run", **{"model.patch_size": 2}), resume=True)
    paint(top / "red" / "00.png", (200, 0, 0))
    with pytest.raises(ConfigError, match="89 graphs with other content"):
        train(config(top, epochs=1, out=tmp_path / "run"), resume=True)
    assert config_hash(config(top)) == config_hash(config(pictures)) != config_hash(config(pictures, 32))


def test_a_damaged_file_is_named_in_training(tmp_path: Path) -> None:
    top = paint_folder(tmp_path / "colours", suffix=".bmp", count=10)
    path = top / "green" / "04.bmp"
    path.write_bytes(path.read_bytes()[:-60])
    found = invoke("train", "--data", f"images-16:{top}", "--out", tmp_path / "run", *WORDS)
    assert found.exit_code == 2, found.output
    assert "green/04.bmp is damaged" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_class_that_training_has_not_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paint_folder(tmp_path / "train", "red", "blue", count=10)
    paint_folder(tmp_path / "test", count=1)
    train(config(tmp_path, epochs=1))
    assert "no example of green in the train part, so it cannot be learnt" in caplog.text
    paint_folder(tmp_path / "one" / "a", "red", count=10)
    with pytest.raises(DataError, match="there is one class alone, a, so nothing to tell apart"):
        train(config(tmp_path / "one", epochs=1))
    paint_folder(tmp_path / "b" / "test", count=4)
    with pytest.raises(DataError, match="b has no training part"):
        train(config(tmp_path / "b"))


def test_classes_of_other_pictures_keep_no_head(run: Path, pictures: Path, tmp_path: Path) -> None:
    """Three classes there, three here, and not the same."""
    top = shutil.copytree(pictures, tmp_path / "colours")
    (top / "blue").rename(top / "violet")
    from plstm_graph.train.checkpoint import begin_from, restore_model

    content = read(run)
    meta = read_meta(content, run)
    model = restore_model(content, meta, run)
    whole = sum(weight.numel() for weight in model.parameters())
    head = sum(weight.numel() for weight in model.network.head.parameters())
    assert begin_from(model, load(f"images-16:{pictures}").task, run) == (whole, whole)
    assert begin_from(model, load(f"images-16:{top}").task, run) == (whole - head, whole)


def test_positions_are_resized_for_images_of_another_size(run: Path, pictures: Path) -> None:
    from plstm_graph.train.checkpoint import begin_from

    there = read(run)["state_dict"]["model.network.patches.position"]
    network = PLSTMVision(3, width=16, heads=2, layers=2, image_size=(32, 20), patch_size=2)
    taken, whole = begin_from(ImageModel(network), load(f"images-16:{pictures}").task, run)
    assert taken == whole
    assert there.shape[2:] == (8, 8)
    torch.testing.assert_close(network.patches.position.detach(), resized(there, (16, 10)))


# ---------------------------------------------------------------------- predict


def test_predictions_are_a_row_a_file(run: Path, tmp_path: Path) -> None:
    top = paint_folder(tmp_path / "new", "red", "blue", count=3)
    paint(top / "green.bmp", (0, 255, 0))
    damaged = paint(top / "zz.bmp", (0, 255, 0), size=(40, 40))
    damaged.write_bytes(damaged.read_bytes()[:-200])
    (top / "empty.png").write_bytes(b"")
    out = tmp_path / "predictions.csv"
    found = invoke("predict", "--checkpoint", run, "--input", top, "--out", out, "--batch-size", 4)
    assert found.exit_code == 0, found.output
    assert found.stdout == f"9 pictures, 2 without a prediction (see column error); wrote {out}\n"
    told = rows(out)
    assert list(told[0]) == ["path", "class", "p_blue", "p_green", "p_red", "error"]
    names = ["empty.png", "green.bmp", "zz.bmp", *(f"{name}/0{n}.png" for name in ("blue", "red") for n in range(3))]
    assert [row["path"] for row in told] == [f"{top}/{name}" for name in names]
    assert [row["class"] for row in told] == ["", "green", "", *3 * ["blue"], *3 * ["red"]]
    assert told[0]["error"] == "it is empty (0 bytes)"
    assert "zz.bmp is damaged" in told[2]["error"]
    assert sum(float(told[1][f"p_{name}"]) for name in ("blue", "green", "red")) == pytest.approx(1, abs=1e-4)


def test_one_picture(run: Path, tmp_path: Path) -> None:
    paint(tmp_path / "a.JPG", (0, 0, 255))
    found = invoke("predict", "--checkpoint", run, "--input", tmp_path / "a.JPG", "--out", tmp_path / "p.csv")
    assert found.exit_code == 0, found.output
    assert [row["class"] for row in rows(tmp_path / "p.csv")] == ["blue"]


def test_a_folder_may_ask_for_a_size_as_elsewhere(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    top, sides, made = paint_folder(tmp_path / "new", count=2), [], Pictures._made
    monkeypatch.setattr(Pictures, "_made", lambda self, *rest: sides.append(self.side) or made(self, *rest))
    for name in ("images", "images-16", "images-24"):
        out = tmp_path / f"{name}.csv"
        found = invoke("predict", "--checkpoint", run, "--input", f"{name}:{top}", "--out", out)
        assert found.exit_code == 0, found.output
        assert found.stdout.startswith("6 pictures, 0 without a prediction")
    assert sides == [16, 16, 24]
    assert (tmp_path / "images.csv").read_text() == (tmp_path / "images-16.csv").read_text()
    assert (tmp_path / "images.csv").read_text() != (tmp_path / "images-24.csv").read_text()
    found = invoke("predict", "--checkpoint", run, "--input", "images:nowhere", "--out", tmp_path / "p.csv")
    assert found.stderr == "error: there is no file nowhere\n"


def test_a_folder_where_a_file_is_read_says_so(run: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder, not a file; pictures in folders are images:"):
        read_bytes(pictures)
    found = invoke("embed", "--checkpoint", run, "--input", pictures, "--out", tmp_path / "e.csv")
    assert found.stderr.startswith(f"error: {pictures} is a folder; learned fingerprints are of the molecules")


def test_what_is_evaluated_is_what_is_predicted(run: Path, pictures: Path) -> None:
    answers, _ = predict_pictures(run, pictures, batch_size=7)
    stored = {row["id"]: row for row in rows(run / "predictions.csv")}
    for path, values in zip(answers.smiles, answers.values, strict=True):
        if (name := str(Path(path).relative_to(pictures))) in stored:
            expected = [float(stored[name][column]) for column in ("p_blue", "p_green", "p_red")]
            torch.testing.assert_close(values[1:], torch.tensor(expected), atol=1e-5, rtol=0)


def test_several_networks_say_how_far_they_agree(pictures: Path, tmp_path: Path) -> None:
    train(config(pictures, epochs=1, ensemble=2, out=tmp_path / "run"))
    found, table = predict_pictures(tmp_path / "run", pictures / "red")
    assert found.header(table) == [
        *("path", "class", "p_blue", "p_green", "p_red"),
        *("p_blue_std", "p_green_std", "p_red_std", "error"),
    ]
    found.write(tmp_path / "p.csv", table)
    assert len(rows(tmp_path / "p.csv")) == 30


def test_molecules_are_no_pictures(run: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="reads pictures: predict takes one, or a folder of them, as --input"):
        predict_molecules(run, ["CCO"])
    digits = tmp_path / "digits"
    train(override(default_config("digits"), SMALL | {"epochs": 1, "accelerator": "cpu", "out": digits}))
    with pytest.raises(CheckpointError, match="was trained on 'digits', not on pictures in files; give what it reads"):
        predict_pictures(digits, pictures)
    found = invoke("predict", "--checkpoint", run, "--input", pictures, "--out", tmp_path / "p.csv", "--jobs", 2)
    assert found.exit_code == 2
    assert found.stderr.startswith("error: --smiles-column, --descriptors and --jobs are for molecules")


# ---------------------------------------------------------------------- names


def test_defaults_suit_the_size() -> None:
    sides = {224: 16, 150: 15, 128: 16, 96: 12, 64: 8, 50: 5, 32: 4, 28: 2, 16: 2, 9: 1, 227: 16}
    assert {side: default_config(f"images-{side}:x").model.patch_size for side in sides} == sides
    assert default_config("images:x") == override(default_config("images-224:x"), {"data": "images:x"})
    assert default_config("cifar10").model.patch_size == 4
    assert default_config("images:x.csv").model.model == "plstm-vision"


def test_a_run_is_called_as_its_folder(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    found = invoke("train", "--data", "images-16:.", *WORDS, "--out", tmp_path / "run", "--epochs", 1)
    assert found.exit_code == 0, found.output
    from plstm_graph.config.names import called

    assert called("images:../colours/") == called(f"images-64:{pictures}") == "colours"
    assert called("images:a/photos.v2") == "photos.v2"
    assert called("my.csv.gz") == "my"
    stored = read_meta(read(tmp_path / "run"), "x").train_config.data
    assert stored == f"images-16:{pictures}"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("images:nowhere", "there is no folder nowhere; images: stands before one with a folder a class"),
        ("images-0:x", "unknown data set 'images-0:x'; pictures are images:FOLDER, or images-64:FOLDER"),
        ("images:", "images: names no folder; write images:FOLDER, or images:. for the folder you are in"),
        ("image:x", "unknown data set 'image:x'"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(data: str, text: str) -> None:
    found = invoke("train", "--data", data)
    assert found.exit_code == 2
    assert found.stderr.startswith(f"error: {text}")
    assert found.stderr.count("\n") == 1


def test_arrays_are_no_table(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((4, 8, 8)))
    found = invoke("train", "--data", tmp_path / "x.npz", "--out", tmp_path / "run")
    assert "x.npz is a file of numpy, no text; images in arrays are trained on in Python" in found.stderr


def test_no_folder_is_not_the_one_that_one_is_in(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    with pytest.raises(DataError, match="images-16: names no folder"):
        load("images-16:")


def test_names_of_classes_are_checked() -> None:
    assert restore(Multiclass(("class",), classes=1, names=("a",)).plain()).names == ("a",)
    with pytest.raises(ConfigError, match="2 classes have a name each, all different"):
        Multiclass(("class",), classes=2, names=("a", "a"))
    with pytest.raises(ConfigError, match="two or more classes"):
        Multiclass(("class",), classes=1)
