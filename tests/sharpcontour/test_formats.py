"""Every format that is written can be read again: pixels, holes, parts, classes and ids."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from sharpcontour.contours.keyholes import joined, opened
from sharpcontour.contours.nesting import parts_of
from sharpcontour.contours.rasterize import rings_to_masks, rings_to_rles
from sharpcontour.contours.tracing import trace_mask
from sharpcontour.detections import Detections
from sharpcontour.errors import InputError
from sharpcontour.formats.brush import decode_brush, encode_brush
from sharpcontour.formats.mask_files import read_mask_files
from sharpcontour.formats.named_masks import NamedMask, mask_rle
from sharpcontour.formats.other_fields import not_carried_over
from sharpcontour.formats.output_files import FORMATS
from sharpcontour.masks.run_lengths import counts_of
from sharpcontour.masks.segmentation import rle_of_polygons

H, W = 90, 120
ROWS, COLUMNS = np.mgrid[:H, :W] + 0.5
PHOTO = Path("folder/photo.jpg")
WITH_IDS = ("coco", "coco-rle", "coco-polygons", "yolo", "svg")


def disc(x: float, y: float, radius: float) -> np.ndarray:
    return np.hypot(COLUMNS - x, ROWS - y) < radius


RING = disc(30, 45, 20) & ~disc(30, 45, 12)
TARGET = RING | disc(30, 45, 5)  # an island in a hole
PARTS = (disc(80, 25, 12) & ~disc(78, 25, 4) & ~disc(86, 25, 2)) | disc(105, 25, 9)
TOUCHING = np.kron(np.eye(4, dtype=bool), np.ones((6, 6), bool))  # corners meet
ANGLES = np.linspace(0, 2 * np.pi, 40, endpoint=False)[:, None]
FLOATS = np.hstack([85.1234567 + 9 * np.cos(ANGLES), 65.7654321 + 13 * np.sin(ANGLES)]).astype(np.float32)


def touching() -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[65:89, 50:74] = TOUCHING
    return mask


def found(objects: list[list[np.ndarray]]) -> Detections:
    count = len(objects)
    numbers = torch.zeros(count, 4), torch.ones(count), torch.zeros(count, dtype=torch.int64)
    return Detections(*numbers, objects, (H, W), coarse=Detections(*numbers, objects, (H, W)))


OBJECTS = [trace_mask(TARGET), trace_mask(PARTS), trace_mask(touching()), [FLOATS]]
GIVEN = [
    NamedMask("a", None, "cat & <dog>", 3),
    NamedMask("b", None, "été", 1),
    NamedMask("c", None, "cat & <dog>", 3),
    NamedMask("d", None, "tree", 7),
]


def write(name: str, folder: Path, objects: Any, given: list[NamedMask]) -> tuple[Path, list[str]]:
    path = folder / f"photo{FORMATS[name][0]}"
    return path, FORMATS[name][1](path, found(objects), given, folder / PHOTO.name)


def read(path: Path) -> list[NamedMask]:
    return read_mask_files([path], (H, W), PHOTO.name)[0]


def pixels(masks: list[NamedMask]) -> list[np.ndarray]:
    return [coco_mask.decode(mask_rle(mask.mask, (H, W))).astype(bool) for mask in masks]


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_lost_on_the_way_and_back(name: str, tmp_path: Path) -> None:
    path, _ = write(name, tmp_path, OBJECTS, GIVEN)
    masks = read(path)
    wanted = rings_to_masks(OBJECTS, H, W)
    assert len(masks) == 4 and all((a == b).all() for a, b in zip(pixels(masks), wanted, strict=True))
    assert len(wanted[1]) and wanted[0].sum() == TARGET.sum() and wanted[1].sum() == PARTS.sum()
    if name != "png":
        assert [mask.category for mask in masks] == [mask.category for mask in GIVEN]
    if name in WITH_IDS:
        assert [mask.category_id for mask in masks] == [3, 1, 3, 7]
    # Written again it is the same file.
    again, _ = write(name, tmp_path / "again", [trace_mask(mask) for mask in pixels(masks)], masks)
    assert all((a == b).all() for a, b in zip(pixels(read(again)), wanted, strict=True))


@pytest.mark.parametrize("name", ["coco-polygons", "labelme", "label-studio-polygons", "yolo", "svg"])
def test_vertices_stay_and_holes_are_rings_again(name: str, tmp_path: Path) -> None:
    masks = read(write(name, tmp_path, OBJECTS, GIVEN)[0])
    for mask, rings in zip(masks[:2], OBJECTS, strict=False):
        assert isinstance(mask.mask, list) and len(mask.mask) == len(rings) and len(rings) in (3, 4)
        assert same_rings(mask.mask, rings)
    vertices = np.array(masks[3].mask[0]).reshape(-1, 2)
    assert vertices.shape == FLOATS.shape and abs(vertices - FLOATS).max() < 1e-3


def same_rings(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    def points(ring: np.ndarray) -> list[tuple[float, ...]]:
        return sorted(map(tuple, ring.round(2).tolist()))

    return sorted(map(points, some)) == sorted(map(points, others))


def test_bridges_enclose_nothing() -> None:
    """On every mask a polygon that joins all rings has the pixels of the mask, and so have the rings of it."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        mask = rng.random(rng.integers(1, 24, 2)) < rng.random()
        rings = trace_mask(mask)
        if not rings:
            continue
        wanted = counts_of(rings_to_rles([rings], *mask.shape)[0])
        whole = joined(rings)
        assert counts_of(rle_of_polygons([whole.ravel().tolist()], *mask.shape)) == wanted
        assert counts_of(rings_to_rles([opened(whole)], *mask.shape)[0]) == wanted
        parts = [joined(part).ravel().tolist() for part in parts_of(rings)]
        assert counts_of(rle_of_polygons(parts, *mask.shape)) == wanted


def test_a_polygon_without_bridges_is_itself() -> None:
    assert opened(FLOATS)[0] is FLOATS and len(opened(FLOATS)) == 1
    spike = np.array([[0, 0], [10, 0], [10, 10], [10, 20], [10, 10], [0, 10]], float)
    assert same_rings(opened(spike), [np.array([[0, 0], [10, 0], [10, 10], [0, 10]], float)])


@pytest.mark.parametrize("name", ["yolo", "label-studio-polygons"])
def test_vertices_in_the_middle_of_pixels_are_there_for_other_tools_too(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    objects = [[rng.integers(0, (W, H), (7, 2)) + 0.5] for _ in range(40)]
    path, _ = write(name, tmp_path, objects, [NamedMask("a", None, "cat")] * len(objects))
    if name == "yolo":
        lines = [line.split()[1:] for line in path.read_text().splitlines()]
        seen = [np.array(line, float).reshape(-1, 2) * (W, H) for line in lines]
    else:
        regions = json.loads(path.read_text())[0]["predictions"][0]["result"]
        seen = [np.array(region["value"]["points"]) / 100 * (W, H) for region in regions]
    rles = [rle_of_polygons([polygon.ravel().tolist()], H, W) for polygon in seen]
    assert [counts_of(rle) for rle in rles] == [counts_of(rle) for rle in rings_to_rles(objects, H, W)]


SHAPE = {"label": "cat", "points": [[10, 10], [30, 10], [30, 30]], "shape_type": "polygon", "group_id": None}
LABELME = {"imageHeight": H, "imageWidth": W, "imagePath": PHOTO.name, "shapes": [SHAPE]}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"description": "", "flags": {"iscrowd": True, "hard": False}}, ""),
        ({"description": "tail hidden", "flags": {"iscrowd": True, "hard": True}}, "description (1), flags (1)"),
        ({"flags": {"hard": True}, "other_data": {"by": ["me", 3]}}, "flags (1), other_data (1)"),
        ({"flags": ["hard"], "description": None}, "flags (1)"),
    ],
)
def test_fields_of_labelme_are_kept(fields: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = tmp_path / "given.json"
    path.write_text(json.dumps(LABELME | {"shapes": [SHAPE, SHAPE | fields]}))
    masks = read(path)
    assert masks[1].crowd == ("iscrowd" in fields["flags"])
    lost = [f"not carried over: {told} (labelme would keep them)"] if told else []
    assert not_carried_over(masks, ["labelme", "yolo"]) == [] and not_carried_over(masks, ["coco", "yolo"]) == lost
    again, _ = write("labelme", tmp_path, [trace_mask(mask) for mask in pixels(masks)], masks)
    first, second = json.loads(again.read_text())["shapes"]
    assert second.items() >= fields.items() and first["flags"] == {} and first["description"] == ""


def test_fields_of_cvat_are_kept(tmp_path: Path) -> None:
    polygon = '<polygon label="cat" points="1,1;9,1;9,9" occluded="{}" z_order="{}">{}</polygon>'
    more = '<attribute name="pose">left &amp; up</attribute><attribute name="age"></attribute>'
    shapes = polygon.format(0, 0, "") + polygon.format(1, 3, more)
    path = tmp_path / "given.xml"
    image = f'<image id="0" name="photo.jpg" width="{W}" height="{H}">{shapes}</image>'
    path.write_text(f"<annotations>{image}</annotations>")
    masks = read(path)
    lost = "not carried over: occluded (1), z_order (1), attributes (1) (cvat would keep them)"
    assert not_carried_over(masks, ["coco"]) == [lost] and not_carried_over(masks, ["coco", "cvat"]) == []
    again, _ = write("cvat", tmp_path, [trace_mask(mask) for mask in pixels(masks)], masks)
    first, second = ElementTree.parse(again).getroot().iter("polygon")
    assert (first.get("occluded"), first.get("z_order"), len(first)) == ("0", "0", 0)
    assert (second.get("occluded"), second.get("z_order")) == ("1", "3")
    assert [(one.get("name"), one.text or "") for one in second] == [("pose", "left & up"), ("age", "")]


def test_fields_of_coco_are_kept(tmp_path: Path) -> None:
    entry = {"segmentation": [[10, 10, 30, 10, 30, 30]], "category_id": 3, "id": 9, "area": 4, "iscrowd": 0}
    more = {"attributes": {"occluded": False, "pose": "left"}, "track_id": 7, "keypoints": []}
    path = tmp_path / "given.json"
    path.write_text(json.dumps([entry | {"track_id": 8}, entry | more]))
    masks = read(path)
    lost = "not carried over: track_id (2), attributes (1) (coco would keep them)"
    assert not_carried_over(masks, ["png", "labelme"]) == [lost] and not_carried_over(masks, ["coco-rle"]) == []
    for name in ("coco", "coco-rle", "coco-polygons"):
        again, _ = write(name, tmp_path, [trace_mask(mask) for mask in pixels(masks)], masks)
        first, second = json.loads(again.read_text())["annotations"]
        assert first["track_id"] == 8 and second.items() >= more.items()
        assert second["id"] == 2 and second["area"] == pixels(masks)[1].sum() > 100
    path.write_text(json.dumps([entry | {f"field {k}\nof mine": k + 1 for k in range(12)}]))
    (line,) = not_carried_over(read(path), [])
    assert line.startswith("not carried over: 'field 0\\nof mine' (1), ") and " and 4 more (coco would" in line
    path.write_text(f'[{json.dumps(entry)[:-1]}, "deep": {"[" * 600}{"]" * 600}}}]')
    assert not_carried_over(read(path), []) == ["not carried over: deep (1) (coco would keep them)"]
    path.write_text(json.dumps([entry, entry | {"track": float("nan")}]))
    with pytest.raises(InputError, match="entry 1: its 'track' holds NaN or Infinity, which is not JSON; mend it"):
        read(path)


def test_fields_of_a_region_and_of_parts(tmp_path: Path) -> None:
    meta = {"meta": {"text": ["hidden"]}}
    given = [NamedMask("a", None, "cat", fields=meta, kind="label-studio")]
    path, _ = write("label-studio-polygons", tmp_path, [[FLOATS]], given)
    masks = read(path)
    lost = "not carried over: meta (1) (label-studio would keep them)"
    assert masks[0].fields == meta and not_carried_over(masks, ["labelme"]) == [lost]
    assert not_carried_over(masks, ["label-studio-polygons"]) == []
    parts = [SHAPE | {"group_id": 1, "description": text} for text in ("left", "right", "left")]
    path.write_text(json.dumps(LABELME | {"shapes": parts, "flags": {"checked": True}}))
    masks, (line,) = read_mask_files([path], (H, W), PHOTO.name)
    assert len(masks) == 1 and masks[0].fields["description"] == "left"
    assert "; 1 with other fields than the first part of their object, left out; flags of the image, left out" in line


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_format_cannot_hold_is_counted(name: str, tmp_path: Path) -> None:
    given = [
        NamedMask("a", None, "cat", 3, score=0.5),
        NamedMask("none", None, "cat", 3),
        NamedMask("many", None, "cat", 3, crowd=True),
    ]
    path, lines = write(name, tmp_path, [trace_mask(RING), [], trace_mask(disc(30, 45, 16))], given)
    told = " / ".join(lines)
    masks = read(path)
    no_scores = name in ("labelme", "cvat", "yolo")
    assert ("1 object with a score, which it cannot hold" in told) == no_scores
    assert (masks[0].score == 0.5) == (not no_scores and name != "png")
    no_crowds = name in ("cvat", "label-studio", "label-studio-polygons", "yolo")
    assert ("1 object with iscrowd 1, which it cannot hold" in told) == no_crowds
    assert masks[-1].crowd == (not no_crowds and name != "png")
    no_empty = name in ("labelme", "cvat", "label-studio", "label-studio-polygons", "yolo")
    assert ("1 object empty, left out" in told) == no_empty and (len(masks) == 2) == (no_empty or name == "png")
    bridges = name in ("coco-polygons", "labelme", "label-studio-polygons", "yolo")
    assert ("1 hole" in told) == bridges
    if name == "png":
        overlap = (RING & disc(30, 45, 16)).sum()
        assert f"{overlap} pixels where objects overlap" in told and "1 object without a pixel that is seen" in told


def test_outlines_beyond_the_photograph_and_crossing_ones_keep_their_pixels(tmp_path: Path) -> None:
    beyond = np.array([[-10.5, 10], [60, -8], [50, 60]], np.float32)
    eight = np.array([[70, 10], [110, 50], [110, 10], [70, 50]], np.float32)
    over = [trace_mask(disc(40, 70, 10))[0], trace_mask(disc(48, 70, 10))[0]]  # even-odd: the overlap is outside
    objects = [[beyond], [eight], over]
    given = [NamedMask("a", None), NamedMask("b", None), NamedMask("c", None)]
    wanted = rings_to_masks(objects, H, W)
    for name in FORMATS:
        masks = read(write(name, tmp_path, objects, given)[0])
        if name != "png":  # where objects overlap
            assert all((a == b).all() for a, b in zip(pixels(masks), wanted, strict=True)), name


def test_masks_of_cvat(tmp_path: Path) -> None:
    """By hand: rows of the box, beginning with what is outside."""
    image = '<image id="0" name="a/photo.jpg" width="120" height="90">'
    shapes = (
        '<mask label="a" source="manual" occluded="0" rle="1, 2, 2, 1" left="10" top="20" width="3" height="2"/>'
        '<polygon label="b" points="1.0,1.0;5.0,1.0;5.0,5.0" group_id="4"/>'
        '<polygon label="b" points="11,1;15,1;15,5" group_id="4"/><box label="b" xtl="1" ytl="50" xbr="4" ybr="52"/>'
        '<tag label="sunny"/>'
    )
    path = tmp_path / "cvat.xml"
    path.write_text(f'<?xml version="1.0"?><annotations><meta/>{image}{shapes}</image></annotations>')
    masks, notes = read_mask_files([path], (H, W), PHOTO.name)
    first, second, third = pixels(masks)
    assert np.argwhere(first).tolist() == [[20, 11], [20, 12], [21, 12]]
    assert second[:6, :6].any() and second[:6, 11:16].any() and third[50:52, 1:4].all() and third.sum() == 6
    assert "CVAT, 5 shapes; tags of the image, no shapes: 1" in notes[0]
    written = ElementTree.parse(write("cvat", tmp_path, OBJECTS, GIVEN)[0]).getroot()
    assert [shape.tag for shape in written.find("image")] == ["mask", "mask", "polygon", "polygon"]
    assert [label.text for label in written.iter("name")] == ["cat & <dog>", "été", "tree"]


def test_cocos_masks_of_cvat_are_objects(tmp_path: Path) -> None:
    rle = coco_mask.encode(np.asfortranarray(RING.astype(np.uint8)))
    entry = {"image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": {**rle, "counts": rle["counts"].decode()}}
    images = [{"id": 1, "file_name": "photo.jpg", "height": H, "width": W}]
    path = tmp_path / "instances_default.json"
    for attributes, crowd in (({"attributes": {"occluded": False}}, False), ({}, True)):
        path.write_text(json.dumps({"images": images, "annotations": [entry | attributes]}))
        assert [mask.crowd for mask in read(path)] == [crowd]


def test_brushes_of_label_studio() -> None:
    """Against bytes by hand, and with values that are not repeated."""
    data = encode_brush(np.array([[False, True]]))
    bits = "".join(f"{byte:08b}" for byte in data)
    head = f"{8:032b}" + "00111" + "0010" + "0011" + "0111" + "1111"
    assert bits[: len(head)] == head and bits[len(head) :].startswith("100" + "011" + "0" * 8 + "100" + "011" + "1" * 8)
    colours = f"{8:032b}" + "00111" + "0010" + "0011" + "0111" + "1111" + "000" + "111"
    colours += "".join(f"{value:08b}" for value in (255, 0, 0, 0, 9, 8, 7, 6))
    colours += "0" * (-len(colours) % 8)
    values = [int(colours[k : k + 8], 2) for k in range(0, len(colours), 8)]
    assert decode_brush(values, 1, 2).tolist() == [[False, True]]
    long = np.zeros((300, 400), bool)
    long[7, 3:] = long[8:200] = True
    assert (decode_brush(encode_brush(long), 300, 400) == long).all()


def test_label_studio_as_it_exports(tmp_path: Path) -> None:
    size = {"original_width": W, "original_height": H, "image_rotation": 0}
    polygon = {"points": [[25, 50], [50, 50], [50, 100]], "closed": True, "polygonlabels": ["cat"]}
    box = {"x": 0, "y": 0, "width": 10, "height": 10, "rotation": 0, "rectanglelabels": ["dog"]}
    results = [
        {"id": "p", "type": "polygonlabels", "value": polygon, **size},
        {"id": "b", "type": "rectanglelabels", "value": box, **size},
        {"id": "b", "type": "choices", "value": {"choices": ["blurred"]}, **size},
        {"id": "c", "type": "choices", "value": {"choices": ["outdoor"]}},
        {"type": "relation", "from_id": "p", "to_id": "b", "direction": "right"},
    ]
    tasks = [
        {"id": 1, "data": {"image": "/data/upload/1/4f3a0b1c-other.jpg"}, "annotations": [{"result": []}]},
        {
            "id": 2,
            "data": {"image": "/data/upload/1/8f3a2b1c-photo.jpg?d=1"},
            "annotations": [{"result": [], "was_cancelled": True}, {"result": results}],
            "predictions": [],
        },
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    masks, notes = read_mask_files([path], (H, W), PHOTO.name)
    assert [(mask.name, mask.category) for mask in masks] == [("cat", "cat"), ("dog", "dog")]
    cat, dog = pixels(masks)
    assert (cat == rings_to_masks([[np.array([[30, 45], [60, 45], [60, 90.0]])]], H, W)[0]).all()
    assert dog.sum() == 9 * 12 and dog[:9, :12].all() and "results that are no shapes: 2" in notes[0]
    results[0]["item_index"], results[1]["item_index"] = 0, 1
    path.write_text(json.dumps(tasks))
    with pytest.raises(InputError, match="the task has regions on 2 images, which are not told apart"):
        read(path)


def test_pixels_of_labelme(tmp_path: Path) -> None:
    inside = np.array([[1, 0, 1], [1, 1, 1]], np.uint8) * 255
    text = base64.b64encode(cv2.imencode(".png", inside)[1].tobytes()).decode()
    shape = {"label": "a", "shape_type": "mask", "points": [[5, 7], [7, 8]], "mask": text, "group_id": None}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"shapes": [shape], "imageHeight": H, "imageWidth": W}))
    assert np.argwhere(pixels(read(path))[0]).tolist() == [[7, 5], [7, 7], [8, 5], [8, 6], [8, 7]]
    shape["points"] = [[5, 7], [8, 8]]
    path.write_text(json.dumps({"shapes": [shape], "imageHeight": H, "imageWidth": W}))
    with pytest.raises(ValueError, match=r"shape 0 \(a\): its 'mask' is no PNG of 4 x 2 pixels in base64; mend it"):
        read(path)


def test_labelme_opens_the_photograph(tmp_path: Path) -> None:
    path = tmp_path / "out" / "photo_labelme.json"
    FORMATS["labelme"][1](path, found(OBJECTS), GIVEN, tmp_path / "photos" / "photo.jpg")
    written = json.loads(path.read_text())
    assert written["imagePath"] == "../photos/photo.jpg" and written["imageData"] is None
    groups = [shape["group_id"] for shape in written["shapes"]]
    assert groups[:4] == [1, 1, 2, 2] and groups[-1] is None


def test_classes_of_yolo_stay_over_many_photographs(tmp_path: Path) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("dog\n\nbird\n")
    path, lines = write("yolo", tmp_path, OBJECTS, GIVEN)
    assert classes.read_text() == "dog\nété\nbird\ncat & <dog>\n\n\n\ntree\n"
    assert lines[0] == "classes 1 été, 3 cat & <dog>, 7 tree (classes.txt)"
    given = [NamedMask("a", None, "fish"), NamedMask("b", None, "bird", 0), NamedMask("c", None), NamedMask("d", None)]
    write("yolo", tmp_path, OBJECTS, given)
    assert classes.read_text().splitlines()[8:] == ["fish", "object"]
    assert [line.split()[0] for line in path.read_text().splitlines()] == ["8", "2", "9", "9"]
    classes.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"classes\.txt: names of classes cannot be read \(it is not UTF-8\)"):
        write("yolo", tmp_path, OBJECTS, GIVEN)


NAME_CLASSES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sharpcontour.formats.named_masks import NamedMask
from sharpcontour.formats.yolo import _known_numbers
print("ready", flush=True)
input()
for k in range(20):
    name = f"{sys.argv[3]} {k}"
    print(_known_numbers(Path(sys.argv[2]), [NamedMask("", None, name)])[name], flush=True)
"""


def test_commands_that_write_yolo_to_one_folder_wait_for_each_other(tmp_path: Path) -> None:
    classes, root = tmp_path / "labels" / "classes.txt", Path(__file__).resolve().parents[2]
    commands = [
        Popen([sys.executable, "-c", NAME_CLASSES, root, classes, one], stdin=PIPE, stdout=PIPE, text=True)
        for one in "abc"
    ]
    for command in commands:
        assert command.stdout is not None and command.stdout.readline() == "ready\n"
    for command in commands:
        assert command.stdin is not None
        command.stdin.write("\n")
        command.stdin.flush()
    said = [list(map(int, command.communicate()[0].split())) for command in commands]
    known = classes.read_text().splitlines()
    assert [[known[number] for number in numbers] for numbers in said] == [
        [f"{one} {k}" for k in range(20)] for one in "abc"
    ]
    assert len(known) == 60 and [path.name for path in classes.parent.iterdir()] == ["classes.txt"]


@pytest.mark.parametrize("name", ["coco", "coco-rle", "coco-polygons"])
def test_categories_of_one_name_stay_two(name: str, tmp_path: Path) -> None:
    given = [
        NamedMask("a", None, "cup", 3),
        NamedMask("b", None, "cup", 5),
        NamedMask("c", None, "cup"),  # of a file without ids
        NamedMask("d", None, "plate", 3),  # of another file
    ]
    path, _ = write(name, tmp_path, OBJECTS, given)
    assert [(mask.category, mask.category_id) for mask in read(path)] == [
        ("cup", 3),
        ("cup", 5),
        ("cup", 3),
        ("plate", 6),
    ]


def test_svg_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    square, inner = "M10 10h20v20h-20z", "m5 5h10v10h-10z"
    for shapes, area in [
        (f'<path d="{square}"/>', 400),
        (f'<path d="{square}{inner}"/>', 400),  # nonzero, one way round
        (f'<path fill-rule="evenodd" d="{square}{inner}"/>', 300),
        (f'<path style="fill:red;fill-rule:evenodd" d="{square}{inner}"/>', 300),
        (f'<path d="{square}m5,5v10h10v-10z"/>', 300),  # the other way round
        (f'<g fill-rule="evenodd"><g><path d="{square}{inner}"/></g></g>', 300),  # handed down
        (f'<g style="fill-rule:evenodd"><path fill-rule="nonzero" d="{square}{inner}"/></g>', 400),
        (f'<switch><g><path d="{square}"/></g></switch>', 400),
        (f'<g style="fill:red;display:none"><g><path d="{inner}"/></g></g><path d="{square}"/>', 400),
        ('<g id="layer"><polygon points="10,10 30,10 30 30 10,30"/></g><defs><path d="M0 0L9 9L0 9"/></defs>', 400),
        ('<path d="M10,10 30,10 30,30 10,30"/>', 400),
        ('<path d="M1e1 10V30H30v-20z M10 10"/>', 400),
        (f'<g visibility="hidden"><path d="{inner}"/></g><path d="{square}"/>', 400),
        ('<path d="M10,10L40,40L40,10L10,40Z M60,60L80,60L80,80L60,80Z"/>', 450 + 400),  # its turns cancel out
        ('<path d="M10 10h40v40h-40z h20v20h-20z"/>', 1600),
        ('<path d="M10 10h30v10h-10v-20h10v30h-30z"/>', 700),  # once around what lies twice inside
    ]:
        path.write_text(f'<!DOCTYPE svg><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {W} {H}">{shapes}</svg>')
        assert [int(mask.sum()) for mask in pixels(read(path))] == [area], shapes


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ('<path style="transform:translate(20px,20px)" d="M1 1h5v5z"/>', "a path has a transform"),
        ('<g clip-path="url(#a)"><path d="M1 1h5v5z"/></g>', "a g has a clip-path"),
        ("<style>path{transform:scale(2)}</style>", "a style sheet in it sets transform"),
        ("<style>/* mask: a dog */ text{text-transform:none} .h{display:none}</style>", "sheet in it sets display"),
        ('<svg x="30" y="30"><path d="M1 1h5v5z"/></svg>', "has a svg inside"),
        ('<switch><path d="M1 1h5v5z"/><path d="M1 1h5v5z"/></switch>', "has a switch inside"),
    ],
)
def test_svg_that_would_lie_elsewhere_is_refused(shapes: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {W} {H}">{shapes}</svg>')
    with pytest.raises(InputError, match=message):
        read(path)


def test_svg_fills_what_is_gone_around_at_all(tmp_path: Path) -> None:
    angle = np.arange(5) * 4 * np.pi / 5
    star = np.stack([60 + 40 * np.sin(angle), 45 - 40 * np.cos(angle)], 1)
    path = tmp_path / "a.svg"
    points = " ".join(f"{x},{y}" for x, y in star)
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {W} {H}"><polygon points="{points}"/></svg>')
    (filled,) = pixels(read(path))
    middle = disc(60, 45, 14)
    assert filled[middle].all()
    assert (filled == (rings_to_masks([[star]], H, W)[0] | middle))[~disc(60, 45, 13) & disc(60, 45, 60)].mean() > 0.98


def test_yolo_keeps_the_names_of_classes(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(
        InputError, match=r"classes\.txt: is where YOLO has the names of the classes; rename the photog"
    ):
        FORMATS["yolo"][1](tmp_path / "classes.txt", found(OBJECTS), GIVEN, tmp_path / "classes.jpg")
    assert (tmp_path / "classes.txt").read_text() == "cat\n"
