"""Masks -> initial contours C(0) (section 3.3): sub-pixel rings of every component and every hole.

Paper silent: how a mask becomes a contour. Border pixels taken as coordinates lie half a pixel inside the object, an
error as large as what the method mends, so the contour runs *between* pixels: along the pixel edges of a binary mask
(rasterised again it gives the very same mask), or along the 0.5 level of a soft one by linear interpolation between
neighbouring cells (marching squares). Both are the same walk: the cracks between an inside pixel and an outside
neighbour, in order; only where on the crack the vertex sits differs.

Shapes: K masks, h x w cells, R rings, P vertices of all rings together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from sharpcontour.config import TracingConfig
from sharpcontour.contours.nesting import holes
from sharpcontour.contours.types import Contours, Ring, Rings
from sharpcontour.masks.box import bounding_box

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The eight chain directions, counter-clockwise as seen on the screen (y down): E NE N NW W SW S SE.
_DX = np.array([1, 1, 0, -1, -1, -1, 0, 1])
_DY = np.array([0, -1, -1, -1, 0, 1, 1, 1])
_CODE = np.array([[3, 2, 1], [4, -1, 0], [5, 6, 7]])  # direction of a step (dx, dy), at [dy + 1, dx + 1]
# Where the crack on the E, N, W, S side of a pixel begins, walking with the object on the left: corner (x, y).
_CORNER_X = {0: 1, 2: 1, 4: 0, 6: 0}
_CORNER_Y = {0: 1, 2: 0, 4: 0, 6: 1}


def _crack_table() -> np.ndarray:
    """(9, 8, 4) int: sides of a pixel that are cracks, -1 padded, by [direction in, direction out].

    A border follower that enters a pixel looks at its neighbours counter-clockwise, from the one it came from to the
    first inside one, which it leaves to. The 4-neighbours it passes over lie outside. Row 8 is the lone pixel.
    """
    table = np.full((9, 8, 4), -1)
    for came in range(8):
        for leaves in range(8):
            back = came + 4
            turns = (leaves - back) % 8 or 8
            sides = [(back + turn) % 8 for turn in range(1, turns) if (back + turn) % 2 == 0]
            table[came, leaves, : len(sides)] = sides
    table[8, :] = [6, 0, 2, 4]
    return table


_CRACKS = _crack_table()


@dataclass
class TracedRings:
    """Rings of K masks, one after another.

    Attributes:
        points: (P, 2) float64 x, y in cells: the cell in column j, row i covers [j, j+1) x [i, i+1).
        starts: (R + 1,) int64, where each ring begins in ``points``, and P.
        mask: (R,) int64, the mask each ring belongs to, ascending.
        hole: (R,) bool.
    """

    points: np.ndarray
    starts: np.ndarray
    mask: np.ndarray
    hole: np.ndarray

    def areas(self) -> np.ndarray:
        """(R,) enclosed area of each ring in square cells."""
        nxt = self.points[_following(self.starts)]
        cross = self.points[:, 0] * nxt[:, 1] - nxt[:, 0] * self.points[:, 1]
        return np.abs(_segment_sums(cross, self.starts)) / 2

    def select(self, rings: np.ndarray) -> TracedRings:
        """Keep the rings where ``rings`` (R,) bool is true; the masks keep their numbers."""
        count = np.diff(self.starts)
        starts = np.concatenate([[0], np.cumsum(count[rings])])
        return TracedRings(self.points[np.repeat(rings, count)], starts, self.mask[rings], self.hole[rings])

    def split(self) -> list[Ring]:
        """Return the R rings as float32 arrays (n, 2) of x, y in cells."""
        return np.split(self.points.astype(np.float32), self.starts[1:-1]) if len(self.mask) else []


def trace_mask(mask: np.ndarray) -> Rings:
    """Trace all rings of one binary or soft mask (h, w), in its own pixels; soft masks are cut at 0.5."""
    return trace_window(mask).split()


def trace_window(mask: np.ndarray) -> TracedRings:
    """Trace one binary or soft mask (h, w), all rings together; only the part that holds the object is followed."""
    inside = mask if mask.dtype == bool else mask > 0.5
    x0, y0, x1, y1 = bounding_box(inside) or (0, 0, -1, -1)
    x0, y0 = max(x0 - 1, 0), max(y0 - 1, 0)
    rings = trace_masks(mask[None, y0 : y1 + 1, x0 : x1 + 1])  # a soft outline lies between this box and its neighbours
    rings.points += (x0, y0)
    return rings


def trace_masks(masks: Sequence[np.ndarray] | np.ndarray) -> TracedRings:
    """Trace all rings of K masks at once.

    The masks are laid one below the other, framed by zeros, and followed by one call of OpenCV's border follower
    (8-connected objects, 4-connected holes); the rest is array arithmetic.

    Args:
        masks: K arrays (h, w), or one (K, h, w), bool or uint8 (traced along pixel edges), or float in [0, 1] (traced
            at level 0.5).
    """
    k = len(masks)
    soft = k > 0 and np.issubdtype(masks[0].dtype, np.floating)
    rows, columns = np.array([mask.shape for mask in masks], np.int64).reshape(k, 2).T
    top = np.cumsum(np.concatenate([[0], rows + 2]))
    canvas = np.zeros((top[-1], columns.max(initial=0) + 2), np.float32 if soft else np.uint8)
    for mask, y in zip(masks, top.tolist(), strict=False):
        canvas[y + 1 : y + 1 + mask.shape[0], 1 : 1 + mask.shape[1]] = mask
    chains, hierarchy = cv2.findContours((canvas > 0.5).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if len(chains) == 0:
        return TracedRings(np.zeros((0, 2)), np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))
    owner = np.searchsorted(top, [chain[0, 0, 1] for chain in chains], side="right") - 1
    order = np.argsort(owner, kind="stable")
    pixels = np.concatenate([chains[i] for i in order])[:, 0].astype(np.int64)
    starts = np.concatenate([[0], np.cumsum([len(chains[i]) for i in order])])
    points, starts = _walk_cracks(pixels, starts, canvas if soft else None)
    tile = owner[order]
    points -= np.repeat(np.stack([np.ones(len(tile)), top[tile] + 1.0], 1), np.diff(starts), axis=0)
    rings = TracedRings(points, starts, tile, hierarchy[0][order, 3] >= 0)
    return rings if soft else _without_straight_vertices(rings)


def _walk_cracks(pixels: np.ndarray, starts: np.ndarray, soft: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Border pixels (Q, 2) x, y of rings -> their crack vertices (P, 2) and where each ring starts in these."""
    step = pixels[_following(starts)] - pixels
    leaves = _CODE[step[:, 1] + 1, step[:, 0] + 1]
    came = leaves[_preceding(starts)]
    came[leaves < 0] = 8  # a ring of one pixel has no step
    sides = _CRACKS[came, leaves]
    used = sides >= 0
    owner = np.repeat(np.arange(len(pixels)), used.sum(1))
    side, pixel = sides[used], pixels[owner]
    first = np.concatenate([[0], np.cumsum(used.sum(1))])[starts]
    if soft is None:
        corner_x = np.array([_CORNER_X.get(s, 0) for s in range(8)])[side]
        corner_y = np.array([_CORNER_Y.get(s, 0) for s in range(8)])[side]
        return pixel + np.stack([corner_x, corner_y], 1).astype(np.float64), first
    inner = soft[pixel[:, 1], pixel[:, 0]].astype(np.float64)
    outer = soft[pixel[:, 1] + _DY[side], pixel[:, 0] + _DX[side]]
    part = (inner - 0.5) / (inner - outer)
    return pixel + 0.5 + part[:, None] * np.stack([_DX[side], _DY[side]], 1), first


def _without_straight_vertices(rings: TracedRings) -> TracedRings:
    """Drop the vertices between two pixel edges of one direction; every ring keeps at least four."""
    ahead = rings.points[_following(rings.starts)] - rings.points
    behind = rings.points - rings.points[_preceding(rings.starts)]
    keep = (ahead != behind).any(1)
    starts = np.concatenate([[0], np.cumsum(keep)])[rings.starts]
    return TracedRings(rings.points[keep], starts, rings.mask, rings.hole)


def contours_from_masks(
    masks: Sequence[np.ndarray] | np.ndarray,
    boxes: Tensor,
    vertices: int,
    config: TracingConfig,
    limits: np.ndarray | None = None,
) -> Contours:
    """The initial contours of K instances from the masks inside their boxes, never pasted into the image.

    Args:
        masks: K arrays (h, w), or one (K, h, w), soft or binary, each covering its box.
        boxes: (K, 4) xyxy in network-input pixels.
        vertices: N of every ring.
        config: which rings are too small to refine; these are carried through.
        limits: (K, 2) width and height of each instance's image, at whose border contours are cut off.
    """
    rings = trace_masks(masks)
    box = boxes.detach().cpu().double().numpy()
    cells = np.array([mask.shape[::-1] for mask in masks], np.float64).reshape(-1, 2)
    scale = (box[:, 2:] - box[:, :2]) / np.maximum(cells, 1)
    owner = np.repeat(rings.mask, np.diff(rings.starts))
    points = rings.points * scale[owner] + box[owner, :2]
    if limits is not None:
        points = np.clip(points, 0, limits[owner])
    placed = TracedRings(points, rings.starts, rings.mask, rings.hole)
    return pack_contours(placed, placed.areas(), len(masks), vertices, config, boxes.device)


def contours_from_rings(
    objects: Sequence[Rings], vertices: int, config: TracingConfig, device: torch.device | str
) -> Contours:
    """The initial contours of K objects given as rings in pixels; a ring inside an odd number of others is a hole.

    Args:
        objects: K lists of rings (n, 2).
        vertices: N of every ring.
        config: which rings are too small to refine; these are carried through.
        device: of the result.
    """
    usable = [[ring for ring in rings if len(ring) >= 3] for rings in objects]
    flat = [ring for rings in usable for ring in rings]
    points = np.concatenate([np.zeros((0, 2)), *flat])
    starts = np.concatenate([[0], np.cumsum([len(ring) for ring in flat], dtype=np.int64)])
    mask = np.repeat(np.arange(len(usable)), np.array([len(rings) for rings in usable], np.int64))
    hole = np.concatenate([np.zeros(0, bool), *map(holes, usable)])
    rings = TracedRings(points, starts, mask, hole)
    return pack_contours(rings, rings.areas(), len(objects), vertices, config, device)


def pack_contours(
    rings: TracedRings,
    areas: np.ndarray,
    instances: int,
    vertices: int,
    config: TracingConfig,
    device: torch.device | str,
) -> Contours:
    """Resample the rings that are large enough to N vertices; the others are carried through as they are.

    Args:
        rings: of K instances, in network-input pixels.
        areas: (R,) enclosed area of each ring in square pixels.
        instances: K.
        vertices: N.
        config: which rings are large enough.
        device: of the result.
    """
    import torch  # here: masks are traced without it, in data sets and in the results of models

    keep = refinable(rings, areas, instances, config)
    large, small = rings.select(keep), rings.select(~keep)
    carried: list[Rings] = [[] for _ in range(instances)]
    for k, ring in zip(small.mask.tolist(), small.split(), strict=True):
        carried[k].append(ring)
    even = resample_rings(large.points, large.starts, vertices)
    return Contours(
        torch.from_numpy(even.astype(np.float32)).to(device),
        torch.from_numpy(large.mask).to(device),
        torch.from_numpy(large.hole).to(device),
        carried,
        large.split() if config.carry_back else [],
    )


def refinable(rings: TracedRings, areas: np.ndarray, instances: int, config: TracingConfig) -> np.ndarray:
    """Whether each ring is large enough to be refined, (R,) bool.

    ``areas`` (R,) are in square pixels of the network input.
    """
    total = np.bincount(rings.mask, areas * np.where(rings.hole, -1, 1), minlength=instances)
    return areas >= np.maximum(config.min_area, config.min_share * total[rings.mask])


def resample_rings(points: np.ndarray, starts: np.ndarray, vertices: int) -> np.ndarray:
    """Space N vertices evenly by arc length along every ring: (P, 2) and (R + 1,) -> (R, N, 2)."""
    rings = len(starts) - 1
    if rings == 0:
        return np.zeros((0, vertices, 2))
    ahead = points[_following(starts)] - points
    # A tiny length for every edge keeps the running length increasing where vertices coincide.
    length = np.hypot(ahead[:, 0], ahead[:, 1]) + 1e-9
    behind = np.concatenate([[0.0], np.cumsum(length)])
    total = behind[starts[1:]] - behind[starts[:-1]]
    target = behind[starts[:-1], None] + total[:, None] * (np.arange(vertices) / vertices)
    edge = np.clip(np.searchsorted(behind, target, side="right") - 1, starts[:-1, None], starts[1:, None] - 1)
    part = (target - behind[edge]) / length[edge]
    return points[edge] + part[..., None] * ahead[edge]


def _following(starts: np.ndarray) -> np.ndarray:
    """Index of the next vertex on the same ring, for every vertex; rings are not empty."""
    index = np.arange(1, starts[-1] + 1)
    index[starts[1:] - 1] = starts[:-1]
    return index


def _preceding(starts: np.ndarray) -> np.ndarray:
    index = np.arange(-1, starts[-1] - 1)
    index[starts[:-1]] = starts[1:] - 1
    return index


def _segment_sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.diff(np.concatenate([[0.0], np.cumsum(values)])[starts])
