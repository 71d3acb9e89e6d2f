"""The refinement of a file of results: what ``scripts/refine.py --results`` does, image by image."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from data.annotations import Problems
from data.journal import Journal
from data.result_files import Entry, ImageFile, box_of, category_of, note_left, odd_box, score_of
from eval import pictures
from eval.checks import GroundTruth
from eval.metrics import evaluate_detections
from eval.pictures import viewer
from eval.refinement import Changes, broken_segmentations
from sharpcontour.detections import Detections
from sharpcontour.formats.coco_fields import is_crowd
from sharpcontour.io.headers import Size

if TYPE_CHECKING:  # wrong use needs no torch
    from models import Predictor
    from sharpcontour.anymask.refiner import MaskRefiner

PICTURES = 10  # images drawn, those that changed most
DRAWN_SCORE = 0.3  # of the detections drawn, at least
AT_ONCE = 1000  # entries of an image refined together


class RefinedResults:
    """One file of results, and what has been refined of it.

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

    def run(self, journal: Journal) -> int:
        """Refine all images that the journal has not; what is done is written down image by image.

        Returns:
            How many images that were.
        """
        if self.html:
            journal.require(viewer.KEY, "for --html")
        fresh = sum(image.name not in journal.done for image in self.images)
        works = ((image.name, partial(self._refine, image)) for image in self.images)
        with contextlib.closing(journal.attempts(works)) as attempts:
            bar = tqdm(self.images, desc="refinement", unit="image", disable=None)
            for image, error in zip(bar, attempts, strict=True):
                if error:
                    note_left(self.problems, image, error)
                else:
                    self._take(image, journal.done[image.name])
        return fresh

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
        crowds = [k for k, one in enumerate(entries) if is_crowd(one)]
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
        annotated = set() if self.truth is None else {one["image_id"] for one in self.truth.coco.dataset["annotations"]}
        if count := len(annotated - {image.id for image in self.images}):
            lines.append(f"no results for {count} of {len(annotated)} images with objects, which AP counts as missed")
        return lines + [line for line in others if line]
