"""CIFAR-10 from an archive of the published form; the real one has not been read here."""

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from plstm_graph.data import DATASETS, cifar, load, source
from plstm_graph.data.cifar import ARCHIVE, CLASSES, FOLDER, TEST, TRAIN, Pixels
from plstm_graph.data.dataset import Dataset
from plstm_graph.errors import DataError
from plstm_graph.train import evaluate, train
from plstm_graph.train.config import override
from plstm_graph.train.defaults import default_config

COUNT = 8  # of each file


def records(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (COUNT, 3072), dtype=np.uint8)
    return np.concatenate([rng.integers(0, 10, (COUNT, 1), dtype=np.uint8), pixels], 1).tobytes()


def files() -> dict[str, bytes]:
    found = {name: records(seed) for seed, name in enumerate((*TRAIN, TEST))}
    return found | {"batches.meta.txt": "\n".join(CLASSES).encode(), "readme.html": b"<html>"}


def write_archive(path: Path, content: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in content.items():
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "cifar10", replace(DATASETS["cifar10"], graphs=6 * COUNT))


@pytest.mark.parametrize("place", [ARCHIVE, f"cifar10/{ARCHIVE}", FOLDER, f"cifar10/{FOLDER}"])
def test_images_as_they_were_published(place: str, few: None, tmp_path: Path) -> None:
    content = files()
    if place.endswith(FOLDER):
        (tmp_path / place).mkdir(parents=True)
        for name, data in content.items():
            (tmp_path / place / name).write_bytes(data)
    else:
        write_archive(tmp_path / place, content)
    found = load("cifar10", root=tmp_path)
    assert isinstance(found, Dataset)
    assert found.features.image == (3, 32, 32)
    assert found.task.names == CLASSES
    assert found.task.names[:4] == ("airplane", "automobile", "bird", "cat")
    split = found.split()
    assert (split["valid"], split["test"]) == ([0, 20], list(range(40, 48)))
    assert sorted(split["train"] + split["valid"]) == list(range(40))
    raw = np.frombuffer(content["data_batch_2.bin"], np.uint8).reshape(COUNT, -1)[3]
    batch = found.examples.batch([COUNT + 3])
    assert batch.y.tolist() == [raw[0]]
    green = raw[1 + 1024 : 1 + 2048].reshape(32, 32) / 255
    torch.testing.assert_close(batch.x[0, 1].double(), torch.from_numpy((green - 0.456) / 0.224), atol=1e-5, rtol=1e-5)


def test_the_digest_is_of_images_and_classes() -> None:
    first = Pixels(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    assert first.digest == first.to("cpu").digest
    assert first.digest != replace(first, y=torch.tensor([1, 0])).digest
    assert first.digest != replace(first, pixels=first.pixels + 1).digest
    assert first.nbytes == 2 * 48 + 16


def test_files_that_are_not_the_published_ones_are_refused(tmp_path: Path, few: None) -> None:
    content = files()
    path = write_archive(tmp_path / ARCHIVE, content | {TRAIN[2]: content[TRAIN[2]][:-1]})
    with pytest.raises(DataError, match=r"data_batch_3\.bin must hold records of 3073 bytes"):
        load("cifar10", root=tmp_path)
    write_archive(path, content | {TEST: b"\x0a" + content[TEST][1:]})
    with pytest.raises(DataError, match=r"test_batch\.bin must hold records .* a class from 0 to 9"):
        load("cifar10", root=tmp_path)
    write_archive(path, {name: data for name, data in content.items() if name != TEST})
    with pytest.raises(DataError, match="is truncated, or not the archive of CIFAR-10"):
        load("cifar10", root=tmp_path)
    path.write_bytes(write_archive(path, content).read_bytes()[:-2000])
    with pytest.raises(DataError, match="cannot read"):
        load("cifar10", root=tmp_path)
    write_archive(path, content | {TEST: b""})
    with pytest.raises(DataError, match=r"test_batch\.bin must hold records"):
        load("cifar10", root=tmp_path)
    with pytest.raises(DataError, match=r"cifar10 is not in .*nowhere: there is no .*cifar-10-binary\.tar\.gz nor"):
        load("cifar10", root=tmp_path / "nowhere")


def test_a_wrong_number_of_images_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / ARCHIVE, files())
    with pytest.raises(DataError, match="cifar10 must have 60000 graphs, got 48"):
        load("cifar10", root=tmp_path)


def test_it_is_downloaded_once(few: None, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = write_archive(tmp_path / "there.tar.gz", files())
    monkeypatch.setattr(cifar, "URL", published.as_uri())
    monkeypatch.setattr(cifar, "MD5", "0" * 32)
    with pytest.raises(DataError, match="has not the published MD5 sum"):
        load("cifar10")
    assert not (cache / ARCHIVE).exists()
    monkeypatch.setattr(cifar, "MD5", hashlib.md5(published.read_bytes()).hexdigest())
    first = load("cifar10").content
    published.unlink()
    assert load("cifar10").content == first
    assert source.present((ARCHIVE,), None) == cache / ARCHIVE


def test_it_is_trained_and_scored(few: None, tmp_path: Path) -> None:
    write_archive(tmp_path / ARCHIVE, files())
    small = {"model.width": 16, "model.heads": 2, "model.layers": 1, "epochs": 1, "accelerator": "cpu"}
    config = override(default_config("cifar10"), small | {"root": str(tmp_path), "out": str(tmp_path / "run")})
    found = train(config)
    assert found["graphs"] == {"train": 38, "valid": 2, "test": 8}
    assert found["classes"] == list(CLASSES)
    assert evaluate(tmp_path / "run")["accuracy"] == found["test"]["accuracy"]
