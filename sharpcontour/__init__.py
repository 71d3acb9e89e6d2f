"""SharpContour: contour-based boundary refinement for any instance segmentation model (CVPR 2022).

Reading order, along section 3 of the paper: ``evolution`` (3.1, eq. 1), ``ipc`` (3.2, phi) with ``sampling``,
``refiner`` (3.3) with ``host`` and ``contours.tracing`` (initial contours of masks), ``points`` and ``loss`` (3.4,
eq. 2), ``refined_model`` (3.4, eq. 3). ``config`` has every setting with its value. Masks of anything on a photograph
are refined by ``load_refiner().refine(image, masks)``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharpcontour.anymask.refiner import MaskRefiner, load_refiner
    from sharpcontour.config import SharpContourConfig
    from sharpcontour.contours.types import Contours, Rings
    from sharpcontour.detections import Detections
    from sharpcontour.errors import InputError
    from sharpcontour.host import RefinerInputs
    from sharpcontour.masks.packed import PackedMasks
    from sharpcontour.refined_model import RefinedModel, build_refiner
    from sharpcontour.refiner import SharpContour

__version__ = "0.2.0"

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

# Whatever is imported from this package runs this file first, a command's --help too: torch must not come with it.
_MODULES = {
    "Contours": "contours.types",
    "Detections": "detections",
    "InputError": "errors",
    "MaskRefiner": "anymask.refiner",
    "PackedMasks": "masks.packed",
    "RefinedModel": "refined_model",
    "RefinerInputs": "host",
    "Rings": "contours.types",
    "SharpContour": "refiner",
    "SharpContourConfig": "config",
    "build_refiner": "refined_model",
    "load_refiner": "anymask.refiner",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The public names beside those that are there already."""
    return sorted({*globals(), *__all__})
