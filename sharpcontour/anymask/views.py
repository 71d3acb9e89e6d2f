"""Which parts of an image are looked at, and how large: so that every object is seen at a size that suits it.

A view is a rectangle of the image, resized. One alone shows a window at its full resolution; many masks share views,
since the network need not see the same pixels twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sharpcontour.anymask.network import SIDE

MOST_ENLARGED = 2.0  # times: beyond it there is nothing more to see
LARGEST = 1280  # px, sides of a view, which bound the memory it takes


@dataclass
class View:
    """A part of an image, and the instances looked at on it.

    Attributes:
        rectangle: x0, y0, x1, y1 in whole pixels of the image.
        scale: pixels of the view to one of the image.
        instances: whose windows lie on it.
    """

    rectangle: tuple[int, int, int, int]
    scale: float
    instances: list[int]

    @property
    def area(self) -> float:
        """Pixels of the view."""
        x0, y0, x1, y1 = self.rectangle
        return (x1 - x0) * (y1 - y0) * self.scale**2

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the view in whole pixels."""
        x0, y0, x1, y1 = self.rectangle
        return max(round((x1 - x0) * self.scale), 1), max(round((y1 - y0) * self.scale), 1)

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The view of an image (H, W, 3): averaged where it shrinks, bilinear where it grows."""
        x0, y0, x1, y1 = self.rectangle
        part = image[y0:y1, x0:x1]
        if self.size == (x1 - x0, y1 - y0):
            return part
        return cv2.resize(part, self.size, interpolation=cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR)

    def place(self, windows: np.ndarray) -> np.ndarray:
        """Windows (K, 4) of the image in pixels of the view."""
        x0, y0, x1, y1 = self.rectangle
        scale = np.array(self.size) / np.array([x1 - x0, y1 - y0])
        return (windows - np.array([x0, y0, x0, y0])) * np.tile(scale, 2)


def plan_views(windows: np.ndarray, size: tuple[int, int]) -> list[View]:
    """Views that show every window.

    Args:
        windows: (K, 4) xyxy squares in pixels of the image; they may leave it.
        size: (height, width) of the image.
    """
    limits = np.array(size[::-1])
    low = np.floor(windows[:, :2]).clip(0, limits - 1)  # of a window beside the image, the nearest pixel
    high = np.ceil(windows[:, 2:]).clip(low + 1, limits)
    rectangles = np.concatenate([low, high], 1).astype(int)
    exact = np.minimum(SIDE / (windows[:, 2] - windows[:, 0]), MOST_ENLARGED)
    # Windows of about one scale can share a view.
    level = np.round(np.log2(exact))
    views: list[View] = []
    for value in np.unique(level):
        alone = [
            View(tuple(rectangles[k].tolist()), float(2.0**value), [k]) for k in np.flatnonzero(level == value).tolist()
        ]
        views += _shared(alone)
    for view in views:
        if len(view.instances) == 1:
            view.scale = float(exact[view.instances[0]])
    return views


def _shared(views: list[View]) -> list[View]:
    """Views of one scale, joined until that saves no more pixels."""
    joined: list[View] = []
    corners = np.zeros((len(views), 4))
    for view in views:
        for k in np.flatnonzero(_touching(corners[: len(joined)], view)).tolist():
            if (both := _joined([joined[k], view])) is not None:
                joined[k], corners[k] = both, both.rectangle
                break
        else:
            corners[len(joined)] = view.rectangle
            joined.append(view)
    if len(joined) < len(views):
        return _shared(joined)
    # Where no two of them overlap enough, all together may.
    everything = _joined(joined)
    return joined if everything is None else [everything]


def _touching(corners: np.ndarray, view: View) -> np.ndarray:
    """Which rectangles (n, 4) have an edge or a pixel in common with a view: of others, joining saves nothing."""
    x0, y0, x1, y1 = view.rectangle
    return np.all((corners[:, :2] <= (x1, y1)) & (corners[:, 2:] >= (x0, y0)), axis=1)


def _joined(views: list[View]) -> View | None:
    """One view around others of its scale; None where it has more pixels than they have, or is too large."""
    corners = np.array([view.rectangle for view in views])
    low, high = corners[:, :2].min(0).tolist(), corners[:, 2:].max(0).tolist()
    one = View((*low, *high), views[0].scale, [k for view in views for k in view.instances])
    fits = max(high[0] - low[0], high[1] - low[1]) * one.scale <= LARGEST
    return one if fits and one.area <= sum(view.area for view in views) else None
