"""The command ``sharpcontour``: a photograph and rough masks in, sharp outlines out.

    sharpcontour photo.jpg mask.png
    sharpcontour page              # serves a page to draw rough outlines on; a photograph called "page" is ./page

Masks may be PNG (black and white, label ids, a palette, a cut-out), JSON of COCO, SAM, LabelMe or Label Studio, XML of
CVAT, SVG, YOLO's text of polygons, .npy or .npz, one or more files. The refined objects are written to the folder
photo_sharp/: photo.json (COCO annotations), photo.svg, photo_mask.png and photo_compare.png, a picture of before and
after. With --format others are written instead:

    sharpcontour photo.jpg masks.json --format labelme cvat yolo

Every format that is written can be given as masks again. What one cannot hold is counted in a line. --simplify 1 drops
vertices as long as none that is dropped lies more than 1 pixel from the outline.

The photograph is turned upright as its EXIF data say, and the masks are taken to be drawn on it so; where their size
fits only the pixels as they are stored, these are taken. What is written is in the same pixels.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpcontour import __version__
from sharpcontour.app.refining import EMPTY, changes, read_photograph, refine_named
from sharpcontour.contours.simplify import simplified
from sharpcontour.detections import Detections
from sharpcontour.formats import output_files
from sharpcontour.formats.named_masks import NamedMask
from sharpcontour.formats.other_fields import not_carried_over
from sharpcontour.io.command_line import add_device, add_zoom, between, run
from sharpcontour.io.device import choose_device
from sharpcontour.io.files import check_writable

PICTURE = "picture"
DEFAULT_FORMATS = ("coco", "svg", "png", PICTURE)
YOLO = "yolo"
AS_STORED = "is of the photograph as stored, and read as of the upright one; save that without its EXIF orientation"

if TYPE_CHECKING:
    from sharpcontour.anymask.refiner import MaskRefinerLike


def main() -> None:
    """What the installed command calls; it leaves with the exit codes of :func:`~sharpcontour.io.command_line.run`."""
    run(_main)


def _main() -> int:
    if sys.argv[1:2] == ["page"]:
        from sharpcontour.app.page import serve

        return serve(sys.argv[2:])
    args = parse_arguments()

    def load() -> MaskRefinerLike:
        from sharpcontour.anymask.refiner import load_refiner  # takes seconds, and what is wrong is told before

        return load_refiner(args.weights, choose_device(args.device), args.zoom)

    refine_files(
        load,
        args.photo,
        args.masks,
        args.out,
        image_id=args.image_id,
        formats=args.format,
        simplify=args.simplify,
    )
    return 0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="sharpcontour", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--version", action="version", version=f"sharpcontour {__version__}")
    add("photo", metavar="PHOTO", help="any image file")
    add("masks", metavar="MASKS", nargs="+", help="files with rough masks of its objects")
    add("--out", metavar="DIR", help="folder for what is written (default: PHOTO_sharp/ here)")
    add("--weights", metavar="FILE", help="of another refiner (default: that of the package)")
    add("--image-id", metavar="ID", help="of the photograph in a COCO file that has it under another name")
    add_output_options(parser)
    add_zoom(parser)
    add_device(parser)
    return parser.parse_args(arguments)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """The options ``--format`` and ``--simplify``."""
    parser.add_argument(
        "--format",
        nargs="+",
        choices=(*output_files.FORMATS, PICTURE),
        default=DEFAULT_FORMATS,
        metavar="NAME",
        help=f"what to write, of {', '.join((*output_files.FORMATS, PICTURE))} (default: {' '.join(DEFAULT_FORMATS)})",
    )
    parser.add_argument(
        "--simplify",
        type=between(0, math.inf, "no number of pixels above 0"),
        metavar="PX",
        help="drop vertices that lie no more than PX pixels from the outline without them (default: keep all)",
    )


def refine_files(
    load: Callable[[], MaskRefinerLike],
    photo: str | Path,
    masks: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    image_id: Any = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    simplify: float | None = None,
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
    print("\n".join(notes))
    replaced = [path.name for path in paths.values() if path.exists()]
    found = refine_named(load(), pixels, given)
    report = _report(found, given)
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
    print("\n".join(report))
    names = ", ".join(path.name for path in paths.values())
    print(f"{folder}: {names}" + (f"; replaced: {', '.join(replaced)}" if replaced else ""))
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


def _report(found: Detections, given: Sequence[NamedMask]) -> list[str]:
    """A line an object: how much it changed."""
    told = changes(found)
    lines = [f"{k}. {mask.name}: {change}" for k, (mask, change) in enumerate(zip(given, told, strict=True), 1)]
    empty = told.count(EMPTY)
    return lines + ([f"{empty} of {len(given)} given masks are empty"] if empty else [])
