"""Section 3.1 in four pictures of one object: normals, phi along them, the march, and what is frozen.

Everything shown is what the evolution computed, see :mod:`eval.diagnostics.follow`; of an object of several rings it is
the first one, and there are colours for six iterations. The photograph is paled, so that lines
are seen on it; the colours are those of Okabe and Ito, which the colour-blind tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from eval.diagnostics.follow import Followed, Iteration
from eval.pictures.axes import GREY, Axes
from eval.pictures.course import around
from sharpcontour.pictures import drawing, panels
from sharpcontour.pictures.drawing import Colour, View
from sharpcontour.pictures.moves import Place
from sharpcontour.pictures.panels import GAP, INK, MARGIN, PAPER

PICTURES = ("normals.jpg", "profiles.jpg", "march.jpg", "freezing.jpg")
ORANGE, GREEN, BLUE, RED = (230, 159, 0), (0, 158, 115), (0, 114, 178), (213, 94, 0)
SKY, PINK = (86, 180, 233), (204, 121, 167)
_SIDES = {False: BLUE, True: ORANGE}  # of the object's boundary, as phi has it: inside, outside
_ITERATIONS: tuple[Colour, ...] = (ORANGE, GREEN, BLUE, RED, SKY, PINK)  # the first, ...
_WIDTH = 1180  # px of all panels of a sheet together
_TEXT = 11.0  # px, height of a capital letter
_TOP = MARGIN + round(2.2 * _TEXT)  # px, of panels, below their titles
_KEY = round(2.6 * _TEXT)  # px, of the key below them
_GRAPH = 210  # px, height of a graph of phi
_NEAR, _NEARER = 0.25, 0.14  # sides of close-ups, as shares of the square root of the box's area
_REACH = 12.0  # px of the image to both sides of a vertex along which phi is shown
_STRIP = 52  # px, height of what the image shows there


def draw_method(found: Followed, folder: Path) -> list[Path]:
    """Write the four pictures into a folder; returns their paths."""
    paths = [folder / name for name in PICTURES]
    for path, draw in zip(paths, (normals, profiles, march, freezing), strict=True):
        drawing.save(path, draw(found))
    return paths


def normals(found: Followed) -> np.ndarray:
    """C(0), and at one place the normals of its vertices, then the directions in which they march."""
    first = found.iteration(0)
    at, outside = found.in_image(first.x)[0], (first.phi > 0.5).numpy()[0]
    place = _divided(found, at, outside)
    sheet = _Sheet(("the contour C(0)", "outward normals", "directions d of the march"), 3)
    panel, view = _whole(found, sheet.width)
    _line(panel, view, found, 0, INK)
    panels.mark(panel, view, place)
    sheet.paste(panel)
    for ways, colours in ((first.outwards, {False: INK, True: INK}), (first.d, _SIDES)):
        view = panels.square(place, sheet.width)
        panel = _pale(found, view)
        _line(panel, view, found, 0, GREY)
        tips = at + 0.12 * place.side * ways.numpy()[0]
        for side, colour in colours.items():
            for begin, end in zip(view.place(at[outside == side]), view.place(tips[outside == side]), strict=True):
                _arrow(panel, begin, end, colour)
            _dots(panel, view.place(at[outside == side]), colour, 4.5)
        sheet.paste(panel)
    sheet.key(2, [(ORANGE, "phi > 0.5: inwards"), (BLUE, "else: outwards")])
    return sheet.canvas


def profiles(found: Followed) -> np.ndarray:
    """Phi along the normals of three vertices, where their steps ended in the first iteration, and the image there."""
    first = found.iteration(0)
    chosen = _typical(found, first)
    sheet = _Sheet(("vertices of C(0) and their normals",), 3, _STRIP + 12 + _GRAPH + 76)
    panel, view = _whole(found, sheet.width)
    _line(panel, view, found, 0, INK)
    for number, vertex in enumerate(chosen.values(), 1):
        at, out = found.in_image(first.x[0, vertex]), first.outwards[0, vertex].numpy()
        drawing.stroke(panel, [view.place(at + np.outer([-_REACH, _REACH], out))], INK, 2.5, closed=False)
        panels.badge(panel, number, *view.place(at + 2.6 * _REACH * out).clip(14, np.array(panel.shape[1::-1]) - 14))
    sheet.paste(panel)
    wide = (_WIDTH - sheet.width - len(chosen) * GAP) / len(chosen)
    for number, (what, vertex) in enumerate(chosen.items(), 1):
        x = MARGIN + sheet.width + GAP + (number - 1) * (wide + GAP) + 42
        axes = Axes(sheet.canvas, x, _TOP + _STRIP + 12, wide - 46, _GRAPH, (-_REACH, _REACH), (0, 1), 9)
        _profile(found, first, vertex, axes)
        drawing.write(sheet.canvas, f"{number}: {what}", x - 6, MARGIN + _TEXT, _TEXT, bold=True)
        told = f"s = {float(first.s[0, vertex]) / found.scale:.2f} px,  m = {int(first.m[0, vertex])}"
        drawing.write(sheet.canvas, told, x, axes.y + axes.height + 68, _TEXT)
    sheet.key(0, [(ORANGE, "phi > 0.5"), (BLUE, "phi <= 0.5"), (PAPER, "flipping point")])
    return sheet.canvas


def march(found: Followed) -> np.ndarray:
    """The contours of all iterations, and every step where they moved most and where most flip after the first one."""
    last = len(found.course.steps) - 1
    flipped, start = torch.stack(found.course.flipped)[:, 0].numpy(), found.rings(0)[0]
    late = flipped.any(0) & ~flipped[0]
    places = _places(found, _NEARER)
    places = [places[0], max(places[1:] or places, key=lambda place: int(late[_within(place, start)].sum()))]
    sheet = _Sheet((f"C(0) to C({last})", "all steps where it moved most", "and where most flip late"), 3)
    panel, view = _whole(found, sheet.width)
    _lines(panel, view, found)
    for number, place in enumerate(places, 1):
        panels.mark(panel, view, place, number)
    sheet.paste(panel)
    iterations = [found.iteration(k) for k in range(last)]
    for number, place in enumerate(places, 1):
        view = panels.square(place, sheet.width)
        panel = _pale(found, view)
        _lines(panel, view, found)
        for k, iteration in enumerate(iterations):
            for vertex in range(len(start)):
                walk = view.place(found.in_image(iteration.walk(0, vertex)))[1:]
                drawing.dots(panel, walk, INK, 1.7)
                drawing.dots(panel, walk, _ITERATIONS[k], 1.1)
        _dots(panel, view.place(start), INK, 4)
        panels.badge(panel, number, 17, 17)
        sheet.paste(panel)
    sheet.key(0, [(INK, "C(0)"), *((_ITERATIONS[k], f"C({k + 1}) and the steps to it") for k in range(last))])
    return sheet.canvas


def freezing(found: Followed) -> np.ndarray:
    """Where the vertices are after each iteration and which of them have flipped, and the share of these."""
    course, last = found.course, len(found.course.steps) - 1
    width = (_WIDTH - last * GAP) // (last + 1)
    height = around(found.rings(0), found.image, width).height
    sheet = _Sheet([f"after iteration {k + 1}" for k in range(last)], last + 1, height + 30)
    frozen = np.full(course.flipped[0].shape[1], last)  # the iteration in which each vertex has flipped
    shares = [0.0]
    for number in range(last):
        frozen[course.flipped[number].numpy()[0]] = number
        shares.append(float((frozen < last).mean()))
        panel, view = _whole(found, sheet.width)
        _line(panel, view, found, number + 1, GREY, 1.5)
        points = view.place(found.rings(number + 1)[0])
        for k in (last, *range(last)):
            _dots(panel, points[frozen == k], _ITERATIONS[k] if k < last else PAPER, 3.2)
        sheet.paste(panel)
    x = MARGIN + last * (sheet.width + GAP) + 44
    axes = Axes(sheet.canvas, x, _TOP + 14, sheet.width - 60, height - 40, (0, last), (0, 1), 9)
    axes.frame("", [(k, str(k)) for k in range(last + 1)], [(v, f"{100 * v:.0f} %") for v in (0, 0.5, 1)], "iteration")
    drawing.write(sheet.canvas, "share that has flipped", x - 36, MARGIN + _TEXT, _TEXT, bold=True)
    axes.line(np.array(list(enumerate(shares))), INK, 2, 0)
    for k, share in enumerate(shares[1:], 1):
        ((x, y),) = axes.place(np.array([[k, share]])).tolist()
        _dots(sheet.canvas, np.array([[x, y]]), _ITERATIONS[k - 1], 5)
        text = f"{100 * share:.0f} %"
        drawing.write(sheet.canvas, text, x - drawing.text_width(text, 9) / 2, y - 12, 9)
    flips = [(_ITERATIONS[k], f"flipped in iteration {k + 1}") for k in range(last)]
    sheet.key(0, [*flips, (PAPER, "not yet")])
    return sheet.canvas


class _Sheet:
    """A white sheet with panels side by side, their titles above and a key below.

    Args:
        titles: of the panels, from the left.
        columns: how many panels there is room for.
        height: of the panels, px; by default they are square.
    """

    def __init__(self, titles: Sequence[str], columns: int, height: int = 0) -> None:
        self.width = (_WIDTH - (columns - 1) * GAP) // columns
        height = _TOP + (height or self.width) + _KEY + MARGIN // 2
        self.canvas = np.full((height, _WIDTH + 2 * MARGIN, 3), 255, np.uint8)
        self._next = 0
        for column, title in enumerate(titles):
            drawing.write(self.canvas, title, self._x(column), MARGIN + _TEXT, _TEXT, bold=True)

    def paste(self, panel: np.ndarray) -> None:
        """Put a panel into the next column."""
        panels.paste(self.canvas, panel, self._x(self._next), _TOP)
        self._next += 1

    def key(self, column: int, entries: Sequence[tuple[Colour, str]]) -> None:
        """Say what colours mean, from a column on."""
        x, y = float(self._x(column)), self.canvas.shape[0] - MARGIN / 2 - 4
        for colour, text in entries:
            _dots(self.canvas, np.array([[x + 6, y - _TEXT / 2]]), colour, 5)
            x = drawing.write(self.canvas, text, x + 18, y, _TEXT) + 26

    def _x(self, column: int) -> int:
        return MARGIN + column * (self.width + GAP)


def _profile(found: Followed, first: Iteration, vertex: int, axes: Axes) -> None:
    """Phi along the normal of a vertex over what the image shows there, with the places of its march on both."""
    at, out = first.x[0, vertex], first.outwards[0, vertex]
    along = torch.linspace(-_REACH, _REACH, 97)
    phi = found.phi(at + along[:, None] * found.scale * out)
    walk = first.walk(0, vertex)
    steps = np.stack([((walk - at) @ out).numpy() / found.scale, found.phi(walk).numpy()], 1)
    strip = _along(found, found.in_image(at), out.numpy(), round(axes.width))
    panels.paste(axes.canvas, strip, round(axes.x), _TOP)
    ticks = [(v, f"{v:g}") for v in (-_REACH, -_REACH / 2, 0, _REACH / 2, _REACH)]
    axes.frame("", ticks, [(v, f"{v:g}") for v in (0, 0.5, 1)], "px along the normal")
    axes.line(np.array([[-_REACH, 0.5], [_REACH, 0.5]]), GREY, 1, 0)
    axes.line(np.stack([along.numpy(), phi.numpy()], 1), INK, 2, 0)
    placed = axes.place(steps)
    for line, radius in ((placed, 4.5), (np.stack([placed[:, 0], np.full(len(placed), _TOP + _STRIP / 2)], 1), 4.0)):
        for side, colour in _SIDES.items():
            _dots(axes.canvas, line[(steps[:, 1] > 0.5) == side], colour, radius)
        if bool(first.flipped[0, vertex]):
            drawing.dots(axes.canvas, line[-1:], INK, radius + 3.5)
            drawing.dots(axes.canvas, line[-1:], PAPER, radius + 2)
            _dots(axes.canvas, line[-1:], _SIDES[bool(steps[-1, 1] > 0.5)], radius - 1)


def _along(found: Followed, at: np.ndarray, out: np.ndarray, width: int) -> np.ndarray:
    """The image along a normal, which leads to the right; ``at`` is in the middle."""
    step = 2 * _REACH / width  # px of the image
    turn = step * np.array([[out[0], -out[1]], [out[1], out[0]]])
    # Pixel centres: the strip's column c stands for c + .5, and so does the image's.
    begin = at - 0.5 - turn @ (np.array([width, _STRIP]) / 2 - 0.5)
    matrix = np.concatenate([turn, begin[:, None]], 1)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(found.image, matrix, (width, _STRIP), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _typical(found: Followed, first: Iteration) -> dict[str, int]:
    """A vertex that flips on its way inwards, one that does outwards, and one only in the next iteration.

    Of each kind it is the one that goes farthest in less than M steps, or in M.
    """
    limit, course = found.config.max_steps, found.course
    flips, outside = first.flipped & (first.m < limit), first.phi > 0.5
    kinds = {"marches inwards": flips & outside, "marches outwards": flips & ~outside}
    if len(course.flipped) > 1:
        kinds[f"no flip in {limit} steps"] = ~first.flipped & course.flipped[1]
    length = first.m * first.s
    return {what: int((length * kind)[0].argmax()) for what, kind in kinds.items() if bool(kind[0].any())}


def _places(found: Followed, share: float) -> list[Place]:
    """Squares around vertices that the evolution moved, the farthest first; no two overlap.

    Args:
        found: the evolution.
        share: their side as a share of the square root of the box's area.
    """
    start, end = (ring.astype(np.float64) for ring in (found.rings(0)[0], found.rings(-1)[0]))
    side = share * float(found.area[0].sqrt()) / found.scale
    corners = ((start + end - side) / 2).clip(0, np.array(found.image.shape[1::-1]) - side)
    far = np.hypot(*(end - start).T)
    places: list[Place] = []
    for vertex in np.argsort(-far, kind="stable"):
        place = Place(0, float(corners[vertex, 0]), float(corners[vertex, 1]), side, float(far[vertex]))
        if not any(place.overlaps(other) for other in places):
            places.append(place)
    return places


def _divided(found: Followed, at: np.ndarray, outside: np.ndarray) -> Place:
    """Of such squares the one with most vertices both outside and inside."""

    def both(place: Place) -> int:
        near = _within(place, at)
        return int(min((near & outside).sum(), (near & ~outside).sum()))

    return max(_places(found, _NEAR), key=both)


def _within(place: Place, points: np.ndarray) -> np.ndarray:
    """Which points (n, 2) lie in a square, (n,) bool."""
    inside: np.ndarray = (points >= (place.x, place.y)) & (points <= (place.x + place.side, place.y + place.side))
    return inside[:, 0] & inside[:, 1]


def _pale(found: Followed, view: View) -> np.ndarray:
    """The image as a view shows it, half its colours gone, and light."""
    canvas = view.render(found.image).astype(np.float32)
    grey = canvas.mean(2, keepdims=True)
    return np.round(0.45 * (0.5 * canvas + 0.5 * grey) + 0.55 * 255).astype(np.uint8)


def _whole(found: Followed, width: int) -> tuple[np.ndarray, View]:
    """The object and some of what is around it, with the view of it."""
    view = around(found.rings(0), found.image, width)
    return _pale(found, view), view


def _lines(canvas: np.ndarray, view: View, found: Followed) -> None:
    """C(0), C(1), ... in the colours of the iterations that lead to them."""
    for number in range(len(found.course.steps)):
        _line(canvas, view, found, number, _ITERATIONS[number - 1] if number else INK)


def _line(canvas: np.ndarray, view: View, found: Followed, number: int, colour: Colour, width: float = 2) -> None:
    """C(number)."""
    drawing.stroke(canvas, panels.on_canvas(found.rings(number), view), colour, width)


def _dots(canvas: np.ndarray, points: np.ndarray, colour: Colour, radius: float) -> None:
    """Dots with a dark rim."""
    drawing.dots(canvas, points, INK, radius + 1)
    drawing.dots(canvas, points, colour, radius)


def _arrow(canvas: np.ndarray, begin: np.ndarray, end: np.ndarray, colour: Colour) -> None:
    """A line with a head."""
    way = (end - begin) / max(float(np.hypot(*(end - begin))), 1e-9)
    across = np.array([-way[1], way[0]])
    drawing.stroke(canvas, [np.stack([begin, end - 7 * way])], colour, 2.25, closed=False)
    drawing.fill(canvas, [np.stack([end, end - 11 * way + 5 * across, end - 11 * way - 5 * across])], colour)
