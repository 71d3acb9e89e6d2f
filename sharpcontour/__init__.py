"""SharpContour: contour-based boundary refinement for any instance segmentation model (CVPR 2022).

Reading order, along section 3 of the paper: ``config`` (every choice), ``tracing`` (mask -> contour), ``evolution``
(3.1, eq. 1) with ``geometry``, ``ipc`` (3.2), ``points`` and ``loss`` (3.4, eq. 2), ``refiner`` (3.3, eq. 3). Around
it: ``interface`` (what a host hands over), ``rasterize`` (contour -> run lengths), ``harmless``, ``statistics``.
"""

from sharpcontour.config import SharpContourConfig
from sharpcontour.contours.types import Contours, Rings
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.host import RefinerInputs
from sharpcontour.masks.packed import PackedMasks
from sharpcontour.refined_model import RefinedModel
from sharpcontour.refiner import SharpContour

__all__ = [
    "Contours",
    "Detections",
    "InputError",
    "PackedMasks",
    "RefinedModel",
    "RefinerInputs",
    "Rings",
    "SharpContour",
    "SharpContourConfig",
]
