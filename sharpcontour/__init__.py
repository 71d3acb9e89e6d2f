"""SharpContour: contour-based boundary refinement for any instance segmentation model (CVPR 2022).

Reading order, along section 3 of the paper: ``evolution`` (3.1, eq. 1), ``ipc`` (3.2, phi) with ``sampling``,
``refiner`` (3.3) with ``host`` and ``contours.tracing`` (initial contours of masks), ``points`` and ``loss`` (3.4,
eq. 2), ``refined_model`` (3.4, eq. 3). ``config`` has every setting with its value. Masks of anything on a photograph
are refined by ``load_refiner().refine(image, masks)``.
"""

from sharpcontour.anymask.refiner import MaskRefiner, load_refiner
from sharpcontour.config import SharpContourConfig
from sharpcontour.contours.types import Contours, Rings
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.host import RefinerInputs
from sharpcontour.masks.packed import PackedMasks
from sharpcontour.refined_model import RefinedModel, build_refiner
from sharpcontour.refiner import SharpContour

__all__ = [
    "Contours",
    "Detections",
    "InputError",
    "MaskRefiner",
    "PackedMasks",
    "RefinedModel",
    "RefinerInputs",
    "Rings",
    "SharpContour",
    "SharpContourConfig",
    "build_refiner",
    "load_refiner",
]
