"""AnyMask in training: the network of ``sharpcontour/anymask/``, which learns from masks made worse."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from models.anymask.targets import build_targets
from sharpcontour.anymask.host import MaskHost
from sharpcontour.anymask.network import AnyMaskConfig
from sharpcontour.host import TargetBuilder


class AnyMask(MaskHost):
    """A host for masks of any class and any origin; it is trained on crops around objects (``data.object_crop``)."""

    title = "AnyMask"
    config_type = AnyMaskConfig
    finds: ClassVar[bool] = False
    base_lr: ClassVar[float] = 0.01
    keep_empty: ClassVar[bool] = False

    @staticmethod
    def small() -> AnyMaskConfig:
        """AnyMask for the built-in shapes."""
        return AnyMaskConfig(width=16, pyramid=32, window=(16, 32, 48))

    @property
    def target_builder(self) -> TargetBuilder:
        """Adds worse versions of the objects' masks, as somebody might give them; see ``data/degrade.py``."""
        return partial(build_targets, count=self.config.masks_per_image)
