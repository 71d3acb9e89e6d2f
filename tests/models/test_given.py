"""What masks from anywhere become: rings with the same pixels, or a message that names what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from sharpcontour import InputError
from sharpcontour.anymask.foreign_masks import read_masks, valid_boxes
from sharpcontour.anymask.given_objects import GivenObjects
from sharpcontour.anymask.refiner import read_given
from sharpcontour.contours.keyholes import joined
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.contours.tracing import trace_mask
from tests.models.helpers import H, W, rle_of, scene


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = np.concatenate([[False], mask.T.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0, append=mask.size).tolist()}


def pixels(given: GivenObjects) -> np.ndarray:
    return rings_to_masks(given.objects, H, W)


FORMS = {
    "bool array": lambda masks: masks,
    "uint8 array": lambda masks: masks.astype(np.uint8) * 255,
    "tensor": torch.from_numpy,
    "list of arrays": list,
    "RLE, bytes": lambda masks: [rle_of(mask) for mask in masks],
    "RLE, text": lambda masks: [rle_of(mask, text=True) for mask in masks],
    "RLE, not compressed": lambda masks: [uncompressed(mask) for mask in masks],
    "mixed": lambda m: [m[0], rle_of(m[1]), torch.from_numpy(m[2]), [], [[0.0, 0, W, 0, W, H, 0, H]]],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_rings_with_the_same_pixels(form: str) -> None:
    masks = scene()
    given = read_masks(FORMS[form](masks), H, W)
    assert np.array_equal(rings_to_masks(given.objects, H, W), masks)
    assert [len(rings) for rings in given.objects] == [2, 2, 1, 0, 1]
    assert given.rings.hole.tolist().count(True) == 1 and given.rings.mask.tolist() == [0, 0, 1, 1, 2, 4]
    wanted = [[20, 10, 60, 50], [0, 0, 75, 55], [71, 33, 72, 34], [0, 0, 0, 0], [0, 0, W, H]]
    assert given.boxes().tolist() == wanted


@pytest.mark.parametrize("write", [list, tuple, np.array])
def test_polygons_as_tools_write_them(write: Callable[[Any], Any]) -> None:
    """Points instead of a row of numbers, and a polygon without the list around it, can mean only one thing."""
    polygons = [[5.0, 5, 40, 5, 40, 30], [50, 40, 80, 40, 80, 55.5, 60, 50]]
    points = [[write(polygon[k : k + 2]) for k in range(0, len(polygon), 2)] for polygon in polygons]
    wanted = read_masks([polygons, polygons[:1], polygons[1:]], H, W)
    for forms in ([points, points[0], points[1]], [[polygons[0], points[1]], polygons[0], polygons[1]]):
        given = read_masks(forms, H, W)
        for found, rings in zip(given.objects, wanted.objects, strict=True):
            assert len(found) == len(rings) and all(map(np.array_equal, found, rings))


def test_rings_that_a_bridge_joins_are_rings_again() -> None:
    """Along a bridge a contour runs there and back, and its normals are opposite."""
    for mask in scene()[:2]:  # a hole, and two parts
        polygon = joined(trace_mask(mask))
        given = read_masks([[polygon.ravel().tolist()]], H, W)
        assert len(given.objects[0]) == 2 and np.array_equal(rings_to_masks(given.objects, H, W)[0], mask)


def test_noise_keeps_every_pixel() -> None:
    noise = np.random.default_rng(1).random((3, H, W)) < 0.5
    given = read_masks([noise[0], rle_of(noise[1]), noise[2]], H, W)
    assert np.array_equal(rings_to_masks(given.objects, H, W), noise)


def test_polygons_have_the_pixels_that_pycocotools_gives_them() -> None:
    rng = np.random.default_rng(2)

    def polygon(low: float, high: float) -> list[float]:
        return rng.uniform(low, high, (5, 2)).round(1).ravel().tolist()  # one decimal: ties of the rasteriser

    objects = [[polygon(3, 50)] for _ in range(20)]  # inside, crossing themselves
    objects += [[polygon(2, 20), polygon(25, 55)] for _ in range(5)]  # apart
    objects += [[polygon(2, 40), polygon(15, 55)] for _ in range(5)]  # overlapping: their union
    objects += [[polygon(-40, 140)] for _ in range(20)]  # leaving the image
    objects += [[[0.0, 0, 900, 60, 0, 60]], [[-9.0, -9, -1, -9, -1, -1]]]  # as far away as can be, and outside
    given = read_masks(objects, H, W)
    for rings, polygons in zip(given.objects, objects, strict=True):
        union = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, H, W))).astype(bool)
        assert np.array_equal(rings_to_masks([rings], H, W)[0], union)
    for rings, polygons in zip(given.objects[:25], objects[:25], strict=True):  # not reduced to whole pixels
        assert [ring.ravel().tolist() for ring in rings] == polygons
    for rings in given.objects[25:]:
        assert all((ring >= 0).all() and (ring <= (W, H)).all() for ring in rings)
    assert given.objects[-1] == []


SQUARE = [[5.0, 5, 9, 5, 9, 9]]
BROKEN = {
    "other array size": ([np.zeros((H, W), bool), np.zeros((W, H), bool)], r"masks\[1\].* 60 x 90 .* image 90 x 60"),
    "other RLE size": ([{"size": [9, 8], "counts": "X2"}], r"masks\[0\].* 8 x 9 pixels, the image 90 x 60"),
    "cut RLE": ([SQUARE, {"size": [H, W], "counts": "PPPP"}], r"masks\[1\]: counts cannot be read"),
    "text no RLE": ([{"size": [H, W], "counts": "é"}], r"masks\[0\]: counts cannot be read"),
    "short RLE": ([{"size": [H, W], "counts": [5, 6]}], r"masks\[0\]: counts do not add up to 90 x 60"),
    "negative RLE": ([{"size": [H, W], "counts": [H * W + 1, -1]}], r"counts do not add up"),
    "RLE whose sum is right in 64 bits only": ([{"size": [H, W], "counts": [2**62] * 4 + [H * W]}], r"do not add up"),
    "no counts": ([{"size": [H, W]}], r"masks\[0\]: counts do not add up"),
    "no size": ([{"counts": [H * W]}], r"masks\[0\]: an RLE needs 'size'"),
    "points": ([np.array([[1.0, 2], [9, 2], [9, 8]])], r"masks\[0\]: 3 points and no mask; .* so give \[points\]"),
    "soft mask": ([np.zeros((H, W), np.float32)], r"masks\[0\]: a mask of float32; .*mask > 0.5"),
    "two points": ([[[1.0, 1, 5, 5]]], r"masks\[0\]: a polygon must be .* three or more points"),
    "odd numbers": ([[[1.0, 1, 5, 5, 2, 2, 3]]], r"masks\[0\]: a polygon must be"),
    "two points not in a list": ([[1.0, 1, 5, 5]], r"masks\[0\]: a polygon must be a flat list"),
    "points of three numbers": ([[[[1.0, 1, 0], [5, 5, 0], [2, 2, 0]]]], r"masks\[0\]: a polygon must be a flat list"),
    "nan": ([SQUARE, [[1.0, 1, float("nan"), 5, 2, 2]]], r"masks\[1\]: a polygon has a coordinate that is not finite"),
    "far vertex": (
        [SQUARE, [[1e4, -1e4, 30.0, 20, 5, 5]]],
        r"masks\[1\]: a polygon has a vertex more than 10 image sizes away; give pixels of this image",
    ),
    "nothing known": ([SQUARE, None], r"masks\[1\]: NoneType is neither"),
    "four dimensions": (
        np.zeros((2, 1, H, W), bool),
        r"shape \(K, 60, 90\) or \(60, 90\); this one has \(2, 1, 60, 90\)",
    ),
    "one mask of another size": (np.zeros((W, H), bool), r"\(60, 90\); this one has \(90, 60\)"),
    "logits alone": (np.full((H, W), 2.0), "are not from 0 to 1"),
    "a picture of PIL": (Image.new("L", (W, H)), r"not a PIL image; give np.asarray\(mask\) > 0"),
    "pictures of PIL": ([Image.new("L", (W, H))], r"masks\[0\]: a PIL image; give np.asarray\(mask\) > 0"),
    "a file that is not there": ("none.png", "none.png: no such file of masks"),
    "one RLE alone": ({"size": [H, W], "counts": [H * W]}, "not a single RLE"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_masks_are_named(case: str) -> None:
    masks, message = BROKEN[case]
    with pytest.raises(InputError, match=message) as error:
        read_masks(masks, H, W)
    assert "\n" not in str(error.value)


def test_an_array_alone_is_read_as_a_file_is(tmp_path: Path) -> None:
    mask, labels = np.zeros((2, H, W), np.uint8)
    mask[10:30, 20:50] = 255
    labels[10:30, 20:50], labels[40:50, 5:9] = 1, 2
    for one in (mask, mask > 0, mask / 255, torch.from_numpy(mask), torch.from_numpy(mask).bfloat16() / 255):
        assert np.array_equal(pixels(read_masks(one, H, W)), [mask > 0])
    assert np.array_equal(pixels(read_masks(labels, H, W)), [labels == 1, labels == 2])
    for name, array in (("m.png", mask), ("l.png", labels)):
        cv2.imwrite(str(tmp_path / name), array)
    assert np.array_equal(pixels(read_masks(str(tmp_path / "l.png"), H, W)), [labels == 1, labels == 2])
    both = read_masks([tmp_path / "m.png", str(tmp_path / "l.png")], H, W)
    assert np.array_equal(pixels(both), [mask > 0, labels == 1, labels == 2])


def test_files_of_data_sets_are_read_for_their_image(tmp_path: Path) -> None:
    """Of the objects in a COCO file those of the photograph; a crowd among them is refused, not taken for an object."""
    cv2.imwrite(str(tmp_path / "b.png"), np.full((H, W, 3), 90, np.uint8))
    entries = [{"id": k, "file_name": name, "height": H, "width": W} for k, name in enumerate(("a.png", "b.png"))]
    objects = [
        {"id": k, "image_id": place, "category_id": 1, "iscrowd": 0, "segmentation": [[5 + k, 5, 30, 5, 30, 30]]}
        for k, place in enumerate((0, 1, 1))
    ]
    data = {"images": entries, "annotations": objects, "categories": [{"id": 1, "name": "cup"}]}
    file = tmp_path / "coco.json"
    file.write_text(json.dumps(data))
    found = read_given(tmp_path / "b.png", file, None, None, None)[2]
    assert [ring[0][0].tolist() for ring in found.rings] == [[6, 5], [7, 5]]
    objects[1]["iscrowd"] = 1
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"coco.json: cup.* has iscrowd 1, .* run the command sharpcontour"):
        read_given(tmp_path / "b.png", file, None, None, None)


def test_boxes_are_made_valid() -> None:
    default = torch.tensor([[1.0, 2, 3, 4]]).repeat(4, 1)
    with pytest.warns(UserWarning, match="lies apart"):
        found = valid_boxes([[-5, -5, 200, 200], None, [30, 20, 30.2, 20], [500, 500, 600, 600]], default, H, W)
    assert found.tolist() == [[0, 0, W, H], [1, 2, 3, 4], [30, 20, 31, 21], [W - 1, H - 1, W, H]]
    assert torch.equal(valid_boxes(default.double().numpy(), default, H, W), default)
    assert valid_boxes(None, default, H, W) is default
    for boxes in ([None] * 3, torch.zeros(4, 4)[:3]):
        with pytest.raises(InputError, match="there are 3 boxes for 4 masks"):
            valid_boxes(boxes, default, H, W)
    for boxes in (5, torch.tensor(5.0)):
        with pytest.raises(InputError, match=r"boxes must be x0, y0, x1, y1 for each mask, or None; not .*5"):
            valid_boxes(boxes, default, H, W)
    for row in ([1, 2, 3], [1, 2, 3, float("nan")], "box", [[1, 2], 3]):
        with pytest.raises(InputError, match=r"boxes\[3\] is not x0, y0, x1, y1"):
            valid_boxes([None, None, None, row], default, H, W)


def test_masks_as_nested_lists_are_told() -> None:
    with pytest.raises(InputError, match=r"masks\[1\]: nested lists; give a mask as a numpy array of bool"):
        read_masks([np.eye(8, dtype=bool), np.eye(8, dtype=int).tolist()], 8, 8)
    with pytest.raises(InputError, match=r"masks\[0\]: "):
        read_masks([[[{}, {}, {}, {}, {}, {}]]], 8, 8)


def test_rings_as_detections_have_them_are_read() -> None:
    mask = np.zeros((40, 50), bool)
    mask[5:30, 5:40], mask[12:20, 15:25] = True, False
    given = read_masks([mask, trace_mask(mask)], 40, 50)
    assert given.rings.hole.tolist() == [False, True, False, True]
    assert np.array_equal(*rings_to_masks(given.objects, 40, 50))
    with pytest.raises(InputError, match=r"masks\[0\]: a ring must be three or more points"):
        read_masks([[np.zeros((2, 2))]], 40, 50)


def test_boxes_that_cannot_be_meant_are_told() -> None:
    default = torch.tensor([[29.0, 121, 57, 155]])
    with pytest.raises(InputError, match=r"boxes\[0\] ends before it begins: .*; give x0, y0, x1, y1"):
        valid_boxes([[29, 121, 28, 34]], default, 200, 200)
    with pytest.warns(UserWarning, match=r"boxes\[0\] lies apart from its mask"):
        valid_boxes([[100, 100, 120, 120]], default, 200, 200)
