"""What ``--out`` may meet: plain files, links, folders, devices, pipes. Nothing but a plain file is ever replaced."""

import os
import stat
import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
from fuzzing import fuzz, told
from hypothesis import strategies as st

from plstm_graph.errors import TargetError
from plstm_graph.io.files import atomic_write

KINDS = ["none", "file", "closed", "folder", "fifo", "null", "full", "open", "pipe", "no/file"]
SUFFIXES = ["", ".csv", ".json", ".svg", ".tar.x"]


def make(path: Path, kind: str, old: bytes) -> int | None:
    """Something of a kind at ``path``; the descriptor by which this process writes to it, if it does."""
    if kind in ("file", "closed", "open"):
        path.write_bytes(old)
        path.chmod(0o444 if kind == "closed" else 0o640)
    if kind == "folder":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    if kind in ("null", "full"):
        path.symlink_to(f"/dev/{kind}")
    return os.open(path, os.O_WRONLY | os.O_APPEND) if kind == "open" else None


@fuzz(
    0.04,
    kind=st.sampled_from(KINDS),
    links=st.integers(0, 2),
    suffix=st.sampled_from(SUFFIXES),
    old=st.binary(max_size=40),
    new=st.binary(max_size=40) | st.just(b"x" * 200_000),
    fails=st.booleans(),
)
def test_only_a_plain_file_is_replaced(kind: str, links: int, suffix: str, old: bytes, new: bytes, fails: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = target = folder / ("no/file" if kind == "no/file" else f"target{suffix}")
        own, read = make(target, kind, old), []
        ends = os.pipe() if kind == "pipe" else ()
        if ends:
            path = Path(f"/proc/self/fd/{ends[1]}")
        for number in range(links):
            (folder / f"link{number}").symlink_to(path)
            path = folder / f"link{number}"
        before = {each.name: stat.S_IFMT(each.lstat().st_mode) for each in folder.iterdir()}
        reader = threading.Thread(target=lambda: read.append(_drain(target, ends)))
        if (kind == "fifo" and not fails) or ends:
            reader.start()
        done, full = (
            False,
            pytest.raises(OSError, match="No space") if kind == "full" and new and not fails else nullcontext(),
        )
        with full, told(), atomic_write(path) as temp:
            temp.write_bytes(new)
            if fails:
                raise TargetError("the work that makes the content failed")
            done = True
        for descriptor in (*ends[1:], *([own] if own is not None else [])):
            os.close(descriptor)
        if reader.ident:
            reader.join(60)
        for descriptor in ends[:1]:
            os.close(descriptor)
        after = {each.name: stat.S_IFMT(each.lstat().st_mode) for each in folder.iterdir()}
        made = {target.name: stat.S_IFREG} if done and kind == "none" else {}
        assert after == before | made
        assert done == (not fails and kind not in ("closed", "folder", "no/file"))
        if kind in ("file", "closed", "open"):
            wanted = {"file": new, "closed": old, "open": old + new}[kind] if done else old
            assert target.read_bytes() == wanted
            assert stat.S_IMODE(target.stat().st_mode) == (0o444 if kind == "closed" else 0o640)
        if kind == "none" and done:
            assert target.read_bytes() == new
        assert b"".join(read) == (new if done and reader.ident else b"")


def _drain(fifo: Path, ends: tuple[int, ...]) -> bytes:
    with os.fdopen(os.dup(ends[0]), "rb") if ends else fifo.open("rb") as stream:
        return stream.read()
