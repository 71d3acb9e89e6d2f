"""The command ``sharpcontour``: a photograph and rough masks in, sharp outlines out.

    sharpcontour photo.jpg mask.png
    sharpcontour photos masks      # folders: each photograph with the file of masks that is called like it
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
from pathlib import Path
from typing import TYPE_CHECKING

from sharpcontour import __version__
from sharpcontour.app.folder import refine_folder
from sharpcontour.app.photograph import DEFAULT_FORMATS, PICTURE, refine_files
from sharpcontour.errors import InputError
from sharpcontour.formats import output_files
from sharpcontour.io.command_line import add_device, add_zoom, between, run
from sharpcontour.io.device import choose_device

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

    return refine_given(load, args.photo, args)


def refine_given(load: Callable[[], MaskRefinerLike], photo: str, args: argparse.Namespace) -> int:
    """Refine a photograph, or a folder of them, as ``args`` say; the exit code."""
    how = {"formats": args.format, "simplify": args.simplify}
    if not Path(photo).is_dir():
        refine_files(load, photo, args.masks, args.out, image_id=args.image_id, **how)
        return 0
    if args.image_id is not None:
        raise InputError("--image-id is of one photograph; leave it out for a folder")
    return refine_folder(load, Path(photo), [Path(path) for path in args.masks], args.out, **how)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="sharpcontour", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--version", action="version", version=f"sharpcontour {__version__}")
    add("photo", metavar="PHOTO", help="any image file, or a folder of them")
    add("masks", metavar="MASKS", nargs="+", help="files with rough masks of its objects, or a folder of such files")
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
