"""A host with the refiner behind it: joint training by eq. (3), and refined detections (sections 3.3 and 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sharpcontour.config import SharpContourConfig
from sharpcontour.contours.carry import carried_back
from sharpcontour.contours.harmless import keep_coarse, suspects
from sharpcontour.contours.types import Rings
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.evolution import Evolution
from sharpcontour.host import Host, RefinerInputs, Target, TargetBuilder
from sharpcontour.io.device import to_cpu
from sharpcontour.points import boundary_samples
from sharpcontour.refiner import SharpContour
from sharpcontour.regression import OffsetRegression
from sharpcontour.statistics import EvolutionStatistics

BOUNDARY_SAMPLES = 256  # per object, drawn in the loader; training points pick among them


def build_refiner(config: SharpContourConfig, host: Host, others: Sequence[type[SharpContour]] = ()) -> SharpContour:
    """The paper's refiner that ``config`` asks for, made for a host: SharpContour, or the regression of Table 9.

    Args:
        config: ``classifier.output`` says which.
        host: whose features it reads.
        others: further refiners, each with the ``outputs`` that it is for.

    Raises:
        InputError: where none of them is for that output.
    """
    refiners: list[type[SharpContour]] = [SharpContour, OffsetRegression, *others]
    kinds = {output: kind for kind in refiners for output in kind.outputs}
    if (output := config.classifier.output) not in kinds:
        raise InputError(f"classifier.output={output!r} means nothing here; choose {', '.join(sorted(kinds))}")
    return kinds[output](config, host.fine_channels, host.controller_shape, host.context_channels)


class RefinedModel(nn.Module):
    """A host with SharpContour behind it; called like the host itself.

    Joint training minimises L = L_s + mu L_IPC (eq. 3), L_s being the host's own losses: :meth:`forward` gives the
    terms, :func:`~sharpcontour.loss.total_loss` adds them. With ``config.train_host`` off the host stays as it is,
    normalisation statistics included, and only the refiner learns ("training alone", Table 3).

    Args:
        host: a :class:`~sharpcontour.host.Host`.
        refiner: made for it, see :func:`build_refiner`.

    Attributes:
        statistics: of all evolutions; :meth:`EvolutionStatistics.summary` says what is in them.
    """

    def __init__(self, host: nn.Module, refiner: SharpContour) -> None:
        super().__init__()
        self.host: Any = host
        self.refiner = refiner
        self.statistics = EvolutionStatistics()
        if not refiner.config.train_host:
            self.host.requires_grad_(False)

    def train(self, mode: bool = True) -> RefinedModel:
        super().train(mode)
        if not self.refiner.config.train_host:
            self.host.eval()
        return self

    @property
    def target_builder(self) -> TargetBuilder:
        """What a loader worker adds to every training target."""
        return partial(_build_target, self.host.target_builder)

    def forward(self, images: list[Tensor], targets: Sequence[Target] | None = None) -> Any:
        """With targets the losses by name (training), without them one :class:`Detections` an image."""
        if targets is None:
            return self.detect(images)
        if self.refiner.config.train_host:
            losses, inputs = self._asked("losses", images, targets)
            if losses and not any(name.startswith("loss") for name in losses):
                raise InputError(
                    f"the losses of {type(self.host).__name__} are called {', '.join(losses)}: only what has a name "
                    'that begins with "loss" is learned from'
                )
        else:
            with torch.no_grad():
                losses, inputs = {}, self.refiner.training_instances(self.host, images, targets)
        inputs.check(self.host)
        ours = self.refiner.loss(inputs, targets)
        # Eq. (3), L = L_s + mu L_IPC: ``losses`` are L_s in parts, "loss_ipc" is mu L_IPC. The sum of all that is named
        # "loss..." is formed by loss.total_loss.
        return {**losses, **ours, "loss_ipc": self.refiner.loss_weight * ours["loss_ipc"]}

    @torch.no_grad()
    def detect(self, images: list[Tensor], trace: bool = False) -> list[Detections]:
        """Refined detections, ``coarse`` set to the host's own; with ``trace`` the contour of every iteration too."""
        found, inputs = self._asked("detect", images)
        inputs.check(self.host)
        inputs = replace(inputs, contours=self.refiner.initial_contours(inputs), images=images)
        course = self.refiner.refine(inputs)
        objects, _ = self.finish(inputs, course)
        assert inputs.contours is not None
        steps = [replace(inputs.contours, vertices=step).rings() for step in course.steps] if trace else None
        return _attach(found, objects, steps)

    def _asked(self, method: str, *args: Any) -> tuple[Any, RefinerInputs]:
        """What a method of the host returns, whose second part is for the refiner."""
        answer = getattr(self.host, method)(*args)
        if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], RefinerInputs):
            raise InputError(
                f"{type(self.host).__name__}.{method} must return two things, the second of them RefinerInputs"
            )
        return answer

    def finish(self, inputs: RefinerInputs, course: Evolution) -> tuple[list[Rings], list[int]]:
        """The K objects after the evolution, or before it where it did harm; and the indices of those it harmed."""
        contours = inputs.contours
        assert contours is not None
        min_iou, end = self.refiner.config.evolution.min_iou, course.steps[-1]
        doubtful = suspects(contours, end, len(inputs.boxes), min_iou)
        vertices, instance, end, image_index, doubtful = to_cpu(
            contours.vertices, contours.instance, end, inputs.image_index, doubtful
        )
        contours = replace(contours, vertices=vertices, instance=instance)
        if contours.outlines:
            coarse, objects = carried_back(contours, end, self.refiner.config.tracing.min_move)
        else:
            coarse, objects = contours.rings(), replace(contours, vertices=end).rings()
        sizes = [inputs.image_sizes[i] for i in image_index.tolist()]
        restored = keep_coarse(coarse, objects, sizes, doubtful.nonzero()[:, 0].tolist(), min_iou)
        self.statistics.add(course, restored)
        return objects, restored


def _build_target(host_builder: TargetBuilder, target: Target, rng: np.random.Generator) -> Target:
    if not all(target["rings"]):
        raise InputError(
            f"image {target['image_id']}: an object without an outline; leave such objects out of the targets"
        )
    boundary = torch.from_numpy(boundary_samples(target["rings"], BOUNDARY_SAMPLES, rng))
    return {**host_builder(target, rng), "boundary": boundary}


def _attach(found: list[Detections], objects: list[Rings], steps: list[list[Rings]] | None) -> list[Detections]:
    """Split the K objects of the batch among the images, in the order of the host's detections."""
    if (count := sum(map(len, found))) != len(objects):
        raise InputError(
            f"the host's detect gave {count} detections and {len(objects)} instances for the refiner; give the same "
            "instances in both, in the same order"
        )
    refined, begin = [], 0
    for coarse in found:
        part = slice(begin, begin + len(coarse))
        begin += len(coarse)
        own = None if steps is None else [step[part] for step in steps]
        refined.append(coarse.refined(objects[part], own))
    return refined
