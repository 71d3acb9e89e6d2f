"""LVIS annotations with COCO's categories: the ground truth of AP*.

LVIS labels the same photographs again, more exactly; COCO's detections can be scored against it once its categories are
translated. The result is what others call "cocofied": ``lvis_v0.5_val_cocofied.json`` from ``lvis_v0.5_val.json``.
"""

from __future__ import annotations

from typing import Any

from data.annotations import Annotations
from sharpcontour.errors import InputError

# COCO's category id -> WordNet synset, by which LVIS names its categories.
SYNSETS = {
    1: "person.n.01",
    2: "bicycle.n.01",
    3: "car.n.01",
    4: "motorcycle.n.01",
    5: "airplane.n.01",
    6: "bus.n.01",
    7: "train.n.01",
    8: "truck.n.01",
    9: "boat.n.01",
    10: "traffic_light.n.01",
    11: "fireplug.n.01",
    13: "stop_sign.n.01",
    14: "parking_meter.n.01",
    15: "bench.n.01",
    16: "bird.n.01",
    17: "cat.n.01",
    18: "dog.n.01",
    19: "horse.n.01",
    20: "sheep.n.01",
    21: "beef.n.01",
    22: "elephant.n.01",
    23: "bear.n.01",
    24: "zebra.n.01",
    25: "giraffe.n.01",
    27: "backpack.n.01",
    28: "umbrella.n.01",
    31: "bag.n.04",
    32: "necktie.n.01",
    33: "bag.n.06",
    34: "frisbee.n.01",
    35: "ski.n.01",
    36: "snowboard.n.01",
    37: "ball.n.06",
    38: "kite.n.03",
    39: "baseball_bat.n.01",
    40: "baseball_glove.n.01",
    41: "skateboard.n.01",
    42: "surfboard.n.01",
    43: "tennis_racket.n.01",
    44: "bottle.n.01",
    46: "wineglass.n.01",
    47: "cup.n.01",
    48: "fork.n.01",
    49: "knife.n.01",
    50: "spoon.n.01",
    51: "bowl.n.03",
    52: "banana.n.02",
    53: "apple.n.01",
    54: "sandwich.n.01",
    55: "orange.n.01",
    56: "broccoli.n.01",
    57: "carrot.n.01",
    58: "frank.n.02",
    59: "pizza.n.01",
    60: "doughnut.n.02",
    61: "cake.n.03",
    62: "chair.n.01",
    63: "sofa.n.01",
    64: "pot.n.04",
    65: "bed.n.01",
    67: "dining_table.n.01",
    70: "toilet.n.02",
    72: "television_receiver.n.01",
    73: "laptop.n.01",
    74: "mouse.n.04",
    75: "remote_control.n.01",
    76: "computer_keyboard.n.01",
    77: "cellular_telephone.n.01",
    78: "microwave.n.02",
    79: "oven.n.01",
    80: "toaster.n.02",
    81: "sink.n.01",
    82: "electric_refrigerator.n.01",
    84: "book.n.01",
    85: "clock.n.01",
    86: "vase.n.01",
    87: "scissors.n.01",
    88: "teddy.n.01",
    89: "hand_blower.n.01",
    90: "toothbrush.n.01",
}


def with_coco_categories(data: Any, name: str) -> Annotations:
    """LVIS annotations of the categories that COCO has too, under COCO's category ids.

    All images stay, those left without an annotation too. Annotations are numbered from 1 in their order; masks, boxes
    and areas stay as they are. Categories that nothing refers to are left out: of v0.5 val 78 remain.

    Args:
        data: contents of LVIS's file, v0.5 or v1.
        name: of the file, for error messages.

    Raises:
        InputError: where it is no LVIS file.
    """
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise InputError(f"{name}: has no list {key!r}; expected LVIS annotations")
    lists = ("neg_category_ids", "not_exhaustive_category_ids")
    if any("synset" not in category for category in data["categories"]) or any(
        key not in image for image in data["images"] for key in lists
    ):
        raise InputError(f"{name}: has no synsets or no {lists[0]}; expected LVIS annotations, not COCO's")
    by_synset = {synset: key for key, synset in SYNSETS.items()}
    ids = {c["id"]: by_synset[c["synset"]] for c in data["categories"] if c["synset"] in by_synset}
    images = [
        image | {key: [ids[category] for category in image[key] if category in ids] for key in lists}
        for image in data["images"]
    ]
    annotations = [
        one | {"category_id": ids[one["category_id"]]} for one in data["annotations"] if one["category_id"] in ids
    ]
    used = {one["category_id"] for one in annotations} | {
        key for image in images for kind in lists for key in image[kind]
    }
    categories = [
        category | {"id": ids[category["id"]]}
        for category in data["categories"]
        if category["id"] in ids and ids[category["id"]] in used
    ]
    return data | {
        "images": images,
        "annotations": [one | {"id": number} for number, one in enumerate(annotations, 1)],
        "categories": sorted(categories, key=lambda category: category["id"]),
    }
