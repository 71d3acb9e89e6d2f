"""Refine the masks of any detector: COCO results in, the same results with sharper masks out.

    python scripts/refine.py --results R.json --images val2017/ --out R2.json
    # with annotations also AP and Boundary AP before and after, and how many masks came closer to their object
    python scripts/refine.py --results R.json --images DIR --annotations GT.json --out R2.json
    # the masks of one photograph, in files of any kind; the same as the installed command: sharpcontour photo.jpg m.png
    python scripts/refine.py --image photo.jpg --masks m.png --out DIR

The refiner is that of the package, or of a checkpoint, which need not be the detector's that made the results. Every
entry of the input is in the output, in its place and with all of its fields; only "segmentation" changes, to run
lengths, and only where a mask was refined. Masks that are empty, too small, right already, or would get worse stay as
they are, and so do entries that cannot be used (no segmentation, run lengths of another size than the image's, ...),
which are counted at the end. What is done is written to R2.json.part image by image: after an interruption the same
command goes on from there. An image that fails (out of memory, ...) is left as it was; then the command ends with
status 1, and run again tries the images that failed, and only these.

--html PAGE.html writes one file for a browser, with all images in it: contours before and after with a divider to drag,
what changed most first, to be chosen by class, score and change.

The file of an image is the "file_name" in the annotations; without annotations the "file_name" of its entries, if they
have one (as those of predict.py do, and upright like there), else the file in the folder whose name is the image id as
a number, such as 000000000139.jpg. Annotations and ids refer to pixels as they are stored, whatever EXIF data say. If
the annotated size, or without annotations that of the masks, fits only the other orientation, it is taken, and told.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from data.journal import Journal, fingerprint_of
from data.result_files import find_images, read_entries
from eval.checks import GroundTruth
from eval.pictures import viewer
from eval.refined_results import PICTURES, RefinedResults
from eval.results import format_table
from sharpcontour.app.command import DEFAULT_FORMATS, add_output_options, refine_given
from sharpcontour.errors import InputError
from sharpcontour.io.device import choose_device
from sharpcontour.io.files import check_writable, read_json, save_results

if TYPE_CHECKING:  # --help and wrong use need no torch: what does is imported by the functions that use it
    from models import Predictor
    from sharpcontour.anymask.refiner import MaskRefiner


def main() -> int:
    """One photograph or a folder of them, or a file of results."""
    args = parse_arguments()
    if args.image is not None:
        return refine_given(lambda: load(args), args.image, args)
    return refine_results(args)


def load(args: argparse.Namespace) -> Predictor | MaskRefiner:
    """What refines: that of a checkpoint, or that of the package."""
    from models import load_model
    from sharpcontour.anymask.refiner import load_refiner
    from sharpcontour.refined_model import RefinedModel

    device = choose_device(args.device)
    if not args.checkpoint:
        return load_refiner(args.weights, device, args.zoom)
    predictor = load_model(args.checkpoint, device)
    if not isinstance(predictor.model, RefinedModel):
        raise InputError(f"{args.checkpoint}: this checkpoint has no refiner; train with --refine")
    return predictor


def refine_results(args: argparse.Namespace) -> int:
    """Check everything, refine image by image, write the file at the end."""
    check_writable(args.out, (args.results, args.annotations, args.checkpoint, args.weights))
    if args.pictures:
        check_writable(Path(args.pictures) / "01.png")
    if args.html:
        viewer.check_page(args.html, (args.results, args.annotations, args.out))
    entries = read_entries(args.results, scored=bool(args.annotations))
    annotations = read_json(args.annotations) if args.annotations else None
    truth = GroundTruth(annotations, args.annotations) if args.annotations else None
    images = find_images(entries, args.results, args.images, annotations, args.annotations)
    from sharpcontour.anymask.refiner import WEIGHTS

    results = RefinedResults(load(args), entries, images, truth, bool(args.html))
    before = results.evaluate(args.results)  # first of all: it finds what would else be told after hours
    weights = args.checkpoint or args.weights or WEIGHTS
    files = (weights, args.results, *([args.annotations] if args.annotations else []))
    begin = time.perf_counter()
    work = {"files": [fingerprint_of(path) for path in files], "images": args.images}
    with Journal(args.out, work | ({"zoom": True} if args.zoom else {})) as journal:
        fresh = results.run(journal)
        pace = f", {(time.perf_counter() - begin) / fresh:.2f} s each" if fresh else ""
        save_results(results.output, args.out)
        if args.pictures:
            results.draw(Path(args.pictures))
        page = (
            results.write_page(args.html, f"{Path(args.results).name} before and after refinement", journal)
            if args.html
            else None
        )
        if truth is not None:
            print(format_table({"coarse": before, "refined": results.evaluate(args.results)}))
        print("\n".join(results.report()))
        print(f"{len(images)} images{pace}; results are in {args.out}")
        if page is not None:
            print(page)
        return journal.finish()


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults and units."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--results", metavar="R.json", help="COCO results, .json or .json.gz")
    what.add_argument("--image", metavar="PHOTO", help="one photograph or a folder of them, with --masks")
    add(
        "--checkpoint",
        metavar="CKPT",
        help="of a model trained with --refine, or the folder of a run (default: the package's refiner)",
    )
    add("--weights", metavar="FILE", help="of another refiner like the package's (default: the package's own)")
    add("--images", metavar="DIR", help="folder of the images of --results")
    add("--masks", metavar="FILE", nargs="+", help="rough masks of --image, files of any kind or a folder")
    add("--image-id", metavar="ID", help="of --image in a COCO file that has it under another name")
    add("--out", metavar="R2.json", help="file for the refined results; of --image the folder (default: PHOTO_sharp/)")
    add("--annotations", metavar="GT.json", help="COCO annotations, to score before and after (default: none)")
    add("--pictures", metavar="DIR", help=f"draw the {PICTURES} images that changed most, before and after, to DIR")
    add("--html", metavar="PAGE.html", help="also one file for a browser, before and after (default: none)")
    add_output_options(parser)
    _cli.add_zoom(parser)
    _cli.add_device(parser)
    args = parser.parse_args()
    if args.results is not None and not (args.images and args.out):
        parser.error("--results needs --images DIR and --out R2.json")
    if args.image is not None and not args.masks:
        parser.error("--image needs --masks FILE ...")
    if args.image is not None and (args.images or args.annotations or args.pictures or args.html):
        parser.error("--images, --annotations, --pictures and --html are for --results; leave them out with --image")
    if args.results is not None and (args.masks or args.image_id):
        parser.error("--masks and --image-id are for --image; leave them out with --results")
    if args.results is not None and (args.format != DEFAULT_FORMATS or args.simplify):
        parser.error("--format and --simplify are for --image; leave them out with --results")
    if args.checkpoint and args.weights:
        parser.error("--checkpoint and --weights are two refiners; give one")
    if args.checkpoint and args.zoom:
        parser.error(_cli.NO_ZOOM)
    return args


if __name__ == "__main__":
    _cli.run(main)
