"""Mask files that hold more, or other things, than meets the eye: what is refused instead of half read."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from sharpcontour.anymask.foreign_masks import read_masks
from sharpcontour.anymask.refiner import as_pixels
from sharpcontour.errors import InputError
from sharpcontour.formats.mask_files import read_mask_files
from sharpcontour.io import files
from sharpcontour.io.images import WrongSizeError, read_fitting

H, W = 60, 80


def read(path: Path) -> int:
    """How many masks a file has."""
    return len(read_mask_files([path], (H, W), "photo.jpg")[0])


@pytest.mark.parametrize("kind", ["tif", "gif", "webp", "png"])
def test_a_file_of_several_pictures_loses_none_in_silence(kind: str, tmp_path: Path) -> None:
    pages = [Image.new("L", (W, H)) for _ in range(2)]
    for k, page in enumerate(pages):
        page.paste(255, (10 + 30 * k, 10, 30 + 30 * k, 30))
    more = {"lossless": True} if kind == "webp" else {}
    pages[0].save(tmp_path / f"one.{kind}", **more)
    assert read(tmp_path / f"one.{kind}") == 1
    pages[0].save(tmp_path / f"two.{kind}", save_all=True, append_images=pages[1:], **more)
    with pytest.raises(InputError, match=f"two.{kind}: holds more than one picture, .*; save each as a file"):
        read(tmp_path / f"two.{kind}")


def test_a_preview_in_a_file_is_no_second_picture(tmp_path: Path) -> None:
    page = Image.new("L", (W, H), 255)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (8, 6), 255)])
    assert read(tmp_path / "a.tif") == 1


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")
def test_pipes_are_told(tmp_path: Path) -> None:
    """A shell's <(command) is one; a named one would be waited for without end."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"pipe: is a pipe or a device, .*; save the masks to a file"):
        read(tmp_path / "pipe")
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(cv2.imencode(".png", np.zeros((H, W, 3), np.uint8))[1].tobytes())

    def fit(size: tuple[int, int]) -> None:
        raise WrongSizeError("masks of another size")

    with os.fdopen(reading), pytest.raises(WrongSizeError, match="masks of another size"):
        read_fitting(f"/dev/fd/{reading}", fit)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_arrays_of_another_size_take_no_memory(ending: str, tmp_path: Path) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|b1", "fortran_order": False, "shape": (10**7, 10**7)})
    path = tmp_path / f"a.{ending}"
    if ending == "npy":
        path.write_bytes(file.getvalue())
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", file.getvalue())
    with pytest.raises(WrongSizeError, match="the mask is 10000000 x 10000000 pixels, the image 80 x 60"):
        read(path)


def test_what_memory_cannot_hold_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(data: bytes) -> bytes:
        raise MemoryError

    monkeypatch.setattr(files.gzip, "decompress", full)
    (tmp_path / "a.json").write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError, match=r"a\.json: holds more than there is memory for; split it"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"points": [[10, 10, 1], [40, 10, 1], [40, 40, 1], [10, 40, 1]]}, r"its 'points' are no list of \[x, y\]"),
        ({"imageHeight": "61"}, "the mask is 80 x 61 pixels, the image 80 x 60"),
        ({"imageHeight": 120.0}, "the mask is 80 x 120 pixels, the image 80 x 60"),
        ({"imageHeight": float(H), "imageWidth": str(W)}, ""),
    ],
)
def test_labelme_as_other_tools_write_it(contents: dict[str, Any], message: str, tmp_path: Path) -> None:
    shape = {"label": "a", "points": contents.pop("points", [[10, 10], [40, 10], [40, 40]])}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"shapes": [shape], "imageHeight": H, "imageWidth": W, **contents}))
    if not message:
        assert read(path) == 1
        return
    with pytest.raises(InputError, match=message):
        read(path)


def test_text_in_utf_16_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("0 0.1 0.1 0.5 0.1 0.5 0.5\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"a\.txt: is text in UTF-16; save it in UTF-8"):
        read(tmp_path / "a.txt")


def test_tensors_are_told() -> None:
    with pytest.raises(InputError, match=r"this one is a tensor; give image.numpy\(\)"):
        as_pixels(torch.zeros(H, W, 3, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"masks\[0\]: a mask of torch.bfloat16; give bool, for instance mask > 0.5"):
        read_masks([torch.zeros(H, W, dtype=torch.bfloat16)], H, W)
