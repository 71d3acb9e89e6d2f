"""One HTML file with objects before and after refinement, for a browser without a network.

Its template is viewer.html, with viewer.css and viewer.js; the file holds these, every image once as JPEG, and the
contours as SVG paths in the image's pixels, so that they stay sharp however far they are enlarged.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from data.annotations import Problems
from sharpcontour.contours.rasterize import rings_to_rles
from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.io.files import check_writable, write_whole
from sharpcontour.io.images import ImageError
from sharpcontour.pictures.moves import moves

KEY = "page"
"""The key of an image's record under which the commands keep what :func:`record_of` returns."""

SIDE = 1280  # px, the longer side of an embedded image at most
QUALITY = 82  # of JPEG
OBJECTS = 100  # of an image at most, those of the best score
LARGEST = 200 * 2**20  # bytes of a page, about; a browser opens that in seconds
_TENTHS = 10  # of a pixel: the unit of the contours
_FAR = 1e6  # px; no vertex is drawn farther out

Objects = list[dict[str, Any]]


@dataclass
class Photo:
    """An image of the page.

    Attributes:
        name: of its file, shown.
        read: returns its pixels, (H, W, 3) uint8 RGB, that the contours refer to.
        record: what :func:`record_of` returned for it.
    """

    name: str
    read: Callable[[], np.ndarray]
    record: dict[str, Any]


@dataclass
class Heading:
    """What the page says of itself.

    Attributes:
        title: of the page.
        before, after: what the two sides are called.
        score: objects of a lower score are hidden at first, unless all are lower.
    """

    title: str
    before: str = "before"
    after: str = "after"
    score: float = 0.0


def check_page(path: str, others: Sequence[str | Path | None]) -> None:
    """Raise InputError unless a page can be written there: the name ends in .html and is none of ``others``."""
    if not path.lower().endswith((".html", ".htm")):
        raise InputError(f"--html {path}: give a name that ends in .html")
    check_writable(path, others)


def describe(found: Detections, class_names: Sequence[str]) -> Objects:
    """K objects as plain values: class, score, how much each changed, where it moved most, and its contours.

    "change" is 1 - IoU of the masks before and after on the whole image; "move" in pixels the largest distance of a
    refined vertex from the contour before, 0 below half a pixel; "spot" a square [x, y, side] around that vertex; "box"
    [x0, y0, x1, y1] around both contours. "before" and "after" are SVG paths in tenths of a pixel; "before" is missing
    where it is the same. Without a refiner all four of "change", "move", "spot" and "before" are missing.
    """
    coarse = [None] * len(found) if found.coarse is None else found.coarse.rings
    scores, labels = found.scores.clamp(-_FAR, _FAR).tolist(), found.labels.tolist()
    return [
        {"class": str(class_names[label]), "score": score, **_compared(before, after, found.size)}
        for before, after, score, label in zip(coarse, found.rings, scores, labels, strict=True)
    ]


def _compared(before: Rings | None, after: Rings, size: tuple[int, int]) -> dict[str, Any]:
    shape: dict[str, Any] = {"after": _path(after)}
    if before is not None:
        shape |= {"change": 0.0, "move": 0.0}
    if before is not None and before is not after:
        old, new = rings_to_rles([before, after], *size)
        shape["before"] = _path(before)
        if old["counts"] != new["counts"]:
            shape["change"] = round(1 - float(coco_mask.iou([new], [old], [0])[0, 0]), 5)
        if places := moves(before, after, size):
            most = places[0]
            shape["move"] = round(most.move, 1)
            shape["spot"] = [round(value, 1) for value in (most.x, most.y, most.side)]
    if points := _usable([*(before or []), *after]):
        corners = np.concatenate([np.concatenate(points).min(0), np.concatenate(points).max(0)])
        shape["box"] = corners.clip(0, (size[1], size[0]) * 2).round(1).tolist()
    return shape


def _usable(rings: Rings) -> Rings:
    return [ring.astype(np.float64).clip(-_FAR, _FAR) for ring in rings if len(ring) >= 3 and np.isfinite(ring).all()]


def _path(rings: Rings) -> str:
    """An SVG path, each vertex after the first relative to the one before, which is shortest."""
    parts = []
    for ring in _usable(rings):
        places = (ring * _TENTHS).round().astype(np.int64)
        steps = np.diff(places, axis=0)
        steps = steps[steps.any(1)]
        lines = f"l{' '.join(map(str, steps.ravel().tolist()))}" if len(steps) else ""
        parts.append(f"M{places[0, 0]} {places[0, 1]}{lines}z")
    return "".join(parts).replace(" -", "-")


def record_of(objects: Objects, left: dict[str, int] | None = None) -> dict[str, Any]:
    """What is kept of one image, plain values: the objects that the page shows, and counts of those that it leaves out.

    Args:
        objects: all of :func:`describe`.
        left: counts of others that are not shown, by kind.
    """
    drawn = [one for one in objects if "box" in one]
    best = sorted(drawn, key=lambda one: -one["score"])[:OBJECTS]
    absent = {
        "object without any contour": len(objects) - len(drawn),
        f"object beyond the {OBJECTS} of the best score on its image": len(drawn) - len(best),
        **(left or {}),
    }
    return {"objects": best, "absent": {kind: count for kind, count in absent.items() if count}}


def write_page(path: str | Path, heading: Heading, photos: Sequence[Photo], absent: Problems) -> str:
    """Write the page, whole or not at all, holding one image at a time in memory.

    The images that changed most come first; what comes last is left out where the file would become too large for a
    browser, and counted in it like all that is not shown.

    Args:
        path: of the file.
        heading: what it says of itself.
        photos: the images.
        absent: images and objects that are not among them; what the page leaves out is added.

    Returns:
        A line that says what the page holds.

    Raises:
        UnwritableError: if it cannot be written.
    """
    for photo in photos:
        for kind, count in photo.record["absent"].items():
            absent.note(kind, photo.name, count)
        if not photo.record["objects"]:
            absent.note("image without an object", photo.name)
    order = [(place, photo) for place, photo in enumerate(photos) if photo.record["objects"]]
    refined = any("change" in one for _, photo in order for one in photo.record["objects"])
    measure = "change" if refined else "score"
    order.sort(key=lambda one: -max(shape[measure] for shape in one[1].record["objects"]))
    images: list[dict[str, Any]] = []

    def write(file: BinaryIO) -> None:
        head, tail = _template()
        file.write(head)
        contours = 0  # bytes that the contours will take
        for place, photo in tqdm(order, desc="page", unit="image", disable=None):
            if file.tell() + contours > LARGEST:
                absent.note(f"image that changed less, beyond {LARGEST >> 20} MiB", photo.name)
                continue
            try:
                jpeg, described = _embedded(photo)
            except ImageError as error:
                absent.note(f"image that can no longer be read, {error}", photo.name)
                continue
            file.write(b'<script type="text/plain" id="jpeg%d">%s</script>\n' % (len(images), jpeg))
            images.append({**described, "place": place})
            contours += len(_json(photo.record["objects"]))
        page = {**vars(heading), "refined": refined, "images": images, "absent": absent.lines()}
        file.write(b'<script type="application/json" id="page">%s</script>' % _json(page))
        file.write(tail)

    write_whole(write, path)
    shown = sum(len(image["objects"]) for image in images)
    line = f"{path}: {shown} objects on {len(images)} images, {Path(path).stat().st_size / 2**20:.1f} MiB"
    return f"{line}; not in it: {absent.summary()}" if absent.counts else line


def _template() -> tuple[bytes, bytes]:
    """The page before and after its data."""
    here = Path(__file__)
    page, css, js = (here.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".html", ".css", ".js"))
    head, tail = page.replace("/*CSS*/", css).replace("/*JS*/", js).split("<!--DATA-->")
    return head.encode(), tail.encode()


def _json(values: object) -> bytes:
    """JSON in ASCII that nothing inside of a script element ends or comments out."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c").encode("ascii")


def _embedded(photo: Photo) -> tuple[bytes, dict[str, Any]]:
    """An image as JPEG in base64, and what the page says of it."""
    pixels = photo.read()
    height, width = pixels.shape[:2]
    scale = min(SIDE / max(height, width), 1.0)
    if scale < 1:
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1]
    size_and_name = {"name": photo.name, "width": width, "height": height, "scale": scale}
    return base64.b64encode(jpeg.tobytes()), {**size_and_name, "objects": photo.record["objects"]}
