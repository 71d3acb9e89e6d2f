"""One photograph and files of its masks in, files of the refined objects out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpcontour.app.refining import EMPTY, KEPT, changes, read_photograph, refine_named
from sharpcontour.contours.simplify import simplified
from sharpcontour.detections import Detections
from sharpcontour.formats import output_files
from sharpcontour.formats.named_masks import NamedMask
from sharpcontour.formats.other_fields import not_carried_over
from sharpcontour.formats.which_image import LISTED, first_names
from sharpcontour.io.files import check_writable

if TYPE_CHECKING:
    from sharpcontour.anymask.refiner import MaskRefinerLike

PICTURE = "picture"
DEFAULT_FORMATS = ("coco", "svg", "png", PICTURE)
YOLO = "yolo"
AS_STORED = "is of the photograph as stored, and read as of the upright one; save that without its EXIF orientation"


def refine_files(
    load: Callable[[], MaskRefinerLike],
    photo: str | Path,
    masks: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    image_id: Any = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    simplify: float | None = None,
    tell: Callable[[str], object] = print,
    brief: bool = False,
) -> Detections:
    """Refine the masks of one photograph, write the files and print a line an object.

    Args:
        load: called once everything else is read.
        photo: of the photograph.
        masks: files that :func:`~sharpcontour.formats.mask_files.read_mask_files` reads.
        out: folder to write to, made if missing; None: one beside where the command is called, named like the
            photograph.
        image_id: id of the photograph in a data set's file.
        formats: what to write: names of :data:`~sharpcontour.formats.output_files.FORMATS`, and "picture".
        simplify: vertices are dropped that lie no more than so many pixels from the outline without them; None: none.
        tell: what takes the lines.
        brief: whether there is one line for all objects; what a file does not hold is told in any case.

    Returns:
        The refined objects, simplified where that was asked for, ``coarse`` as they were given.

    Raises:
        InputError: for files that are missing, broken, of another size, or cannot be written.
    """
    photo = Path(photo)
    folder = Path(f"{photo.stem}_sharp") if out is None else Path(out)
    paths = {name: folder / f"{photo.stem}{_ending(name)}" for name in dict.fromkeys(formats)}
    for path in paths.values():
        check_writable(path, (photo, *masks))
    pixels, given, notes, stored = read_photograph(photo, masks, image_id)
    if not brief:
        tell("\n".join(notes))
    replaced = [path.name for path in paths.values() if path.exists()]
    found = refine_named(load(), pixels, given)
    report = _in_brief(found, notes) if brief else _report(found, given)
    if simplify is not None:
        found, line = _simplified(found, given, simplify)
        report.append(line)
    for name, path in paths.items():
        if name == PICTURE:
            output_files.write_picture(path, pixels, found, given)
        else:
            report += [f"{path}: {line}" for line in output_files.FORMATS[name][1](path, found, given, photo)]
    report += not_carried_over(given, paths)
    if stored and YOLO in paths:
        report.append(f"{paths[YOLO]}: {AS_STORED}")
    names = ", ".join(path.name for path in paths.values())
    if replaced or not brief:
        report.append(f"{folder}: {names}" + (f"; replaced: {', '.join(replaced)}" if replaced else ""))
    tell("\n".join(report))
    return found


def _ending(name: str) -> str:
    return "_compare.png" if name == PICTURE else output_files.FORMATS[name][0]


def _simplified(found: Detections, given: Sequence[NamedMask], tolerance: float) -> tuple[Detections, str]:
    """The objects with fewer vertices, crowds as they are, and a line on what that did."""
    shapes, deviation, kept = [], 0.0, 0
    for rings, mask in zip(found.rings, given, strict=True):
        if mask.crowd:
            shapes.append(rings)
            continue
        fewer = simplified(rings, tolerance)
        shapes.append(fewer.rings)
        deviation, kept = max(deviation, fewer.deviation), kept + fewer.kept
    before, after = (sum(len(ring) for rings in objects for ring in rings) for objects in (found.rings, shapes))
    line = f"simplified: {after} of {before} vertices, the greatest deviation is {deviation:.2f} px"
    rest = f"; rings that would have collapsed or crossed, kept as they are: {kept}" if kept else ""
    return replace(found, shapes=shapes), line + rest


def _in_brief(found: Detections, notes: Sequence[str]) -> list[str]:
    """A line for all objects: how their files were understood, and how many are no longer as they were given."""
    told = changes(found)
    empty, moved = told.count(EMPTY), len(told) - told.count(EMPTY) - told.count(KEPT)
    return [f"{first_names(notes, LISTED, '; ')}: {moved} changed" + (f", {empty} empty" if empty else "")]


def _report(found: Detections, given: Sequence[NamedMask]) -> list[str]:
    """A line an object: how much it changed."""
    told = changes(found)
    lines = [f"{k}. {mask.name}: {change}" for k, (mask, change) in enumerate(zip(given, told, strict=True), 1)]
    empty = told.count(EMPTY)
    return lines + ([f"{empty} of {len(given)} given masks are empty"] if empty else [])
