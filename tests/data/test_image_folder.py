"""Folders of pictures: classes by their names, parts by theirs, files that cannot be used, and what names the data."""

import logging
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import COLOURS, paint, paint_folder
from PIL import Image

from plstm_graph.data import image_folder, load
from plstm_graph.data.dataset import Dataset
from plstm_graph.data.examples import Part, batches, in_turn, lie_in_files, take
from plstm_graph.data.image_folder import Pictures, pictures_in
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.train.data import Collated, train_loader


def read(folder: Path, side: int = 8) -> Dataset:
    found = load(f"images-{side}:{folder}")
    assert isinstance(found, Dataset)
    return found


def paths(found: Dataset, part: str) -> list[str]:
    assert found.parts is not None
    return [found.ids[number] for number in found.parts[part]]


def test_folders_are_classes_by_their_names(tmp_path: Path) -> None:
    found = read(paint_folder(tmp_path / "my pictures", count=2))
    assert found.name == "my pictures"
    assert found.task.names == ("blue", "green", "red")
    assert found.ids == [f"{name}/{number:02d}.png" for name in sorted(COLOURS) for number in range(2)]
    assert found.examples.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.features.image == (3, 8, 8)
    assert (found.parts, found.default_split, found.rejected) == (None, "random", [])
    batch = found.examples.batch([5, 0])
    assert batch.x.shape == (2, 3, 8, 8)
    assert batch.x.is_contiguous()
    assert batch.x.mean((2, 3)).argmax(1).tolist() == [0, 2]  # red, blue
    assert batch.y.tolist() == [2, 0]
    assert load(f"images:{tmp_path / 'my pictures'}").features.image == (3, 224, 224)


def test_hidden_files_and_others_are_left_out_and_folders_in_a_class_belong_to_it(tmp_path: Path) -> None:
    top = paint_folder(tmp_path, "red", "blue", count=1)
    paint(top / "red" / "more" / "deep" / "a.JPG", (255, 0, 0))
    paint(top / "red" / ".thumbnails" / "a.png", (255, 0, 0))
    paint(top / ".cache" / "a.png", (255, 0, 0))
    (top / "red" / "Thumbs.db").write_bytes(b"x")
    (top / "red" / "._00.png").write_bytes(b"x")
    (top / "notes.txt").write_text("x")
    (top / "red" / "link").symlink_to(top / "red")  # in a circle
    os.mkfifo(top / "red" / "pipe.png")
    found = read(top)
    assert found.ids == ["blue/00.png", "red/00.png", "red/more/deep/a.JPG"]
    assert found.rejected == []


def test_what_cannot_be_used_is_rejected_with_a_reason(tmp_path: Path) -> None:
    top = paint_folder(tmp_path, "red", "blue", count=6)
    (top / "blue" / "00.png").write_bytes(b"")
    (top / "blue" / "01.png").write_bytes((top / "blue" / "02.png").read_bytes()[:100])
    (top / "red" / "05.png").write_bytes(b"name,label\n")
    (top / "red" / "gone.png").symlink_to(top / "nowhere.png")
    paint(top / "loose.png", (0, 0, 0))
    found = read(top)
    told = {row.text: row.reason for row in found.rejected}
    assert list(told) == ["loose.png", "blue/00.png", "blue/01.png", "red/05.png", "red/gone.png"]
    assert [row.row for row in found.rejected] == [1, 2, 3, 13, 14]
    assert told["loose.png"] == "it lies in no folder of a class"
    assert told["blue/00.png"] == "it is empty (0 bytes)"
    assert "truncated" in told["blue/01.png"].casefold()
    assert "it is no picture" in told["red/05.png"]
    assert told["red/gone.png"] == "No such file or directory"
    assert len(found.examples) == len(found.ids) == 9


def test_a_class_without_a_readable_picture_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    top = paint_folder(tmp_path, count=2)
    for path in (top / "green").iterdir():
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert read(top).task.names == ("blue", "red")
    assert "no picture of green can be read" in caplog.text


def test_a_folder_that_is_not_what_was_meant_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        read(tmp_path / "none")
    with pytest.raises(DataError, match=r"has no pictures in folders: it takes one folder a class \(\.png, "):
        read(tmp_path)
    paint(tmp_path / "a.png", (0, 0, 0))
    with pytest.raises(DataError, match="has no pictures in folders"):
        read(tmp_path)
    top = paint_folder(tmp_path / "pictures", "red", count=4)
    for path in list((top / "red").iterdir())[:3]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"3 of 4 pictures cannot be used \(red/\d+\.png: it is empty"):
        read(top)
    with pytest.raises(DataError, match="or images:"):
        load(str(top))
    with pytest.raises(ConfigError, match="targets can only be chosen for a CSV file"):
        load(f"images:{top}", targets=["y"])


@pytest.mark.parametrize(("most", "dark"), [(4095, True), (40000, False)])
def test_pictures_of_a_camera_with_twelve_bits_are_told(
    most: int, dark: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    top = paint_folder(tmp_path, "red", count=3)
    (top / "cells").mkdir()
    for number in range(20):
        values = np.linspace(0, most, 64).astype(np.uint16).reshape(8, 8)
        Image.fromarray(values).save(top / "cells" / f"{number}.tif")
    read(top)
    told = "pictures of sixteen bits are nearly black: in 8 files of them no pixel is above 4,095 of 65,535"
    assert (told in caplog.text) == dark


@pytest.mark.parametrize("valid", ["val", "valid", "validation"])
def test_folders_of_parts_are_the_official_split(valid: str, tmp_path: Path) -> None:
    for part, names in (("train", ("red", "blue")), (valid, ("red", "blue")), ("test", ("red",))):
        paint_folder(tmp_path / part, *names, count=2)
    found = read(tmp_path)
    assert found.default_split == "official"
    assert found.task.names == ("blue", "red")
    assert paths(found, "valid") == [
        f"{valid}/blue/00.png",
        f"{valid}/blue/01.png",
        *(f"{valid}/red/0{n}.png" for n in (0, 1)),
    ]
    assert paths(found, "test") == ["test/red/00.png", "test/red/01.png"]
    assert found.split() == found.parts
    assert {len(part) for part in found.split("random").values()} == {1, 8}


def test_without_a_test_part_validation_is_it_and_every_20th_validates(tmp_path: Path) -> None:
    """As ImageNet is used."""
    paint_folder(tmp_path / "train", "red", "blue", count=20)
    paint_folder(tmp_path / "val", "red", "blue", count=2)
    found = read(tmp_path)
    assert paths(found, "valid") == ["train/blue/00.png", "train/red/00.png"]
    assert [path.split("/")[0] for path in paths(found, "test")] == 4 * ["val"]
    assert len(paths(found, "train")) == 38
    (tmp_path / "val").rename(tmp_path / "test")
    again = read(tmp_path)
    assert [len(part) for part in again.split().values()] == [38, 2, 4]


def test_one_part_alone(tmp_path: Path) -> None:
    """The training part is split at random; another is there to score."""
    paint_folder(tmp_path / "a" / "train", count=2)
    found = read(tmp_path / "a")
    assert (found.parts, found.task.names) == (None, ("blue", "green", "red"))
    paint_folder(tmp_path / "b" / "test", count=2)
    found = read(tmp_path / "b")
    assert found.task.names == ("blue", "green", "red")
    assert {name: len(part) for name, part in found.split().items()} == {"train": 0, "valid": 0, "test": 6}


def test_classes_may_be_called_as_parts_are(tmp_path: Path) -> None:
    for name in ("bus", "train", "test"):
        paint(tmp_path / "a" / name / "0.png", (0, 0, 0))
    assert read(tmp_path / "a").task.names == ("bus", "test", "train")
    paint(tmp_path / "b" / "test" / "0.png", (0, 0, 0))
    paint(tmp_path / "b" / "control" / "more" / "0.png", (0, 0, 0))
    assert read(tmp_path / "b").task.names == ("control", "test")


def test_parts_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    """No picture becomes one of a class called "val"."""
    paint_folder(tmp_path / "a" / "train", count=1)
    paint(tmp_path / "a" / "val" / "0.png", (0, 0, 0))
    with pytest.raises(DataError, match=r"a/val has no folders of classes in it, as .*a/train has"):
        read(tmp_path / "a")
    for name in ("train", "val", "valid"):
        paint_folder(tmp_path / "b" / name, count=1)
    with pytest.raises(DataError, match="has train, val, valid, of which two are one part"):
        read(tmp_path / "b")
    for name in ("train", "val", "extra"):
        paint_folder(tmp_path / "c" / name, count=1)
    with pytest.raises(DataError, match=r"has parts of a split \(train, val\) and beside them extra"):
        read(tmp_path / "c")


def test_folds_are_stratified_by_class(tmp_path: Path) -> None:
    found = read(paint_folder(tmp_path, "red", "blue", count=10))
    split = found.split("folds", seed=1, fold=2)
    assert found.examples.y[torch.tensor(split["test"])].tolist() == [0, 1]
    with pytest.raises(DataError, match="no SMILES"):
        found.split("scaffold")


def test_a_name_is_the_same_whatever_system_wrote_it(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "Zürich")
    paint(tmp_path / name / "0.png", (0, 0, 0))
    paint(tmp_path / "Bern" / "0.png", (0, 0, 0))
    assert read(tmp_path).task.names == ("Bern", unicodedata.normalize("NFC", name))


def test_bytes_that_are_no_text_are_a_path_all_the_same(tmp_path: Path) -> None:
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"caf\xe9"))
    Image.new("RGB", (8, 8)).save(os.path.join(os.fsencode(tmp_path), b"caf\xe9", b"\xff.png"))
    paint(tmp_path / "tea" / "0.png", (0, 0, 0))
    found = read(tmp_path)
    assert found.ids == ["caf�/�.png", "tea/0.png"]
    assert found.task.names == ("caf�", "tea")
    assert len(found.examples.batch([0, 1]).x) == 2


def test_the_digest_is_of_files_and_classes_wherever_they_are(tmp_path: Path) -> None:
    first = read(paint_folder(tmp_path / "a", count=3))
    assert first.content == read(paint_folder(tmp_path / "b", count=3)).content
    assert first.content == read(tmp_path / "a", 16).content  # the size is an option
    seen = {first.content}
    path = tmp_path / "a" / "red" / "00.png"

    def changed() -> bool:
        seen.add(found := read(tmp_path / "a").content)
        return len(seen) > len(known) and found not in known

    for change in (
        lambda: paint(path, (1, 2, 3)),
        lambda: path.rename(tmp_path / "a" / "red" / "z.png"),
        lambda: (tmp_path / "a" / "red").rename(tmp_path / "a" / "rot"),
        lambda: (tmp_path / "a" / "rot" / "z.png").unlink(),
        lambda: paint(tmp_path / "a" / "green" / "z.png", (1, 2, 3)),
    ):
        known = {*seen}
        change()
        assert changed()


@pytest.mark.parametrize("size", [(20, 16), (200, 160)])
def test_a_file_of_the_same_length_is_another(size: tuple[int, int], tmp_path: Path) -> None:
    """Not packed, and written at the same time as well: near its end, and in its middle where both ends are black."""
    path = paint(paint_folder(tmp_path, "red", "blue", count=1) / "red" / "00.bmp", (255, 0, 0), size=size)
    before, status = read(tmp_path).content, path.stat()
    content = bytearray(path.read_bytes())
    content[-200 if size == (20, 16) else len(content) // 2 + 9] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert read(tmp_path).content != before


def test_files_are_read_ahead_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(paint_folder(tmp_path, count=12))
    asked: list[str] = []

    def reading(path: str, side: int) -> np.ndarray:
        asked.append(path)
        return np.zeros((side, side, 3), np.uint8)

    monkeypatch.setattr(image_folder, "read_picture", reading)
    part = take(found.examples, range(1, 36))
    groups = in_turn(Part(part, range(20)), iter([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]))
    first = next(groups)
    assert first.y.tolist() == found.examples.y[1:3].tolist()
    image_folder._threads(os.getpid()).submit(int).result()
    assert 6 <= len(asked) <= 6 + 0  # this batch and two more
    groups.close()
    assert lie_in_files(part)
    assert not lie_in_files([])

    whole = Collated(part, 10)
    assert len(whole) == 4
    for _ in range(2):
        asked.clear()
        assert [len(batch.y) for batch in whole] == [10, 10, 10, 5]
        assert len(asked) == 35
    loader = train_loader(part, 8, seed=0)
    assert sorted(torch.cat([batch.y for batch in loader]).tolist()) == sorted(part.y.tolist())
    assert [len(batch.y) for batch in loader] == [8, 8, 8, 8, 3]


def test_batches_are_the_same_however_they_are_asked_for(tmp_path: Path) -> None:
    examples = read(paint_folder(tmp_path, count=3)).examples
    one_by_one = torch.cat([examples.batch([number]).x for number in range(9)])
    assert torch.equal(torch.cat([batch.x for batch in batches(examples, 4)]), one_by_one)
    assert torch.equal(examples.to("cpu").batch(torch.arange(9)).x, one_by_one)
    assert examples.batch([]).x.shape == (0, 3, 8, 8)


def test_a_file_that_is_damaged_beyond_its_header_is_named(tmp_path: Path) -> None:
    top = paint_folder(tmp_path, "red", "blue", count=3, suffix=".bmp")
    path = top / "red" / "01.bmp"
    path.write_bytes(path.read_bytes()[:-60])
    found = read(top)
    assert found.rejected == []
    with pytest.raises(DataError, match=r"red/01\.bmp is damaged, or was changed since it was looked at: .*truncated"):
        list(batches(found.examples, 2))
    assert len(found.examples.batch([0, 1])) == 2  # those that read are still there


def test_slow_disks_are_asked_by_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = paint_folder(tmp_path, count=4)
    monkeypatch.setattr(image_folder, "AT_ONCE", 2)
    quick = read(top).content
    monkeypatch.setattr(image_folder, "SLOW_S", 0.0)
    assert read(top).content == quick


def test_pictures_below_a_folder_or_one(tmp_path: Path) -> None:
    top = paint_folder(tmp_path / "a", "red", count=2)
    assert pictures_in(top) == [f"{top}/red/00.png", f"{top}/red/01.png"]
    assert pictures_in(top / "red" / "00.png") == [f"{top}/red/00.png"]
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="there are no pictures in"):
        pictures_in(tmp_path / "b")


def test_a_process_that_was_forked_has_threads_of_its_own() -> None:
    image_folder._threads(os.getpid()).submit(int).result()
    child = os.fork()
    if not child:
        done = image_folder._threads(os.getpid()).submit(int).result(timeout=5)
        os._exit(done)
    assert os.waitpid(child, 0)[1] == 0


def test_examples_say_what_they_are() -> None:
    empty = Pictures("", [], torch.zeros(0, dtype=torch.long), 8, "x")
    assert len(empty) == 0
    assert list(batches(empty, 4)) == []
