"""DANCE: FCOS with a contour branch."""

from models.dance.config import DanceConfig
from models.dance.model import DANCE

__all__ = ["DANCE", "DanceConfig"]
