"""A closer look at large objects: their outlines once more, in tiles that the network sees at a finer resolution.

Not in the paper. The window around a large object shows it at 256 pixels, so that details finer than that are lost.
Here the refined mask is cut into overlapping tiles along its outline, and each tile is refined like a mask of its own.
Where tiles overlap they vote, each with a weight that falls to nothing at its border, where its mask is cut off.

Shapes: K objects, T tiles of one of them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import cv2
import numpy as np
from tqdm import tqdm

from sharpcontour.anymask.given_objects import GivenObjects, given_traced
from sharpcontour.anymask.in_windows import refine_in_windows
from sharpcontour.anymask.network import SIDE
from sharpcontour.anymask.windows import windows_around
from sharpcontour.config import EvolutionConfig
from sharpcontour.contours.rasterize import rings_to_masks, rings_to_rles
from sharpcontour.contours.tracing import TracedRings, trace_mask, trace_window
from sharpcontour.contours.types import Rings
from sharpcontour.masks.distance import signed_distance
from sharpcontour.masks.run_lengths import decode_columns, decode_counts
from sharpcontour.refined_model import RefinedModel

LEAST = 1.25  # tiles, the width of an object's window from which it is looked at again


def refine_zoomed(model: RefinedModel, image: np.ndarray, given: GivenObjects) -> list[Rings]:
    """Refine K objects on one image, and those that are large again, in ever smaller tiles along their outlines.

    The tiles of the last look are 256 pixels wide, before it those of larger objects 512, 1024, ... They overlap by
    half. The window around a tile is a little larger, so that one of 256 is seen at three quarters of its resolution.

    Args:
        model: its host is a :class:`~sharpcontour.anymask.host.MaskHost`; in evaluation mode.
        image: (H, W, 3) uint8 RGB.
        given: the objects, in pixels of the image.

    Returns:
        K objects in the same pixels, ``given.objects[k]`` itself where nothing moves it. One that a closer look changes
        is what it covers of the image, its outline along the pixels' edges.
    """
    objects, size = refine_in_windows(model, image, given), (image.shape[0], image.shape[1])
    windows = windows_around(given.boxes().numpy().clip(0, [*size[::-1]] * 2))
    looks = [(k, side) for k, width in enumerate((windows[:, 2] - windows[:, 0]).tolist()) for side in _sides(width)]
    for k, side in tqdm(looks, desc="closer", unit="look", disable=None if looks and sys.stderr else True, leave=False):
        tiles = Tiles(objects[k], size, side, math.ceil(side * _farthest(model.refiner.config.evolution)))
        pieces = given_traced(tiles.pieces())
        objects[k] = tiles.joined(refine_in_windows(model, image, pieces))
    return objects


def _sides(width: float) -> list[int]:
    """Pixels along the tiles of each look at an object in a window so wide, the largest first."""
    sides, side = [], SIDE
    while width >= LEAST * side:
        sides.append(side)
        side *= 2
    return sides[::-1]


def _farthest(evolution: EvolutionConfig) -> float:
    """How far a vertex marches at most, in parts of the object's size: a step is lambda |phi - 0.5| of it (eq. 1).

    A regression (Table 9) may go farther, and is cut off there.
    """
    return 0.5 * evolution.ratio * evolution.max_steps * evolution.iterations


class Tiles:
    """The tiles along the outline of one object. Cells of half their side divide the plane, each the middle of a tile.

    Args:
        rings: of the object, in pixels of the image; not empty.
        size: (height, width) of the image.
        side: of the tiles, pixels of the image, a multiple of 4.
        reach: pixels; what lies farther from the outline stays as it is.

    Attributes:
        mask: (h, w) bool, of the object and of a margin around it.
        cells: T pairs, row and column, of the cells with a pixel within reach of the outline.
    """

    def __init__(self, rings: Rings, size: tuple[int, int], side: int, reach: int) -> None:
        self.rings, self.cell = rings, side // 2
        limits = np.array(size[::-1])
        points = np.concatenate(rings).clip(0, limits)
        begin = (np.floor(points.min(0)).astype(int) - reach).clip(0, limits - 1)
        end = (np.ceil(points.max(0)).astype(int) + reach).clip(begin + 1, limits)
        self._begin = begin.astype(np.float32)
        # In pixels of the image: moved by the corner, coordinates with decimals would be rounded otherwise.
        runs = decode_counts(rings_to_rles([rings], *size)[0]["counts"])
        self.mask = decode_columns(runs, size[0], begin[0], end[0])[begin[1] : end[1]].copy()
        distance = np.abs(signed_distance(self.mask))
        self._near, self._beside = distance <= reach, distance < 1  # pixels within reach of the outline, and next to it
        rows, columns = (np.arange(0, length, self.cell) for length in self.mask.shape)
        found = np.logical_or.reduceat(np.logical_or.reduceat(self._near, rows, 0), columns, 1)
        self.cells = [(int(row), int(column)) for row, column in np.argwhere(found)]

    def pieces(self) -> list[TracedRings]:
        """The outlines of the mask in each of the T tiles, in pixels of the image."""
        pieces = []
        for cell in self.cells:
            tile = self._tile(cell)
            piece = trace_window(self.mask[tile])
            piece.points += self._corner(tile)
            pieces.append(piece)
        return pieces

    def joined(self, refined: Sequence[Rings]) -> Rings:
        """The object after its T pieces were refined: ``rings`` itself where no pixel changes, or none would be left.

        Args:
            refined: the outlines of the pieces in pixels of the image.
        """
        balance = np.zeros(self.mask.shape, np.float32)  # above 0 where most votes are for the object
        for cell, rings in zip(self.cells, refined, strict=True):
            tile = self._tile(cell)
            inside = rings_to_masks([[ring - self._corner(tile) for ring in rings]], *self.mask[tile].shape)[0]
            weight = np.outer(*(self._weight(part, place) for part, place in zip(tile, cell, strict=True)))
            balance[tile] += np.where(inside, weight, -weight)
        changed = self._near & ((balance > 0) != self.mask)
        # An outline moves from where it is: what changes apart from it is where tiles disagree, a speck or a pinhole.
        count, parts = cv2.connectedComponents(changed.astype(np.uint8), connectivity=4)
        moved = np.zeros(count, bool)
        moved[parts[changed & self._beside]] = True
        mask = self.mask ^ moved[parts]
        if not mask.any() or np.array_equal(mask, self.mask):
            return self.rings
        return [ring + self._begin for ring in trace_mask(mask)]

    def _tile(self, cell: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of the mask in the tile around a cell."""
        first = [place * self.cell - self.cell // 2 for place in cell]
        rows, columns = (
            slice(max(low, 0), min(low + 2 * self.cell, limit))
            for low, limit in zip(first, self.mask.shape, strict=True)
        )
        return rows, columns

    def _corner(self, tile: tuple[slice, slice]) -> np.ndarray:
        """Where a tile begins, x, y in pixels of the image."""
        rows, columns = tile
        return self._begin + np.array([columns.start, rows.start], np.float32)

    def _weight(self, part: slice, place: int) -> np.ndarray:
        """What a tile's votes count along one axis: 1 in its middle, falling to 0 at its border."""
        middle = (place + 0.5) * self.cell
        return 1 - np.abs(np.arange(part.start, part.stop) + 0.5 - middle).astype(np.float32) / self.cell
