"""A folder of pictures as a data set: a folder a class, as torchvision's ImageFolder has it, perhaps in parts."""

import hashlib
import logging
import os
import time
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from plstm_graph.config.names import PICTURES, SIDE
from plstm_graph.data.dataset import Dataset
from plstm_graph.data.examples import Arrays, Indices, rows_of
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.molecules import Rejected
from plstm_graph.data.pictures import Look, highest, look, normalised, read_picture
from plstm_graph.data.splits import OFFICIAL, Split
from plstm_graph.errors import DataError, count, listed
from plstm_graph.io.files import expanded
from plstm_graph.io.waiting import named, tracked
from plstm_graph.tasks import Multiclass

log = logging.getLogger(__name__)

PARTS = {"train": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}
"""Names of folders that are parts of a split."""
EVERY = 20
"""Where no folder is for validation, one in so many pictures of the training part is."""
MOST_UNREADABLE = 0.5
"""Share of files from which on the folder is not what was meant."""
DARK, FEW = 2**13, 8
"""What no pixel of sixteen bits is as bright as where a camera had fewer, in so many files."""
AT_ONCE, AHEAD = 256, 2
"""Files that a thread looks at in one go; batches that are read ahead of the one at hand."""
SLOW_S = 5e-4
"""A first look at a file takes so long where it is mostly a wait for the disk; a tenth of it where it is none."""


class Listed(NamedTuple):
    """A file of a folder: its path below it, and the part and the class it stands for, empty where it stands for
    none."""

    path: str
    part: str = ""
    label: str = ""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Files as examples: they are read when a batch of them is asked for, and never all kept.

    Args:
        folder: where they are.
        paths: below it, n.
        y: numbers of classes, int64 [n]; batches come to be where they are.
        side: of the images in pixels.
        digest: names the files with their classes, see :func:`load_folder`.
    """

    folder: str
    paths: Sequence[str]
    y: Tensor
    side: int
    digest: str

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: Indices) -> Arrays:
        """Normalised images [n, 3, side, side] and classes [n].

        Raises:
            DataError: a file cannot be read, which names it.
        """
        return next(self.ahead([indices]))

    def ahead(self, groups: Iterable[Indices]) -> Iterator[Arrays]:
        """A batch for each group of numbers; while one is at hand, threads read the next ones."""
        waiting: deque[tuple[list[int], list[Future[np.ndarray]]]] = deque()
        try:
            for group in groups:
                numbers = [int(number) for number in group]
                waiting.append((numbers, [self._read(number) for number in numbers]))
                if len(waiting) > AHEAD:
                    yield self._made(*waiting.popleft())
            while waiting:
                yield self._made(*waiting.popleft())
        finally:
            for future in (future for _, futures in waiting for future in futures):
                future.cancel()

    def _read(self, number: int) -> "Future[np.ndarray]":
        path = os.path.join(self.folder, self.paths[number])
        return _threads(os.getpid()).submit(read_picture, path, self.side)

    def _made(self, numbers: list[int], futures: Sequence["Future[np.ndarray]"]) -> Arrays:
        device = self.y.device
        if not numbers:
            return Arrays(torch.empty(0, 3, self.side, self.side, device=device), self.y[:0])
        pixels = torch.from_numpy(np.stack([future.result() for future in futures])).permute(0, 3, 1, 2)
        if device.type == "cuda":  # a copy for which the host does not wait
            pixels = pixels.contiguous().pin_memory()
        images = normalised(pixels.to(device, non_blocking=True)).contiguous()
        return Arrays(images, self.y.index_select(0, rows_of(numbers, device)))

    def to(self, device: torch.device | str) -> "Pictures":
        """The same files, with batches there."""
        return replace(self, y=self.y.to(device))


@lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """Those that read; a process that was forked has none of its parent's."""
    return ThreadPoolExecutor(min(32, 4 + (os.cpu_count() or 1)), "pictures")


def load_folder(folder: str | Path, side: int | None = None) -> Dataset:
    """Pictures with the folders they are in as classes, by their names in order.

    Folders ``train``, ``val`` (or ``valid``) and ``test`` at the top are the official split, and classes the folders in
    them; without ``test``, ``val`` is the test part, and without a folder for it every :data:`EVERY`-th picture of the
    training part validates. Other folders are classes themselves, to be split at random. What is below the folder of a
    class belongs to it. Hidden files are left out, and those with other suffixes than ``config.names.PICTURES``.

    Every file is looked at, each time: what cannot be read is in ``rejected``. The digest is of the paths and of what
    :func:`~plstm_graph.data.pictures.look` knows a file by.

    Args:
        folder: at the top.
        side: of the images in pixels.

    Raises:
        DataError: no such folder, no pictures in folders, or too many that cannot be read.
    """
    top = expanded(folder)
    if not top.is_dir():
        raise DataError(f"there is no folder {top}")
    with named(f"listing {top}"):
        files = list(_files(top))
    if not any(file.label for file in files):
        raise DataError(f"{top} has no pictures in folders: it takes one folder a class ({', '.join(PICTURES)})")
    good, rejected, digest = _looked_at(top, files)
    names = sorted({file.label for file in good})
    if empty := sorted({file.label for file in files if file.label} - {*names}):
        log.warning(f"no picture of {listed(empty)} can be read, so there is no such class")
    numbers = {name: number for number, name in enumerate(names)}
    y = torch.tensor([numbers[file.label] for file in good], dtype=torch.long)
    side = side or SIDE
    examples = Pictures(str(top), [file.path for file in good], y, side, digest)
    parts = _parts(good)
    return Dataset(
        os.path.basename(os.path.abspath(top)),
        examples,
        Multiclass(("class",), classes=len(names), names=tuple(names)),
        FeatureSpec(image=(3, side, side), pictures=True),
        rejected,
        OFFICIAL if parts else "random",
        parts,
        ids=[shown(path) for path in examples.paths],
    )


def pictures_in(place: str | Path) -> list[str]:
    """A file as it is, or all pictures below a folder, in order.

    Raises:
        DataError: there is nothing there.
    """
    place = expanded(place)
    if not place.is_dir():
        return [str(place)]
    if not (found := [os.path.join(place, path) for path in _below(place)]):
        raise DataError(f"there are no pictures in {place} ({', '.join(PICTURES)})")
    return found


def look_at(paths: Sequence[str], folder: str | Path = "") -> list[Look]:
    """A first look at files below a folder. Nothing of it is kept for the next time, so nothing is ever stale.

    Where the first files take longer to come than to be understood, threads take turns waiting for the others; where
    they do not, threads would wait for one another.
    """

    def looks(group: Sequence[str]) -> list[Look]:
        return [look(os.path.join(folder, path)) for path in group]

    groups = [paths[start : start + AT_ONCE] for start in range(0, len(paths), AT_ONCE)]
    found: list[Look] = []
    others: Iterator[list[Look]] | None = None
    for number, group in enumerate(tracked(groups, f"looking at {len(paths):,} pictures")):
        begin = time.perf_counter()
        found += looks(group) if others is None else next(others)
        if number == 1 and time.perf_counter() - begin > SLOW_S * len(group):  # with the first, Pillow was loaded
            others = _threads(os.getpid()).map(looks, groups[2:])
    return found


def shown(path: str) -> str:
    """A path as text, whatever bytes it is made of."""
    return path if path.isprintable() else os.fsencode(path).decode(errors="replace")


def _looked_at(top: Path, files: Sequence[Listed]) -> tuple[list[Listed], list[Rejected], str]:
    """Files that can be used, others with the reason, and a digest of the first."""
    looks = look_at([file.path for file in files], top)
    good, rejected, digest = [], [], hashlib.sha256()
    _tell_dark(top, [file.path for file, each in zip(files, looks, strict=True) if each.wide])
    for row, (file, (reason, known_by, _)) in enumerate(zip(files, looks, strict=True), start=1):
        reason = reason or ("" if file.label else "it lies in no folder of a class")
        if reason:
            rejected.append(Rejected(row, shown(file.path), reason))
            continue
        good.append(file)
        digest.update(os.fsencode(file.path) + b"\0" + known_by)
    if not good or len(rejected) > MOST_UNREADABLE * len(files):
        first = "; ".join(f"{row.text}: {row.reason}" for row in rejected[:3])
        raise DataError(f"{top}: {len(rejected):,} of {count(len(files), 'picture')} cannot be used ({first})")
    return good, rejected, digest.hexdigest()[:12]


def _tell_dark(top: Path, wide: Sequence[str]) -> None:
    """Warn where pixels of sixteen bits hold the numbers of a camera with fewer: these are near black."""
    some = wide[:: max(1, len(wide) // FEW)][:FEW]
    most = max((highest(os.path.join(top, path)) for path in some), default=2**16)
    if most < DARK:
        log.warning(
            f"pictures of sixteen bits are nearly black: in {count(len(some), 'file')} of them no pixel is above "
            f"{most:,} of 65,535; scale them up, all by one factor"
        )


def _files(top: Path) -> Iterator[Listed]:
    """All pictures, by part and class."""
    folders, loose = _entries(top)
    parts = _part_folders(top, folders)
    yield from map(Listed, loose)
    for name in parts:
        classes, loose = _entries(top / name)
        yield from (Listed(f"{name}/{path}", PARTS[name]) for path in loose)
        for label in classes:
            yield from _class(top / name / label, f"{name}/{label}", PARTS[name], label)
    for label in () if parts else folders:
        yield from _class(top / label, label, "", label)


def _part_folders(top: Path, folders: Sequence[str]) -> list[str]:
    """Those of the folders that are parts; none where they are classes, which may be called ``train``, too."""
    called = [name for name in folders if name in PARTS]
    flat = [name for name in called if not _entries(top / name)[0]]
    others = [name for name in folders if name not in PARTS]
    split = "train" in called and "train" not in flat and len(called) > 1
    if not split:
        return [] if others or flat else called
    if flat:
        raise DataError(f"{top / flat[0]} has no folders of classes in it, as {top / 'train'} has")
    if others:
        raise DataError(
            f"{top} has parts of a split ({listed(called)}) and beside them {listed(others)}: move these into the parts"
        )
    if len({PARTS[name] for name in called}) < len(called):
        raise DataError(f"{top} has {listed(called)}, of which two are one part: leave one of them")
    return called


def _class(folder: Path, path: str, part: str, label: str) -> Iterator[Listed]:
    # Where names were written by another system, letters with accents may be two signs.
    name = unicodedata.normalize("NFC", shown(label))
    yield from (Listed(f"{path}/{file}", part, name) for file in _below(folder))


def _below(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Pictures in a folder and the folders in it; a link back to a folder that it stands in is not followed."""
    status = os.stat(folder)
    known = status.st_dev, status.st_ino
    if known in above:
        return
    folders, files = _entries(folder)
    yield from files
    for name in folders:
        yield from (f"{name}/{path}" for path in _below(folder / name, above | {known}))


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of folders and of pictures in a folder, in order, but for hidden ones."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                # No device or pipe; a link that leads nowhere is a picture that is missing.
                elif entry.name.lower().endswith(PICTURES) and (entry.is_file() or not os.path.exists(entry.path)):
                    files.append(entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
    return sorted(folders), sorted(files)


def _parts(files: Sequence[Listed]) -> Split | None:
    """Numbers of the pictures of each part; None where folders tell none, or the training part alone."""
    found: Split = {"train": [], "valid": [], "test": []}
    for number, file in enumerate(files):
        if file.part:
            found[file.part].append(number)
    if not found["valid"] and not found["test"]:
        return None
    if found["train"] and not (found["valid"] and found["test"]):
        found["test"] = found["test"] or found["valid"]
        found["valid"] = found["train"][::EVERY]
        found["train"] = sorted({*found["train"]} - {*found["valid"]})
    return found
