"""The refiner that comes with the package: an image and masks in, sharper masks out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from sharpcontour.anymask.foreign_masks import read_masks, valid_boxes
from sharpcontour.anymask.given_objects import GivenObjects
from sharpcontour.anymask.host import MaskHost
from sharpcontour.anymask.in_windows import refine_in_windows
from sharpcontour.anymask.network import AnyMaskConfig
from sharpcontour.anymask.zoom import refine_zoomed
from sharpcontour.config import SharpContourConfig
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.io.device import choose_device
from sharpcontour.io.files import write_whole
from sharpcontour.io.images import read_fitting, read_image
from sharpcontour.io.plain import from_dict, to_dict
from sharpcontour.io.weights import not_finite
from sharpcontour.refined_model import RefinedModel, build_refiner

WEIGHTS = Path(__file__).with_name("weights.pt")
FORMAT = 1
_AS_ARRAYS = ("1", "L", "RGB", "RGBA", "I", "I;16", "I;16B")  # modes of PIL whose values are understood as they are


class MaskRefinerLike(Protocol):
    """What refines given masks: a :class:`MaskRefiner`, or a trained model's predictor."""

    def refine(self, image: Any, masks: Any) -> Detections:
        """K masks on an image -> K refined instances in the same order, in pixels of the image."""


class MaskRefiner:
    """Refines masks of anything, made by anything, on photographs.

    Args:
        model: its host is a :class:`~sharpcontour.anymask.host.MaskHost`.
        about: how it was trained.
        zoom: whether large objects are looked at again, see :func:`sharpcontour.anymask.zoom.refine_zoomed`.

    Attributes:
        category_ids, class_names: of the classes that it tells apart: none.
    """

    category_ids: Sequence[int] = ()
    class_names: Sequence[str] = ()

    def __init__(self, model: RefinedModel, about: dict[str, Any] | None = None, zoom: bool = False) -> None:
        self.model, self.about, self.zoom = model.eval(), about or {}, zoom

    def refine(
        self, image: Any, masks: Any, boxes: Any = None, *, scores: Any = None, labels: Any = None
    ) -> Detections:
        """Refine K masks on one image.

        Args:
            image: a path, a PIL image, or an array: (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) gray, of uint8 or uint16.
                The photograph of a path is turned upright as its EXIF data say, unless the masks fit only its pixels
                as they are stored; a PIL image and an array are taken as they are.
            masks: (K, H, W) bool, a list of K masks, COCO RLEs or lists of COCO polygons, or a file of masks; see
                :func:`sharpcontour.anymask.foreign_masks.read_masks`.
            boxes: (K, 4) xyxy in pixels of the image, only handed on; without them those of the masks.
            scores: (K,), only handed on; without them 1.
            labels: (K,) integers, only handed on; without them 0.

        Returns:
            The same K instances in the same order, in pixels of the image; ``coarse`` as they were given. One that
            nothing moves keeps exactly its pixels; then ``rings[k] is coarse.rings[k]``.

        Raises:
            InputError: for an image that cannot be read, for masks and boxes that are broken or do not fit it, and for
                scores and labels that are not K numbers.
        """
        self.model.eval()  # a module that holds this one may have been set to training since
        pixels, given, coarse = read_given(image, masks, boxes, scores, labels)
        refine = refine_zoomed if self.zoom else refine_in_windows
        return coarse.refined(refine(self.model, pixels, given))


def load_refiner(path: str | Path | None = None, device: str | torch.device = "cpu", zoom: bool = False) -> MaskRefiner:
    """The trained refiner of the package, or one from another file of its kind.

    Args:
        path: of the file; None: the package's own.
        device: that it computes on; "auto" takes the first of cuda, mps and cpu that is there.
        zoom: whether objects whose longer side is about 250 pixels or more are looked at again, in tiles of 256 pixels
            along their outlines: finer and slower. The whole outline of one that this changes runs along the pixels'
            edges. It can be switched later, ``refiner.zoom = True``.

    Raises:
        InputError: where the file is missing, is none of its kind, or does not fit this version, and where the device
            is not there.
    """
    path = WEIGHTS if path is None else Path(path)
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder; give a file of weights, such as scripts/export.py makes of a run of anymask"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights; without one the package's own are taken")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path}: refused or damaged, no weights of this refiner ({type(error).__name__})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path}: no weights of this refiner, such as save_refiner writes")
    try:
        host: Any = MaskHost(from_dict(AnyMaskConfig, state["host"], "host."))
        refiner = build_refiner(from_dict(SharpContourConfig, state["sharpcontour"], "sharpcontour."), host)
        model = RefinedModel(host, refiner)
        model.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in state["model"].items()}
        )
    except (KeyError, TypeError, AttributeError, RuntimeError, InputError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: does not fit this version ({reason}); export it anew") from error
    return MaskRefiner(model.to(choose_device(device)), state.get("about"), zoom)


def save_refiner(model: RefinedModel, about: dict[str, Any], path: str | Path) -> None:
    """Write a model as a file that :func:`load_refiner` reads; floating-point weights in 16 bits.

    Args:
        model: its host is a :class:`~sharpcontour.anymask.host.MaskHost`.
        about: how it was trained, in plain values.
        path: of the file.

    Raises:
        InputError: where it cannot be written, or a weight is not finite in 16 bits.
    """
    state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    if name := not_finite(state):
        raise InputError(f"{path}: the weight {name} is not finite in 16 bits")
    contents = {
        "format": FORMAT,
        "host": to_dict(model.host.config),
        "sharpcontour": to_dict(model.refiner.config),
        "model": state,
        "about": about,
    }
    write_whole(lambda file: torch.save(contents, file), path)


def read_given(
    image: Any, masks: Any, boxes: Any, scores: Any, labels: Any
) -> tuple[np.ndarray, GivenObjects, Detections]:
    """An image, (H, W, 3) uint8 RGB, and masks from anywhere on it as objects to refine and as detections.

    Args:
        image, masks, boxes, scores, labels: as of :meth:`MaskRefiner.refine`.

    Raises:
        InputError: where one of them is broken.
    """

    def fit(size: tuple[int, int]) -> tuple[GivenObjects, Detections]:
        return _as_detections(masks, boxes, scores, labels, size, name)

    name = Path(os.fsdecode(image)).name if isinstance(image, (str, os.PathLike)) else ""
    if isinstance(image, (str, os.PathLike)):
        pixels, (given, coarse), _ = read_fitting(Path(os.fsdecode(image)), fit)
    else:
        pixels = as_pixels(image)
        given, coarse = fit((pixels.shape[0], pixels.shape[1]))
    return pixels, given, coarse


def _as_detections(
    masks: Any, boxes: Any, scores: Any, labels: Any, size: tuple[int, int], image: str
) -> tuple[GivenObjects, Detections]:
    given = read_masks(masks, *size, image)
    box = valid_boxes(boxes, given.boxes(), *size)
    score = _numbers("scores", scores, len(given), torch.ones(len(given)))
    label = _numbers("labels", labels, len(given), torch.zeros(len(given), dtype=torch.int64))
    return given, Detections(box, score, label, given.objects, size)


def _numbers(name: str, values: Any, count: int, default: Tensor) -> Tensor:
    """``values`` in the type of ``default``, on the CPU; that itself where there are none."""
    if values is None:
        return default
    kind = "number" if default.is_floating_point() else "whole number"
    try:
        found = values.detach().cpu() if isinstance(values, Tensor) else _from_array(np.asarray(values))
        if found.is_complex():
            raise TypeError("complex")
        given = found.to(default.dtype, copy=True)
        usable = kind == "number" or torch.equal(found.double(), given.double())
    except (TypeError, ValueError, RuntimeError):
        usable = False
    if not usable:
        shown = " ".join(repr(values).split())[:80]
        raise InputError(f"{name} must be one {kind} for each of the {count} masks, or left out; not {shown}")
    if found.shape != (count,):
        raise InputError(
            f"{name} must be one {kind} for each of the {count} masks; their shape is {tuple(found.shape)}"
        )
    return given


def _from_array(array: np.ndarray) -> Tensor:
    """An array as a tensor of its own memory; torch takes none whose bytes or strides run backwards."""
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


def as_pixels(image: Any) -> np.ndarray:
    """Any image as (H, W, 3) uint8 RGB: gray is repeated, alpha dropped, 16 bits are reduced.

    Args:
        image: a path, whose photograph is turned upright as its EXIF data say, a PIL image, or an array (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16 or bool.

    Raises:
        InputError: where it is none.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(Path(os.fsdecode(image)), upright=True)
    if isinstance(image, Tensor):
        raise InputError(
            "an image must be an array, and this one is a tensor; give image.numpy(), of uint8 and (height, width, 3)"
        )
    mode = getattr(image, "mode", None) if hasattr(image, "convert") else None  # of a PIL image
    if mode is None and not hasattr(image, "__array__"):
        raise InputError(f"an image must be a path, a PIL image or an array; this is a {type(image).__name__}")
    pixels = np.asarray(image if mode is None or mode in _AS_ARRAYS else image.convert("RGB"))
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype == np.uint16 or mode in ("I", "I;16B"):
        wide = mode != "I" or pixels.max(initial=0) > 255  # else PIL has widened 8 bits
        pixels = (pixels.astype(np.int64) >> (8 if wide else 0)).clip(0, 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise InputError(f"an image must be an array of uint8 or uint16; this one is {pixels.dtype}")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.size else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.size == 0:
        raise InputError(f"an image must have the shape (height, width, 3), RGB; this one has {pixels.shape}")
    return np.ascontiguousarray(pixels[..., :3])
