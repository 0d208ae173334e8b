"""Prepared data: nothing is lost, training ends as with the source, and needs neither rdkit nor ogb."""

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import small_config, small_dataset, three_classes, write_csv
from torch_geometric.data import Data
from typer.testing import CliRunner

from plstm_graph.cli import app
from plstm_graph.config.models import ModelConfig
from plstm_graph.data import load, read_prepared, write_prepared
from plstm_graph.data.prepared import decode, encode
from plstm_graph.data.source import narrow
from plstm_graph.errors import ConfigError, DataError, TargetError
from plstm_graph.tasks import Tokens
from plstm_graph.train import evaluate, train
from plstm_graph.train.checkpoint import read


def assert_same(first: list[Data], second: list[Data]) -> None:
    """Equal in every attribute, its type and its bits (NaN equals itself)."""
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.to_dict().keys() == b.to_dict().keys()
        for key, value in a.to_dict().items():
            if isinstance(value, str):
                assert value == b[key]
            else:
                assert value.dtype == b[key].dtype, key
                torch.testing.assert_close(value, b[key], rtol=0, atol=0, equal_nan=True)


def test_every_model_reads_the_same_graphs(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path, targets=("y", "z"))
    for graph in dataset.graphs[::3]:
        graph.y[0, 1] = math.nan
    write_prepared(tmp_path / "small.pt", dataset)
    found = load(str(tmp_path / "small.pt"))
    described = ("name", "task", "features", "rejected", "default_split")
    for name in described:
        assert getattr(found, name) == getattr(dataset, name), name
    models = [{"rwse": 0}, {"rwse": 4}, {"rwse": 6}, {"rwse": 9}, {"order": "bfs"}, {"model": "gin"}]
    for model in (ModelConfig(**values) for values in models):
        assert_same(dataset.encoded(model), found.encoded(model))
        assert_same(dataset.encoded(model, [7, 2]), found.encoded(model, [7, 2]))


def test_a_packed_file_is_read_as_the_plain_one(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    digests = {write_prepared(tmp_path / name, dataset) for name in ("a.pt", "b.pt.gz", "c.PT")}
    assert len(digests) == 1
    assert (tmp_path / "b.pt.gz").stat().st_size < (tmp_path / "a.pt").stat().st_size
    for name in ("b.pt.gz", "c.PT"):
        assert_same(load(str(tmp_path / name)).graphs, dataset.encoded(ModelConfig(rwse=0)))
    (tmp_path / "b.pt.gz").write_bytes((tmp_path / "b.pt.gz").read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot read"):
        load(str(tmp_path / "b.pt.gz"))


def test_rejected_rows_and_splits_are_those_of_the_source(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "small.csv")
    data.write_text(data.read_text() + "C1CC,1,2\n")
    dataset = load(str(data), targets=["y"])
    write_prepared(tmp_path / "small.pt", dataset)
    found = read_prepared(tmp_path / "small.pt")
    assert found.rejected == dataset.rejected != []
    assert found.split("random", 5) == dataset.split("random", 5)
    for either in (dataset, found):
        with pytest.raises(DataError, match="4 scaffolds leaves valid empty"):
            either.split("scaffold")
    assert found.molecules() == dataset.molecules()
    assert found.featuriser == dataset.featuriser == "cip-molecule"
    classes = three_classes(dataset)
    write_prepared(tmp_path / "classes.pt", classes)
    assert read_prepared(tmp_path / "classes.pt").split("folds", 42, 3) == classes.split("folds", 42, 3)
    with pytest.raises(ConfigError, match="has no folds"):
        found.split("scaffold", 0, 1)


def test_a_published_split_is_kept(tmp_path: Path) -> None:
    small = small_dataset(tmp_path)
    rest = range(len(small.graphs) - 1, 3, -1)
    parts = {"train": [*rest], "valid": [0, 2], "test": [3, 1]}  # in its own order, which that of batches hangs on
    dataset = replace(small, default_split="official", parts=parts, task=Tokens(("word",), words=("a", "b")))
    write_prepared(tmp_path / "data.pt", dataset)
    found = read_prepared(tmp_path / "data.pt")
    assert found.split() == found.split("official", 3) == parts
    assert found.task.words == ("a", "b")


def test_equal_content_has_an_equal_digest(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    first, again = (write_prepared(tmp_path / name, dataset) for name in ("a.pt", "b.pt"))
    assert first == again == read_prepared(tmp_path / "a.pt").digest
    assert first != write_prepared(tmp_path / "c.pt", dataset, smiles=False)
    changed = dataset.graphs[3].clone()
    changed.x[0, 1] += 1
    graphs = [*dataset.graphs[:3], changed, *dataset.graphs[4:]]
    assert first != write_prepared(tmp_path / "d.pt", replace(dataset, graphs=graphs))


ROWS = {
    "many alike": torch.tensor([[1, 300], [1, 300], [-5, 2]]).repeat(50, 1),
    "all different": torch.arange(300).view(100, 3),
    "floats": torch.randn(40, 2, generator=torch.Generator().manual_seed(0)),
    "bits": torch.tensor([0.0, -0.0, math.nan, math.inf, 1e-45]).repeat(40),
    "large": torch.tensor([2**40, -(2**40)]),
    "truths": torch.tensor([[True], [False]]).repeat(20, 1),
    "none": torch.empty(0, 3, dtype=torch.long),
    "no columns": torch.empty(4, 0),
    "three dimensions": torch.arange(24).view(2, 3, 4).repeat(9, 1, 1),
    "half": torch.randn(30, 2, generator=torch.Generator().manual_seed(0)).bfloat16(),
}


@pytest.mark.parametrize("name", ROWS)
def test_coding_loses_nothing(name: str) -> None:
    rows = ROWS[name]
    found = decode(encode(rows))
    assert (found.dtype, found.shape) == (rows.dtype, rows.shape)
    size = rows.element_size()
    if rows.numel():
        bits = [x.contiguous().view(-1).view(torch.uint8).view(-1, size) for x in (found, rows)]
        assert torch.equal(*bits)
    stored = encode(rows)
    assert sum(x.nbytes for x in (stored["table"], stored["codes"]) if x is not None) <= rows.nbytes


def test_whole_numbers_take_the_narrowest_type() -> None:
    limits = {255: torch.uint8, 256: torch.int16, -1: torch.int16, 2**15: torch.int32, 2**31: torch.int64}
    for value, dtype in limits.items():
        assert narrow(torch.tensor([0, value])).dtype == dtype


def outcome(config, dataset=None):
    """Everything a run found, weights as well, and none of where its data lay or how long it took."""
    found = train(config, dataset)
    left = {key: value for key, value in found.items() if key not in ("minutes", "date", "config_hash")}
    return left, read(Path(config.out) / "checkpoints" / "last.ckpt")["state_dict"]


def assert_trains_alike(folder: Path, source: str, **options) -> None:
    found = {}
    for name, data in (("source", source), ("prepared", str(folder / "data.pt"))):
        found[name] = outcome(small_config(data=data, out=folder / name, epochs=2, batch_size=32, **options))
        options.pop("root", None)
    assert found["source"][0] == found["prepared"][0]
    for key, value in found["source"][1].items():
        assert torch.equal(value, found["prepared"][1][key]), key


def prepare(*words: object) -> None:
    done = CliRunner().invoke(app, ["prepare", *map(str, words)])
    assert done.exit_code == 0, done.output
    assert "graphs, " in done.stdout


@pytest.fixture(scope="module")
def nav17(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nav17")
    prepare("--data", "nav17", "--out", folder / "data.pt")
    return folder


def test_nav17_trains_alike(nav17: Path) -> None:
    assert_trains_alike(nav17, "nav17", model_rwse=4, split="scaffold", seed=3)
    checkpoint = nav17 / "prepared" / "checkpoints" / "best.ckpt"
    assert evaluate(checkpoint)["r2"] == evaluate(checkpoint, "nav17")["r2"]


def test_mutag_trains_alike(tmp_path: Path, shared_data: Path) -> None:
    prepare("--data", "MUTAG", "--root", shared_data, "--out", tmp_path / "data.pt")
    assert_trains_alike(tmp_path, "MUTAG", model_rwse=5, root=str(shared_data), fold=3)


BLOCKED = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("rdkit", "ogb"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Refuse())
from plstm_graph.cli import main
for words in sys.argv[1].split("|"):
    sys.argv[1:] = words.split()
    try:
        main()
    except SystemExit as end:
        print("ended with", end.code)
"""


def test_training_needs_neither_rdkit_nor_ogb(nav17: Path, tmp_path: Path) -> None:
    words = ["train", "--data", str(nav17 / "data.pt"), "--out", "run", "--epochs", "1", "--width", "8", "--layers"]
    words += ["1", "--heads", "4", "--accelerator", "cpu", "--split", "scaffold", "--rwse", "4"]
    write_csv(tmp_path / "small.csv")
    blocked = "train --data small.csv --targets y --out other"  # and it is
    command = [sys.executable, "-c", BLOCKED, f"{' '.join(words)}|{blocked}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert re.findall(r"ended with (\d)", done.stdout) == ["0", "2"], done.stderr
    assert (tmp_path / "run" / "parity.png").exists()
    assert "rdkit is not installed" in done.stderr.splitlines()[-1]


def test_files_that_are_not_prepared_data(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    write_prepared(good, small_dataset(tmp_path))

    def reason() -> str:
        with pytest.raises(DataError) as found:
            load(str(bad))
        return str(found.value)

    assert "there is no file" in reason()
    bad.write_bytes(good.read_bytes()[:5000])
    assert "truncated" in reason()
    torch.save({"weights": torch.ones(3)}, bad)
    assert "was not written by `plstm-graph prepare`" in reason()
    content = torch.load(good, weights_only=True)
    content["attributes"]["x"]["table"][0, 0] ^= 1
    torch.save(content, bad)
    assert "does not match its digest" in reason()
    torch.save({**content, "plstm_graph_data": 99}, bad)
    assert "has data format 99, this version reads 3" in reason()
    with pytest.raises(ConfigError, match="targets can only be chosen for a CSV file"):
        load(str(good), targets=["y"])


def test_a_missing_folder_is_an_os_error_of_that_path(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"/no/small.pt: there is no folder"):
        write_prepared(tmp_path / "no" / "small.pt", small_dataset(tmp_path))


def test_graphs_that_cannot_be_prepared(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    with pytest.raises(DataError, match="there are no graphs"):
        write_prepared(tmp_path / "x.pt", replace(dataset, graphs=[]))
    dataset.graphs[3].extra = torch.ones(2)
    with pytest.raises(DataError, match="graphs 0 and 3 differ in extra"):
        write_prepared(tmp_path / "x.pt", dataset)
    for graph in dataset.graphs:
        graph.extra = {"a": 1}
    with pytest.raises(DataError, match="'extra' cannot be prepared: it must be a tensor or text, not dict"):
        write_prepared(tmp_path / "x.pt", dataset)
    assert not (tmp_path / "x.pt").exists()
