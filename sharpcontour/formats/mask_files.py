"""Mask files of any usual kind: the one door to all readers, which look at what a file holds, not at its name.

images         masks, label maps, palettes, cut-outs: see ``mask_images.py``
JSON           COCO, SAM, LabelMe, Label Studio: see ``mask_json.py``
XML            CVAT for images, SVG: see ``cvat.py`` and ``svg.py``
.npy, .npz     arrays (H, W) or (K, H, W): bool, label ids, or floats from 0 to 1
YOLO's text    a line "class x1 y1 x2 y2 ..." an object: see ``yolo.py``
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from sharpcontour.errors import InputError
from sharpcontour.formats.cvat import read_cvat
from sharpcontour.formats.mask_images import masks_of_values, read_image_masks
from sharpcontour.formats.mask_json import read_json_masks
from sharpcontour.formats.named_masks import NamedMask, NoMaskError, Reading, Size, check_size
from sharpcontour.formats.svg import read_svg
from sharpcontour.formats.xml_files import read_xml
from sharpcontour.formats.yolo import is_number, read_yolo
from sharpcontour.io.headers import LENGTH, is_image

_KINDS = "give PNG masks, COCO, LabelMe or Label Studio JSON, CVAT's XML, SVG, YOLO's text of polygons, .npy or .npz"
_OBJECTS = (
    "holds Python objects, which are not read since they could run code; save the arrays alone, for instance "
    "np.savez('masks.npz', *[mask['segmentation'] for mask in masks])"
)


def read_mask_files(
    paths: Sequence[str | Path], size: Size, image: str, image_id: Any = None
) -> tuple[list[NamedMask], list[str]]:
    """All masks of one photograph.

    Args:
        paths: of the files, of one or more kinds.
        size: (height, width) of the photograph in pixels.
        image: name of the photograph's file, by which the files of data sets know it.
        image_id: its id in such a file, where it has another name there.

    Returns:
        The masks in the order of the files, empty ones too; and a line a file on how it was understood, or that it is
        of other photographs.

    Raises:
        WrongSizeError: naming both sizes, where a mask is of another size than the photograph.
        NoMaskError: where none of the files has a mask of the photograph.
        InputError: naming file and entry, where a mask is missing, broken or of no known kind.
    """
    masks: list[NamedMask] = []
    notes = []
    missing: list[NoMaskError] = []
    for path in map(Path, paths):
        try:
            reading = _read(path, size, image, image_id)
        except NoMaskError as error:
            missing.append(error)
            notes.append(str(error))
            continue
        count, crowds = len(reading.masks), sum(mask.crowd for mask in reading.masks)
        how = reading.how + (f"; {crowds} with iscrowd 1, kept as given" if crowds else "")
        notes.append(f"{path}: {count} object{'' if count == 1 else 's'} ({how})")
        masks += reading.masks
    if not masks and missing:
        raise missing[0]
    if not masks:
        raise NoMaskError(f"no mask is in {', '.join(map(str, paths))}; give a file that holds one")
    return masks, notes


def _read(path: Path, size: Size, image: str, image_id: Any) -> Reading:
    """The masks of one file."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: is a pipe or a device, which cannot be read twice; save the masks to a file")
    try:
        with open(path, "rb") as file:
            beginning = file.read(4096)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file of masks") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; give the files in it") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if is_image(beginning[:LENGTH]):
        return read_image_masks(path, size)
    if beginning[:6] == b"\x93NUMPY" or beginning[:4] == b"PK\x03\x04":
        return _arrays(path, size)
    wide = beginning.decode("utf-16", "ignore").lstrip() if beginning[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
    if wide[:1] in ("{", "[") or is_number(wide.partition(" ")[0]):
        raise InputError(f"{path}: is text in UTF-16; save it in UTF-8")
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"{", b"[") or beginning[:2] == b"\x1f\x8b":
        return read_json_masks(path, size, image, image_id)
    if text[:1] == b"<" or wide[:1] == "<":
        return _xml(path, size, image, image_id)
    reading = read_yolo(path, size) if is_number(text.split(maxsplit=1)[0] if text else b"0") else None
    if reading is not None:
        return reading
    raise InputError(f"{path}: is of no kind of masks that is known; {_KINDS}")


def _xml(path: Path, size: Size, image: str, image_id: Any) -> Reading:
    """CVAT's annotations, or SVG, whichever the root of the file is."""
    root = read_xml(path)
    if root.tag == "annotations":
        return read_cvat(path, root, size, image, image_id)
    if root.tag == "svg":
        return read_svg(path, root, size)
    raise InputError(f"{path}: is XML with the root '{root.tag:.40}', no masks that are understood; {_KINDS}")


def _arrays(path: Path, size: Size) -> Reading:
    """Arrays of a .npy or .npz file; nothing in it is ever run."""
    try:
        data = path.read_bytes()
        _check_shapes(path, data, size)
        loaded: Any = np.load(io.BytesIO(data), allow_pickle=False)
        arrays = (
            {path.stem: loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
        )
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{path}: holds more than there is memory for; split it") from None
    except Exception as error:  # reading garbage raises almost anything
        objects = "allow_pickle" in str(error)
        raise InputError(f"{path}: {_OBJECTS if objects else 'damaged or cut short; save it again'}") from None
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise InputError(f"{path}: holds files that are no arrays; unpack it and give the masks")
    found, ways = [], []
    for name, array in arrays.items():
        where = f"{path}: array {name}" if len(arrays) > 1 else f"{path}"
        if array.ndim == 4 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim not in (2, 3):
            raise InputError(f"{where}: has the shape {array.shape}; save (height, width) or (masks, height, width)")
        check_size(tuple(int(side) for side in array.shape[-2:]), size, where)
        for k, part in enumerate(array if array.ndim == 3 else array[None]):
            entry = f"{where}, mask {k}" if array.ndim == 3 else where
            stacked = array.ndim == 3 and len(array) > 1
            reading = masks_of_values(f"{name} {k + 1}" if stacked else name, part, entry, single=stacked)
            found += reading.masks
            ways.append(reading.how)
    return Reading(found, ", ".join(dict.fromkeys(ways)) or "no arrays")


def _check_shapes(path: Path, data: bytes, size: Size) -> None:
    """Compare the shapes that arrays tell before memory is taken for them: packed zeros are thousands of times less."""
    if data[:2] != b"PK":
        _check_shape(io.BytesIO(data), size, str(path))
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in (name for name in archive.namelist() if name.endswith(".npy")):
            with archive.open(name) as file:
                _check_shape(file, size, f"{path}: array {name.removesuffix('.npy')}")


def _check_shape(file: IO[bytes], size: Size, where: str) -> None:
    if np.lib.format.read_magic(file) == (1, 0):
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
        if kind.hasobject:
            return  # told for what it is
        if len(shape) == 3 and shape[:2] == tuple(size) != shape[1:]:
            raise InputError(f"{where}: has the shape {shape}; save array.transpose(2, 0, 1), a mask a layer")
        if len(shape) in (2, 3, 4):
            check_size(shape[-2:], size, where)
        elif shape:
            raise InputError(f"{where}: has the shape {shape}; save (height, width) or (masks, height, width)")
