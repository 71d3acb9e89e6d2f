"""Section 3.3: SharpContour as one module, the point classifier and the evolution that asks it.

The host hands over :class:`~sharpcontour.host.RefinerInputs` and knows nothing of the refiner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sharpcontour.config import SharpContourConfig
from sharpcontour.contours.geometry import resample
from sharpcontour.contours.tracing import contours_from_masks
from sharpcontour.contours.types import Contours
from sharpcontour.errors import InputError
from sharpcontour.evolution import Evolution, EvolutionRule, evolve
from sharpcontour.host import Host, RefinerInputs, Target
from sharpcontour.ipc import PointClassifier, PointClassifierLike
from sharpcontour.loss import ipc_loss
from sharpcontour.masks.packed import PackedMasks
from sharpcontour.points import sample_points

CARRY_BACK = (
    "sharpcontour.tracing.carry_back needs vertices that keep their places along the outline: leave out "
    "sharpcontour.evolution.resample_iterations"
)
MIN_GAIN = (
    "sharpcontour.evolution.min_gain takes vertices back to where they were: leave out "
    "sharpcontour.evolution.resample_iterations, after which vertices are others"
)
PAPERS_RULE: EvolutionRule = evolve


class SharpContour(nn.Module):
    """The point classifier phi and the evolution of contours by its verdicts.

    Args:
        config: all choices of the method.
        fine_channels: channels of the host's highest-resolution feature map.
        controller_shape: (C, h, w) of the instance features that the controller reads.
        context_channels: channels of the coarser map that comes along with the fine one; 0: none does.
        classifier: makes phi, a :class:`~sharpcontour.ipc.PointClassifierLike`, of the four arguments above, the first
            one's ``classifier``.
        evolve: moves contours by its verdicts; called like :func:`sharpcontour.evolution.evolve`.

    Raises:
        InputError: where ``config.classifier.output`` is of another refiner, for settings that exclude each other, and
            for a classifier that lacks a method.
    """

    outputs: ClassVar[tuple[str, ...]] = ("phi",)  # values of classifier.output that this refiner is made for
    asks: ClassVar[tuple[str, ...]] = ("describe", "forward", "unused")  # methods that the classifier must have

    def __init__(
        self,
        config: SharpContourConfig,
        fine_channels: int,
        controller_shape: tuple[int, int, int],
        context_channels: int = 0,
        classifier: Callable[..., PointClassifierLike] = PointClassifier,
        evolve: EvolutionRule = evolve,
    ) -> None:
        super().__init__()
        if config.classifier.output not in self.outputs:
            raise InputError(
                f"{type(self).__name__} has no classifier.output={config.classifier.output}; it has {self.outputs}"
            )
        if config.points.sigma == 0 and config.classifier.output != "phi":
            raise InputError("sharpcontour.points.sigma=0: offsets are told in units of it; set it above 0")
        if config.tracing.carry_back and config.evolution.resample_iterations:
            raise InputError(CARRY_BACK)
        if config.evolution.min_gain and config.evolution.resample_iterations:
            raise InputError(MIN_GAIN)
        if evolve is not PAPERS_RULE and type(self).move is not SharpContour.move:
            raise InputError(
                f"{type(self).__name__} moves contours by itself and follows no evolution rule; leave it out"
            )
        self.config = config
        self.classifier: Any = classifier(config.classifier, fine_channels, controller_shape, context_channels)
        if missing := [name for name in self.asks if not callable(getattr(self.classifier, name, None))]:
            raise InputError(f"{type(self.classifier).__name__} has no method {missing[0]}, which the refiner calls")
        self.evolve = evolve

    @property
    def loss_weight(self) -> float:
        """The weight mu of L_IPC in eq. (3)."""
        return self.config.loss.weight

    def training_instances(self, host: Host, images: list[Tensor], targets: Sequence[Target]) -> RefinerInputs:
        """What is learned from where the host stays as it is: its own training instances."""
        return host.training_instances(images, targets)

    def loss(self, inputs: RefinerInputs, targets: Sequence[Target]) -> dict[str, Tensor]:
        """L_IPC (eq. 2) as "loss_ipc", not yet weighted, and for the log what :meth:`point_loss` tells.

        Args:
            inputs: of the training instances, ``target_index`` set.
            targets: of each image: "boxes" (G, 4), "masks" and "boundary" (G, S, 4), in network-input pixels; with
                ``config.points.given`` also "given_boundary" (M, S', 4), from
                :func:`~sharpcontour.points.boundary_samples`, of the contours of its M training instances.
        """
        if inputs.target_index is None:
            raise InputError("the host gave training instances without target_index, the object that each is to become")
        if len(inputs.boxes) == 0:
            return {"loss_ipc": self._nothing(inputs)}
        if not all("boundary" in target for target in targets):
            raise InputError("targets without 'boundary': build the data set with prepare=model.target_builder")
        boundary = torch.cat([target["boundary"] for target in targets])
        boxes = torch.cat([target["boxes"] for target in targets])
        masks = PackedMasks.cat([target["masks"] for target in targets])
        given = None
        if self.config.points.given:
            if "given_boundary" not in targets[0]:
                raise InputError(
                    "sharpcontour.points.given is for a host that is given contours, such as anymask; set it to 0"
                )
            given = torch.cat([target["given_boundary"] for target in targets])
        points, labels = sample_points(boundary, boxes, masks, inputs.target_index, self.config.points, given)
        near = boundary[inputs.target_index, :, :2]
        losses = self.point_loss(inputs, inputs.own(points), labels, inputs.own(near))
        losses["loss_ipc"] = losses["loss_ipc"] + 0.0 * self.classifier.unused()
        return losses

    def point_loss(self, inputs: RefinerInputs, points: Tensor, labels: Tensor, boundary: Tensor) -> dict[str, Tensor]:
        """The loss of K instances' training points, the accuracy of their labels and the sharpness of phi.

        Args:
            inputs: of the K instances.
            points: (K, Q, 2) in network-input pixels.
            labels: (K, Q), 1 outside and 0 inside.
            boundary: (K, S, 2) points on the boundary of each instance's object.
        """
        instance = torch.arange(len(points), device=points.device)
        logits = self.classifier(self.classifier.describe(inputs), instance, points)
        phi = logits.detach().sigmoid()
        return {
            "loss_ipc": ipc_loss(logits, labels, self.config.loss),
            "ipc_accuracy": ((phi > 0.5) == (labels > 0.5)).float().mean(),
            "ipc_sharpness": (phi - 0.5).abs().mean(),
        }

    def initial_contours(self, inputs: RefinerInputs) -> Contours:
        """C(0): the host's own contours, or those traced from its soft masks (section 3.3), on the CPU."""
        if inputs.contours is not None:
            return inputs.contours
        if inputs.soft_masks is None:
            raise InputError(
                "the host's detect gave instances without contours and without soft_masks; give one of them"
            )
        config = self.config
        masks, boxes = inputs.soft_masks.traceable()
        limits = np.array(inputs.image_sizes)[inputs.image_index.cpu().numpy(), ::-1]
        contours = contours_from_masks(masks, boxes, config.evolution.vertices, config.tracing, limits)
        return contours.to(inputs.boxes.device)

    def refine(self, inputs: RefinerInputs) -> Evolution:
        """Evolve the R contours that ``inputs.contours`` holds (section 3.1); nothing here waits for the device.

        Returns:
            The course of the evolution, in network-input pixels: ``steps[0]`` is C(0) and ``steps[-1]`` the refined
            contours, (R, N, 2) each, ring r belonging to instance ``inputs.contours.instance[r]``. Which of them are
            worse than C(0) and stay as they were, :meth:`~sharpcontour.refined_model.RefinedModel.finish` decides.
        """
        contours = inputs.contours
        assert contours is not None
        config, vertices = self.config.evolution, contours.vertices
        if contours.outlines and config.resample_iterations:
            raise InputError(CARRY_BACK)
        if config.min_gain and config.resample_iterations:
            raise InputError(MIN_GAIN)
        if config.resample_host and vertices.shape[1] != config.vertices:
            vertices = resample(vertices, config.vertices)
        heights_widths = torch.tensor(inputs.image_sizes, dtype=torch.float32).to(vertices.device, non_blocking=True)
        limits = heights_widths.flip(-1)[inputs.image_index[contours.instance]]
        return self.move(inputs, vertices, contours.hole, inputs.areas()[contours.instance], limits)

    def move(self, inputs: RefinerInputs, vertices: Tensor, hole: Tensor, area: Tensor, limits: Tensor) -> Evolution:
        """The evolution of R rings by the verdicts of phi (section 3.1).

        Args:
            inputs: of the instances, ``contours`` set.
            vertices: (R, N, 2) initial contours, x, y in network-input pixels.
            hole: (R,) bool, which rings bound a hole.
            area: (R,) A, the area of each instance's box in square pixels.
            limits: (R, 2) width and height of each ring's image before padding.
        """
        assert inputs.contours is not None
        described, instance = self.classifier.describe(inputs), inputs.contours.instance

        def classify(points: Tensor, rings: Tensor | None = None) -> Tensor:
            return self.classifier(described, instance if rings is None else instance[rings], points)

        return self.evolve(vertices, hole, area, limits, classify, self.config.evolution)

    def _nothing(self, inputs: RefinerInputs) -> Tensor:
        """0 for a batch without instances, with a gradient of 0: no process may wait for this one's gradients."""
        parts = [*inputs.maps(), inputs.feats, *self.parameters()]
        return 0.0 * torch.stack([part.float().sum() for part in parts]).sum()
