"""Files that are either whole or not there; and targets that are no files, which are never replaced."""

import gzip
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from plstm_graph.errors import TargetError

TEMP_MARK = ".tmp"
PACKED = ".gz"
TABBED = (".tsv", ".tab")
NO_TABLES = (".xlsx", ".xls", ".ods", ".parquet", ".json", ".sdf", ".smi", ".zip", ".bz2", ".xz", ".zst")
"""Endings that promise something else than lines of cells."""


def cache_folder() -> Path:
    """Where downloads, processed copies and what kernels were found to be are kept: ``$XDG_CACHE_HOME/plstm_graph``, or
    ``~/.cache/plstm_graph``.

    Everything in it can be made again, and may be deleted at any time.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "plstm_graph"


def kind(path: str | os.PathLike[str]) -> str:
    """The suffix that says what a file holds, in small letters: ``.smi`` of ``x.smi``, ``x.SMI`` and ``x.smi.gz``."""
    return _unpacked(path).suffix.lower()


def stem(path: str | os.PathLike[str]) -> str:
    """The name without that suffix: ``x`` of ``x.csv`` and ``x.csv.gz``."""
    return _unpacked(path).stem


def _unpacked(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path.with_suffix("") if path.suffix.lower() == PACKED else path


def check_target(path: str | os.PathLike[str], *, table: bool = False) -> None:
    """Whether :func:`atomic_write` may write to ``path``, found out before the work that makes its content.

    Args:
        path: of the file to be.
        table: it will hold lines of cells, which its suffix must not contradict.

    Raises:
        TargetError: it is a folder, a block device or a read-only file; its folder is missing or cannot be written.
    """
    path = expanded(path)
    if table and (promised := kind(path)) in NO_TABLES:
        raise TargetError(f"cannot write {path}: tables are written as .csv or .tsv, or these with .gz, not {promised}")
    found = _status(path)
    if _is_replaced(path, found):
        folder = Path(os.path.realpath(path)).parent
        if not folder.is_dir():
            raise TargetError(f"cannot write {path}: there is no folder {folder}; make it first")
        if not os.access(folder, os.W_OK):
            raise TargetError(f"cannot write {path}: folder {folder} is read-only; name a file elsewhere")
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise TargetError(f"cannot write {path}: it is a folder; name a file in it")
    if found is not None and stat.S_ISBLK(found.st_mode):
        raise TargetError(f"cannot write {path}: it is a block device; name a file")
    # As root os.access finds everything writable: what has no write bit was set so on purpose.
    if found is not None and not (found.st_mode & 0o222 and os.access(path, os.W_OK)):
        raise TargetError(f"cannot write {path}: it is read-only, and kept; name another file, or allow writing to it")


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path; on success its content takes the place of ``path``, otherwise nothing changes.

    The temporary name keeps the suffix, so that writers which choose a format by suffix work; what is to end in
    ``.gz`` is packed at the end. A process that is killed leaves at worst a temporary file beside ``path``, which
    :func:`remove_stale` clears. A file that is replaced hands on its permissions.

    Nothing but a plain file is ever replaced: a device, a pipe, or what this process has open for writing itself
    (``/dev/stdout`` behind ``>>``) is written to, from where it stands, once the content is complete.

    Args:
        path: of the file.
        durable: it is on the disk when this returns, which takes some milliseconds, and so outlives a power cut.
            Otherwise it outlives this process, killed or not; after a power cut it is whole only where the file
            system sees to that by itself (ext4 and btrfs do).

    Raises:
        TargetError: see :func:`check_target`.
        OSError: the folder cannot be written, or the disk is full; ``path`` is as it was. So that ``torch.save`` tells
            as much, give it ``temp.open("wb")``.

    Example:
        >>> with atomic_write("metrics.json") as temp:  # doctest: +SKIP
        ...     temp.write_text("{}")
    """
    path = expanded(path)
    check_target(path)
    found = _status(path)
    replaced = _is_replaced(path, found)
    target = Path(os.path.realpath(path)) if replaced else Path(path)  # through a link: the file, not the link
    with _temporary_beside(target) if replaced else _temporary_elsewhere(target) as temp:
        try:
            yield temp
            done = _packed(temp) if target.suffix.lower() == PACKED else temp
            if replaced:
                _replace(done, target, found, durable)
            else:
                _pour(done, target)
        except (OSError, RuntimeError) as error:
            met = error if isinstance(error, OSError) else error.__context__  # torch hides what its stream met
            if not isinstance(met, OSError) or met.errno is None or met.filename not in (None, str(temp)):
                raise
            raise OSError(met.errno, met.strerror, str(target)) from error  # a full disk names no file, others the temp


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Text in UTF-8, whole or not at all."""
    with atomic_write(path) as temp:
        temp.write_text(text, encoding="utf-8")


def is_stdout(path: str | os.PathLike[str]) -> bool:
    """Whether what is written to ``path`` comes out where this process prints."""
    found = _status(path)
    with suppress(OSError):
        return found is not None and os.path.samestat(found, os.fstat(1)) and not stat.S_ISDIR(found.st_mode)
    return False


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` as the home folder, which a shell would have put there."""
    return Path(path).expanduser()


def free_memory() -> int:
    """Bytes of memory that can be had, what files are cached in included; a guess of 4 GiB where nothing tells."""
    with suppress(OSError, ValueError, IndexError):  # not on macOS or Windows
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 4 * 2**30


def remove_stale(folder: str | os.PathLike[str]) -> None:
    """Removes what killed writers left in ``folder`` (not below it)."""
    for left in Path(folder).glob(f".*{TEMP_MARK}*"):
        with suppress(OSError):
            left.unlink()


def _status(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _is_replaced(path: str | os.PathLike[str], found: os.stat_result | None) -> bool:
    return found is None or (stat.S_ISREG(found.st_mode) and _own_descriptor(path) is None)


def _own_descriptor(path: str | os.PathLike[str]) -> int | None:
    """A descriptor of this process that writes to ``path``, or None."""
    found = _status(path)
    if found is None:
        return None
    numbers = [int(name) for name in os.listdir("/proc/self/fd")] if os.path.isdir("/proc/self/fd") else [1, 2]
    for number in sorted(numbers):
        with suppress(OSError):
            if os.path.samestat(found, os.fstat(number)) and _writes(number):
                return number
    return None


def _writes(descriptor: int) -> bool:
    try:
        import fcntl
    except ModuleNotFoundError:  # not on Windows, where 1 and 2 are all that is looked at
        return True
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


@contextmanager
def _temporary_beside(target: Path) -> Iterator[Path]:
    temp = target.with_name(f".{stem(target)}.{secrets.token_hex(4)}{TEMP_MARK}{_unpacked(target).suffix}")
    try:
        yield temp
    finally:
        for left in (temp, temp.with_name(temp.name + PACKED)):
            with suppress(FileNotFoundError):
                left.unlink()


@contextmanager
def _temporary_elsewhere(target: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / (stem(target) + _unpacked(target).suffix)


def _packed(temp: Path) -> Path:
    """The same file packed, equal content to equal bytes."""
    packed = temp.with_name(temp.name + PACKED)
    with temp.open("rb") as plain, packed.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as stream:
        shutil.copyfileobj(plain, stream)
    return packed


def _replace(temp: Path, target: Path, found: os.stat_result | None, durable: bool) -> None:
    if found is not None:
        temp.chmod(stat.S_IMODE(found.st_mode))
    if durable:
        _sync(temp)
    os.replace(temp, target)
    if durable:
        _sync_folder(target)


def make_durable(path: str | os.PathLike[str]) -> None:
    """A file that was written without is on the disk when this returns."""
    _sync(Path(path))
    _sync_folder(Path(path))


def _sync_folder(target: Path) -> None:
    with suppress(OSError):  # some file systems cannot sync a folder; the rename itself is atomic all the same
        _sync(target.parent)


def _pour(temp: Path, target: Path) -> None:
    """Writes to what is there already, from where it stands."""
    own = _own_descriptor(target)
    for stream in (sys.stdout, sys.stderr):  # what was printed before comes first
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    with temp.open("rb") as content, open(target if own is None else os.dup(own), "wb") as stream:
        shutil.copyfileobj(content, stream)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
