import gzip
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from plstm_graph.errors import TargetError
from plstm_graph.io.files import atomic_write, check_target, kind, make_durable, remove_stale, stem


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


def test_a_replaced_file_hands_on_its_permissions(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    target.chmod(0o600)
    with atomic_write(target) as temp:
        temp.write_text("new")
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("new", 0o600)


def write(path: Path) -> None:
    with atomic_write(path) as temp:
        temp.write_text("new\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/a.csv", "there is no folder .*no; make it first"),
        ("file/a.csv", "there is no folder .*file"),
        ("folder", "is a folder; name a file in it"),
        ("to_folder", "is a folder"),
        ("closed", "is read-only, and kept"),
        ("block", "is a block device"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_by_name_and_kept(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "to_folder").symlink_to("folder")
    for file in ("file", "closed"):
        (tmp_path / file).write_text("old")
    (tmp_path / "closed").chmod(0o444)
    if name == "block":
        node(tmp_path / name, stat.S_IFBLK, os.makedev(7, 200))
    before = {path.name: path.lstat().st_mode for path in tmp_path.iterdir()}
    for act in (check_target, write):
        with pytest.raises(TargetError, match=message) as told:
            act(tmp_path / name)
        assert isinstance(told.value, OSError)
    assert {path.name: path.lstat().st_mode for path in tmp_path.iterdir()} == before
    assert (tmp_path / "closed").read_text() == "old"


def node(path: Path, mode: int, device: int) -> None:
    try:
        os.mknod(path, mode | 0o666, device)
    except PermissionError:
        pytest.skip("only root makes devices")


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    node(tmp_path / "null", stat.S_IFCHR, os.makedev(1, 3))
    (tmp_path / "link").symlink_to("null")
    for name in ("null", "link"):
        write(tmp_path / name)
        assert stat.S_ISCHR((tmp_path / name).stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["link", "null"]


def test_a_full_device_is_an_error_that_names_it() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write(Path("/dev/full"))


def test_a_fifo_is_written_to_and_stays_one(tmp_path: Path) -> None:
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    write(fifo)
    reader.join(30)
    assert read == ["new\n"]
    assert fifo.is_fifo()


def test_what_the_process_has_open_itself_is_added_to(tmp_path: Path) -> None:
    target = tmp_path / "log"
    target.write_text("old\n")
    with target.open("a") as stream:
        stream.write("before\n")
        stream.flush()
        write(target)
        stream.write("after\n")
    assert target.read_text() == "old\nbefore\nnew\nafter\n"
    with target.open() as reader:  # reading is no claim
        write(target)
        assert reader.read() == "old\nbefore\nnew\nafter\n"
    assert target.read_text() == "new\n"


@pytest.mark.parametrize("how", ["append", "truncate", "pipe"])
def test_standard_output_keeps_what_was_in_it(tmp_path: Path, how: str) -> None:
    program = (
        "import plstm_graph.io.files as f\nprint('first')\nwith f.atomic_write('/dev/stdout') as t: t.write_text('new')"
    )
    out = tmp_path / "a.csv"
    out.write_text("old\n")
    if how == "pipe":
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
        assert done.stdout == b"first\nnew"
        return
    with out.open("a" if how == "append" else "w") as stream:
        subprocess.run([sys.executable, "-c", program], stdout=stream, check=True)
    assert out.read_text() == ("old\n" if how == "append" else "") + "first\nnew"


def test_the_suffix_before_gz_counts(tmp_path: Path) -> None:
    names = ["a.csv", "a.CSV.gz", "a.b.smi.GZ", "a.gz", "a", "x/a.pt.gz"]
    assert [kind(name) for name in names] == [".csv", ".csv", ".smi", "", "", ".pt"]
    assert [stem(name) for name in names] == ["a", "a", "a.b", "a", "a", "a"]
    for _ in range(2):
        write(tmp_path / "a.csv.gz")
        assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == b"new\n"
    assert os.listdir(tmp_path) == ["a.csv.gz"]
    for name in ("a.xlsx", "a.csv.zip", "a.parquet", "a.csv.bz2", "a.sdf.gz"):
        with pytest.raises(TargetError, match="tables are written as"):
            check_target(tmp_path / name, table=True)


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


def test_what_need_not_be_durable_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr("plstm_graph.io.files._sync", lambda path: synced.append(path.name))
    with atomic_write(tmp_path / "a.txt", durable=False) as temp:
        temp.write_text("a")
    assert (tmp_path / "a.txt").read_text() == "a"
    assert synced == []
    make_durable(tmp_path / "a.txt")
    assert synced == ["a.txt", tmp_path.name]
