import os
import resource
from pathlib import Path

import pytest
import torch

from plstm_graph.files import atomic_write, remove_stale


def test_a_finished_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with atomic_write(target) as temp:
        temp.write_text("new")
        assert target.read_text() == "old"
        assert temp.parent == tmp_path
        assert temp.suffix == ".json"  # matplotlib chooses its format by suffix
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")

    def fail() -> None:
        with atomic_write(target) as temp:
            temp.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_link_is_followed_and_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with atomic_write(link) as temp:
        temp.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    plain = tmp_path / "plain"
    plain.write_text("")
    assert target.stat().st_mode == plain.stat().st_mode


def test_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "no" / "a") as temp:
        temp.write_text("")


@pytest.mark.parametrize("numbers", [1, 10**6])
def test_a_full_disk_is_named_also_where_torch_hides_it(tmp_path: Path, numbers: int) -> None:
    target = tmp_path / "a.pt"
    target.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        told = pytest.raises(OSError, match=r"File too large: '\S+/a.pt'$")
        with told, atomic_write(target) as temp, temp.open("wb") as stream:
            torch.save(torch.ones(numbers), stream)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.pt"]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".last.0badcafe.tmp.ckpt", "last.ckpt", ".hidden", "notes.tmp"):
        (tmp_path / name).write_text("")
    remove_stale(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "last.ckpt", "notes.tmp"]
