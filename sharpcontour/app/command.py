"""The command ``sharpcontour``: a photograph and rough masks in, sharp outlines out.

    sharpcontour photo.jpg mask.png
    sharpcontour page              # serves a page to draw rough outlines on; a photograph called "page" is ./page

Masks may be PNG (black and white, label ids, a palette, a cut-out), COCO, SAM or LabelMe JSON, YOLO's text of polygons,
.npy or .npz, one or more files. The refined objects are written to the folder photo_sharp/: photo.json (COCO
annotations), photo.svg, photo_mask.png and photo_compare.png, a picture of before and after.

The photograph is turned upright as its EXIF data say, and the masks are taken to be drawn on it so; where their size
fits only the pixels as they are stored, these are taken. What is written is in the same pixels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpcontour.app.refining import EMPTY, changes, read_photograph, refine_named
from sharpcontour.detections import Detections
from sharpcontour.formats.named_masks import NamedMask
from sharpcontour.io.command_line import add_device, run
from sharpcontour.io.device import choose_device
from sharpcontour.io.files import check_writable

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
    from sharpcontour.anymask.refiner import load_refiner  # not before: --help and wrong use need no torch

    refine_files(
        lambda: load_refiner(args.weights, choose_device(args.device)),
        args.photo,
        args.masks,
        args.out,
        image_id=args.image_id,
    )
    return 0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="sharpcontour", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("photo", metavar="PHOTO", help="any image file")
    add("masks", metavar="MASKS", nargs="+", help="files with rough masks of its objects")
    add("--out", metavar="DIR", help="folder for what is written (default: PHOTO_sharp/ here)")
    add("--weights", metavar="FILE", help="of another refiner (default: that of the package)")
    add("--image-id", metavar="ID", help="of the photograph in a COCO file that has it under another name")
    add_device(parser)
    return parser.parse_args(arguments)


def refine_files(
    load: Callable[[], MaskRefinerLike],
    photo: str | Path,
    masks: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    image_id: Any = None,
) -> Detections:
    """Refine the masks of one photograph, write the files and print a line an object.

    Args:
        load: called once everything else is read.
        photo: of the photograph.
        masks: files that :func:`~sharpcontour.formats.mask_files.read_mask_files` reads.
        out: folder to write to, made if missing; None: one beside where the command is called, named like the
            photograph.
        image_id: id of the photograph in a data set's file.

    Returns:
        The refined objects, ``coarse`` as they were given.

    Raises:
        InputError: for files that are missing, broken, of another size, or cannot be written.
    """
    from sharpcontour.formats import output_files

    photo = Path(photo)
    folder = Path(f"{photo.stem}_sharp") if out is None else Path(out)
    paths = [folder / f"{photo.stem}{ending}" for ending in (".json", ".svg", "_mask.png", "_compare.png")]
    for path in paths:
        check_writable(path, (photo, *masks))
    pixels, given, notes = read_photograph(photo, masks, image_id)
    print("\n".join(notes))
    found = refine_named(load(), pixels, given)
    output_files.write_coco(paths[0], found, given, photo.name)
    output_files.write_svg(paths[1], found, given)
    output_files.write_mask(paths[2], found)
    output_files.write_picture(paths[3], pixels, found, given)
    print("\n".join(_report(found, given)))
    print(f"{folder}: {', '.join(path.name for path in paths)}")
    return found


def _report(found: Detections, given: Sequence[NamedMask]) -> list[str]:
    """A line an object: how much it changed."""
    told = changes(found)
    lines = [f"{k}. {mask.name}: {change}" for k, (mask, change) in enumerate(zip(given, told, strict=True), 1)]
    empty = told.count(EMPTY)
    return lines + ([f"{empty} of {len(given)} given masks are empty"] if empty else [])
