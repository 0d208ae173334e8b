"""Descriptors through a run: scaled by the training part, stored in the checkpoint, made again for a prediction."""

import csv
import re
from pathlib import Path

import pytest
import torch
from small_runs import molecules, small_config, write_csv

from plstm_graph.data import load
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.train import evaluate, predict, train
from plstm_graph.train.checkpoint import begin_from, read
from plstm_graph.train.inference.restored import restore


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A column that says what y is, and one that says nothing."""
    path = tmp_path_factory.mktemp("own") / "own.csv"
    rows = [f"{text},{len(text)},7" for text in molecules()]
    path.write_text("\n".join(["smiles,length,seven", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, own: Path) -> Path:
    folder = tmp_path_factory.mktemp("described")
    kinds = (str(own), "morgan")
    train(small_config(out=folder / "run", data=write_csv(folder / "small.csv"), targets="y", descriptors=kinds))
    return folder / "run"


def test_predictions_are_those_of_the_run(run: Path) -> None:
    with (run / "predictions.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["part"] == "test"]
    found = predict(run, [row["smiles"] for row in rows])
    want = torch.tensor([[float(row["y_predicted"])] for row in rows])
    torch.testing.assert_close(found.values, want, rtol=1e-5, atol=1e-5)
    assert evaluate(run)["graphs"] == len(rows)


def test_the_scale_is_that_of_the_training_part(run: Path) -> None:
    learner, meta = restore(run)
    reader = learner.model.descriptors
    with (run / "predictions.csv").open() as stream:
        lengths = [len(row["smiles"]) for row in csv.DictReader(stream) if row["part"] == "train"]
    assert float(reader.middle[0]) == torch.tensor(lengths).float().quantile(0.5)
    assert meta.spec.descriptors == 2 + 2048
    assert reader.factor[1] == 0


def test_new_molecules_take_another_file(run: Path, own: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 1 molecules"):
        predict(run, ["CCCCCCCCCCO"])
    other = tmp_path / "new.csv"
    other.write_text("smiles,length,seven\nCCCCCCCCCCO,11,7\n")
    (found,) = predict(run, ["CCCCCCCCCCO"], descriptors=[str(other), "morgan"]).values
    assert found.isfinite().all()
    with pytest.raises(DataError, match="lack 2 of the 2050 columns of the training: length, seven;"):
        predict(run, ["CCO"], descriptors=["morgan"])


LACKS = "lack 1 of the 2050 columns of the training: length;"


@pytest.mark.parametrize(
    ("header", "row", "order", "expected"),
    [
        ("smiles,length,seven", "{text},{length},7", ("own", "morgan"), "same"),
        ("smiles,seven,length", "{text},7,{length}", ("own", "morgan"), "same"),
        ("length,smiles,seven", "{length},{text},7", ("morgan", "own"), "same"),
        ("smiles,new,Length,SEVEN", "{text},5,{length},7", ("own", "morgan"), "not read, since .*: new"),
        ("smiles,length,seven", "{text},{length},", ("own", "morgan"), "same"),  # it says nothing in training, either
        ("smiles,lengths,seven", "{text},{length},7", ("own", "morgan"), LACKS),
        ("smiles,seven", "{text},7", ("own", "morgan"), LACKS),
        ("smiles,a,b", "{text},{length},7", ("own", "morgan"), "lack 2 of the 2050 columns of the training: length, s"),
    ],
)
def test_columns_are_found_by_name(
    run: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    header: str,
    row: str,
    order: tuple[str, ...],
    expected: str,
) -> None:
    some, path = molecules()[:12], tmp_path / "other.csv"
    path.write_text("\n".join([header, *(row.format(text=text, length=len(text)) for text in molecules())]) + "\n")
    kinds = [str(path) if kind == "own" else kind for kind in order]
    if expected.startswith("lack"):
        with pytest.raises(DataError, match=expected):
            predict(run, some, descriptors=kinds)
        with pytest.raises(DataError, match=expected):
            evaluate(run, descriptors=kinds)
        return
    torch.testing.assert_close(predict(run, some, descriptors=kinds).values, predict(run, some).values)
    if "{length},," not in row + ",":  # NaN and 7 are one to the model, not to the content of data
        assert evaluate(run, descriptors=kinds) == evaluate(run)
    assert expected == "same" or re.search(expected, caplog.text)


def test_data_in_hand_need_the_columns_of_the_training(run: Path, own: Path, tmp_path: Path) -> None:
    path, meta = tmp_path / "other.csv", restore(run)[1]
    path.write_text("\n".join(["smiles,seven,length", *(f"{text},7,{len(text)}" for text in molecules())]) + "\n")
    data = load(str(run.parent / "small.csv"), targets=["y"])
    kinds = [str(path), "morgan"]
    with pytest.raises(DataError, match=r"has the descriptors seven, length, .* reads length, seven"):
        evaluate(run, data.with_descriptors(kinds))
    assert evaluate(run, data.with_descriptors(kinds, meta.spec))["r2"] == evaluate(run)["r2"]


def test_weights_of_descriptors_go_to_columns_of_the_same_name(run: Path, own: Path, tmp_path: Path) -> None:
    swapped = tmp_path / "own.csv"
    swapped.write_text("\n".join(["smiles,seven,length", *(f"{text},7,{len(text)}" for text in molecules())]) + "\n")
    learner, meta = restore(run)
    stored = learner.model.descriptors.lin.weight
    for file, same in ((own, True), (swapped, False)):
        kinds = [str(file), "morgan"]
        features = load(str(run.parent / "small.csv"), targets=["y"], descriptors=kinds).features
        model = meta.build()
        before = model.descriptors.lin.weight.clone()
        begin_from(model, learner.task, run, features)
        assert torch.equal(model.descriptors.lin.weight, stored if same else before)


def test_a_checkpoint_without_names_takes_columns_in_their_order(run: Path, own: Path, tmp_path: Path, caplog) -> None:
    content = read(run)
    content["plstm_graph"]["features"].pop("descriptor_names")
    torch.save(content, tmp_path / "old.ckpt")
    some = molecules()[:5]
    assert torch.equal(predict(tmp_path / "old.ckpt", some).values, predict(run, some).values)
    assert "no names of columns are stored" in caplog.text
    assert evaluate(tmp_path / "old.ckpt")["r2"] == evaluate(run)["r2"]
    with pytest.raises(DataError, match="have 2048 columns here and had 2050"):
        predict(tmp_path / "old.ckpt", ["CCO"], descriptors=["morgan"])


def test_other_descriptors_are_other_runs(run: Path, tmp_path: Path) -> None:
    config = small_config(out=run, data=run.parent / "small.csv", targets="y", descriptors="morgan")
    with pytest.raises(ConfigError, match="descriptors is"):
        train(config, resume=True)
    with pytest.raises(ConfigError, match="morgan"):
        train(small_config(data=run.parent / "small.csv", targets="y", descriptors="morgen"))


def test_a_run_does_not_go_on_with_other_descriptors(run: Path, own: Path, tmp_path: Path) -> None:
    """Nor are data the ones it was trained on, where their molecules are described otherwise."""
    data, kind = write_csv(tmp_path / "small.csv"), tmp_path / "own.csv"
    kind.write_text(own.read_text())
    config = small_config(out=tmp_path / "run", data=data, targets="y", descriptors=(str(kind),))
    train(config)
    assert evaluate(tmp_path / "run")["part"] == "test"
    kind.write_text(own.read_text().replace(",7", ",8"))
    with pytest.raises(ConfigError, match="began with other data"):
        train(config, resume=True)
    assert evaluate(tmp_path / "run")["part"] == "all"
