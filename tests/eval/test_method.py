"""The pictures of section 3.1 show what the evolution computed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from eval.diagnostics.follow import Followed, follow
from eval.pictures import method
from eval.pictures.axes import Axes
from sharpcontour import load_refiner
from sharpcontour.config import EvolutionConfig
from sharpcontour.errors import InputError
from sharpcontour.evolution import displaced
from sharpcontour.io.images import read_image
from tests.commands import run_script

DOCS = Path(__file__).resolve().parents[2] / "docs"
PICTURES = ("normals", "profiles", "march", "freezing")


@pytest.fixture(scope="module")
def found() -> Followed:
    photo, rough = (read_image(DOCS / name) for name in ("coffee.jpg", "cup.png"))
    return follow(load_refiner(), photo, rough[..., 0] > 0, EvolutionConfig())


def test_what_is_told_of_an_iteration_is_what_the_evolution_did(found: Followed) -> None:
    assert found.course.steps[0].shape == (1, 128, 2) and len(found.course.moves) == 3
    for k in range(3):
        one = found.iteration(k)
        # phi is asked anew, in other company than during the march.
        assert torch.allclose(displaced(one.x, one.m, one.s, one.d), found.course.steps[k + 1], atol=1e-4)
        assert torch.allclose((one.phi - 0.5).abs(), found.course.sharpness[k], atol=1e-5)
        assert (one.m[~one.active] == 0).all() and one.m.max() <= 10


def test_a_walk_ends_where_phi_changes_sides(found: Followed) -> None:
    one = found.iteration(0)
    flipped = one.flipped[0].nonzero()[:, 0].tolist()
    assert 0 < len(flipped) < 128
    for vertex in range(0, 128, 7):
        walk = one.walk(0, vertex)
        outside = found.phi(walk) > 0.5
        assert len(walk) == int(one.m[0, vertex]) + 1 and torch.equal(walk[0], one.x[0, vertex])
        assert (outside[:-1] == outside[0]).all() and bool(outside[-1] != outside[0]) == (vertex in flipped)


def test_contours_lie_where_the_mask_does(found: Followed) -> None:
    rough = read_image(DOCS / "cup.png")[..., 0] > 0
    rows, columns = np.nonzero(rough)
    (ring,) = found.rings(0)
    low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
    assert np.abs(ring.min(0) - low).max() < 4 and np.abs(ring.max(0) - high).max() < 4


def test_following_leaves_the_refiner_as_it_was() -> None:
    refiner = load_refiner()
    module, photo = refiner.model.refiner, read_image(DOCS / "coffee.jpg")
    before = module.config, module.evolve
    with pytest.raises(InputError, match="too small"):
        follow(refiner, photo, np.zeros(photo.shape[:2], bool), EvolutionConfig())
    assert (module.config, module.evolve) == before


def test_the_command_draws_the_pictures_of_the_page(tmp_path: Path) -> None:
    done = run_script("figures.py", "--paper", "new", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"new/{name}.jpg" for name in PICTURES]
    text = (DOCS / "paper.md").read_text(encoding="utf-8")
    for name in PICTURES:
        drawn, kept = (cv2.imread(str(path / f"{name}.jpg")) for path in (tmp_path / "new", DOCS / "paper"))
        assert drawn.shape == kept.shape and drawn.std() > 30
        assert f"](paper/{name}.jpg)" in text
    done = run_script("figures.py", "--before-after", "run", cwd=tmp_path)
    assert done.returncode == 2 and "--out PNG is missing" in done.stderr


def test_an_evolution_of_one_iteration_can_be_drawn(found: Followed) -> None:
    rough = read_image(DOCS / "cup.png")[..., 0] > 0
    short = follow(load_refiner(), found.image, rough, EvolutionConfig(iterations=1, vertices=64))
    for draw in (method.normals, method.profiles, method.march, method.freezing):
        assert draw(short).dtype == np.uint8


def test_axes_place_values() -> None:
    axes = Axes(np.full((80, 120, 3), 255, np.uint8), 20, 10, 90, 50, (-1, 1), (0, 4))
    assert axes.place(np.array([[-1, 0], [1, 4], [0, 1]])).tolist() == [[20, 60], [110, 10], [65, 47.5]]
    axes.line(np.zeros((0, 2)), (0, 0, 0))
    assert (axes.canvas == 255).all()
