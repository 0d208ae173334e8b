"""Files of pictures: which can be read, and how one becomes a square of three colours. Pillow reads them."""

import hashlib
import os
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from plstm_graph.errors import DataError, missing_extra

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
"""What files may hold, told by their content; nothing else is ever opened."""
MODES = ("1", "L", "P", "RGB", "RGBX", "RGBA", "RGBa", "LA", "La", "PA", "CMYK", "YCbCr", "HSV")
"""Pillow's names for pixels of up to eight bits a colour."""
WIDE = ("I;16", "I;16L", "I;16B", "I;16N")
"""And for grey ones of sixteen; ``I`` in a PNG file is that, too."""
EDGE = 4096
"""Bytes at either end of a file, and in its middle, by which it is known, beside its name and length."""
ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}
"""How a whole file of a format ends."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class Look(NamedTuple):
    """What a first look at a file found: why it cannot be used (empty if it can), what it is known by, and whether it
    has sixteen bits."""

    reason: str
    known_by: bytes
    wide: bool = False


def look(path: str) -> Look:
    """A first look: at the header, and at all of a file that does not end as its format does: it may be cut short.

    What it is known by is its length with the first, the last and :data:`EDGE` bytes in the middle: a picture that was
    changed has another length or another end in all formats that pack pixels; of others a few pixels may escape.

    Raises:
        DataError: Pillow is not installed.
    """
    pillow = _pillow()
    try:
        with open(path, "rb") as stream:
            length = os.fstat(stream.fileno()).st_size
            head, _, tail = some = [_read(stream, start) for start in (0, length // 2, max(0, length - EDGE))]
            known_by = hashlib.sha256(f"{length} ".encode() + b"".join(some)).digest()
            if not length:
                return Look("it is empty (0 bytes)", known_by)
            stream.seek(0)
            with _opened(stream) as picture:
                if reason := _unusable(picture):
                    return Look(reason, known_by)
                wide = _is_wide(picture)
                if not _ends_well(picture.format, head, tail, length):
                    picture.load()
        return Look("", known_by, wide)
    except pillow.UnidentifiedImageError:
        return Look("it is no picture, or one of a kind that is not read (png, jpg, webp, bmp, tif and gif are)", b"")
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders met
        return Look(_told(error), b"")


def _read(stream: BinaryIO, start: int) -> bytes:
    stream.seek(start)
    return stream.read(EDGE)


def _unusable(picture: Any) -> str:
    if picture.mode in MODES or _is_wide(picture):
        return ""
    return (
        f"its pixels are of mode {picture.mode}, of which nobody can tell how bright white is: save it with 8 or 16 "
        "bits a colour"
    )


def _is_wide(picture: Any) -> bool:
    return picture.mode in WIDE or (picture.mode == "I" and picture.format == "PNG")


def _ends_well(kind: str, head: bytes, tail: bytes, length: int) -> bool:
    if kind == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= length
    return kind not in ENDS or tail.rstrip(b"\0").endswith(ENDS[kind])


def _opened(file: Any) -> Any:
    pillow = _pillow()
    return pillow.open(file, formats=[name for name in FORMATS if name in pillow.OPEN])  # it may be built without some


def read_picture(path: str, side: int) -> np.ndarray:
    """The middle square of a picture as it is meant to be seen, scaled to ``side`` pixels.

    Turned as its EXIF orientation says; transparency over white; the first of several frames or pages. Its short side
    is all there, what is longer loses as much at both ends. Grey pixels of sixteen bits keep them.

    Args:
        path: of the file.
        side: in pixels.

    Returns:
        [side, side, 3], red, green and blue from 0 to 255: uint8, or float32 where the file has sixteen bits.

    Raises:
        DataError: it cannot be read, which names it; Pillow is not installed.
    """
    _pillow()
    try:
        with _opened(path) as picture:
            if reason := _unusable(picture):
                raise DataError(f"{path} cannot be used: {reason}")
            picture.draft(None, (2 * side, 2 * side))  # a large JPEG is decoded at a fraction of its size
            return _square(_upright(picture), side)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever its decoders met
        raise DataError(f"{path} is damaged, or was changed since it was looked at: {_told(error)}") from error


def highest(path: str) -> int:
    """The highest number among the pixels of a file, 0 where it cannot be read."""
    _pillow()
    try:
        with _opened(path) as picture:
            return int(np.asarray(picture).max())
    except Exception:  # it is told of where it is needed
        return 0


def _upright(picture: Any) -> Any:
    from PIL import ImageOps

    return ImageOps.exif_transpose(picture)


def _square(picture: Any, side: int) -> np.ndarray:
    pillow = _pillow()
    if _is_wide(picture) or picture.mode == "I":  # turned, a PNG has lost its format
        picture = pillow.fromarray(np.asarray(picture).astype(np.float32) / 257)
    elif picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        picture = pillow.alpha_composite(pillow.new("RGBA", over.size, "white"), over).convert("RGB")
    else:
        picture = picture.convert("RGB")
    width, height = picture.size
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2  # whole pixels: nothing is blurred that keeps its size
    scaled = picture.resize((side, side), pillow.Resampling.BICUBIC, (left, top, left + short, top + short))
    found = np.asarray(scaled)
    return found if found.ndim == 3 else np.repeat(found.clip(0, 255)[:, :, None], 3, 2)


def normalised(pixels: Tensor) -> Tensor:
    """Colours as a network reads them: ImageNet's mean and deviation removed.

    Args:
        pixels: [n, 3, height, width], from 0 to 255.

    Returns:
        The same shape, float32.
    """
    mean, deviation = (255 * pixels.new_tensor(each, dtype=torch.float).view(3, 1, 1) for each in (MEAN, DEVIATION))
    return (pixels.float() - mean) / deviation


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return "it has too many pixels; scale it down" if "decompression bomb" in text else text


@lru_cache(maxsize=1)
def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise DataError(f"pictures are read with Pillow: {missing_extra('pillow', 'vision')}") from error
    Image.init()  # finds the formats, which threads must not do side by side
    return Image
