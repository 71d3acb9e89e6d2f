"""Masks made worse, in the ways that masks of networks, of annotation tools and of quick hands are wrong.

Every kind takes a binary mask (H, W), a strength and random numbers; lengths follow the object's size, the square root
of its box's area, so that large and small objects are spoiled alike. Strength 1 is the kind's usual one.

    as_given     nothing: a refiner must learn when to stay
    grid         averaged over a grid of 28 x 28 cells of its box and pasted back, as mask heads predict it
    noisy_grid   the grid blurred by a cell and its edges shifted by a smooth random field: a learned mask head's errors
    polygon      few vertices, 2 % of its size off the outline, each put down by an unsteady hand; holes are filled
    dilated      grown by 2.5 % of its size
    eroded       shrunk by 2.5 % of its size
    smoothed     blurred by 4 % of its size: corners, gaps and thin parts are lost
    warped       its plane bent by a smooth random field, 2 % of its size
    ragged       its outline shaken by a fine random field, 1.5 pixels
    shifted      moved by 3 % of its size, a little larger or smaller
    cut          an ellipse around a point of its outline is missing, 8 to 28 % of its size across
    grown        such an ellipse is added, which is not its own
    stairs       at a resolution of 24 cells along its longer side, enlarged without interpolation
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from sharpcontour.masks.box import Box, bounding_box
from sharpcontour.masks.distance import signed_distance

GRID = 28  # cells of a coarse mask, as mask heads predict it
TWICE = 0.2  # share of training masks that are made worse in two ways
IN_PLACES = 0.3  # share of those ways that are taken in places only


def degrade(mask: np.ndarray, kind: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return a worse version of a mask.

    Args:
        mask: (H, W) bool.
        kind: name in :data:`KINDS`.
        strength: 1 is usual; 0 changes little or nothing, but for the two grids, which are as coarse as ever.
        rng: what is random.

    Returns:
        (H, W) bool; the mask itself where it is empty, or where nothing of it would be left.
    """
    box = bounding_box(mask)
    if box is None:
        return mask
    worse = KINDS[kind](mask, box, strength, rng)
    return worse if worse.any() else mask


def worsen(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a mask (H, W) bool made worse as training does it: by one kind or two, in places only or as a whole."""
    for _ in range(2 if rng.random() < TWICE else 1):
        worse = degrade(mask, *draw_kind(rng), rng)
        mask = in_places(mask, worse, rng) if rng.random() < IN_PLACES else worse
    return mask


def draw_kind(rng: np.random.Generator) -> tuple[str, float]:
    """Draw a kind and a strength for training: every kind, mild and strong alike, and good masks often."""
    names = list(SHARES)
    kind = names[int(rng.choice(len(names), p=_PROBABILITIES))]
    return kind, float(rng.uniform(0.2, 2.5))


def in_places(mask: np.ndarray, worse: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The worse mask in places and the mask elsewhere, as most masks are wrong here and right there.

    A smooth random field chooses a fifth to four fifths of the plane; masks are (H, W) bool.
    """
    box = bounding_box(mask)
    if box is None:
        return mask
    scale = rng.uniform(0.1, 0.3) * _size(box)
    field = _smooth_field(mask.shape, scale, 1, rng)
    threshold = np.quantile(field[box[1] : box[3], box[0] : box[2]], rng.uniform(0.2, 0.8))
    mixed = np.where(field < threshold, worse, mask)
    return mixed if mixed.any() else mask


def soft_roi(mask: np.ndarray, box: np.ndarray | tuple[int, int, int, int], size: int = GRID) -> np.ndarray:
    """An ideal RoI mask: the mask (H, W) averaged over size x size cells of its box (xyxy, whole pixels)."""
    x0, y0, x1, y1 = (int(side) for side in box)
    crop = mask[y0:y1, x0:x1].astype(np.float32)
    # INTER_AREA averages only where it shrinks.
    fx, fy = (-(-size // side) for side in (crop.shape[1], crop.shape[0]))
    enlarged = cv2.resize(crop, None, fx=fx, fy=fy, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(enlarged, (size, size), interpolation=cv2.INTER_AREA)


def noisy_roi(soft: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """A soft mask with the errors of a learned one: blurred by a cell, its edges shifted by a smooth random field."""
    soft = cv2.GaussianBlur(soft, (0, 0), 1.0, borderType=cv2.BORDER_CONSTANT)
    field = cv2.GaussianBlur(np.asarray(rng.standard_normal(soft.shape), np.float32), (0, 0), 2.5)
    field = field * (0.22 * strength / field.std())
    return np.clip(soft + field * 4 * soft * (1 - soft), 0, 1)


def _size(box: Box) -> float:
    return float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])))


def _as_given(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    return mask


def _paste(soft: np.ndarray, mask: np.ndarray, box: Box) -> np.ndarray:
    """A soft grid over the box, enlarged by linear interpolation and cut at one half."""
    x0, y0, x1, y1 = box
    framed = np.pad(soft, 1)  # zeros begin half a cell outside
    side_x, side_y = (x1 - x0) / soft.shape[1], (y1 - y0) / soft.shape[0]
    to_grid = np.array([[1 / side_x, 0, (0.5 - x0) / side_x + 0.5], [0, 1 / side_y, (0.5 - y0) / side_y + 0.5]])
    size = (mask.shape[1], mask.shape[0])
    return cv2.warpAffine(framed, to_grid, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) > 0.5


def _grid(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    return _paste(soft_roi(mask, box, max(round(GRID / max(strength, 0.5)), 8)), mask, box)


def _noisy_grid(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    return _paste(noisy_roi(soft_roi(mask, box), rng, strength), mask, box)


def _polygon(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    chains, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    worse = np.zeros(mask.shape, np.uint8)
    size = _size(box)
    for chain in chains:
        corners = cv2.approxPolyDP(chain, 0.02 * strength * size * rng.uniform(0.7, 1.4), True)[:, 0].astype(np.float64)
        if len(corners) < 3:
            corners = chain[:, 0].astype(np.float64)
        corners += rng.normal(0, 0.005 * strength * size, corners.shape)
        cv2.fillPoly(worse, [np.rint(corners).astype(np.int32)], 1)
    return worse.astype(bool)


def _dilated(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    return signed_distance(mask) < 0.025 * strength * _size(box)


def _eroded(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    return signed_distance(mask) < -0.025 * strength * _size(box)


def _smoothed(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(0.04 * strength * _size(box), 0.3)) > 0.5


def _smooth_field(shape: tuple[int, ...], scale: float, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Random numbers (H, W, channels), (H, W) for one channel, of a correlation length in pixels."""
    height, width = shape
    # Made coarse and enlarged: a blur of the full size would be slow.
    step = max(scale / 2, 1.0)
    rows, columns = int(height / step) + 6, int(width / step) + 6
    field = cv2.GaussianBlur(rng.standard_normal((rows, columns, channels)).astype(np.float32), (0, 0), scale / step)
    return cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)


def _bent(mask: np.ndarray, amplitude: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    """The mask seen through a random displacement of its plane: standard deviation and correlation length in pixels."""
    height, width = mask.shape
    field = _smooth_field((height, width), scale, 2, rng)
    field = field * (amplitude / max(float(field.std()), 1e-6))
    grid = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(mask.astype(np.float32), grid[1] + field[..., 0], grid[0] + field[..., 1], cv2.INTER_LINEAR) > 0.5


def _warped(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    size = _size(box)
    return _bent(mask, 0.02 * strength * size, rng.uniform(0.05, 0.15) * size, rng)


def _ragged(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    return _bent(mask, 1.5 * strength, rng.uniform(1.5, 4.0), rng)


def _shifted(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    angle, size = rng.uniform(0, 2 * np.pi), _size(box)
    zoom, reach = 1 + 0.03 * strength * rng.standard_normal(), 0.03 * strength * size
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    move = (x - zoom * x + reach * np.cos(angle), y - zoom * y + reach * np.sin(angle))
    matrix = np.array([[zoom, 0, move[0]], [0, zoom, move[1]]])
    size_xy = (mask.shape[1], mask.shape[0])
    return cv2.warpAffine(mask.astype(np.float32), matrix, size_xy, flags=cv2.INTER_LINEAR) > 0.5


def _blob(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    """An ellipse around a point of the outline, at random."""
    chains, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate([chain[:, 0] for chain in chains])
    centre = points[int(rng.integers(len(points)))]
    axes = rng.uniform(0.04, 0.14, 2) * min(strength, 1.8) * _size(box)
    blob = np.zeros(mask.shape, np.uint8)
    cv2.ellipse(
        blob, centre.tolist(), np.maximum(axes, 1).astype(int).tolist(), float(rng.uniform(0, 180)), 0, 360, 1, -1
    )
    return blob.astype(bool)


def _cut(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    return mask & ~_blob(mask, box, strength, rng)


def _grown(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    return mask | _blob(mask, box, strength, rng)


def _stairs(mask: np.ndarray, box: Box, strength: float, rng: np.random.Generator) -> np.ndarray:
    x0, y0, x1, y1 = box
    cell = max(x1 - x0, y1 - y0) / (24 / max(strength, 0.2))
    if cell <= 1:
        return mask
    crop = mask[y0:y1, x0:x1].astype(np.float32)
    small = (max(round((x1 - x0) / cell), 1), max(round((y1 - y0) / cell), 1))
    cells = (cv2.resize(crop, small, interpolation=cv2.INTER_AREA) > 0.5).astype(np.uint8)
    worse = np.zeros(mask.shape, bool)
    worse[y0:y1, x0:x1] = cv2.resize(cells, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST) > 0
    return worse


KINDS: dict[str, Callable[[np.ndarray, Box, float, np.random.Generator], np.ndarray]] = {
    "as_given": _as_given,
    "grid": _grid,
    "noisy_grid": _noisy_grid,
    "polygon": _polygon,
    "dilated": _dilated,
    "eroded": _eroded,
    "smoothed": _smoothed,
    "warped": _warped,
    "ragged": _ragged,
    "shifted": _shifted,
    "cut": _cut,
    "grown": _grown,
    "stairs": _stairs,
}
"""Name of a kind -> what makes it: (mask, its box, strength, random numbers) -> a worse mask."""

SHARES = {
    "as_given": 25,
    "grid": 12,
    "noisy_grid": 12,
    "polygon": 15,
    "dilated": 5,
    "eroded": 5,
    "smoothed": 5,
    "warped": 6,
    "ragged": 3,
    "shifted": 3,
    "cut": 3,
    "grown": 3,
    "stairs": 3,
}
"""Share of every kind in training, in percent."""
_PROBABILITIES = np.array(list(SHARES.values())) / sum(SHARES.values())
