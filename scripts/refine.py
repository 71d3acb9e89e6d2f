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
import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from data.annotations import Problems
from data.journal import Journal, fingerprint_of
from data.result_files import (
    Entry,
    ImageFile,
    box_of,
    category_of,
    find_images,
    note_left,
    odd_box,
    read_entries,
    score_of,
)
from eval import pictures
from eval.checks import GroundTruth
from eval.metrics import evaluate_detections
from eval.pictures import viewer
from eval.refinement import Changes, broken_segmentations
from eval.results import format_table
from sharpcontour.app.command import DEFAULT_FORMATS, add_output_options, refine_files
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.formats.coco_fields import is_mask_of_cvat
from sharpcontour.io.device import choose_device
from sharpcontour.io.files import check_writable, read_json, save_results
from sharpcontour.io.headers import Size

if TYPE_CHECKING:  # --help and wrong use need no torch: what does is imported by the functions that use it
    from models import Predictor
    from sharpcontour.anymask.refiner import MaskRefiner

PICTURES = 10  # images drawn, those that changed most
DRAWN_SCORE = 0.3  # of the detections drawn, at least
AT_ONCE = 1000  # entries of an image refined together


def main() -> int:
    """One photograph, or a file of results."""
    args = parse_arguments()
    if args.image is not None:
        refine_files(
            lambda: load(args),
            args.image,
            args.masks,
            args.out,
            image_id=args.image_id,
            formats=args.format,
            simplify=args.simplify,
        )
        return 0
    return refine_results(args)


def load(args: argparse.Namespace) -> Predictor | MaskRefiner:
    """What refines: that of a checkpoint, or that of the package."""
    from models import load_model
    from sharpcontour.anymask.refiner import load_refiner
    from sharpcontour.refined_model import RefinedModel

    device = choose_device(args.device)
    if not args.checkpoint:
        return load_refiner(args.weights, device)
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

    job = Job(load(args), entries, images, truth, bool(args.html))
    before = job.evaluate(args.results)  # first of all: it finds what would else be told after hours
    weights = args.checkpoint or args.weights or WEIGHTS
    files = (weights, args.results, *([args.annotations] if args.annotations else []))
    begin = time.perf_counter()
    with Journal(args.out, {"files": [fingerprint_of(path) for path in files], "images": args.images}) as journal:
        job.run(journal)
        seconds = time.perf_counter() - begin
        save_results(job.output, args.out)
        if args.pictures:
            job.draw(Path(args.pictures))
        page = (
            job.write_page(args.html, f"{Path(args.results).name} before and after refinement", journal)
            if args.html
            else None
        )
        if truth is not None:
            print(format_table({"coarse": before, "refined": job.evaluate(args.results)}))
        print("\n".join(job.report()))
        print(f"{len(images)} images, {seconds / max(len(images), 1):.2f} s each; results are in {args.out}")
        if page is not None:
            print(page)
        return journal.finish()


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults and units."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--results", metavar="R.json", help="COCO results, .json or .json.gz")
    what.add_argument("--image", metavar="PHOTO", help="one photograph, with --masks")
    add(
        "--checkpoint",
        metavar="CKPT",
        help="of a model trained with --refine, or the folder of a run (default: the package's refiner)",
    )
    add("--weights", metavar="FILE", help="of another refiner like the package's (default: the package's own)")
    add("--images", metavar="DIR", help="folder of the images of --results")
    add("--masks", metavar="FILE", nargs="+", help="rough masks of --image, files of any kind")
    add("--image-id", metavar="ID", help="of --image in a COCO file that has it under another name")
    add("--out", metavar="R2.json", help="file for the refined results; of --image the folder (default: PHOTO_sharp/)")
    add("--annotations", metavar="GT.json", help="COCO annotations, to score before and after (default: none)")
    add("--pictures", metavar="DIR", help=f"draw the {PICTURES} images that changed most, before and after, to DIR")
    add("--html", metavar="PAGE.html", help="also one file for a browser, before and after (default: none)")
    add_output_options(parser)
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
    return args


class Job:
    """The refinement of one file of results.

    Args:
        predictor: what refines; its model has a refiner.
        entries: the results.
        images: all that have entries.
        truth: annotations of these images, if there are.
        html: whether the records hold what a page shows.

    Attributes:
        output: the results again, refined as far as :meth:`run` has come.
    """

    def __init__(
        self,
        predictor: Predictor | MaskRefiner,
        entries: list[Entry],
        images: list[ImageFile],
        truth: GroundTruth | None,
        html: bool = False,
    ) -> None:
        self.predictor, self.entries, self.images, self.truth = predictor, entries, images, truth
        self.html = html
        self.output = list(entries)
        self.changes, self.problems, self.harmed = Changes(), Problems(), 0
        self.odd_boxes, self.turned = Problems(), Problems()
        known = dict(zip(predictor.category_ids, predictor.class_names, strict=True))
        names: Mapping[Any, str] = known if truth is None else truth.category_names
        categories = list(dict.fromkeys(map(category_of, entries)))
        self.labels = {category: label for label, category in enumerate(categories)}
        self.class_names = [
            "None" if category is None else names.get(category, str(category)) for category in categories
        ]
        self.changed: list[tuple[float, ImageFile]] = []  # how much every image changed, for pictures

    def run(self, journal: Journal) -> None:
        """Refine all images that the journal has not; what is done is written down image by image."""
        if self.html:
            journal.require(viewer.KEY, "for --html")
        attempts = journal.attempts((image.name, partial(self._refine, image)) for image in self.images)
        bar = tqdm(self.images, desc="refinement", unit="image", disable=None)
        for image, error in zip(bar, attempts, strict=True):
            if error:
                note_left(self.problems, image, error)
            else:
                self._take(image, journal.done[image.name])

    def _refine(self, image: ImageFile) -> Callable[[], dict[str, Any]]:
        """Refine the usable entries of an image; what is returned makes a record of it, in plain values."""
        model: Any = self.predictor.model
        model.statistics.reset()  # an image that failed has left its counts
        pixels, turned = self._read(image)
        size = (pixels.shape[0], pixels.shape[1])
        broken_entries: list[list[Any]] = []
        parts: list[tuple[list[int], Detections]] = []
        # Parts keep the memory of the refiner bounded, however many entries an image has.
        for begin in range(0, len(image.entries), AT_ONCE):
            part = image.entries[begin : begin + AT_ONCE]
            broken = self._unusable(part, size)
            broken_entries += [[kind, part[k]] for k, kind in broken.items()]
            indices = [index for k, index in enumerate(part) if k not in broken]
            parts.append((indices, self._refined(pixels, indices)))
        return partial(self._record, image, parts, broken_entries, model.statistics.restored, turned)

    def _unusable(self, part: list[int], size: Size) -> dict[int, str]:
        """Which of some entries of an image of (height, width) are left as they are: places in ``part`` -> why."""
        entries = [self.entries[index] for index in part]
        crowds = [k for k, one in enumerate(entries) if one.get("iscrowd") == 1 and not is_mask_of_cvat(one)]
        return broken_segmentations(entries, *size) | dict.fromkeys(crowds, "entry with iscrowd 1, kept as it is")

    def _record(
        self,
        image: ImageFile,
        parts: list[tuple[list[int], Detections]],
        broken: list[list[Any]],
        harmed: int,
        turned: bool,
    ) -> dict[str, Any]:
        """What has become of an image's entries: run lengths of what changed, and counts."""
        changes, changed, seen = Changes(), {}, []
        categories, masks = [], []
        objects: viewer.Objects = []
        for indices, found in parts:
            for k, (before, after, iou) in changes.add(found).items():
                changed[indices[k]] = after
                if found.scores[k] >= DRAWN_SCORE:
                    seen.append(1 - iou)
                categories.append(category_of(self.entries[indices[k]]))
                masks.append((before, after))
            if self.html:
                objects += viewer.describe(found, self.class_names)
        if self.truth is not None:
            changes.compare(self.truth, image.id, categories, masks)
        much = sum(seen) / (len(seen) + 1)
        counts = asdict(changes) | {"harmed": harmed}
        page = {viewer.KEY: viewer.record_of(objects)} if self.html else {}
        return {"changed": changed, "counts": counts, "broken": broken, "much": much, "turned": turned, **page}

    def _read(self, image: ImageFile) -> tuple[np.ndarray, bool]:
        annotated = None if self.truth is None else self.truth.sizes[image.id]
        return image.read(annotated, [self.entries[index] for index in image.entries])

    def _pixels(self, image: ImageFile) -> np.ndarray:
        return self._read(image)[0]

    def _refined(self, pixels: np.ndarray, indices: list[int]) -> Detections:
        """Some entries of an image as detections, before and after."""
        entries = [self.entries[index] for index in indices]
        return self.predictor.refine(
            pixels,
            [entry["segmentation"] for entry in entries],
            [box_of(entry) for entry in entries],
            scores=[score_of(entry) for entry in entries],
            labels=[self.labels[category_of(entry)] for entry in entries],
        )

    def _take(self, image: ImageFile, record: Mapping[str, Any]) -> None:
        """Put one image's record into the output and the counts."""
        for index, segmentation in record["changed"].items():
            self.output[int(index)] = {**self.entries[int(index)], "segmentation": segmentation}
        counts = dict(record["counts"])
        self.harmed += counts.pop("harmed", 0)
        self.changes.join(Changes(**counts))
        for kind, index in record["broken"]:
            self.problems.note(kind, f"entry {index}")
        broken = {index for _, index in record["broken"]}
        for index in image.entries:
            if index not in broken and odd_box(self.entries[index]):
                self.odd_boxes.note("box that means nothing, its mask's taken", f"entry {index}")
        self.changed.append((record["much"], image))
        if record.get("turned"):  # not in a record of an earlier version
            how = "as stored, not turned upright" if image.upright else "turned upright as its EXIF data say"
            self.turned.note(f"photograph taken {how}, for its masks fit only that", image.path.name)

    def evaluate(self, name: str) -> dict[str, dict[str, float | None]]:
        """Mask AP and Boundary AP of the output as it is, without the entries that nothing can score."""
        if self.truth is None:
            return {}
        usable = np.ones(len(self.entries), bool)
        for image in self.images:
            entries = [self.entries[index] for index in image.entries]
            usable[[image.entries[k] for k in broken_segmentations(entries, *self.truth.sizes[image.id])]] = False
        scores = evaluate_detections(self.truth, [self.output[i] for i in np.flatnonzero(usable)], name=name)
        return {metric: values.summary for metric, values in scores.items()}

    def draw(self, folder: Path) -> None:
        """Pictures of the images that changed most, the first one most of all."""
        most = sorted(self.changed, key=lambda entry: -entry[0])[:PICTURES]
        for rank, (_, image) in enumerate(most, 1):
            pixels = self._pixels(image)
            unusable = self._unusable(image.entries, (pixels.shape[0], pixels.shape[1]))
            usable = [index for k, index in enumerate(image.entries) if k not in unusable][:AT_ONCE]
            kept = pictures.confident(self._refined(pixels, usable), DRAWN_SCORE)
            assert kept.coarse is not None
            titles = ("as given", "with SharpContour")
            sheet = pictures.compare(pixels, kept.coarse, kept, self.class_names, titles=titles)
            pictures.save(folder / f"{rank:02}_{image.path.stem}.png", sheet)

    def write_page(self, path: str, title: str, journal: Journal) -> str:
        """Write the file of --html; returns a line that says what it holds."""
        photos = [
            viewer.Photo(str(image.path), partial(self._pixels, image), journal.done[image.name][viewer.KEY])
            for image in self.images
            if image.name in journal.done
        ]
        heading = viewer.Heading(title, "as given", "with SharpContour", score=DRAWN_SCORE)
        return viewer.write_page(path, heading, photos, copy.deepcopy(self.problems))

    def report(self) -> list[str]:
        """What happened to the masks, and which entries could not be used."""
        left, others = self.problems.summary(), (self.odd_boxes.summary(), self.turned.summary())
        lines = self.changes.report(self.harmed) + ([f"left as they are: {left}"] if left else [])
        return lines + [line for line in others if line]


if __name__ == "__main__":
    _cli.run(main)
