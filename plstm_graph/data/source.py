"""Where data comes from: a folder that is only read, or a download into the cache; and processed copies, kept there."""

import gzip
import hashlib
import io
import logging
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from plstm_graph.errors import DataError
from plstm_graph.io.files import atomic_write, cache_folder, expanded, free_memory

log = logging.getLogger(__name__)

TIMEOUT = 60.0  # seconds without an answer
FORMAT = 2  # of processed copies; a new number makes all older ones void
WHOLE = (torch.uint8, torch.int16, torch.int32, torch.int64)  # types for whole numbers, narrow ones first
Fill = Callable[[Path], Path]  # fetches into an empty folder and returns what is to be kept of it


def present(places: Sequence[str], root: str | Path | None) -> Path | None:
    """The first of ``places`` (paths below ``root``, or below the cache without one) that is there."""
    base = cache_folder() if root is None else Path(root)
    return next((base / place for place in places if (base / place).exists()), None)


def find(name: str, places: Sequence[str], root: str | Path | None, url: str, fill: Fill) -> Path:
    """The raw files of a data set, downloaded into the cache if there is no ``root``.

    Args:
        name: of the data set.
        places: where they may stand below ``root``, which may be read-only; in the cache they go to the first.
        root: folder with public data; nothing is ever written to it.
        url: where they come from, for the error.
        fill: downloads them.

    Raises:
        DataError: they are not in ``root``, or cannot be downloaded.
    """
    found = present(places, root)
    if found is not None:
        return found
    if root is not None:
        expected = " nor ".join(str(Path(root) / place) for place in places)
        raise DataError(f"{name} is not in {root}: there is no {expected}; leave root out to download it from {url}")
    target = cache_folder() / places[0]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # an interrupted download leaves nothing behind
            fill(Path(folder)).rename(target)
    except (OSError, HTTPException, zipfile.BadZipFile) as error:
        if target.exists():  # another process was faster
            return target
        raise DataError(
            f"cannot download {url} to {target}: {error}; fetch it by hand, and give as root the folder that then "
            f"holds {places[0]}"
        ) from error
    return target


def md5(content: bytes) -> str:
    """The sum by which publishers name their files; no protection against forgery."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def fetch(url: str, path: Path, published: str | None = None) -> None:
    """Download a file, with a progress bar on a terminal.

    Raises:
        OSError, HTTPException: no answer, or an answer that is cut short or has not the published MD5 sum.
    """
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, path.open("wb") as stream:
        length = int(answer.headers.get("Content-Length") or 0)
        title = url.rpartition("/")[2].partition("?")[0]
        with tqdm(desc=title, total=length or None, unit="B", unit_scale=True, disable=None) as bar:
            while block := answer.read(1 << 20):
                stream.write(block)
                bar.update(len(block))
    if length and path.stat().st_size != length:
        raise OSError(f"{path.stat().st_size} of {length} bytes came")
    if published and md5(path.read_bytes()) != published:
        raise OSError(f"what came has not the published MD5 sum {published}")


def unzipped(url: str, inner: str) -> Fill:
    """Fetch an archive and keep its folder ``inner``."""

    def fill(folder: Path) -> Path:
        archive = folder / "archive.zip"
        fetch(url, archive)
        with zipfile.ZipFile(archive) as content:
            check_unpacked(sum(entry.file_size for entry in content.infolist()), url)
            damaged = content.testzip()
            if damaged:
                raise zipfile.BadZipFile(f"{damaged} is damaged")
            content.extractall(folder)
        return folder / inner

    return fill


def fetched(files: Mapping[str, tuple[str, str | None]]) -> Fill:
    """Fetch files, each ``name: (url, MD5 sum or None)``, and keep the folder with all of them."""

    def fill(folder: Path) -> Path:
        target = folder / "files"
        for name, (url, published) in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            fetch(url, target / name, published)
        return target

    return fill


def plain_or_packed(path: Path) -> Path:
    """A file as it is named, or the one packed with gzip beside it where that alone is there."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() and not path.is_file() else path


def read_bytes(path: Path) -> bytes:
    """Content of a file, unpacked if it is gzip.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    path = expanded(path)
    try:
        if (size := path.stat().st_size) > free_memory():
            raise DataError(f"{path} has {size / 1e9:.1f} GB, more than this machine has free memory for; split it")
        content = path.read_bytes()
        return _unpack(content, path) if content[:2] == b"\x1f\x8b" else content
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder, not a file; pictures in folders are images:{path}") from error
    except (OSError, EOFError, zlib.error) as error:  # the last two, and BadGzipFile, an OSError, from damaged archives
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _unpack(content: bytes, path: Path) -> bytes:
    """Raises DataError where it unfolds beyond memory."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
        found = stream.read(most_unpacked() + 1)
    check_unpacked(len(found), path)
    return found


def most_unpacked() -> int:
    """Bytes that a packed file may unfold to; as text and cells they take several times as much."""
    return free_memory() // 8


def check_unpacked(size: int, path: object) -> None:
    """Raise DataError if what a file at ``path`` unfolds to has more bytes than that."""
    if size > (most := most_unpacked()):
        raise DataError(
            f"{path} unfolds to more than {most / 1e9:.1f} GB, for which this machine has no memory; split it"
        )


def cached(name: str, files: Iterable[Path], build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``build`` makes of raw files: from the cache where it was made of the same content before.

    The key covers the files' bytes, this module's ``FORMAT`` and the version of rdkit, whose ranks may change. A
    damaged copy is made again, and a cache that cannot be written is no obstacle.

    Args:
        name: starts the name of the copy.
        files: all that ``build`` reads.
        build: gives plain values, tensors and lists of them. Integers come back as int64.
    """
    digest = hashlib.sha256(f"{FORMAT} {name} {_rdkit_version()}".encode())
    for path in files:
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise DataError(f"{name} is not complete: cannot read {path}: {error.strerror}") from error
    copy = cache_folder() / "processed" / f"{name}-{digest.hexdigest()[:16]}.pt"
    content = _read_copy(copy)
    if content is None:
        content = build()
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            _write_copy(copy, content)
        except OSError as error:
            log.info("no processed copy of %s is kept: %s", name, error)
    return content


def _rdkit_version() -> str:
    try:
        return version("rdkit")
    except PackageNotFoundError:
        return "none"


def _write_copy(path: Path, content: dict[str, Any]) -> None:
    stream = io.BytesIO()
    torch.save({key: narrow(value) for key, value in content.items()}, stream)
    saved = stream.getvalue()
    with atomic_write(path) as temp:
        temp.write_bytes(hashlib.sha256(saved).digest() + saved)


def _read_copy(path: Path) -> dict[str, Any] | None:
    with suppress(OSError):
        content = path.read_bytes()
        if hashlib.sha256(content[32:]).digest() == content[:32]:
            loaded = torch.load(io.BytesIO(content[32:]), weights_only=True)
            return {key: _wide(value) for key, value in loaded.items()}
    return None


def narrow(values: Any) -> Any:
    """Whole numbers in the narrowest type that holds them; anything else as it is."""
    if not isinstance(values, torch.Tensor) or values.dtype not in WHOLE or not values.numel():
        return values
    low, high = int(values.min()), int(values.max())
    fits = (kind for kind in WHOLE if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max)
    return values.to(next(fits))


def _wide(value: Any) -> Any:
    whole = isinstance(value, torch.Tensor) and not value.is_floating_point() and value.dtype != torch.bool
    return value.long() if whole else value
