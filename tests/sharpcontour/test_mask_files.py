"""The readers of mask files: every kind, and what each of them tells of a broken one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sharpcontour.anymask.foreign_masks import read_masks
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.errors import InputError
from sharpcontour.formats.mask_files import read_mask_files
from sharpcontour.formats.mask_images import masks_of_values
from sharpcontour.formats.named_masks import NamedMask, label_rles
from sharpcontour.io.images import WrongSizeError
from tests.sharpcontour.helpers import huge_png, not_utf8

H, W = 60, 80
ROWS, COLUMNS = np.mgrid[:H, :W] + 0.5
LEFT = np.hypot(COLUMNS - 25, ROWS - 30) < 15
RIGHT = np.hypot(COLUMNS - 60, ROWS - 30) < 12
IDS = LEFT + 2 * RIGHT.astype(int)
SQUARE = [10.0, 10, 30, 10, 30, 30, 10, 30]


def read(*paths: Path, **more: Any) -> tuple[list[NamedMask], list[str]]:
    return read_mask_files(paths, (H, W), "photo.jpg", **more)


def pixels(masks: list[NamedMask]) -> list[np.ndarray]:
    """As the refiner reads them."""
    return list(rings_to_masks(read_masks([mask.mask for mask in masks], H, W).objects, H, W))


def same(masks: list[NamedMask], *wanted: np.ndarray) -> bool:
    return len(masks) == len(wanted) and all((a == b).all() for a, b in zip(pixels(masks), wanted, strict=True))


def png(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    Image.fromarray(values, mode).save(path, "PNG")
    return path


def rle(mask: np.ndarray) -> dict[str, Any]:
    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [H, W], "counts": found["counts"].decode()}


def write(path: Path, contents: Any) -> Path:
    path.write_text(contents if isinstance(contents, str) else json.dumps(contents))
    return path


def test_binary_masks_one_a_file(tmp_path: Path) -> None:
    a = png(tmp_path / "a b.png", LEFT.astype(np.uint8) * 255)
    b = png(tmp_path / "wrong name.jpg", RIGHT.astype(np.uint8))
    bits = tmp_path / "bits.png"
    Image.fromarray(LEFT).save(bits)
    masks, notes = read(a, b, bits)
    assert same(masks, LEFT, RIGHT, LEFT) and [mask.name for mask in masks] == ["a b", "wrong name", "bits"]
    assert notes[0] == f"{a}: 1 object (a mask)"


def test_whole_and_empty_masks(tmp_path: Path) -> None:
    whole, empty = np.full((H, W), 255, np.uint8), np.zeros((H, W), np.uint8)
    masks, _ = read(png(tmp_path / "whole.png", whole), png(tmp_path / "empty.png", empty))
    assert same(masks, whole > 0, empty > 0)


def test_label_ids(tmp_path: Path) -> None:
    masks, notes = read(png(tmp_path / "ids.png", IDS.astype(np.uint8)))
    assert same(masks, LEFT, RIGHT) and [mask.name for mask in masks] == ["ids 1", "ids 2"]
    assert notes[0].endswith("2 objects (each value an object)")
    masks, _ = read(png(tmp_path / "cityscapes.png", np.where(IDS > 0, 26000 + IDS, 0).astype(np.uint16)))
    assert same(masks, LEFT, RIGHT) and masks[1].name == "cityscapes 26002"
    many = np.arange(1, 301).repeat(16).reshape(H, W)
    assert len(read(png(tmp_path / "many.png", many.astype(np.uint16)))[0]) == 300
    masks, _ = read(png(tmp_path / "gaps.png", np.array([0, 40, 90], np.uint8)[IDS]))
    assert same(masks, LEFT, RIGHT)


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes(tmp_path: Path, transparent: bool) -> None:
    path = tmp_path / "voc.png"
    indices = IDS.astype(np.uint8)
    indices[0] = 255
    picture = Image.fromarray(indices, "P")
    picture.putpalette([9, 9, 9, 128, 0, 0, 128, 0, 0] + 253 * [7, 7, 7])  # of one colour, the second object's too
    picture.save(path, **({"transparency": bytes([0] + 255 * [255])} if transparent else {}))
    masks, notes = read(path)
    assert same(masks, LEFT & (indices != 255), RIGHT & (indices != 255))
    assert f"but 255: {W} pixels of a border of no object" in notes[0]


def test_palettes_of_cut_outs(tmp_path: Path) -> None:
    many = np.where(IDS > 0, 1 + (COLUMNS + ROWS).astype(int) % 90, 0)
    hidden = LEFT & (COLUMNS < 20)
    for name, indices, opacity, wanted in [
        ("many colours", many, [0] + 255 * [255], [IDS > 0]),
        ("an object shines through", IDS, [0, 255, 100], [LEFT]),
        ("the first colour can be seen", IDS, [255, 255, 0], [~RIGHT]),
        ("a hidden colour", np.where(hidden, 3, IDS), [0, 255, 255, 0], [LEFT & ~hidden, RIGHT & ~hidden]),
        ("all is hidden", IDS, [0, 0, 0], [LEFT, RIGHT]),
    ]:
        picture = Image.fromarray(indices.astype(np.uint8), "P")
        picture.putpalette([value for k in range(256) for value in (k, 9, 7)])
        picture.save(tmp_path / "cut.png", transparency=bytes(opacity))
        masks, _ = read(tmp_path / "cut.png")
        assert same(masks, *wanted), name


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palettes_of_few_bits(tmp_path: Path, bits: int) -> None:
    ids = np.minimum(IDS, 2**bits - 1)
    picture = Image.fromarray(ids.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10])
    picture.save(tmp_path / "few.png", bits=bits)
    masks, _ = read(tmp_path / "few.png")
    assert same(masks, *([IDS > 0] if bits == 1 else [LEFT, RIGHT]))


def test_cut_outs_and_colours(tmp_path: Path) -> None:
    rgba = np.full((H, W, 4), 90, np.uint8)
    rgba[..., 3] = np.clip(255 * (15.5 - np.hypot(COLUMNS - 25, ROWS - 30)), 0, 255)
    masks, notes = read(png(tmp_path / "cut.png", rgba))
    assert same(masks, rgba[..., 3] >= 128) and "its alpha channel" in notes[0]
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 9]], np.uint8)[IDS]
    masks, _ = read(png(tmp_path / "colours.png", colours))
    assert same(masks, RIGHT, LEFT) and masks[0].name == "colours #00ff09"
    masks, _ = read(png(tmp_path / "gray.png", np.dstack(3 * [LEFT.astype(np.uint8) * 255])))
    assert same(masks, LEFT)
    opaque = np.dstack([colours, np.full((H, W), 255, np.uint8)])
    assert same(read(png(tmp_path / "opaque.png", opaque))[0], RIGHT, LEFT)


@pytest.mark.parametrize(("kind", "half"), [(np.uint8, 128), (np.uint16, 32768)])
def test_soft_masks_are_cut_at_one_half(tmp_path: Path, kind: Any, half: int) -> None:
    most = int(np.iinfo(kind).max)
    soft = (most * np.clip((16 - np.hypot(COLUMNS - 25, ROWS - 30)) / 8, 0, 1)).astype(kind)
    masks, notes = read(png(tmp_path / "soft.png", soft))
    assert same(masks, soft >= half) and f"cut at {half}" in notes[0]
    sharp = (most * np.clip(15.5 - np.hypot(COLUMNS - 25, ROWS - 30), 0, 1)).astype(kind)  # smooth edges alone
    assert same(read(png(tmp_path / "smooth.png", sharp))[0], sharp >= half)


def test_a_heat_map_is_no_label_map(tmp_path: Path) -> None:
    heat = (COLUMNS + ROWS - 1).astype(np.uint8)
    assert len(np.unique(heat)) == heat.max() + 1  # 0, 1, 2, ... as if they were ids
    masks, notes = read(png(tmp_path / "heat.png", heat))
    assert same(masks, heat >= 128) and "cut at 128" in notes[0]


@pytest.mark.parametrize("missing", [[], [17], [3, 60, 149]])
def test_ids_of_which_some_are_missing_are_objects(missing: list[int]) -> None:
    ids = np.setdiff1d(np.arange(1, 151), missing)
    values = np.zeros((160, 240), np.uint8)
    for k, number in enumerate(ids):
        row, column = divmod(k, 20)
        values[20 * row + 2 : 20 * row + 12, 12 * column + 1 : 12 * column + 11] = number
    assert len(masks_of_values("m", values, "m").masks) == len(ids)


@pytest.mark.parametrize("touching", [False, True])
def test_many_ids_of_which_most_are_missing_are_objects(touching: bool) -> None:
    ids = np.random.default_rng(0).permutation(np.arange(1, 256))[:100]
    values = np.kron(ids.reshape(10, 10), np.ones((14, 14), int)).astype(np.uint8)
    if not touching:
        values[::14] = values[:, ::14] = 0
    assert len(masks_of_values("m", values, "m").masks) == 100


def test_thin_objects_of_few_ids_are_objects() -> None:
    values = np.zeros((40, 60), np.uint8)
    values[10, 5:50], values[20, 5:50], values[30, 5:50] = 1, 2, 4
    assert [mask.name for mask in masks_of_values("m", values, "m").masks] == ["m 1", "m 2", "m 4"]


@pytest.mark.parametrize(
    "values",
    [
        [k for k in range(1, 21) if k % 4],
        [20 * k for k in range(1, 13)],
        [24000 + 91 * k for k in range(12)],
        [100, 200],
    ],
)
def test_thin_objects_that_lie_alone_are_objects(values: list[int]) -> None:
    ids = np.zeros((H, W), np.uint16 if max(values) > 255 else np.uint8)
    for row, value in enumerate(values):
        ids[2 * row + 1 : 2 * row + 2, 5:75] = value
    found = masks_of_values("thin", ids, "thin.png")
    assert same(found.masks, *(ids == value for value in values))
    soft = np.clip(255 * (16 - np.hypot(COLUMNS - 25, ROWS - 30)), 0, 255).astype(np.uint8)  # edges of a pixel
    assert same(masks_of_values("soft", soft, "soft.png").masks, soft >= 128)


def test_a_cut_out_of_one_faint_alpha_is_its_object(tmp_path: Path) -> None:
    values = np.dstack([np.full((H, W, 3), 90, np.uint8), np.where(LEFT, 100, 0).astype(np.uint8)])
    assert same(read(png(tmp_path / "faint.png", values))[0], LEFT)


def test_a_stack_of_one_layer_is_read_as_that_layer(tmp_path: Path) -> None:
    soft = (255 / (1 + np.exp(np.hypot(COLUMNS - 25, ROWS - 30) - 15))).astype(np.uint8)
    for layer in (IDS.astype(np.uint8), soft):
        alone, stacked = tmp_path / "alone.npy", tmp_path / "stacked.npy"
        np.save(alone, layer)
        np.save(stacked, layer[None])
        wanted = pixels(read(alone)[0])
        assert same(read(stacked)[0], *wanted)
    several = tmp_path / "several.npy"
    np.save(several, np.stack([IDS, 7 * RIGHT]))  # a mask a layer, whatever numbers it has
    assert same(read(several)[0], LEFT | RIGHT, RIGHT)
    np.save(several, np.stack([soft, soft[:, ::-1]]))
    assert same(read(several)[0], soft >= 128, soft[:, ::-1] >= 128)


def test_lossy_masks_are_soft(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "mask.jpg"), LEFT.astype(np.uint8) * 255)
    masks, _ = read(tmp_path / "mask.jpg")
    assert len(masks) == 1 and (pixels(masks)[0] ^ LEFT).sum() < 8


def test_images_that_are_no_masks(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
    with pytest.raises(InputError, match=r"photo\.png: is a picture of \d+ colours, no mask; give"):
        read(png(tmp_path / "photo.png", noise))
    smooth = np.clip(15.5 - np.hypot(COLUMNS - 25, ROWS - 30), 0, 1)[..., None] * (30, 40, 250)
    with pytest.raises(InputError, match=r"smooth\.png: is a picture of \d+ colours, no mask; .* without smooth edges"):
        read(png(tmp_path / "smooth.png", smooth.astype(np.uint8)))
    with pytest.raises(WrongSizeError, match=r"small\.png: the mask is 50 x 40 pixels, its image 80 x 60"):
        read(png(tmp_path / "small.png", np.zeros((40, 50), np.uint8)))
    (tmp_path / "huge.png").write_bytes(huge_png())
    with pytest.raises(WrongSizeError, match="20000 x 20000 pixels, its image 80 x 60"):
        read(tmp_path / "huge.png")
    cut = png(tmp_path / "cut.png", IDS.astype(np.uint8))
    cut.write_bytes(cut.read_bytes()[:50])
    with pytest.raises(InputError, match=r"cut\.png: the file is no image, or cut short"):
        read(cut)


def test_arrays(tmp_path: Path) -> None:
    stack = np.stack([LEFT, RIGHT])
    np.save(tmp_path / "stack.npy", stack)
    np.save(tmp_path / "torch.npy", stack[:, None].astype(np.float32))
    np.save(tmp_path / "ids.npy", IDS)
    np.save(tmp_path / "bytes.npy", stack.astype(np.uint8) * 255)
    for name in ("stack", "torch", "ids", "bytes"):
        masks, _ = read(tmp_path / f"{name}.npy")
        assert same(masks, LEFT, RIGHT) and masks[1].name == f"{name} 2", name
    np.savez_compressed(tmp_path / "more.npz", a=RIGHT, b=np.clip(LEFT * 0.9, 0, 1), c=np.zeros((H, W), bool))
    masks, notes = read(tmp_path / "more.npz")
    assert same(masks, RIGHT, LEFT, LEFT & False) and [mask.name for mask in masks] == ["a", "b", "c"]
    assert "3 objects (a mask, a soft mask, cut at 0.5)" in notes[0]


def test_arrays_that_are_no_masks(tmp_path: Path) -> None:
    path = tmp_path / "masks.npy"
    cases: list[tuple[Any, str]] = [
        (
            np.array([{"segmentation": LEFT}]),
            "holds Python objects, which are not read since they could run code; save",
        ),
        (LEFT[:-1], r"the mask is 80 x 59 pixels, the image 80 x 60; give masks of this image"),
        (LEFT[::2, ::2], r"the mask is 40 x 30 pixels, the image 80 x 60; scale it to that"),
        (np.stack([LEFT, RIGHT], 2), "has the shape .*save array.transpose"),
        (LEFT.ravel(), r"has the shape \(4800,\); save \(height, width\) or"),
        (LEFT * 7.5, "its numbers are not from 0 to 1; save bool, for instance logits > 0"),
        (-IDS, "negative values or no numbers"),
        (LEFT.astype(complex), "negative values or no numbers"),
    ]
    for array, message in cases:
        np.save(path, array, allow_pickle=True)
        with pytest.raises(InputError, match=rf"masks\.npy.*{message}"):
            read(path)
    np.save(path, LEFT)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"masks\.npy: damaged or cut short"):
        read(path)
    (tmp_path / "no.npz").write_bytes(b"PK\x03\x04 and no archive")
    with pytest.raises(InputError, match=r"no\.npz: damaged or cut short"):
        read(tmp_path / "no.npz")
    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as archive:
        archive.writestr("a.png", png(tmp_path / "a.png", LEFT.astype(np.uint8)).read_bytes())
    with pytest.raises(InputError, match=r"masks\.zip: holds files that are no arrays; unpack it and give the masks"):
        read(tmp_path / "masks.zip")


def test_run_lengths_of_label_maps() -> None:
    for seed in range(9):
        ids = np.random.default_rng(seed).integers(0, 4, (seed + 1, 7))
        found = label_rles(ids)
        assert list(found) == sorted(set(ids.ravel().tolist()) - {0})
        for number, mask in found.items():
            assert (coco_mask.decode(mask) == (ids == number)).all()
    assert label_rles(np.zeros((2, 3), int)) == {} and len(label_rles(np.arange(600).reshape(20, 30))) == 599


def coco(**more: Any) -> dict[str, Any]:
    images = [
        {"id": 4, "file_name": "other.jpg", "height": 9, "width": 9},
        {"id": 7, "file_name": "train\\photo.jpg", "height": H, "width": W},
    ]
    annotations = [
        {"image_id": 4, "category_id": 3, "segmentation": [[1, 1, 5, 1, 5, 5]]},
        {"image_id": 7, "category_id": 3, "segmentation": [SQUARE]},
        {"image_id": 7, "category_id": 5, "segmentation": rle(RIGHT), "iscrowd": 1},
        {"image_id": 7, "category_id": 9, "segmentation": []},
    ]
    categories = [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories, **more}


def square() -> np.ndarray:
    return (abs(COLUMNS - 20) < 10) & (abs(ROWS - 20) < 10)


def test_coco_annotations_of_the_photograph(tmp_path: Path) -> None:
    path = write(tmp_path / "gt.json", coco())
    masks, notes = read(path)
    assert same(masks, square(), RIGHT, RIGHT & False)
    assert [(mask.name, mask.category_id) for mask in masks] == [("cat", 3), ("dog", 5), ("category 9", 9)]
    assert "3 of 4 are of this photograph; 1 with iscrowd 1, kept as given" in notes[0]
    assert [mask.crowd for mask in masks] == [False, True, False]
    # By id, by a name that only ends otherwise, and because there is no other.
    assert same(read_mask_files([path], (H, W), "9.png", "7")[0][:1], square())
    assert same(read_mask_files([path], (H, W), "photo.png")[0][:1], square())
    write(path, coco(images=coco()["images"][1:]))
    assert same(read_mask_files([path], (H, W), "any.png")[0][:1], square())


def test_ids_written_as_text(tmp_path: Path) -> None:
    data = coco()
    for entry in data["annotations"]:
        entry["image_id"], entry["category_id"] = str(entry["image_id"]), str(entry["category_id"])
    masks, _ = read(write(tmp_path / "gt.json", data))
    assert [(mask.name, mask.category_id) for mask in masks] == [("cat", 3), ("dog", 5), ("category 9", 9)]
    entries = [{"image_id": key, "segmentation": [SQUARE]} for key in ("139", "140")]
    path = write(tmp_path / "results.json", entries)
    assert same(read_mask_files([path], (H, W), "000000000139.jpg")[0], square())


def test_coco_annotations_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "gt.json"
    twice = coco()["images"] + [{"id": 8, "file_name": "photo.jpg"}]
    entry = {"image_id": 7, "segmentation": [SQUARE]}
    broken: list[tuple[dict[str, Any], str]] = [
        ({"images": twice}, "2 images have the name photo.jpg, ids 7, 8; give the id .* with --image-id"),
        ({"images": []}, "none of its 0 images has the name photo.jpg"),
        ({"images": coco()["images"][:1] * 2}, r"none of its 2 images .*\(there are other.jpg, other.jpg\)"),
        ({"images": [{"id": 7, "height": 1, "width": 2}]}, "the mask is 2 x 1 pixels, the image 80 x 60"),
        ({"annotations": [3]}, "entry 0 is no object of JSON"),
        ({"annotations": [{**entry, "image_id": [7]}]}, "entry 0: its 'image_id' is neither"),
        ({"annotations": [entry, {"image_id": 7}]}, "entry 1: has no 'segmentation'"),
        ({"annotations": [{**entry, "segmentation": [[1, 2, 3, 4]]}]}, "entry 0: a polygon must be a flat list"),
        ({"annotations": [{**entry, "segmentation": [["a"] * 6]}]}, "entry 0: a polygon has a coordinate"),
        ({"annotations": [{**entry, "segmentation": [[[[1], 2], 3]]}]}, "entry 0: a polygon must be a flat list"),
        ({"annotations": [{**entry, "segmentation": {"counts": [1]}}]}, "entry 0: an RLE needs 'size'"),
        ({"annotations": [{**entry, "segmentation": {"size": [H, W], "counts": [1]}}]}, "counts do not add up"),
        ({"annotations": [{**entry, "segmentation": {"size": [H, W], "counts": None}}]}, "entry 0: counts"),
        (
            {"annotations": [{**entry, "segmentation": {"size": [H, W], "counts": ""}}]},
            "entry 0: counts cannot be read",
        ),
        ({"annotations": [{**entry, "segmentation": {"size": [9, 8], "counts": [72]}}]}, "the mask is 8 x 9 pixels"),
        ({"annotations": [{**entry, "segmentation": {"size": [9, "8"], "counts": [72]}}]}, "the mask is 8 x 9"),
        (
            {"annotations": [{**entry, "segmentation": [[1, 1, 300, 1, 300, 9]]}]},
            "reaches from 1, 1 to 300, 9, the image",
        ),
    ]
    for change, message in broken:
        write(path, coco(**change))
        with pytest.raises(InputError, match=rf"gt\.json: .*{message}") as told:
            read(path)
        assert "\n" not in str(told.value) and isinstance(told.value, WrongSizeError) == (
            "pixels" in message or "reaches" in message
        )
    write(path, coco(annotations=[]))
    with pytest.raises(InputError, match=r"no mask is in .*gt\.json; give"):
        read(path)
    with pytest.raises(InputError, match="none of its 2 images has the id 77"):
        read(write(path, coco()), image_id=77)


def test_results_of_the_photograph(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    entries = [
        {"image_id": 139, "category_id": 1, "score": 0.5, "segmentation": rle(LEFT)},
        {"image_id": 7, "category_id": 1, "score": 0.5, "segmentation": {"size": [9, 9], "counts": [81]}},
        {"image_id": 139, "category_id": 2, "score": 0.5, "segmentation": rle(RIGHT)},
    ]
    write(path, entries)
    masks, notes = read_mask_files([path], (H, W), "000000000139.jpg")
    assert same(masks, LEFT, RIGHT) and "2 of 3 are of this photograph" in notes[0]
    assert [mask.score for mask in masks] == [0.5, 0.5]
    for odd in ("0.5", None, 10**400, float("nan")):
        odd_masks, _ = read(write(tmp_path / "odd.json", [{**entries[0], "score": odd}]))
        assert odd_masks[0].score is None
    assert same(read(path, image_id="139")[0], LEFT, RIGHT)
    with pytest.raises(
        InputError, match=r"none of its 2 images has the name photo\.jpg \(there are 139, 7\); give the id"
    ):
        read(path)
    with pytest.raises(InputError, match=r"none of its 2 images has the id 8 \(there are 139, 7\)"):
        read(path, image_id=8)
    write(path, [{**entry, "file_name": f"a/{entry['image_id']}.jpg"} for entry in entries])
    assert same(read_mask_files([path], (H, W), "139.jpg")[0], LEFT, RIGHT)
    write(path, entries[::2])
    masks, notes = read(path)
    assert same(masks, LEFT, RIGHT)  # of one image alone, whatever its id
    assert "2 of 2 are of 139, which is not the photograph's name" in notes[0]


def test_entries_of_other_photographs_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "results.json"

    def entry(mask: np.ndarray, **fields: Any) -> dict[str, Any]:
        return {"category_id": 1, "segmentation": rle(mask), **fields}

    twice = [entry(LEFT, image_id=1, file_name="a/photo.jpg"), entry(RIGHT, image_id=2, file_name="b/photo.jpg")]
    with pytest.raises(InputError, match=r"2 images have the name photo\.jpg, ids 1, 2; give the id"):
        read(write(path, twice))
    assert same(read(path, image_id=2)[0], RIGHT)
    numbered = [entry(LEFT, image_id=5, file_name="x.jpg"), entry(RIGHT, image_id=7, file_name="5.jpg")]
    masks, notes = read_mask_files([write(path, numbered)], (H, W), "5.jpg")
    assert same(masks, RIGHT) and "1 of 2 are of this photograph" in notes[0]  # a name before a number
    for contents in (
        [entry(LEFT, file_name="photo.jpg"), entry(RIGHT, file_name="other.jpg")],
        {"annotations": [entry(LEFT, image_id="photo"), entry(RIGHT, image_id=2)], "image": {"height": H, "width": W}},
        [entry(LEFT, image_id="photo"), entry(RIGHT)],
    ):
        masks, notes = read(write(path, contents))
        assert same(masks, LEFT) and "1 of 2 are of this photograph" in notes[0]
    assert "of other.jpg, which is not" in read(write(path, [entry(LEFT, image_id=1, file_name="other.jpg")]))[1][0]
    other_kind = [entry(LEFT, image_id=1, file_name="photo.png"), entry(RIGHT, image_id=2, file_name="b.png")]
    assert same(read(write(path, other_kind))[0], LEFT)
    unnamed = [entry(LEFT, image_id=139, file_name=None), entry(RIGHT, image_id=7, file_name=None)]
    assert same(read_mask_files([write(path, unnamed)], (H, W), "139.jpg")[0], LEFT)


def test_single_segmentations_and_lists_of_masks(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    for contents in (rle(LEFT), {"segmentation": rle(LEFT)}, [rle(LEFT)], [{"segmentation": rle(LEFT), "area": 5}]):
        masks, _ = read(write(path, contents))
        assert same(masks, LEFT) and masks[0].name == "one"
    for contents in ([SQUARE], SQUARE, {"segmentation": [SQUARE]}, [[10, 10], [30, 10], [30, 30], [10, 30]]):
        assert same(read(write(path, contents))[0], square())
    sam = [{"segmentation": rle(mask), "predicted_iou": 0.9, "bbox": [0, 0, 1, 1]} for mask in (LEFT, RIGHT)]
    masks, notes = read(write(path, sam))
    assert same(masks, LEFT, RIGHT) and masks[1].name == "one 2" and "a list of masks" in notes[0]
    whole = {"image": {"image_id": 1, "height": H, "width": W, "file_name": "sa_1.jpg"}, "annotations": sam}
    assert same(read(write(path, whole))[0], LEFT, RIGHT)
    path.write_bytes(b"\xef\xbb\xbf \n" + json.dumps(rle(LEFT)).encode())
    with pytest.raises(InputError, match=r"one\.json: "):
        read(write(path, '{"segmentation": [[1, 2'))
    for strange in ({"a": 1}, [None], ["text"]):
        with pytest.raises(InputError, match=r"one\.json: is JSON, but no masks that are understood; give"):
            read(write(path, strange))


def test_labelme(tmp_path: Path) -> None:
    points = np.reshape(SQUARE, (4, 2)).tolist()
    shapes = [
        {"label": "cat", "points": points, "shape_type": "polygon", "group_id": 1},
        {"label": "disc", "points": [[60, 30], [60, 42]], "shape_type": "circle", "group_id": None},
        {"label": "cat", "points": [[40, 40], [50, 50]], "shape_type": "rectangle", "group_id": 1},
        {"label": "cat", "points": [[50, 50], [40, 55]], "shape_type": "rectangle"},
    ]
    contents = {"shapes": shapes, "imageData": "no picture", "imageHeight": H, "imageWidth": W, "imagePath": "p.jpg"}
    path = write(tmp_path / "lm.json", contents)
    masks, notes = read(path)
    assert "(LabelMe, 4 shapes, of p.jpg, which is not the photograph's name)" in notes[0]
    part = (abs(COLUMNS - 45) < 5) & (abs(ROWS - 45) < 5)
    low = (abs(COLUMNS - 45) < 5) & (abs(ROWS - 52.5) < 2.5)
    assert [mask.name for mask in masks] == ["cat", "disc", "cat"] and masks[1].category == "disc"
    found = pixels(masks)
    assert (found[0] == (square() | part)).all() and (found[2] == low).all()
    assert (found[1] ^ RIGHT).sum() <= 12
    beyond = {"label": "beyond", "points": [[70, 30], [70, 50]], "shape_type": "circle"}
    masks, _ = read(write(path, {**contents, "shapes": [beyond]}))
    assert (pixels(masks)[0] ^ (np.hypot(COLUMNS - 70, ROWS - 30) < 20)).sum() <= 12
    for change, message in [
        ({"imageHeight": 61}, "the mask is 80 x 61 pixels, the image 80 x 60"),
        ({"shapes": [{**shapes[0], "points": points[:2]}]}, r"shape 0 \(cat\): a polygon must be"),
        ({"shapes": [{**shapes[0], "points": "abc"}]}, r"shape 0 \(cat\): its 'points' are no list"),
        ({"shapes": [{**shapes[1], "points": points}]}, r"shape 0 \(disc\): a circle has two points"),
        ({"shapes": [shapes[0], {"label": "x", "shape_type": "line"}]}, r"shape 1 \(x\): "),
        ({"shapes": [{**shapes[0], "shape_type": "linestrip"}]}, "type linestrip is not read; make it a polygon"),
        ({"shapes": [{**shapes[1], "points": [[1, 1], [9, 1e308]]}]}, r"shape 0 \(disc\): "),
        ({"shapes": ["no shape"]}, "shape 0: is no object of JSON"),
    ]:
        with pytest.raises(InputError, match=message):
            read(write(path, {**contents, **change}))


def test_yolo(tmp_path: Path) -> None:
    line = " ".join(str(value) for value in (np.reshape(SQUARE, (4, 2)) / (W, H)).ravel())
    path = write(tmp_path / "photo.txt", f"3 {line}\n\n0 {line} 0.87\n")
    masks, notes = read(path)
    assert same(masks, square(), square()) and "YOLO" in notes[0]
    assert [(mask.name, mask.category_id) for mask in masks] == [("class 3", 3), ("class 0", 0)]
    for text, message in [
        (f"3 {line}\n1 0.5 0.5 0.2 0.2\n", "line 2: is a box and no outline; give polygons"),
        ("1 0.5 0.5 0.2 0.2 0.9\n", "line 1: is a box and no outline"),
        ("1 0.5 0.5\n", "line 1: has fewer than three points"),
        ("1 10 10 30 10 30 30\n", "line 1: is not divided by the photograph's width and height"),
        ("1 0.1 0.1 cat 0.1 0.3 0.3\n", "line 1: is not 'class x1 y1"),
        ("1.5 0.1 0.1 0.2 0.1 0.3 0.3\n", "line 1: is not 'class x1 y1"),
    ]:
        with pytest.raises(InputError, match=rf"photo\.txt: {message}"):
            read(write(path, text))


def test_files_of_no_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.png: no such file of masks"):
        read(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder; give the files in it"):
        read(tmp_path)
    for contents in (b"%PDF-1.7", b"hello", b"\xff\xfe\x00\x01"):
        (tmp_path / "odd").write_bytes(contents)
        with pytest.raises(InputError, match="odd: is of no kind of masks that is known; give PNG masks"):
            read(tmp_path / "odd")
    (tmp_path / "odd").write_bytes(b"")
    with pytest.raises(InputError, match=r"no mask is in .*odd"):
        read(tmp_path / "odd")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = not_utf8(tmp_path, b"m\xe9 1.png")
    path.write_bytes(png(tmp_path / "a.png", LEFT.astype(np.uint8)).read_bytes())
    masks, _ = read(path)
    assert same(masks, LEFT) and masks[0].name == path.stem
