"""Section 3.3: SharpContour as one module, and how it joins a host.

The host hands over :class:`~sharpcontour.host.RefinerInputs` and knows nothing of the refiner.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sharpcontour.config import SharpContourConfig
from sharpcontour.contours.geometry import resample
from sharpcontour.contours.tracing import contours_from_masks
from sharpcontour.contours.types import Contours
from sharpcontour.evolution import Evolution, evolve
from sharpcontour.host import RefinerInputs
from sharpcontour.ipc import Controller, Fusion, dynamic_mlp, relative_places
from sharpcontour.loss import ipc_loss
from sharpcontour.masks.packed import PackedMasks
from sharpcontour.points import sample_points
from sharpcontour.regression import regress, regression_loss
from sharpcontour.sampling import sample_features

POINTS_AT_ONCE = 1 << 19  # classified together; 16 float32 features of so many points take 32 MiB


class SharpContour(nn.Module):
    """The 3x3 convolution, the boundary controller and the point classifier.

    Args:
        config: all choices of the method.
        fine_channels: channels of the host's highest-resolution feature map.
        controller_shape: (C, h, w) of the instance features that the controller reads.
        context_channels: channels of the coarser map that comes along with the fine one; 0: none does.
    """

    def __init__(
        self,
        config: SharpContourConfig,
        fine_channels: int,
        controller_shape: tuple[int, int, int],
        context_channels: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        channels = config.classifier.feature_channels
        # Paper silent on norm and activation: linear, since negative values are useful to the MLP that follows.
        self.encode: nn.Module = nn.Conv2d(fine_channels, channels, 3, padding=1)
        if context_channels:
            self.encode = Fusion(fine_channels, context_channels, channels)
        self.controller = Controller(config.classifier, controller_shape)

    def loss(self, inputs: RefinerInputs, targets: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """mu * L_IPC (eq. 3) and, for the log, the accuracy of the points and the sharpness of phi (no gradient).

        Args:
            inputs: of the training instances, ``target_index`` set.
            targets: of each image: "boxes" (G, 4), "masks" and "boundary" (G, S, 4), in network-input pixels.
        """
        assert inputs.target_index is not None
        fine, theta = self._features(inputs), self.controller(inputs.feats)
        idle = 0.0 * self.controller.unused()
        if len(inputs.boxes) == 0:  # touches every parameter: no process may wait for this one's gradients
            return {"loss_ipc": 0.0 * (fine.float().sum() + theta.float().sum()) + idle}
        boundary = torch.cat([target["boundary"] for target in targets])
        boxes = torch.cat([target["boxes"] for target in targets])
        masks = PackedMasks.cat([target["masks"] for target in targets])
        points, labels = sample_points(boundary, boxes, masks, inputs.target_index, self.config.points)
        found = self._evaluate(fine, theta, inputs, torch.arange(len(theta), device=theta.device), points)
        if self.config.classifier.output != "phi":
            samples, unit = boundary[inputs.target_index, :, :2], self.config.points.sigma * _area(inputs.boxes).sqrt()
            loss = regression_loss(found, points, labels, samples, unit)
            return {"loss_ipc": self.config.loss.regression_weight * loss + idle}
        phi = found[:, 0].detach().sigmoid()
        return {
            "loss_ipc": self.config.loss.weight * ipc_loss(found[:, 0], labels, self.config.loss) + idle,
            "ipc_accuracy": ((phi > 0.5) == (labels > 0.5)).float().mean(),
            "ipc_sharpness": (phi - 0.5).abs().mean(),
        }

    def initial_contours(self, inputs: RefinerInputs) -> Contours:
        """C(0): the host's own contours, or those traced from its soft masks (section 3.3), on the CPU."""
        if inputs.contours is not None:
            return inputs.contours
        assert inputs.soft_masks is not None
        config = self.config
        masks, boxes = inputs.soft_masks.traceable()
        limits = np.array(inputs.image_sizes)[inputs.image_index.cpu().numpy(), ::-1]
        contours = contours_from_masks(masks, boxes, config.evolution.vertices, config.tracing, limits)
        return contours.to(inputs.boxes.device)

    def refine(self, inputs: RefinerInputs) -> Evolution:
        """Evolve the host's contours; ``inputs.contours`` set. Nothing here waits for the device."""
        contours = inputs.contours
        assert contours is not None
        config, instance = self.config.evolution, contours.instance
        vertices = contours.vertices
        if config.resample_host and vertices.shape[1] != config.vertices:
            vertices = resample(vertices, config.vertices)
        fine, theta = self._features(inputs), self.controller(inputs.feats)
        boxes = inputs.boxes[instance]
        heights_widths = torch.tensor(inputs.image_sizes, dtype=torch.float32).to(vertices.device, non_blocking=True)
        limits = heights_widths.flip(-1)[inputs.image_index[instance]]
        start = vertices, contours.hole, _area(boxes), limits
        if self.config.classifier.output != "phi":
            return regress(*start, partial(self._evaluate, fine, theta, inputs, instance), self.config)
        return evolve(*start, partial(self._classify, fine, theta, inputs, instance), config)

    def logits(self, inputs: RefinerInputs, points: Tensor) -> Tensor:
        """Logits of phi at any points (R, Q, 2), row r belonging to ``inputs.contours.instance[r]``: (R, Q)."""
        assert inputs.contours is not None
        fine, theta = self._features(inputs), self.controller(inputs.feats)
        return self._classify(fine, theta, inputs, inputs.contours.instance, points)

    def _features(self, inputs: RefinerInputs) -> Tensor:
        """The map (B, 16, H/s, W/s) that fine-grained features are read from, one for all instances of an image."""
        return self.encode(inputs.fine) if inputs.context is None else self.encode(inputs.fine, inputs.context)

    def _classify(self, fine: Tensor, theta: Tensor, inputs: RefinerInputs, instance: Tensor, points: Tensor) -> Tensor:
        """Logits of phi at points (R, Q, 2), row r belonging to ``instance[r]``: (R, Q)."""
        return self._evaluate(fine, theta, inputs, instance, points)[:, 0]

    def _evaluate(self, fine: Tensor, theta: Tensor, inputs: RefinerInputs, instance: Tensor, points: Tensor) -> Tensor:
        """All outputs (R, O, Q) of the instances' MLPs at points; in float32 whatever autocast says."""
        rows = max(POINTS_AT_ONCE // max(points.shape[1], 1), 1)
        if len(points) > rows and not torch.is_grad_enabled():  # memory stays bounded for any number of contours
            parts = zip(instance.split(rows), points.split(rows), strict=True)
            return torch.cat([self._evaluate(fine, theta, inputs, i, p) for i, p in parts])
        with torch.autocast(fine.device.type, enabled=False):
            features = sample_features(fine.float(), inputs.stride, inputs.image_index[instance], points)
            places = relative_places(points, inputs.boxes[instance])
            return dynamic_mlp(theta.float()[instance], features, places, self.config.classifier)


def _area(boxes: Tensor) -> Tensor:
    """A of section 3.1, square pixels."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
