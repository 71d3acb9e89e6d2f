"""AnyMask: a host that detects nothing and is given masks, to be refined whatever made them."""

from models.anymask.model import AnyMask
from sharpcontour.anymask.network import AnyMaskConfig

__all__ = ["AnyMask", "AnyMaskConfig"]
