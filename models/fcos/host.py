"""What the hosts on FCOS have in common: where their instances come from and how these are told to the refiner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from models.backbone import Backbone
from models.boxes import image_limits
from models.fcos.detector import FCOS, FCOSDetections, Predictions
from models.fcos.targets import Grid, neighbourhoods, responsible
from models.host import HostBase, image_indices, per_image
from sharpcontour.contours.lazy_masks import LazyMasks
from sharpcontour.contours.types import Contours
from sharpcontour.detections import Detections
from sharpcontour.host import RefinerInputs, Target, at_least_one_pixel


@dataclass
class Encoded:
    """A batch as instances from elsewhere need it: pyramid, the box tower's features of every level, image sizes."""

    pyramid: dict[str, Tensor]
    towers: list[Tensor]
    sizes: list[tuple[int, int]]


@dataclass
class Places:
    """K locations of a detector's grid.

    Attributes:
        grid: all locations of an image.
        location: (K,) int64, index into it.
    """

    grid: Grid
    location: Tensor

    @property
    def points(self) -> Tensor:
        """The points x, y of the locations, (K, 2) in network-input pixels."""
        return self.grid.points[self.location]

    @property
    def level(self) -> Tensor:
        """The pyramid level of each location, (K,) int64, 0 for the finest."""
        return self.grid.level[self.location]


class FCOSHost(HostBase):
    """A detector and something that gives its instances their shape, on one pyramid and trained together.

    The refiner steers each instance's classifier by the box tower's features around the instance's location (section
    3.3). Its training instances are the detector's positive locations.

    Args:
        config: has ``backbone`` and ``fcos``.
        num_classes: of the data set.
        fine: the level that the refiner reads, the highest-resolution one (section 3.2): "p2", or of a pyramid without
            it "p3" or "c2".
        context: a coarser level that it reads along with it.
    """

    detector_levels: ClassVar = ("p3", "p4", "p5", "p6", "p7")

    def __init__(
        self, config: Any, num_classes: int, fine: Literal["p2", "p3", "c2"] = "p2", context: str | None = None
    ) -> None:
        super().__init__(config.backbone)
        self.config = config
        self.backbone = Backbone(config.backbone, finest="p2" if fine == "p2" else "p3")
        channels = config.backbone.fpn_channels
        strides = [Backbone.strides[level] for level in self.detector_levels]
        self.detector = FCOS(config.fcos, num_classes, channels, strides)
        self._fine, self._context = fine, context
        self.fine_channels = self.backbone.channels(fine)
        self.context_channels = 0 if context is None else self.backbone.channels(context)
        self.controller_shape = (channels, 3, 3)

    def centres(self, targets: Sequence[Target]) -> list[Tensor]:
        """For each image the points (N, 2) around which locations learn its objects."""
        return [(target["boxes"][:, :2] + target["boxes"][:, 2:]) / 2 for target in targets]

    def shape_losses(
        self, pyramid: dict[str, Tensor], targets: Sequence[Target], inputs: RefinerInputs, places: Places
    ) -> dict[str, Tensor]:
        """The weighted losses other than the detector's; ``inputs`` and ``places`` are of the K training instances."""
        raise NotImplementedError

    def shapes(
        self, pyramid: dict[str, Tensor], found: FCOSDetections, inputs: RefinerInputs, places: Places
    ) -> Contours | LazyMasks:
        """The outlines of K detections."""
        raise NotImplementedError

    def losses(self, images: list[Tensor], targets: Sequence[Target]) -> tuple[dict[str, Tensor], RefinerInputs]:
        """Detector and shape losses; instances are the detector's positive locations."""
        pyramid, sizes = self._look(images)
        found, matched = self._matched(pyramid, targets)
        losses = self.detector.losses(found, targets, matched)
        inputs, places = self._positives(pyramid, found, targets, matched, sizes)
        losses.update(self.shape_losses(pyramid, targets, inputs, places))
        return losses, inputs

    def training_instances(self, images: list[Tensor], targets: Sequence[Target]) -> RefinerInputs:
        """The training instances for the refiner: the detector's positive locations."""
        pyramid, sizes = self._look(images)
        found, matched = self._matched(pyramid, targets)
        return self._positives(pyramid, found, targets, matched, sizes)[0]

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> tuple[list[Detections], RefinerInputs]:
        """Detections with the shapes as the host leaves them; these may reach beyond the image."""
        pyramid, sizes = self._look(images)
        predictions = self._predict(pyramid)
        found = self.detector.detect(predictions, sizes)
        places = Places(predictions.grid, found.location)
        boxes = at_least_one_pixel(found.boxes, image_limits(sizes, found.boxes.device)[found.image_index])
        inputs = self._inputs(pyramid, predictions.towers, sizes, boxes, found.image_index, places)
        shapes = self.shapes(pyramid, found, inputs, places)
        if isinstance(shapes, Contours):
            inputs.contours = shapes
        else:
            inputs.soft_masks = shapes
        outlines = shapes.rings() if isinstance(shapes, Contours) else shapes
        return per_image(found.clipped, found.scores, found.labels, outlines, found.counts, sizes), inputs

    def encode(self, images: list[Tensor]) -> Encoded:
        """The pyramid and the box towers: all that instances from elsewhere are described by."""
        pyramid, sizes = self._look(images)
        return Encoded(
            pyramid, [self.detector.head.bbox_tower(pyramid[level]) for level in self.detector_levels], sizes
        )

    def describe(self, encoded: Encoded, boxes: list[Tensor]) -> RefinerInputs:
        """Instances for the refiner, each by the box tower's features at the location responsible for its box."""
        towers = encoded.towers
        shapes = [(int(tower.shape[2]), int(tower.shape[3])) for tower in towers]
        grid = Grid.build(shapes, self.detector.strides, towers[0].device)
        image_index = image_indices([len(part) for part in boxes], towers[0].device)
        together = torch.cat(boxes).to(towers[0].device, non_blocking=True)
        places = Places(grid, responsible(grid, together, self.detector.bounds))
        return self._inputs(encoded.pyramid, towers, encoded.sizes, together, image_index, places)

    def _look(self, images: list[Tensor]) -> tuple[dict[str, Tensor], list[tuple[int, int]]]:
        batch, sizes = self.batch(images)
        return self.backbone(batch), sizes

    def _predict(self, pyramid: dict[str, Tensor]) -> Predictions:
        return self.detector([pyramid[level] for level in self.detector_levels])

    def _matched(self, pyramid: dict[str, Tensor], targets: Sequence[Target]) -> tuple[Predictions, Tensor]:
        """What the detector predicts, and the object of every location."""
        found = self._predict(pyramid)
        return found, self.detector.assign(found.grid, targets, self.centres(targets))

    def _positives(
        self,
        pyramid: dict[str, Tensor],
        found: Predictions,
        targets: Sequence[Target],
        matched: Tensor,
        sizes: list[tuple[int, int]],
    ) -> tuple[RefinerInputs, Places]:
        positives = self.detector.positives(found, targets, matched, sizes)
        places = Places(found.grid, positives.location)
        inputs = self._inputs(pyramid, found.towers, sizes, positives.boxes, positives.image_index, places)
        inputs.target_index = positives.target_index
        return inputs, places

    def _inputs(
        self,
        pyramid: dict[str, Tensor],
        towers: list[Tensor],
        sizes: list[tuple[int, int]],
        boxes: Tensor,
        image_index: Tensor,
        places: Places,
    ) -> RefinerInputs:
        return RefinerInputs(
            fine=pyramid[self._fine],
            stride=Backbone.strides[self._fine],
            boxes=boxes,
            image_index=image_index,
            feats=neighbourhoods(towers, places.grid, image_index, places.location),
            image_sizes=sizes,
            context=None if self._context is None else pyramid[self._context],
        )
