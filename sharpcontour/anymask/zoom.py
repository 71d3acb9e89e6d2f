"""A closer look at large objects: their outlines once more, in windows that the network sees at full resolution.

Not in the paper. A window around a large object shows it at 256 pixels, so that details finer than that are lost. Here
the refined mask is cut into overlapping tiles along its outline, and each tile is refined as a mask of its own. Where
tiles overlap they vote, each with a weight that falls to nothing at its border, where its mask is cut off.

Shapes: K objects, T tiles of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from sharpcontour.anymask.foreign_masks import GivenObjects, given_traced
from sharpcontour.anymask.in_windows import refine_in_windows
from sharpcontour.anymask.network import SIDE
from sharpcontour.anymask.windows import windows_around
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.contours.tracing import TracedRings, trace_mask, trace_window
from sharpcontour.contours.types import Rings
from sharpcontour.refined_model import RefinedModel

LEAST = 1.25  # times as large as a tile is the window of an object that gains by a closer look
REACH = 1 / 8  # of a cell, beyond which no outline moves: with n = 3 and lambda = 0.003 it is less than a tenth


def refine_zoomed(model: RefinedModel, image: np.ndarray, given: GivenObjects) -> list[Rings]:
    """Refine K objects on one image, and those that are large again, in ever smaller tiles along their outlines.

    Tiles are 256 pixels wide in the end, and on larger objects 512, 1024, ... before. They overlap by half.

    Args:
        model: its host is a :class:`~sharpcontour.anymask.host.MaskHost`; in evaluation mode.
        image: (H, W, 3) uint8 RGB.
        given: the objects, in pixels of the image.

    Returns:
        K objects in the same pixels, ``given.objects[k]`` itself where nothing moves it. One that a closer look changes
        has its outline along the pixels' edges.
    """
    objects = refine_in_windows(model, image, given)
    windows = windows_around(given.boxes().numpy())
    width = windows[:, 2] - windows[:, 0]
    for side in _sides(float(width.max(initial=0))):
        places = np.flatnonzero(width >= LEAST * side).tolist()
        tiled = [Tiles(objects[k], (image.shape[0], image.shape[1]), side) for k in places]
        pieces = given_traced([piece for tiles in tiled for piece in tiles.pieces()])
        refined = iter(zip(pieces.objects, refine_in_windows(model, image, pieces), strict=True))
        for k, tiles in zip(places, tiled, strict=True):
            after = [None if new is old else new for old, new in (next(refined) for _ in tiles.cells)]
            objects[k] = tiles.joined(after, objects[k])
    return objects


def _sides(largest: float) -> list[int]:
    """Pixels of the image along the tiles of each look, the largest first."""
    sides, side = [], SIDE
    while largest >= LEAST * side:
        sides.append(side)
        side *= 2
    return sides[::-1]


class Tiles:
    """The tiles along the outline of one object. Cells of half their side divide the plane, each the middle of a tile.

    Args:
        rings: of the object, in pixels of the image; not empty.
        size: (height, width) of the image.
        side: of the tiles, pixels of the image; even.

    Attributes:
        mask: (h, w) bool, of the object and of a margin around it.
        cells: T pairs, row and column, of the cells that the outline passes or comes near.
    """

    def __init__(self, rings: Rings, size: tuple[int, int], side: int) -> None:
        self.cell = side // 2
        points = np.concatenate(rings)
        # Room for an outline that moves outwards.
        limits = np.array(size[::-1])
        begin = (np.floor(points.min(0)).astype(int) - self.cell).clip(0, limits - 1)
        end = (np.ceil(points.max(0)).astype(int) + self.cell).clip(begin + 1, limits)
        self._begin = begin.astype(np.float32)
        self.mask = rings_to_masks([[ring - self._begin for ring in rings]], *(end - begin)[::-1].tolist())[0]
        self._near = near_outline(self.mask, round(self.cell * REACH))
        found = np.stack(np.nonzero(self._near), 1) // self.cell
        self.cells = [(int(row), int(column)) for row, column in np.unique(found, axis=0)]

    def pieces(self) -> list[TracedRings]:
        """The outlines of the mask in each of the T tiles, in pixels of the image."""
        pieces = []
        for cell in self.cells:
            tile = self._tile(cell)
            piece = trace_window(self.mask[tile])
            piece.points += self._corner(tile)
            pieces.append(piece)
        return pieces

    def joined(self, refined: Sequence[Rings | None], rings: Rings) -> Rings:
        """The object after its T pieces were refined.

        Args:
            refined: their outlines in pixels of the image, None for one that nothing moved.
            rings: the object before, which is returned where no pixel changes.
        """
        balance = np.zeros(self.mask.shape, np.float32)  # above 0 where most votes are for the object
        for cell, new in zip(self.cells, refined, strict=True):
            tile = self._tile(cell)
            inside = self.mask[tile]
            if new is not None:
                inside = rings_to_masks([[ring - self._corner(tile) for ring in new]], *inside.shape)[0]
            weight = np.outer(*(self._weight(part, place) for part, place in zip(tile, cell, strict=True)))
            balance[tile] += np.where(inside, weight, -weight)
        mask = np.where(self._near, balance > 0, self.mask)
        return rings if np.array_equal(mask, self.mask) else [ring + self._begin for ring in trace_mask(mask)]

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


def near_outline(mask: np.ndarray, reach: int) -> np.ndarray:
    """The pixels of a mask (H, W) bool with a pixel of the other kind at most ``reach`` rows and columns away."""
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, square) > 0
