"""Downloads, and processed copies that may vanish or break at any time."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from plstm_graph.data import DATASETS, load, source
from plstm_graph.errors import DataError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw.csv"
    path.write_text("1\n")
    return path


class Builder:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0
        self.content = {"a": torch.tensor([[1, 300]]), "b": torch.tensor([0.5]), "c": ["x", "y"], "d": None}

    def __call__(self) -> dict[str, object]:
        self.calls += 1
        return self.content


def same(found: dict[str, object], want: dict[str, object]) -> None:
    assert found.keys() == want.keys()
    for key, value in want.items():
        if isinstance(value, torch.Tensor):
            assert found[key].dtype == value.dtype
            assert torch.equal(found[key], value)
        else:
            assert found[key] == value


def test_what_was_made_once_is_not_made_again(raw: Path, cache: Path) -> None:
    build = Builder()
    for _ in range(3):
        same(source.cached("set", [raw], build), build.content)
    assert build.calls == 1
    assert [path.parent for path in cache.rglob("*.pt")] == [cache / "processed"]


def test_other_content_name_or_format_is_made_anew(raw: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Builder()
    source.cached("set", [raw], build)
    source.cached("other", [raw], build)
    raw.write_text("2\n")
    source.cached("set", [raw], build)
    monkeypatch.setattr(source, "FORMAT", source.FORMAT + 1)
    source.cached("set", [raw], build)
    assert build.calls == 4


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "foreign"])
def test_a_damaged_copy_is_made_again(raw: Path, cache: Path, damage: str) -> None:
    build = Builder()
    source.cached("set", [raw], build)
    (copy,) = cache.rglob("*.pt")
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes({"empty": b"", "short": content[:-7], "flipped": content, "foreign": b"x" * 99}[damage])
    same(source.cached("set", [raw], build), build.content)
    assert build.calls == 2
    same(source.cached("set", [raw], build), build.content)
    assert build.calls == 2


def test_a_cache_that_cannot_be_written_is_no_obstacle(raw: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    build = Builder()
    same(source.cached("set", [raw], build), build.content)
    same(source.cached("set", [raw], build), build.content)
    assert build.calls == 2


def test_missing_raw_file(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match=r"set is not complete: cannot read .*none: No such file"):
        source.cached("set", [tmp_path / "none"], Builder())


def test_packed_files(tmp_path: Path) -> None:
    (tmp_path / "bad.gz").write_bytes(b"\x1f\x8b" + b"nonsense")
    with pytest.raises(DataError, match=r"cannot read .*bad\.gz"):
        source.read_bytes(tmp_path / "bad.gz")
    with pytest.raises(DataError, match=r"there is no file .*none"):
        source.read_bytes(tmp_path / "none")
    (tmp_path / "plain").write_bytes(b"text")
    assert source.read_bytes(tmp_path / "plain") == b"text"


def test_download_into_the_cache(tmp_path: Path, shared_data: Path, cache: Path, monkeypatch) -> None:
    archive = tmp_path / "MUTAG.zip"
    monkeypatch.setitem(DATASETS, "MUTAG", replace(DATASETS["MUTAG"], url=archive.as_uri()))
    with pytest.raises(DataError, match=r"cannot download .*MUTAG\.zip to .*by hand.* holds TUDataset/MUTAG/raw"):
        load("MUTAG")
    archive.write_bytes(b"half an arch")
    with pytest.raises(DataError, match="cannot download"):
        load("MUTAG")
    folder = cache / "TUDataset" / "MUTAG"
    assert list(folder.iterdir()) == []
    with zipfile.ZipFile(archive, "w") as content:
        for path in (shared_data / "TUDataset" / "MUTAG" / "raw").iterdir():
            content.write(path, f"MUTAG/{path.name}")
    assert not DATASETS["MUTAG"].present()
    assert len(load("MUTAG").graphs) == 188
    assert [path.name for path in folder.iterdir()] == ["raw"]
    assert DATASETS["MUTAG"].present()
    archive.unlink()
    assert len(load("MUTAG").graphs) == 188  # from the cache


def test_a_file_inside_an_archive_is_checked(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("inner/file", b"0123456789" * 50)
    damaged = bytearray(archive.read_bytes())
    damaged[60] ^= 1  # inside the stored file
    archive.write_bytes(damaged)
    with pytest.raises(zipfile.BadZipFile):
        source.unzipped(archive.as_uri(), "inner")(tmp_path)


def test_single_files_are_checked_by_their_sum(tmp_path: Path) -> None:
    (tmp_path / "origin").write_bytes(b"content")
    url, right = (tmp_path / "origin").as_uri(), hashlib.md5(b"content").hexdigest()
    assert (
        source.fetched({"raw/x": (url, right), "y": (url, None)})(tmp_path) / "raw" / "x"
    ).read_bytes() == b"content"
    with pytest.raises(OSError, match="has not the published MD5 sum 0"):
        source.fetch(url, tmp_path / "again", "0")


def test_an_answer_cut_short_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "origin").write_bytes(b"content")
    real = source.urllib.request.urlopen

    def longer(url: str, timeout: float) -> object:
        answer = real(url, timeout=timeout)
        del answer.headers["Content-Length"]
        answer.headers["Content-Length"] = "70"
        return answer

    monkeypatch.setattr(source.urllib.request, "urlopen", longer)
    with pytest.raises(OSError, match="7 of 70 bytes came"):
        source.fetch((tmp_path / "origin").as_uri(), tmp_path / "copy")
