"""Refine the masks of any detector: COCO results in, the same results with sharper masks out.

    python scripts/refine.py --checkpoint CKPT --results R.json --images val2017/ --out R2.json
    # with annotations also AP and Boundary AP before and after, and how many masks came closer to their object
    python scripts/refine.py --checkpoint CKPT --results R.json --images DIR --annotations GT.json --out R2.json

The model need not be the detector that made the results. Every entry of the input is in the output, in its place and
with all of its fields; only "segmentation" changes, to run lengths, and only where a mask was refined. Masks that are
empty, too small, or would get worse stay as they are, and so do entries that cannot be used (no segmentation, run
lengths of another size than the image's, ...), which are counted at the end.

The file of an image is the "file_name" in the annotations; without annotations the "file_name" of its entries, if they
have one (as those of predict.py do, and upright like there), else the file in the folder whose name is the image id as
a number, such as 000000000139.jpg. Annotations and ids refer to pixels as they are stored, whatever EXIF data say.
"""

from __future__ import annotations

import _cli  # puts the repository root on sys.path

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.annotations import Problems
from data.result_files import Entry, ImageFile, find_images, read_entries
from engine.distributed import choose_device
from eval import pictures
from eval.checks import GroundTruth
from eval.metrics import evaluate_detections
from eval.refinement import Changes, broken_segmentations
from eval.results import format_table
from models import load_model
from models.predictor import Predictor
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.io.files import check_writable, read_json, save_results
from sharpcontour.io.images import WrongSizeError, read_image
from sharpcontour.refined_model import RefinedModel

PICTURES = 10  # images drawn, those that changed most
DRAWN_SCORE = 0.3  # of the detections drawn, at least


def main() -> int:
    """Check everything, refine image by image, write the file at the end."""
    args = parse_arguments()
    if Path(args.out).resolve() == Path(args.results).resolve():
        raise InputError(f"--out {args.out} is the file of --results; choose another name")
    for path in (args.out, *([Path(args.pictures) / "01.png"] if args.pictures else [])):
        check_writable(path)
    entries = read_entries(args.results, scored=bool(args.annotations))
    annotations = read_json(args.annotations) if args.annotations else None
    truth = GroundTruth(annotations, args.annotations) if args.annotations else None
    images = find_images(entries, args.results, args.images, annotations, args.annotations)
    predictor = load_model(args.checkpoint, choose_device(args.device))
    if not isinstance(predictor.model, RefinedModel):
        raise InputError(f"{args.checkpoint}: this checkpoint has no refiner; train with --refine")
    job = Job(predictor, entries, images, truth)
    before = job.evaluate(args.results)  # first of all: it finds what would else be told after hours
    begin = time.perf_counter()
    job.run(PICTURES if args.pictures else 0)
    seconds = time.perf_counter() - begin
    save_results(job.output, args.out)
    if args.pictures:
        job.draw(Path(args.pictures))
    if truth is not None:
        print(format_table({"coarse": before, "refined": job.evaluate(args.results)}))
    print("\n".join(job.report()))
    print(f"{len(images)} images, {seconds / max(len(images), 1):.2f} s each; results are in {args.out}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line; --help states defaults and units."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="CKPT", help="of a model trained with --refine, or the folder of a run")
    add("--results", required=True, metavar="R.json", help="COCO results, .json or .json.gz")
    add("--images", required=True, metavar="DIR", help="folder of the images")
    add("--out", required=True, metavar="R2.json", help="file for the refined results")
    add("--annotations", metavar="GT.json", help="COCO annotations, to score before and after (default: none)")
    add("--pictures", metavar="DIR", help=f"draw the {PICTURES} images that changed most, before and after, to DIR")
    add("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto", help="default: the first that is there")
    return parser.parse_args()


class Job:
    """The refinement of one file of results.

    Args:
        predictor: its model has a refiner.
        entries: the results.
        images: all that have entries.
        truth: annotations of these images, if there are.

    Attributes:
        output: the results again, refined as far as :meth:`run` has come.
    """

    def __init__(
        self, predictor: Predictor, entries: list[Entry], images: list[ImageFile], truth: GroundTruth | None
    ) -> None:
        self.predictor, self.entries, self.images, self.truth = predictor, entries, images, truth
        self.output = list(entries)
        self.changes, self.problems = Changes(), Problems()
        known = dict(zip(predictor.category_ids, predictor.class_names, strict=True))
        names: Mapping[Any, str] = known if truth is None else truth.category_names
        categories = list(dict.fromkeys(map(category_of, entries)))
        self.labels = {category: label for label, category in enumerate(categories)}
        self.class_names = [names.get(category, str(category)) for category in categories]
        self.most: list[tuple[float, ImageFile, Detections]] = []  # what changed most, for pictures

    def run(self, keep: int) -> None:
        """Refine all images, and keep those ``keep`` that changed most."""
        model: Any = self.predictor.model
        model.reset_refiner_stats()
        for image in tqdm(self.images, desc="refinement", unit="image", disable=None):
            size = None if self.truth is None else self.truth.sizes[image.id]
            try:
                pixels = read_image(image.path, image.upright, size)
            except InputError as error:
                size_differs = isinstance(error, WrongSizeError)
                fault = "image of another size than annotated" if size_differs else "image that cannot be read"
                self._leave(image, f"{fault}, {image.path.name}")
                continue
            size = (pixels.shape[0], pixels.shape[1])
            found, ious = self._refine(image, pixels, size)
            seen = [1 - iou for k, iou in ious.items() if found.scores[k] >= DRAWN_SCORE]
            self.most.append((sum(seen) / (len(seen) + 1), image, found))
            self.most = sorted(self.most, key=lambda entry: -entry[0])[:keep]
        self.harmed = model.refiner_stats()["restored"]

    def _leave(self, image: ImageFile, kind: str) -> None:
        for index in image.entries:
            self.problems.note(kind, f"entry {index}")

    def _refine(
        self, image: ImageFile, pixels: np.ndarray, size: tuple[int, int]
    ) -> tuple[Detections, dict[int, float]]:
        """The usable entries of an image as detections, and the IoU of each refined one with what it was."""
        broken = broken_segmentations([self.entries[index] for index in image.entries], *size)
        for k, kind in broken.items():
            self.problems.note(kind, f"entry {image.entries[k]}")
        indices = [index for k, index in enumerate(image.entries) if k not in broken]
        entries = [self.entries[index] for index in indices]
        found = self.predictor.refine(
            pixels,
            [entry["segmentation"] for entry in entries],
            [box_of(entry) for entry in entries],
            scores=[score_of(entry) for entry in entries],
            labels=[self.labels[category_of(entry)] for entry in entries],
        )
        changed = self.changes.add(found)
        for k, (_, after, _) in changed.items():
            self.output[indices[k]] = {**entries[k], "segmentation": after}
        if self.truth is not None:
            categories = [category_of(entries[k]) for k in changed]
            masks = [(before, after) for before, after, _ in changed.values()]
            self.changes.compare(self.truth, image.id, categories, masks)
        return found, {k: iou for k, (_, _, iou) in changed.items()}

    def evaluate(self, name: str) -> dict[str, Any]:
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
        for rank, (_, image, found) in enumerate(self.most, 1):
            kept = pictures.confident(found, DRAWN_SCORE)
            assert kept.coarse is not None
            titles = ("as given", "with SharpContour")
            pixels = read_image(image.path, image.upright)
            sheet = pictures.compare(pixels, kept.coarse, kept, self.class_names, titles=titles)
            pictures.save(folder / f"{rank:02}_{image.path.stem}.png", sheet)

    def report(self) -> list[str]:
        """What happened to the masks, and which entries could not be used."""
        left = self.problems.summary()
        return self.changes.report(self.harmed) + ([f"left as they are: {left}"] if left else [])


def category_of(entry: Entry) -> Any:
    """The category id; None where it is missing or none."""
    category = entry.get("category_id")
    return category if isinstance(category, (int, str)) else None


def score_of(entry: Entry) -> float:
    """The score; 1 where it is missing or none."""
    score = entry.get("score")
    return float(score) if isinstance(score, (int, float)) else 1.0


def box_of(entry: Entry) -> list[float] | None:
    """The box of an entry as xyxy; None where it has none of any size."""
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, (int, float)) for value in box):
        return None
    x, y, width, height = box
    return [x, y, x + width, y + height] if width > 0 and height > 0 else None


if __name__ == "__main__":
    _cli.run(main)
