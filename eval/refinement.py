"""What refinement did to a file of detections: entries it can work on, and how much their masks changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask

from data.annotations import Id
from eval.checks import GroundTruth
from sharpcontour.contours.rasterize import rings_to_rles
from sharpcontour.detections import Detections
from sharpcontour.masks.run_lengths import RLE
from sharpcontour.masks.segmentation import find_broken, to_rle

MATCH = 0.5  # IoU with an annotated object from which a detection counts as one of it


def broken_segmentations(entries: Sequence[Mapping[str, object]], height: int, width: int) -> dict[int, str]:
    """The entries of one image whose segmentation cannot be used: index -> kind of problem."""
    problems: dict[int, str] = {}
    rles: dict[int, RLE] = {}
    for index, entry in enumerate(entries):
        segmentation = entry.get("segmentation")
        try:
            rles[index] = to_rle(segmentation, height, width)
        except ValueError:
            problems[index] = _kind(segmentation, height, width)
    places = list(rles)
    for broken in find_broken(list(rles.values())):
        problems[places[broken]] = "run lengths that cannot be read or do not fill the image"
    return dict(sorted(problems.items()))


def _kind(segmentation: object, height: int, width: int) -> str:
    """What is wrong with a broken segmentation, in words that others of its kind share."""
    if isinstance(segmentation, list):
        return "polygons without points, or with broken ones" if segmentation else "empty segmentation"
    if not isinstance(segmentation, Mapping):
        return "no segmentation"
    size = segmentation.get("size")
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        return "mask of another size than the image's"
    return "run lengths that cannot be read or do not fill the image"


@dataclass
class Changes:
    """Counts over all detections that were given to the refiner.

    Attributes:
        refined, same: detections that were refined, and those of them with the very same pixels afterwards.
        empty, kept: detections without a pixel, and others that kept their mask.
        ious: of every refined mask with the one before.
        moved, pixels: pixels that differ, and those of all masks before.
        matched: IoU with the object, before and after, of refined detections of an annotated one.
    """

    refined: int = 0
    same: int = 0
    empty: int = 0
    kept: int = 0
    ious: list[float] = field(default_factory=list)
    moved: int = 0
    pixels: int = 0
    matched: list[tuple[float, float]] = field(default_factory=list)

    def add(self, found: Detections) -> dict[int, tuple[RLE, RLE, float]]:
        """Count one image; ``found.coarse`` set.

        Returns:
            Index of each refined detection -> its mask before and after, and their IoU.
        """
        assert found.coarse is not None
        old, new = found.coarse.rings, found.rings
        refined = [k for k in range(len(found)) if new[k] is not old[k]]
        before = rings_to_rles([old[k] for k in refined], *found.size)
        after = rings_to_rles([new[k] for k in refined], *found.size)
        empty = sum(not rings for rings in old)
        self.refined += len(refined)
        self.empty += empty
        self.kept += len(found) - len(refined) - empty
        changed = {}
        for k, a, b in zip(refined, before, after, strict=True):
            iou = float(coco_mask.iou([b], [a], [0])[0, 0])
            total = int(coco_mask.area(a)) + int(coco_mask.area(b))
            self.pixels += int(coco_mask.area(a))
            self.moved += round(total * (1 - iou) / (1 + iou))  # of both masks, less twice what they share
            self.same += a["counts"] == b["counts"]
            self.ious.append(iou)
            changed[k] = a, b, iou
        return changed

    def join(self, other: Changes) -> None:
        """Add the counts of other detections to these."""
        for name in ("refined", "same", "empty", "kept", "moved", "pixels"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.ious += other.ious
        self.matched += [(before, after) for before, after in other.matched]

    def compare(
        self, truth: GroundTruth, image_id: Id, categories: Sequence[Id | None], masks: Sequence[tuple[RLE, RLE]]
    ) -> None:
        """Compare refined masks of one image, before and after, with the annotated object each overlapped most.

        Args:
            truth: annotations; crowds do not count.
            image_id: of the image.
            categories: category id of each detection, which its object must have too.
            masks: before and after.
        """
        by_category: dict[Id | None, list[RLE]] = {}
        for annotation in truth.coco.imgToAnns[image_id]:
            if not annotation["iscrowd"]:
                by_category.setdefault(annotation["category_id"], []).append(annotation["segmentation"])
        for category, (before, after) in zip(categories, masks, strict=True):
            objects = by_category.get(category)
            if objects:
                ious = coco_mask.iou([before, after], objects, [0] * len(objects))
                best = int(ious[0].argmax())
                if ious[0, best] >= MATCH:
                    self.matched.append((float(ious[0, best]), float(ious[1, best])))

    def report(self, harmed: int) -> list[str]:
        """Lines of text; ``harmed`` of the kept ones would have got worse."""
        kept = Counter(
            {
                "empty": self.empty,
                "too small or nothing to mend": self.kept - harmed,
                "would have got worse": harmed,
            }
        )
        total = self.refined + kept.total()
        why = ", ".join(f"{count} {reason}" for reason, count in kept.items())
        lines = [f"{total} masks: {self.refined} refined, {kept.total()} kept as they were ({why})"]
        if self.ious:
            lines.append(
                f"{self.refined - self.same} of the refined changed; IoU of before and after: mean "
                f"{np.mean(self.ious):.3f}, median {np.median(self.ious):.3f}; "
                f"pixels that changed sides: {100 * self.moved / max(self.pixels, 1):.1f} % of the masks' area"
            )
        if self.matched:
            before, after = np.array(self.matched).T
            better, worse = int((after > before).sum()), int((after < before).sum())
            lines.append(
                f"{len(self.matched)} refined masks overlap an annotated object by IoU {MATCH} or more: "
                f"{better} improved, {worse} got worse; mean IoU {before.mean():.3f} before, {after.mean():.3f} after"
            )
        return lines
