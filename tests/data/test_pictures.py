"""Files of pictures as they come from cameras and microscopes: each becomes the square that a viewer would show."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import paint
from PIL import Image

from plstm_graph.data import pictures
from plstm_graph.data.pictures import MODES, look, normalised, read_picture
from plstm_graph.errors import DataError

RED, WHITE = (255, 0, 0), (255, 255, 255)


def halves(width: int = 8, height: int = 8) -> Image.Image:
    """Red above, blue below."""
    found = Image.new("RGB", (width, height), "blue")
    found.paste(RED, (0, 0, width, height // 2))
    return found


def bits(path: Path, kind: str = "PNG", size: int = 64) -> bytes:
    """A picture that packs badly, so that its file is long."""
    noise = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind)
    path.write_bytes(stream.getvalue())
    return stream.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".gif"])
def test_pixels_of_the_size_that_is_asked_for_are_those_of_the_file(suffix: str, tmp_path: Path) -> None:
    halves().save(path := tmp_path / f"a{suffix}")
    assert look(str(path)).reason == ""
    found = read_picture(str(path), 8)
    assert found.dtype == np.uint8
    assert found.shape == (8, 8, 3)
    assert (found[:4] == RED).all()
    assert (found[4:] == (0, 0, 255)).all()


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".JPG"])
def test_formats_that_lose_something(suffix: str, tmp_path: Path) -> None:
    halves(64, 64).save(path := tmp_path / f"a{suffix}")
    found = read_picture(str(path), 8).astype(int)
    assert abs(found[0] - RED).max() < 12
    assert abs(found[-1] - (0, 0, 255)).max() < 12


def test_a_picture_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right: what is above goes to the right
    halves(64, 64).save(path := tmp_path / "a.jpg", exif=exif, quality=95)
    found = read_picture(str(path), 8).astype(int)
    assert abs(found[:, -1] - RED).max() < 12
    assert abs(found[:, 0] - (0, 0, 255)).max() < 12


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, *RED])
    palette.paste(1, (0, 0, 8, 4))
    palette.save(tmp_path / "palette.png", transparency=0)
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(tmp_path / "rgba.png")
    Image.new("LA", (8, 8), (9, 0)).save(tmp_path / "grey.png")
    found = read_picture(str(tmp_path / "palette.png"), 8)
    assert (found[:4] == RED).all()
    assert (found[4:] == WHITE).all()
    for name in ("rgba.png", "grey.png"):
        assert (read_picture(str(tmp_path / name), 8) == WHITE).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("turned", [False, True])
def test_grey_pixels_of_sixteen_bits_keep_them(suffix: str, turned: bool, tmp_path: Path) -> None:
    """Pillow alone would make everything above 255 white."""
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 3 if turned else 1
    Image.fromarray(values).save(path := tmp_path / f"a{suffix}", exif=exif)
    assert look(str(path)).reason == ""
    found = read_picture(str(path), 8)
    assert found.dtype == np.float32
    assert found.shape == (8, 8, 3)
    np.testing.assert_allclose(found[:, :, 0], (values[::-1, ::-1] if turned else values) / 257, atol=1e-4)
    assert read_picture(str(path), 5).min() >= 0  # a bicubic filter overshoots
    assert read_picture(str(path), 5).max() <= 255


def test_modes_that_pillow_has(tmp_path: Path) -> None:
    """All that can be saved as TIFF, of one bit to sixteen, CMYK and so on: white stays white."""
    seen = []
    for mode in MODES:
        picture = Image.new("RGB", (8, 8), "white").convert("CMYK" if mode == "CMYK" else "RGB")
        try:
            picture = picture.convert(mode)
            picture.save(path := tmp_path / f"{mode}.tif")
        except (ValueError, OSError, KeyError):
            continue
        seen.append(mode)
        assert look(str(path)).reason == ""
        assert read_picture(str(path), 8).min() >= 253, mode
    assert {"1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"} <= {*seen}


def test_the_middle_square_is_scaled_by_the_short_side(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 16), "black")
    picture.paste(WHITE, (20, 0, 44, 16))  # a filter reaches a little beyond the square
    picture.save(path := tmp_path / "wide.png")
    assert (read_picture(str(path), 8) == 255).all()
    picture.transpose(Image.Transpose.ROTATE_90).save(path := tmp_path / "high.png")
    assert (read_picture(str(path), 8) == 255).all()
    assert read_picture(str(path), 24).shape == (24, 24, 3)


def test_pixels_are_normalised_as_image_net() -> None:
    white, black = normalised(torch.tensor([255, 0], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 2, 2))
    torch.testing.assert_close(white[:, 0, 0], torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]))
    torch.testing.assert_close(black[:, 0, 0], torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_file_that_is_cut_short_is_found_at_the_first_look(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    whole = bits(path, kind)
    assert look(str(path)).reason == ""
    for part in (0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(part * len(whole))])
        assert look(str(path)).reason, part


def test_bytes_behind_a_picture_are_no_fault(tmp_path: Path) -> None:
    """As some phones put them there."""
    for kind in ("PNG", "JPEG"):
        path = tmp_path / "a.jpg"
        whole = bits(path, kind)
        path.write_bytes(whole + b"more")
        assert look(str(path)).reason == ""
        assert np.array_equal(read_picture(str(path), 64), read_picture(str(path), 64))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty (0 bytes)"),
        (b"name,label\n", "it is no picture, or one of a kind that is not read"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no picture"),  # would be run, not read
        (b"\x89PNG\r\n\x1a\n", ""),
    ],
)
def test_what_is_no_picture_says_so(content: bytes, reason: str, tmp_path: Path) -> None:
    (path := tmp_path / "a.png").write_bytes(content)
    found = look(str(path)).reason
    assert found
    assert reason in found


def test_pixels_without_a_white_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(path := tmp_path / "a.tif")
    assert "mode F, of which nobody can tell how bright white is: save it with 8 or 16 bits" in look(str(path)).reason
    with pytest.raises(DataError, match=r"a\.tif cannot be used: its pixels are of mode F"):
        read_picture(str(path), 4)


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = paint(tmp_path / "a.png", RED, size=(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert look(str(path)).reason == "it has too many pixels; scale it down"


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    assert look(str(tmp_path / "none.png")).reason == "No such file or directory"
    with pytest.raises(DataError, match=r"none\.png is damaged, or was changed since .*: No such file"):
        read_picture(str(tmp_path / "none.png"), 4)


@pytest.mark.parametrize("suffix", [".bmp", ".tif"])
def test_what_only_reading_finds_is_named(suffix: str, tmp_path: Path) -> None:
    """Formats without a mark at their end."""
    path = paint(tmp_path / f"a{suffix}", RED, size=(40, 40))
    content = path.read_bytes()
    path.write_bytes(content[:-40] if suffix == ".bmp" else content[:8] + b"\0" * 40 + content[-4000:])
    if not look(str(path)).reason:
        with pytest.raises(DataError, match=r"a\.\w+ is damaged"):
            read_picture(str(path), 8)


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    pictures._pillow.cache_clear()
    with pytest.raises(DataError, match=r"pillow is not installed; pip install 'plstm-graph\[vision\]'"):
        look(str(tmp_path / "a.png"))
