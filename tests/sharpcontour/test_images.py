"""Reading image files: what their headers say, names that are no text, and sizes that must not be decoded."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from sharpcontour import InputError
from sharpcontour.io import images
from sharpcontour.io.command_line import _message
from sharpcontour.io.headers import LENGTH, avif_turn, header_size, is_image
from sharpcontour.io.images import UnreadableError, WrongSizeError, looks_like_image, read_image, read_values
from tests.sharpcontour.helpers import huge_png, not_utf8

KINDS = ["png", "jpg", "bmp", "webp", "tif", "gif", "avif", "jp2", "ppm", "pgm"]


def encoded(kind: str, height: int, width: int, options: tuple[int, ...] = ()) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    try:
        written, data = cv2.imencode(f".{kind}", pixels[..., 0] if kind == "pgm" else pixels, options)
    except cv2.error:
        written = False
    if not written:
        pytest.skip(f"this OpenCV does not write .{kind}")
    return data.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(37, 53), (300, 40)])
def test_headers_tell_the_size(kind: str, height: int, width: int) -> None:
    data = encoded(kind, height, width)
    assert header_size(data) == (height, width) and is_image(data[:LENGTH])
    for end in range(200):  # cut short anywhere
        assert header_size(data[:end]) in (None, (height, width))


def test_headers_of_rarer_forms() -> None:
    assert header_size(encoded("jpg", 37, 53, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))) == (37, 53)
    assert header_size(encoded("webp", 37, 53, (cv2.IMWRITE_WEBP_QUALITY, 101))) == (37, 53)  # lossless
    webp = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (52).to_bytes(3, "little") + (36).to_bytes(3, "little")
    assert header_size(webp) == (37, 53)
    assert header_size(b"BM" + bytes(12) + struct.pack("<Iii", 40, 53, -37) + bytes(28)) == (37, 53)
    assert header_size(b"BM" + bytes(12) + struct.pack("<Ihh", 12, 53, 37)) == (37, 53)
    assert header_size(b"P5 # made by hand\n# twice\n53 37\n255\n") == (37, 53)
    tags = struct.pack(">HHQHxxxxxx", 256, 3, 1, 53) + struct.pack(">HHQQ", 257, 16, 1, 37)
    assert header_size(b"MM\0+\0\x08\0\0" + struct.pack(">QQ", 16, 2) + tags) == (37, 53)  # BigTIFF
    # A thumbnail inside of the EXIF data, and fill bytes before the frame.
    thumbnail = encoded("jpg", 8, 8)
    exif = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = encoded("jpg", 37, 53)
    assert header_size(whole[:2] + exif + b"\xff\xff" + whole[2:]) == (37, 53)
    for nothing in (b"", b"{}", b"BM", b"\xff\xd8\xff", bytes(100), b"\xff\xd8" + b"\xff" * 50, b"P5\n0 7\n255\n"):
        assert header_size(nothing) is None


def test_garbage_with_the_beginning_of_an_image_raises_nothing() -> None:
    rng = np.random.default_rng(0)
    beginnings = (
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"BM",
        b"GIF89a",
        b"RIFF0000WEBPVP8L",
        b"II*\0",
        b"MM\0+",
        b"P6 ",
    )
    for beginning in (*beginnings, b"\0\0\0\x0cjP  \r\n\x87\n", b"0000ftypavif"):
        for length in rng.integers(0, 300, 50).tolist():
            header_size(beginning + rng.bytes(length))


def test_the_size_is_looked_at_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(huge_png())
    small = tmp_path / "small.png"
    small.write_bytes(encoded("png", 40, 60))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"huge.png: the image has 20000 x 20000 pixels, more than the 268435456"):
        read_image(path)
    with pytest.raises(WrongSizeError, match=r"the image has 60 x 40 pixels, the annotations say 96 x 96; correct"):
        read_image(small, size=(96, 96))
    with pytest.raises(WrongSizeError, match=r"small.png: the mask is 60 x 40 pixels, its image 96 x 96"):
        read_values(small, (96, 96))
    monkeypatch.undo()
    assert read_image(small, size=(40, 60)).shape == (40, 60, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 60 - 1)
    with pytest.raises(InputError, match="more than the 2399 that are read"):
        read_image(small, upright=True)


def test_what_is_decoded_must_have_the_size_the_right_way_round(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("png", 40, 60))
    with pytest.raises(WrongSizeError, match="60 x 40 pixels, the annotations say 40 x 60"):
        read_image(tmp_path / "a.png", size=(60, 40))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_that_is_to_be_turned_is_read_as_stored_all_the_same(orientation: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = tmp_path / "a.tif"
    Image.fromarray(pixels).save(path, tiffinfo={274: orientation})
    assert (read_image(path) == pixels).all() and (read_values(path)[..., ::-1] == pixels).all()
    upright = read_image(path, upright=True)
    assert (upright.shape == pixels.shape) == (orientation < 5) and (upright[0, 0] == pixels[0, 0]).all() == (
        orientation in (1, 5)
    )


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_upright(orientation: int, tmp_path: Path) -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:20, :30], pixels[40:, :10], pixels[:10, 60:] = 255, (255, 0, 0), (0, 255, 0)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "a.avif"
    Image.fromarray(pixels).save(path, exif=exif)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    upright = read_image(path, upright=True)
    assert upright.shape == wanted.shape and np.abs(upright - wanted).mean() < 2
    assert np.abs(read_image(path).astype(int) - pixels).mean() < 20
    data = path.read_bytes()
    for end in range(16, 400):
        avif_turn(data[:end])  # cut short anywhere


def test_a_photograph_of_floats_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(cv2.imencode(".tif", np.zeros((40, 60), np.float32))[1].tobytes())
    assert read_values(tmp_path / "a.tif").dtype == np.float32
    with pytest.raises(UnreadableError, match=r"or a TIFF of floats .* are no colours; save it in 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


def test_a_photograph_in_heic_is_told(tmp_path: Path) -> None:
    for brand in (b"heic", b"mif1"):
        (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x24ftyp" + brand + bytes(64))
        with pytest.raises(UnreadableError, match=r"IMG_1\.HEIC: the file is HEIC, which is not read; save it as JPEG"):
            read_image(tmp_path / "IMG_1.HEIC")
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x24ftypmif1\0\0\0\0mif1avif" + bytes(64))
    with pytest.raises(UnreadableError, match="the file is no image, or cut short"):
        read_image(tmp_path / "a.avif")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = not_utf8(tmp_path)
    assert not looks_like_image(path)
    with pytest.raises(InputError, match="the file is empty"):
        read_image(path)
    path.write_bytes(encoded("png", 4, 6))
    assert looks_like_image(path) and read_image(path).shape == (4, 6, 3) and read_values(path).shape == (4, 6, 3)


@pytest.mark.parametrize("name", ["nul\0.png", "half\ud800.png"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path / name)
    assert not looks_like_image(tmp_path / name)


def test_an_error_of_a_loader_process_is_one_line() -> None:
    for name in ("errors.InputError", "io.images.UnreadableError"):
        error = UnreadableError(
            f"Caught it in DataLoader worker process 0.\nsharpcontour.{name}: a.png: no such image\n"
        )
        assert _message(error) == "a.png: no such image"
