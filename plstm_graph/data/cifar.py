"""CIFAR-10 (Krizhevsky 2009): 60,000 small photographs in ten classes, from the archive of binary files."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plstm_graph.data import source
from plstm_graph.data.dataset import Dataset, DatasetInfo
from plstm_graph.data.examples import Arrays, Indices, rows_of
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.image_folder import EVERY
from plstm_graph.data.pictures import normalised
from plstm_graph.data.splits import OFFICIAL
from plstm_graph.errors import DataError
from plstm_graph.tasks import Multiclass

URL, MD5 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
ARCHIVE, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
TRAIN, TEST = tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE  # the class, then red, green and blue, row by row


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images of whole numbers as examples: a batch of them is normalised where they are.

    Args:
        pixels: uint8 [n, 3, height, width].
        y: numbers of classes, int64 [n].
    """

    pixels: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def nbytes(self) -> int:
        """Room that they take."""
        return self.pixels.nbytes + self.y.nbytes

    @cached_property
    def digest(self) -> str:
        """Twelve hex digits of images and classes."""
        found = hashlib.sha256(self.pixels.cpu().contiguous().numpy().data)
        found.update(self.y.cpu().contiguous().numpy().data)
        return found.hexdigest()[:12]

    def batch(self, indices: Indices) -> Arrays:
        """Normalised images [n, 3, height, width] and classes [n]."""
        rows = rows_of(indices, self.y.device)
        return Arrays(normalised(self.pixels.index_select(0, rows)), self.y.index_select(0, rows))

    def to(self, device: torch.device | str) -> "Pixels":
        """The same there."""
        return replace(self, pixels=self.pixels.to(device), y=self.y.to(device))


def load(info: DatasetInfo, root: str | Path | None = None) -> Dataset:
    """Images of 32 x 32 pixels; of the 50,000 for training every 20th validates, the other 10,000 are the test part."""
    place = info.find(root, _fetched)
    files: Mapping[str, bytes | Path]
    files = _unpacked(place) if place.is_file() else {name: place / name for name in (*TRAIN, TEST)}
    records = [_records(name, files.get(name, b"")) for name in (*TRAIN, TEST)]
    found = torch.from_numpy(np.concatenate(records))
    info.check_count(len(found))
    train = range(len(found) - len(records[-1]))
    valid = train[::EVERY]
    parts = {"train": sorted({*train} - {*valid}), "valid": list(valid), "test": list(range(len(train), len(found)))}
    pixels = found[:, 1:].reshape(-1, 3, SIDE, SIDE).contiguous()
    task = Multiclass(("class",), classes=len(CLASSES), names=CLASSES)
    features = FeatureSpec(image=(3, SIDE, SIDE), pictures=True)
    return Dataset(info.name, Pixels(pixels, found[:, 0].long()), task, features, default_split=OFFICIAL, parts=parts)


def _fetched(folder: Path) -> Path:
    source.fetch(URL, folder / ARCHIVE, MD5)
    return folder / ARCHIVE


def _unpacked(archive: Path) -> dict[str, bytes]:
    """The files of the archive by name."""
    content = source.read_bytes(archive)
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            streams = {name: tar.extractfile(f"{FOLDER}/{name}") for name in (*TRAIN, TEST)}
            return {name: stream.read() for name, stream in streams.items() if stream is not None}
    except (tarfile.TarError, KeyError) as error:
        raise DataError(f"{archive} is truncated, or not the archive of CIFAR-10: {error}") from error


def _records(name: str, file: bytes | Path) -> np.ndarray:
    """Records of a file, [n, RECORD]."""
    content = source.read_bytes(file) if isinstance(file, Path) else file
    found = np.frombuffer(content, dtype=np.uint8)
    if not len(found) or len(found) % RECORD or found[::RECORD].max() >= len(CLASSES):
        raise DataError(
            f"{name} must hold records of {RECORD} bytes, the first of which is a class from 0 to 9: truncated?"
        )
    return found.reshape(-1, RECORD)


SETS = [
    DatasetInfo(
        "cifar10",
        graphs=60_000,
        task="multiclass",
        metric="accuracy",
        split=OFFICIAL,
        licence="none stated",
        source="CIFAR-10, Krizhevsky 2009; its binary archive",
        url=URL,
        places=(ARCHIVE, FOLDER, f"cifar10/{ARCHIVE}", f"cifar10/{FOLDER}"),
        megabytes=170.5,
        loader=load,
    )
]
