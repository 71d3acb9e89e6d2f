"""The ten classes of the shapes set: outlines as polygons, exact up to the chords of curves.

Every function draws one member of its class, at any scale and around any centre: ``(rng, n) -> rings``, where ``n`` is
the number of vertices of a full turn of a curve. Outer rings run so that their shoelace area is positive, holes the
other way round, and no ring crosses itself or another.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Outline = Callable[[np.random.Generator, int], list[np.ndarray]]


def place(outline: Outline, rng: np.random.Generator, radius: float, centre: np.ndarray) -> list[np.ndarray]:
    """Draw a member of a class, stretch, rotate and mirror it, and fit it into a circle.

    Args:
        outline: its class.
        rng: all randomness.
        radius: px, of the circle around its middle.
        centre: (2,) x, y in px.

    Returns:
        Rings, (n, 2) float64 x, y in px.
    """
    # A chord of a circle in n pieces is off by radius * (pi / n)^2 / 2: 0.02 px here.
    rings = outline(rng, max(24, int(np.ceil(np.pi * np.sqrt(radius / 0.04)))))
    points = np.concatenate(rings)
    middle = (points.min(0) + points.max(0)) / 2
    angle, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.0)
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.array([[c, -s], [s, c]]) @ np.diag([1.0, stretch])
    mirrored = rng.random() < 0.5
    if mirrored:
        matrix = matrix @ np.diag([1.0, -1.0])
    turned = (points - middle) @ matrix.T
    turned *= radius / np.hypot(turned[:, 0], turned[:, 1]).max()
    parts = np.split(turned + centre, np.cumsum([len(ring) for ring in rings])[:-1])
    return [part[::-1].copy() for part in parts] if mirrored else parts


def _polar(angle: np.ndarray, radius: np.ndarray | float) -> np.ndarray:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _turn(n: int) -> np.ndarray:
    return np.arange(n) * (2 * np.pi / n)


def star(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """A star with five to seven sharp points."""
    points = int(rng.integers(5, 8))
    radius = np.tile([1.0, rng.uniform(0.36, 0.5)], points)
    return [_polar(_turn(2 * points), radius)]


def gear(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """A gear with eight to twelve blunt teeth, half of the time around a round hole."""
    teeth = int(rng.integers(8, 13))
    part = np.array([-0.30, -0.17, 0.17, 0.30]) + np.arange(teeth)[:, None]
    low = rng.uniform(0.7, 0.8)
    rings = [_polar(part.ravel() * (2 * np.pi / teeth), np.tile([low, 1, 1, low], teeth))]
    if rng.random() < 0.5:
        rings.append(_polar(-_turn(n // 2), rng.uniform(0.2, 0.35)))
    return rings


def leaf(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """A leaf: a pointed blade on a thin stem, the edge smooth or serrated."""
    t = np.linspace(0, 1, n // 2 + 1)[1:-1]
    width = rng.uniform(0.38, 0.55) * np.sin(np.pi * t ** rng.uniform(0.7, 1.0))
    if rng.random() < 0.5:
        notches = rng.integers(6, 10)
        width = width * (1 - 0.28 * ((t * notches) % 1.0))
    x = -0.5 + 1.5 * t
    stem = 0.05
    body = width > stem
    lower = np.stack([x[body], -width[body]], 1)
    upper = np.stack([x[body], width[body]], 1)[::-1]
    foot = lower[0, 0]
    head = np.array([[-1.0, -stem], [foot, -stem]])
    tail = np.array([[foot, stem], [-1.0, stem]])
    return [np.concatenate([head, lower, [[1.0, 0.0]], upper, tail])]


def arrow(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """An arrow: a shaft with a triangular, sometimes barbed head."""
    shaft, neck, barb = rng.uniform(0.14, 0.25), rng.uniform(0.0, 0.35), rng.uniform(0.0, 0.25)
    half = rng.uniform(0.45, 0.65)
    upper = [[1.0, 0.0], [neck - barb, half], [neck, shaft], [-1.0, shaft]]
    lower = [[x, -y] for x, y in upper[:0:-1]]
    return [np.array(upper + lower)]


def corner(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """A corner: an L of two bars."""
    a, b, length = rng.uniform(0.32, 0.46), rng.uniform(0.32, 0.46), rng.uniform(0.8, 1.1)
    return [np.array([[0, 0], [1.2, 0], [1.2, a], [b, a], [b, length], [0, length]])]


def blob(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """A blob: a smooth closed curve with bays."""
    angle = _turn(n)
    radius = np.ones(n)
    for k in range(2, 6):
        radius = radius + rng.uniform(0.05, 0.35 / np.sqrt(k)) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return [_polar(angle, np.maximum(radius, 0.3))]


def fork(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """A fork: a handle and three prongs."""
    width, gap, depth = rng.uniform(0.15, 0.21), rng.uniform(0.14, 0.2), rng.uniform(0.4, 0.6)
    handle, base = rng.uniform(0.13, 0.19), 0.3
    pitch = width + gap
    points = [[-1.1, -handle], [0.0, -handle], [0.0, -pitch - width / 2]]
    for prong in (-1, 0, 1):
        low, high = prong * pitch - width / 2, prong * pitch + width / 2
        points += [[base + depth, low], [base + depth, high]]
        if prong < 1:
            points += [[base, high], [base, high + gap]]
    points += [[0.0, pitch + width / 2], [0.0, handle], [-1.1, handle]]
    return [np.array(points)]


def ring(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """A ring: a disc with a round hole, not always in the middle."""
    inner = rng.uniform(0.3, 0.48)
    shift = _polar(rng.uniform(0, 2 * np.pi, 1), rng.uniform(0, 0.6) * (1 - inner))
    return [_polar(_turn(n), 1.0), _polar(-_turn(n), inner) + shift]


def crescent(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """A crescent: a disc without the part under a second disc, with two pointed horns."""
    shift, radius = rng.uniform(0.35, 0.55), rng.uniform(0.7, 0.85)
    x = (1 - radius**2 + shift**2) / (2 * shift)  # where the two circles meet
    y = np.sqrt(1 - x**2)
    outer = np.linspace(np.arctan2(y, x), 2 * np.pi - np.arctan2(y, x), int(0.7 * n))
    far = np.arctan2(y, x - shift)
    inner = np.linspace(2 * np.pi - far, far, n // 2)[1:-1]
    return [np.concatenate([_polar(outer, 1.0), _polar(inner, radius) + np.array([shift, 0])])]


def cross(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """A cross: two bars at a right angle, the arms of one length."""
    a = rng.uniform(0.24, 0.36)
    quarter = np.array([[1, -a], [1, a], [a, a]])
    turn = np.array([[0, -1], [1, 0]])
    parts = [quarter]
    for _ in range(3):
        parts.append(parts[-1] @ turn.T)
    return [np.concatenate(parts)]


CLASSES: dict[str, Outline] = {
    "star": star,
    "gear": gear,
    "leaf": leaf,
    "arrow": arrow,
    "corner": corner,
    "blob": blob,
    "fork": fork,
    "ring": ring,
    "crescent": crescent,
    "cross": cross,
}
