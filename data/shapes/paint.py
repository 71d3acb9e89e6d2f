"""Colours and textures of the shapes set. Pictures are float32 (height, width, 3) RGB in 0..255 until they are done."""

from __future__ import annotations

import cv2
import numpy as np

CONTRAST = 65.0  # RGB distance that an object's colour keeps from what lies around it


def noise(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """Smooth noise (height, width) in [0, 1] with a grain of ``cell`` px."""
    rows, columns = max(2, int(height / cell) + 1), max(2, int(width / cell) + 1)
    grid = rng.random((rows, columns), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)


def pattern(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One of six textures as (height, width) in [0, 1]: noise, stripes, waves, checks, a gradient, dots."""
    kind = int(rng.integers(6))
    if kind == 0:
        fine = noise(rng, height, width, rng.uniform(2, 5))
        return 0.5 * (fine + noise(rng, height, width, rng.uniform(8, 20)))
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 14)
    phase = rng.uniform(0, 2 * np.pi, 2)
    c, s = np.cos(angle), np.sin(angle)
    x = np.arange(width, dtype=np.float32) * np.float32(2 * np.pi / period)
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(2 * np.pi / period)
    u = np.float32(c) * x + (np.float32(s) * y + np.float32(phase[0]))
    if kind in (1, 2):
        wave = 0.5 + 0.5 * np.sin(u)
        return wave if kind == 2 else np.clip(4 * wave - 1.5, 0, 1)
    if kind == 3:
        v = np.float32(-s) * x + (np.float32(c) * y + np.float32(phase[1]))
        return np.clip(0.5 + 2 * np.sin(u) * np.sin(v), 0, 1)
    if kind == 4:
        u -= u.min()
        return u / max(float(u.max()), 1e-6)
    v = np.float32(-s) * x + (np.float32(c) * y + np.float32(phase[1]))
    return np.clip(2 * np.sin(u) * np.sin(v), 0, 1)


def textured(rng: np.random.Generator, height: int, width: int, colour: np.ndarray, contrast: float) -> np.ndarray:
    """(height, width, 3) around ``colour``: a pattern towards a second colour, and soft light across it."""
    swing = rng.uniform(-1, 1, 3) * contrast + rng.uniform(-1, 1) * contrast
    light = rng.uniform(-12, 12, 2).astype(np.float32)
    mix = pattern(rng, height, width) - np.float32(0.5)
    shade = np.linspace(-1, 1, width, dtype=np.float32) * light[0]
    shade = shade + np.linspace(-1, 1, height, dtype=np.float32)[:, None] * light[1]
    planes = [mix * np.float32(swing[k]) + (shade + np.float32(colour[k])) for k in range(3)]
    return cv2.merge(planes)


def background(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(size, size, 3) picture and its mean colour (3,): a texture, multi-scale noise, clutter."""
    colour = rng.uniform(40, 215, 3)
    colour += 0.5 * (colour.mean() - colour)  # rather greyish, so that clear object colours remain
    picture = textured(rng, size, size, colour, rng.uniform(8, 36))
    amplitude = rng.uniform(10, 34)
    for cell in (48, 16, 5):
        grain = (noise(rng, size, size, cell) - np.float32(0.5)) * np.float32(amplitude)
        tint = rng.uniform(0.5, 1.0, 3)
        picture += cv2.merge([grain * np.float32(t) for t in tint])
    clutter(rng, picture, colour)
    return picture, colour


def clutter(rng: np.random.Generator, picture: np.ndarray, colour: np.ndarray) -> None:
    """Lines, triangles, boxes and specks of weak contrast, painted into ``picture``."""
    size = len(picture)
    for _ in range(int(rng.integers(3, 11))):
        tone = np.clip(colour + rng.normal(0, 26, 3), 0, 255).tolist()
        kind = int(rng.integers(4))
        a, b = rng.uniform(0, size, 2), rng.uniform(0, size, 2)
        if kind == 0:
            cv2.line(picture, _sub(a), _sub(b), tone, int(rng.integers(1, 4)), cv2.LINE_8, 4)
            continue
        if kind == 1:
            cv2.circle(picture, _sub(a), int(rng.uniform(1, 4) * 16), tone, -1, cv2.LINE_8, 4)
            continue
        sides = 3 if kind == 2 else 4
        reach = rng.uniform(0.03, 0.12) * size
        angle = (np.arange(sides) + rng.uniform(-0.25, 0.25, sides)) * (2 * np.pi / sides) + rng.uniform(0, 6)
        corners = a + reach * np.stack([np.cos(angle), np.sin(angle)], 1)
        cv2.fillPoly(picture, [np.rint(corners * 16).astype(np.int32)], tone, cv2.LINE_8, 4)


def _sub(point: np.ndarray) -> tuple[int, int]:
    return int(point[0] * 16), int(point[1] * 16)


def object_colour(rng: np.random.Generator, others: list[np.ndarray]) -> np.ndarray:
    """A colour (3,) away from those of the background and of the other objects; nothing tells of a class."""
    best, best_distance = rng.uniform(15, 240, 3), -1.0
    for candidate in rng.uniform(15, 240, (8, 3)):
        distance = min(float(np.linalg.norm(candidate - other)) for other in others)
        if distance > CONTRAST:
            return candidate
        if distance > best_distance:
            best, best_distance = candidate, distance
    return best


def paint(
    rng: np.random.Generator, picture: np.ndarray, x0: int, y0: int, coverage: np.ndarray, colour: np.ndarray
) -> None:
    """Lay a textured object over ``picture``; its edge pixels are mixed by how much of them it covers."""
    height, width = coverage.shape
    texture = textured(rng, height, width, colour, rng.uniform(8, 46))
    window = picture[y0 : y0 + height, x0 : x0 + width]
    window += cv2.merge([coverage] * 3) * (texture - window)


def develop(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """The finished uint8 picture: blur of the lens, noise of the sensor."""
    sigma = rng.uniform(0.0, 0.8)
    if sigma > 0.3:
        picture = cv2.GaussianBlur(picture, (5, 5), sigma)
    grain = rng.integers(0, 256, picture.shape, dtype=np.uint8)
    amplitude = rng.uniform(4, 22)  # of a uniform distribution: its standard deviation is 0.29 of this
    picture = cv2.addWeighted(picture, 1.0, grain, amplitude / 255, -amplitude / 2, dtype=cv2.CV_8U)
    return picture
