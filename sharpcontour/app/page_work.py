"""What the page asks for, without the network: photographs that are kept, masks that are refined, files of objects.

The page holds the outlines; here are only the photographs, the refiner, and the readers and writers of files.
"""

from __future__ import annotations

import math
import os
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from sharpcontour.app.refining import changes, read_photograph, refine_named
from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.formats.mask_files import read_mask_files
from sharpcontour.formats.named_masks import NamedMask
from sharpcontour.formats.other_fields import not_carried_over
from sharpcontour.formats.output_files import FORMATS
from sharpcontour.io.headers import header_size
from sharpcontour.io.images import read_image
from sharpcontour.masks.segmentation import polygon_fault, reach_of

if TYPE_CHECKING:
    from sharpcontour.anymask.refiner import MaskRefinerLike

MOST_PIXELS = 2**26  # of a photograph: 8192 x 8192, 192 MiB as RGB
LONGEST = 32_767  # px, of its sides: what browsers draw
KEPT = 4  # photographs
KEPT_BYTES = 2**29  # of all of them together; the last one is kept however large
QUALITY = 95  # of the JPEG that the page shows
# What the page hands back of an object besides its outlines, and the types that these values may have.
FIELDS: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "category": (str, type(None)),
    "category_id": (int, type(None)),
    "score": (int, float, type(None)),
    "crowd": (bool,),
}
# The command's names of formats, and the media types of their files.
DOWNLOADS = {"coco": "application/json", "svg": "image/svg+xml", "png": "image/png"}


class GoneError(InputError):
    """A photograph is no longer kept."""


@dataclass(frozen=True)
class Photograph:
    """A photograph that the page works on.

    Attributes:
        name: of its file.
        data: the file.
        pixels: (H, W, 3) uint8 RGB, upright, or as stored where masks were drawn on it so.
        shown: the same pixels as a JPEG file, so that the page shows exactly what is refined, whatever the file's kind
            and EXIF data.
    """

    name: str
    data: bytes
    pixels: np.ndarray
    shown: bytes

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


class Work:
    """All that the page asks for. Its methods may be called from several threads; one refinement runs at a time.

    Args:
        load: loads the refiner, at once and in the background.
        failed: called where that fails, in the background.
    """

    def __init__(self, load: Callable[[], MaskRefinerLike], failed: Callable[[], None]) -> None:
        self._kept: OrderedDict[str, Photograph] = OrderedDict()
        self._keeping, self._reading = Lock(), Lock()
        self._worker = ThreadPoolExecutor(1)  # one thread, in which the refiner is loaded and then used
        self.refiner = self._worker.submit(load)
        self.refiner.add_done_callback(lambda done: failed() if not done.cancelled() and done.exception() else None)

    def close(self) -> None:
        """Wait for what runs, and begin nothing more."""
        self._worker.shutdown(cancel_futures=True)

    def add_photograph(self, name: str, data: bytes) -> dict[str, Any]:
        """Keep a photograph: its "id", "name", and "width" and "height" in pixels; upright as its EXIF data say.

        Raises:
            InputError: where it is no image, cut short or too large.
        """
        size = header_size(data) or (0, 0)  # of what is no image, reading tells more
        if size[0] * size[1] > MOST_PIXELS or max(size) > LONGEST:
            raise InputError(
                f"{name}: the image has {size[1]} x {size[0]} pixels, more than the {MOST_PIXELS} that this page "
                f"takes, or than {LONGEST} on a side; make it smaller"
            )
        with self._reading, _on_disk((name, data)) as (path,):
            return self._keep(name, data, read_image(path, upright=True))

    def photograph(self, key: str) -> Photograph:
        """A kept photograph; GoneError where it is not kept any more."""
        with self._keeping:
            if key not in self._kept:
                raise GoneError("the photograph is no longer kept here; choose it again")
            self._kept.move_to_end(key)
            return self._kept[key]

    def add_masks(self, key: str, name: str, data: bytes, alone: bool) -> dict[str, Any]:
        """Read a file of masks and refine them.

        Args:
            key: id of the photograph.
            name: of the file.
            data: the file.
            alone: whether the photograph has no objects yet: it may then be turned as it is stored, where the masks
                fit only so.

        Returns:
            "objects", as of :meth:`refine`; "notes" on how the file was understood; and "photograph" where it was
            turned.

        Raises:
            InputError: where the file is broken, of no known kind, or does not fit the photograph.
        """
        photo, turned = self.photograph(key), None
        with self._reading, _on_disk((photo.name, photo.data), (name, data)) as (image, masks):
            try:
                given, notes = read_mask_files([masks], photo.size, photo.name)
            except InputError:
                if not alone:
                    raise
                pixels, given, notes, _ = read_photograph(image, [masks])
                turned = self._keep(photo.name, photo.data, pixels)
                photo = self.photograph(turned["id"])
            notes = [_without_folders(note, (image, masks)) for note in notes]
            notes += not_carried_over(given, ())  # the page holds none
        return {"objects": self._refined(photo, given), "notes": notes, "photograph": turned}

    def refine(self, key: str, entries: Any) -> list[dict[str, Any]]:
        """Refine objects that the page holds.

        Args:
            key: id of the photograph.
            entries: K objects, each with the :data:`FIELDS` and with "rings", flat lists x0, y0, x1, y1, ... in pixels
                of the photograph under the even-odd rule.

        Returns:
            K entries in the same order: the fields; "before" and "after", rings in the same form; and "change", how
            much it changed.

        Raises:
            InputError: where an entry is broken.
        """
        photo = self.photograph(key)
        return self._refined(photo, _named_masks(entries, photo.size))

    def download(self, key: str, kind: str, entries: Any) -> tuple[str, str, bytes]:
        """Objects as the command writes them.

        Args:
            key: id of the photograph.
            kind: a key of :data:`DOWNLOADS`.
            entries: as of :meth:`refine`.

        Returns:
            The name of the file, its media type, and the file.

        Raises:
            InputError: where an entry is broken, or the kind is none of these.
        """
        photo = self.photograph(key)
        if kind not in DOWNLOADS:
            raise InputError(f"a download is one of {', '.join(DOWNLOADS)}, not {kind!r:.40}")
        given = _named_masks(entries, photo.size)
        name = Path(photo.name).stem + FORMATS[kind][0]
        return name, DOWNLOADS[kind], self._worker.submit(_written, photo, given, kind).result()

    def _refined(self, photo: Photograph, given: list[NamedMask]) -> list[dict[str, Any]]:
        def run() -> Detections:
            return refine_named(self.refiner.result(), photo.pixels, given)

        found = self._worker.submit(run).result()
        assert found.coarse is not None
        return [
            {field: getattr(mask, field) for field in FIELDS}
            | {"before": _flat(before), "after": _flat(after), "change": change}
            for mask, before, after, change in zip(given, found.coarse.rings, found.rings, changes(found), strict=True)
        ]

    def _keep(self, name: str, data: bytes, pixels: np.ndarray) -> dict[str, Any]:
        shown = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        key = secrets.token_urlsafe(16)  # nobody else's page can guess it
        with self._keeping:
            self._kept[key] = Photograph(name, data, pixels, shown)
            while len(self._kept) > KEPT or (
                len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > KEPT_BYTES
            ):
                self._kept.popitem(last=False)
        return {"id": key, "name": name, "width": pixels.shape[1], "height": pixels.shape[0]}


def _bytes(photo: Photograph) -> int:
    return photo.pixels.nbytes + len(photo.data) + len(photo.shown)


@contextmanager
def _on_disk(*contents: tuple[str, bytes]) -> Iterator[list[Path]]:
    """Files that were sent, on the disk while they are read, by their own names; errors tell these names alone."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, str(place), name) for place, (name, _) in enumerate(contents)]
        for path, (name, data) in zip(paths, contents, strict=True):
            path.parent.mkdir()
            try:
                path.write_bytes(data)
            except (OSError, ValueError) as error:
                raise InputError(f"{name!r:.80}: is no name of a file here; rename it ({error})") from None
        try:
            yield paths
        except InputError as error:
            raise InputError(_without_folders(str(error), paths)) from error


def _without_folders(text: str, paths: Sequence[Path]) -> str:
    for path in paths:
        text = text.replace(f"{path.parent}{os.sep}", "")
    return text.replace("with --image-id", "on the command line, with --image-id")  # an option that the page has not


def _named_masks(entries: Any, size: tuple[int, int]) -> list[NamedMask]:
    """Objects as the page holds them; InputError where one is broken."""
    if not isinstance(entries, list):
        raise InputError("the objects must be a list")
    return [_named_mask(entry, f"object {number}", size) for number, entry in enumerate(entries, 1)]


def _named_mask(entry: Any, where: str, size: tuple[int, int]) -> NamedMask:
    if not isinstance(entry, dict) or not isinstance(entry.get("rings"), list):
        raise InputError(f"{where}: has no list of rings")
    fields: dict[str, Any] = {field: entry.get(field) for field in FIELDS}
    for field, kinds in FIELDS.items():
        if not isinstance(fields[field], kinds):
            raise InputError(f"{where}: its {field} is {fields[field]!r:.40}")
        if isinstance(fields[field], float) and not math.isfinite(fields[field]):
            raise InputError(f"{where}: its {field} is {fields[field]}")
    for ring in entry["rings"]:
        if fault := polygon_fault(ring, reach_of(*size)):
            raise InputError(f"{where}: {fault}")
    return NamedMask(mask=[np.array(ring, np.float64).reshape(-1, 2) for ring in entry["rings"]], **fields)


def _flat(rings: Rings) -> list[list[float]]:
    return [ring.ravel().tolist() for ring in rings]


def _written(photo: Photograph, given: Sequence[NamedMask], kind: str) -> bytes:
    from sharpcontour.anymask.refiner import read_given

    _, _, found = read_given(photo.pixels, [mask.mask for mask in given], None, None, None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        FORMATS[kind][1](path, found, given, Path(photo.name))
        return path.read_bytes()
