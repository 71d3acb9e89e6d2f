"""Refine all masks that Segment Anything finds on photo.jpg, and save them as COCO results without a class."""

import json
from pathlib import Path

import cv2
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry

import sharpcontour

image = cv2.cvtColor(cv2.imread("photo.jpg"), cv2.COLOR_BGR2RGB)
generator = SamAutomaticMaskGenerator(sam_model_registry["vit_b"](checkpoint="sam_vit_b_01ec64.pth"))
found = generator.generate(image)  # a list of dicts, "segmentation" (H, W) bool
masks = [mask["segmentation"] for mask in found]  # of SamPredictor.predict: masks[k] > 0
sharp = sharpcontour.load_refiner().refine(image, masks, scores=[mask["predicted_iou"] for mask in found])
Path("sharp.json").write_text(json.dumps(sharp.to_coco(image_id=1)))
