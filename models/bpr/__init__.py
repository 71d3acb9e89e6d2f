"""BPR, boundary patch refinement (Tang et al., CVPR 2021): the generic refiner that SharpContour is compared with."""

from models.bpr.model import BPR
from models.bpr.network import BPRConfig

__all__ = ["BPR", "BPRConfig"]
