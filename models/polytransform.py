"""PolyTransform, the first contour-based refiner (paper [20]), as a compact rival behind SharpContour's interface.

A transformer looks at all vertices of a ring together, each described by its feature and its place in the box, and
predicts all their offsets at once. It learns from the contours of a finished host on its training images; the host
stays as it is. The loss is the Chamfer distance between contour and outline plus the standard deviation of the edges'
lengths, so no vertex needs a partner.

What is ours: it reads the host's own feature map, as SharpContour does; ``transformer.crop`` gives it a network of its
own on an enlarged crop of each instance, as the original has it. The contours are SharpContour's, N vertices evenly
spaced, where the original has one every ten pixels or so. No code of it was published, and its paper was not at hand:
depth and width of the transformer, the network of the crops and their margin, the weight of the edges' spread, the unit
of offsets and the optimizer are our choice.

Shapes: K instances, R rings of them, N vertices, S boundary samples of an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou, roi_align

from models.backbone import Backbone, small_body
from sharpcontour.config import ClassifierConfig, SharpContourConfig, TransformerConfig
from sharpcontour.errors import InputError
from sharpcontour.evolution import Evolution
from sharpcontour.host import RefinerInputs, Target
from sharpcontour.ipc import feature_encoder, relative_places
from sharpcontour.refiner import SharpContour
from sharpcontour.regression import offset_unit
from sharpcontour.sampling import sample_features

MIN_IOU = 0.5  # of a detection's box with an object's, to be learned from
CROP_STEP = 32  # px, of the crops' network
CROP_MARGIN = 0.1  # of the box's width and height, on every side of a crop
PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB, of its images
INSTANCES = 80  # that a process learns from in a step at most, drawn at random


class PolyTransform(SharpContour):
    """The refiner that moves all vertices of a ring at once, by offsets that a transformer predicts.

    Args:
        config: ``classifier.output`` is "polygon", and ``train_host`` is off.
        fine_channels: channels of the host's highest-resolution feature map.
        controller_shape: (C, h, w) of the host's instance features, which it does not read.
        context_channels: channels of the coarser map that comes along with the fine one; 0: none does.

    Raises:
        InputError: where the host is to be trained with it, and where the transformer's sizes do not go together.
    """

    outputs: ClassVar[tuple[str, ...]] = ("polygon",)
    asks: ClassVar[tuple[str, ...]] = ("describe", "forward")

    def __init__(
        self,
        config: SharpContourConfig,
        fine_channels: int,
        controller_shape: tuple[int, int, int],
        context_channels: int = 0,
    ) -> None:
        if config.train_host:
            raise InputError(
                "PolyTransform learns from the contours of a finished host: train the host first, then add "
                "--set sharpcontour.train_host=false train.init_from=RUN"
            )
        sizes = config.transformer
        if sizes.crop < 0 or sizes.crop % CROP_STEP:
            raise InputError(f"sharpcontour.transformer.crop={sizes.crop} must be a multiple of {CROP_STEP}, or 0")
        if sizes.width % sizes.heads:
            raise InputError(
                f"sharpcontour.transformer.width={sizes.width} must be a multiple of its heads, {sizes.heads}"
            )
        network: Any = partial(VertexTransformer, transformer=config.transformer)
        super().__init__(config, fine_channels, controller_shape, context_channels, classifier=network)

    @property
    def loss_weight(self) -> float:
        """The weight of the loss, which takes the place of mu in eq. (3)."""
        return 1.0

    def training_instances(self, host: Any, images: list[Tensor], targets: Sequence[Target]) -> RefinerInputs:
        """The host's own detections on training images, with their contours, where they have found an object."""
        _, inputs = host.detect(images)
        return matched(replace(inputs, contours=self.initial_contours(inputs), images=images), targets)

    def loss(self, inputs: RefinerInputs, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The loss of a batch of contours, as "loss_ipc", the name of a refiner's loss.

        Args:
            inputs: of the training instances, ``contours`` and ``target_index`` set.
            targets: of each image: "boundary" (G, S, 4), in network-input pixels.
        """
        contours = inputs.contours
        assert contours is not None and inputs.target_index is not None
        if len(contours.vertices) == 0:
            return {"loss_ipc": self._nothing(inputs)}
        boundary = torch.cat([target["boundary"] for target in targets])[inputs.target_index, :, :2]
        end = self.refine(inputs).steps[-1]
        unit = offset_unit(self.config, inputs.areas()[contours.instance])[:, None, None]
        wanted = boundary[contours.instance] / unit
        loss = polygon_loss(end / unit, contours.instance, wanted, len(inputs.boxes), self.config.transformer.spread)
        return {"loss_ipc": loss}

    def move(self, inputs: RefinerInputs, vertices: Tensor, hole: Tensor, area: Tensor, limits: Tensor) -> Evolution:
        """Move R rings by the offsets that the transformer predicts for their vertices, once.

        Args:
            inputs: of the instances, ``contours`` set.
            vertices: (R, N, 2) initial contours, x, y in network-input pixels.
            hole: (R,) bool, which rings bound a hole.
            area: (R,) A, the area of each instance's box in square pixels.
            limits: (R, 2) width and height of each ring's image before padding.
        """
        assert inputs.contours is not None
        offsets = self.classifier(self.classifier.describe(inputs), inputs.contours.instance, vertices)
        end = vertices + offsets * offset_unit(self.config, area)[:, None, None]
        return Evolution([vertices, end.clamp(min=0).minimum(limits[:, None])])


@dataclass
class Scene:
    """What the transformer knows beside the vertices: the feature maps, and of K instances boxes and places there.

    Attributes:
        fine: (B, C, H/s, W/s) maps of the images, or (K, C, h/s, w/s) of the instances' windows.
        stride: s.
        boxes: (K, 4) xyxy in network-input pixels.
        index: (K,) int64, the map of each instance.
        origin, scale: (K, 1, 2), from network-input pixels to those of the maps: (x - origin) * scale.
    """

    fine: Tensor
    stride: int
    boxes: Tensor
    index: Tensor
    origin: Tensor
    scale: Tensor


class CropNetwork(nn.Module):
    """A network of the refiner's own, a narrow ResNet-18 with a pyramid, on an enlarged crop of each instance.

    Args:
        side: px, height and width that crops are resized to.
        channels: of its map.
    """

    stride = 4

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        self.side = side
        self.backbone = Backbone(replace(small_body(), fpn_channels=channels), "pool")
        for block in self.backbone.fpn.layer_blocks[1:]:  # of levels that nothing reads
            block.requires_grad_(False)

    def forward(self, images: list[Tensor], boxes: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """The maps (K, channels, side / 4, side / 4) of K instances, and the windows (K, 4) xyxy that they show.

        Args:
            images: (3, H, W), 0 to 255.
            boxes: (K, 4) xyxy in their pixels.
            image_index: (K,) int64.
        """
        if len(boxes) == 0:  # a map that nobody reads: without any, nothing can be looked up
            side = self.side // self.stride
            return boxes.new_zeros(1, self.backbone.pyramid_channels, side, side), boxes
        margin = CROP_MARGIN * (boxes[:, 2:] - boxes[:, :2])
        windows = torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], 1)
        crops = windows.new_zeros(len(windows), 3, self.side, self.side)
        mean, std = (crops.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
        for i, image in enumerate(images):
            own = image_index == i
            normalised = (image.to(windows) - mean) / std  # beside the image is 0, as in a host's padding
            crops[own] = roi_align(normalised[None], [windows[own]], self.side, aligned=True)
        return self.backbone(crops)["p2"], windows


class VertexTransformer(nn.Module):
    """Vertices of a ring, each with its feature and its place in the box -> their offsets.

    Args:
        config: of the feature alone.
        fine_channels: channels of the host's highest-resolution feature map.
        controller_shape: of the host's instance features, which are not read.
        context_channels: channels of the coarser map that comes along with the fine one; 0: none does.
        transformer: sizes.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        fine_channels: int,
        controller_shape: tuple[int, int, int],
        context_channels: int = 0,
        *,
        transformer: TransformerConfig,
    ) -> None:
        super().__init__()
        width = transformer.width
        self.crop = transformer.crop
        self.encoder: Any = (
            CropNetwork(transformer.crop, width)
            if transformer.crop
            else feature_encoder(fine_channels, context_channels, width)
        )
        self.enter = nn.Linear(width + 2, width)
        layer = nn.TransformerEncoderLayer(
            width, transformer.heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, transformer.layers, enable_nested_tensor=False)
        self.predict = nn.Linear(width, 2)
        nn.init.zeros_(self.predict.weight)  # contours begin by staying
        nn.init.zeros_(self.predict.bias)

    def describe(self, inputs: RefinerInputs) -> Scene:
        """The feature maps, and where the instances are on them."""
        boxes = inputs.boxes
        if not self.crop:
            as_it_is = boxes.new_zeros(len(boxes), 1, 2), boxes.new_ones(len(boxes), 1, 2)
            return Scene(self.encoder(*inputs.maps()), inputs.stride, boxes, inputs.image_index, *as_it_is)
        assert inputs.images is not None
        fine, windows = self.encoder(inputs.images, boxes, inputs.image_index)
        origin, size = windows[:, None, :2], (windows[:, 2:] - windows[:, :2])[:, None]
        every = torch.arange(len(boxes), device=boxes.device)
        return Scene(fine, CropNetwork.stride, boxes, every, origin, self.crop / size.clamp(min=1e-6))

    def forward(self, described: Scene, instance: Tensor, points: Tensor) -> Tensor:
        """Offsets (R, N, 2) of vertices, in units.

        Args:
            described: from :meth:`describe`.
            instance: (R,) int64, the instance of each ring.
            points: (R, N, 2) x, y in network-input pixels.
        """
        own = (points - described.origin[instance]) * described.scale[instance]
        f = sample_features(described.fine.float(), described.stride, described.index[instance], own)
        c = relative_places(points, described.boxes[instance])
        with torch.autocast(points.device.type, enabled=False):  # rounded places would be a tenth of a pixel off
            x = self.enter(torch.cat([f.transpose(1, 2), c], 2))
        return self.predict(self.layers(x)).float()


def polygon_loss(found: Tensor, instance: Tensor, wanted: Tensor, instances: int, spread: float) -> Tensor:
    """Chamfer distance between contours and outlines, plus the uneven spacing of the vertices.

    Args:
        found: (R, N, 2) contours, in units.
        instance: (R,) int64, whose ring each is.
        wanted: (R, S, 2) points on the outline of each ring's object, in units.
        instances: K.
        spread: weight of the standard deviation of the edges' lengths.
    """
    following = found.roll(-1, 1)
    along = torch.cat([found, (found + following) / 2], 1)  # vertices, and the middles of the edges
    distance = torch.cdist(along, wanted, compute_mode="donot_use_mm_for_euclid_dist")
    there = distance.amin(2).mean()
    # A point of the outline belongs to whichever ring of the instance is nearest.
    nearest = distance.amin(1)
    back = nearest.new_full((instances, wanted.shape[1]), torch.inf)
    back = back.scatter_reduce(0, instance[:, None].expand_as(nearest), nearest, "amin")
    has_rings = torch.zeros(instances, dtype=torch.bool, device=found.device).index_fill(0, instance, True)
    length = (following - found).norm(dim=2)
    return there + back[has_rings].mean() + spread * length.std(1).mean()


def matched(inputs: RefinerInputs, targets: Sequence[Target]) -> RefinerInputs:
    """The instances whose box overlaps an object's by :data:`MIN_IOU`, and that object as ``target_index``.

    Args:
        inputs: of K detections, with contours.
        targets: of each image: "boxes" (G_i, 4), in network-input pixels.
    """
    counts = torch.tensor([len(target["boxes"]) for target in targets], device=inputs.boxes.device)
    image = torch.repeat_interleave(torch.arange(len(targets), device=inputs.boxes.device), counts)
    iou = box_iou(inputs.boxes, torch.cat([target["boxes"] for target in targets]).to(inputs.boxes))
    iou = iou * (inputs.image_index[:, None] == image)
    best, target_index = iou.max(1) if iou.shape[1] else (iou.new_zeros(len(iou)), inputs.image_index)
    usable = (best > MIN_IOU).nonzero()[:, 0]
    if len(usable) > INSTANCES:  # with all their rings: together these have to cover the outline
        usable = usable[torch.randperm(len(usable), device=usable.device)[:INSTANCES]].sort().values
    return replace(inputs, target_index=target_index).select(usable)
