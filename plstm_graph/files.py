"""Files that are either whole or not there."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMP_MARK = ".tmp"


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on success it takes the place of ``path``, otherwise nothing changes.

    The temporary name keeps the suffix, so that writers which choose a format by suffix work. A process that is killed
    leaves at worst a temporary file, which :func:`remove_stale` clears.

    Raises:
        OSError: the folder does not exist or cannot be written, or the disk is full; ``path`` is as it was. So that
            ``torch.save`` tells as much, give it ``temp.open("wb")``.

    Example:
        >>> with atomic_write("metrics.json") as temp:  # doctest: +SKIP
        ...     temp.write_text("{}")
    """
    target = Path(os.path.realpath(path))  # through a link: the file it points to is replaced, not the link
    temp = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{TEMP_MARK}{target.suffix}")
    try:
        yield temp
        _sync(temp)
        os.replace(temp, target)
        with suppress(OSError):  # some file systems cannot sync a folder; the rename itself is atomic all the same
            _sync(target.parent)
    except (OSError, RuntimeError) as error:
        met = error if isinstance(error, OSError) else error.__context__  # torch hides what its stream met
        if not isinstance(met, OSError) or met.errno is None or met.filename not in (None, str(temp)):
            raise
        raise OSError(met.errno, met.strerror, str(target)) from error  # a full disk names no file, others the temp
    finally:
        with suppress(FileNotFoundError):
            temp.unlink()


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` as the home folder, which a shell would have put there."""
    return Path(path).expanduser()


def remove_stale(folder: str | os.PathLike[str]) -> None:
    """Removes what killed writers left in ``folder`` (not below it)."""
    for left in Path(folder).glob(f".*{TEMP_MARK}*"):
        with suppress(OSError):
            left.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
