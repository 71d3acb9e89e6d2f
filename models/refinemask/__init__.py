"""RefineMask on Mask R-CNN (Zhang et al., CVPR 2021): masks in four stages, finer and finer, near their boundaries."""

from models.refinemask.config import RefineMaskConfig
from models.refinemask.model import RefineMask

__all__ = ["RefineMask", "RefineMaskConfig"]
