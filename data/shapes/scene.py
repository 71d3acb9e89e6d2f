"""One picture of the shapes set with its exact ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.shapes import paint
from data.shapes.outlines import CLASSES, place
from data.shapes.regions import Region, outside_of, rasterise, signed_area, subtract
from sharpcontour.contours.tracing import trace_mask

RADII = (17.0, 74.0)  # px in a picture of 192 px: least and greatest radius of an object
MIN_VISIBLE = 0.35  # of an object's area: what is hidden more is not there at all
MIN_PIXELS = 96  # an object has at least so many, at any size of the picture
NEAR = 0.22  # share of objects that are put next to an earlier one, so that they overlap
TRIES = 8  # to find a free place for an object
BARS = 0.08  # share of pictures with a bar in front of the objects

_OUTLINES = list(CLASSES.values())
_FORK = list(CLASSES).index("fork")


@dataclass
class ShapeObject:
    """One visible object.

    Attributes:
        label: index of its class.
        rings: the exact outline of what is visible of it, float32 px; holes included.
        x0, y0: pixel where ``mask`` begins.
        mask: (h, w) bool, the pixels whose centre lies in the visible part.
    """

    label: int
    rings: list[np.ndarray]
    x0: int
    y0: int
    mask: np.ndarray


@dataclass
class Piece:
    """A thing in the picture, object or bar, before it is painted."""

    region: Region
    window: tuple[int, int, int, int]  # x0, y0, width, height
    coverage: np.ndarray
    visible: np.ndarray
    label: int = -1


def draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[ShapeObject]]:
    """A (size, size, 3) uint8 RGB picture and its objects, the foremost first; all of it follows from ``rng``."""
    pieces = _arrange(rng, size)
    picture, ground = paint.background(rng, size)
    colours = [ground]
    for piece in reversed(pieces):
        colours.append(paint.object_colour(rng, colours))
        paint.paint(rng, picture, piece.window[0], piece.window[1], piece.coverage, colours[-1])
    objects = []
    for k, piece in enumerate(pieces):
        if piece.label >= 0:
            rings = _visible_rings(piece, pieces[:k], size)
            objects.append(ShapeObject(piece.label, rings, piece.window[0], piece.window[1], piece.visible))
    return paint.develop(rng, picture), objects


def _arrange(rng: np.random.Generator, size: int) -> list[Piece]:
    """Everything in the picture from front to back, so that an object that is hidden too much is never placed."""
    wanted = int(rng.integers(1, 6))
    taken = np.zeros((size, size), bool)
    pieces: list[Piece] = []
    neighbours: list[tuple[np.ndarray, float]] = []  # centres and radii of what later objects may be put next to
    if rng.random() < BARS:
        bar, middle = _bar(rng, size)
        _add(pieces, taken, bar, -1)
        neighbours.append((middle, 0.0))
    found = 0
    for _ in range(2 * wanted):
        label = int(rng.integers(len(_OUTLINES)))
        low, high = RADII[0] * (1.5 if label == _FORK else 1.0), RADII[1]  # prongs vanish in small ones
        radius = low * (high / low) ** rng.random() * size / 192
        centre = _centre(rng, size, radius, neighbours)
        if centre is None:
            continue
        if _add(pieces, taken, place(_OUTLINES[label], rng, radius, centre), label):
            neighbours.append((centre, radius))
            found += 1
        if found == wanted:
            break
    return pieces


def _centre(
    rng: np.random.Generator, size: int, radius: float, neighbours: list[tuple[np.ndarray, float]]
) -> np.ndarray | None:
    """A place for an object, next to a neighbour or clear of all; None if a few tries find no such place."""
    if neighbours and rng.random() < NEAR:
        other, reach = neighbours[int(rng.integers(len(neighbours)))]
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.0 if reach == 0 else 0.35, 0.9) * (radius + reach)
        centre = other + distance * np.array([np.cos(angle), np.sin(angle)])
        return centre.clip(0.5 * radius, size - 0.5 * radius)
    margin = radius * rng.uniform(0.85, 1.1)
    for candidate in margin + rng.random((TRIES, 2)) * (size - 2 * margin):
        if all(np.hypot(*(candidate - other)) > radius + reach for other, reach in neighbours):
            return candidate
    return None


def _bar(rng: np.random.Generator, size: int) -> tuple[Region, np.ndarray]:
    """A thin bar, which hides parts of objects and is none itself, and its middle."""
    middle, angle = rng.uniform(0.2, 0.8, 2) * size, rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]]) * rng.uniform(0.01, 0.025) * size
    along = along * rng.uniform(0.25, 0.6) * size
    return [middle + np.array([-along - across, along - across, along + across, -along + across])], middle


def _add(pieces: list[Piece], taken: np.ndarray, region: Region, label: int) -> bool:
    """Put a region behind all others, unless too little of it would be seen; marks its pixels as taken."""
    points, size = np.concatenate(region), len(taken)
    x0, y0 = np.floor(points.min(0)).astype(int).clip(0, size).tolist()
    x1, y1 = np.ceil(points.max(0)).astype(int).clip(0, size).tolist()
    coverage, mask = rasterise(region, x0, y0, x1 - x0, y1 - y0)
    window = taken[y0:y1, x0:x1]
    visible = mask & ~window
    seen = np.count_nonzero(visible)
    if label >= 0 and seen < max(MIN_PIXELS, MIN_VISIBLE * sum(map(signed_area, region))):
        return False
    window |= mask
    pieces.append(Piece(region, (x0, y0, x1 - x0, y1 - y0), coverage, visible, label))
    return True


def _visible_rings(piece: Piece, front: list[Piece], size: int) -> list[np.ndarray]:
    """The exact outline of what is visible of a piece behind others: its own rings where it is whole."""
    points = np.concatenate(piece.region)
    low, high = points.min(0), points.max(0)
    occluders = []
    for other in front:
        around = np.concatenate(other.region)
        if (around.min(0) < high).all() and (around.max(0) > low).all():
            occluders.append(other.region)
    if (low < 0).any() or (high > size).any():
        occluders.append(outside_of(size, size))
    rings: Region | None = piece.region
    if occluders:
        rings = subtract(piece.region, occluders)
    if not rings:  # edges that meet in one point to the last bit: pixel edges are the next best outline
        rings = [ring + np.array(piece.window[:2]) for ring in trace_mask(piece.visible)]
    return [ring.astype(np.float32) for ring in rings]
