"""Refine the masks of torchvision's Mask R-CNN on photo.jpg, and save them as COCO results."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.models import detection

import sharpcontour

image = np.array(Image.open("photo.jpg").convert("RGB"))
weights = detection.MaskRCNN_ResNet50_FPN_V2_Weights.DEFAULT
model = detection.maskrcnn_resnet50_fpn_v2(weights=weights).eval()
with torch.no_grad():
    found = model([weights.transforms()(torch.from_numpy(image).permute(2, 0, 1))])[0]
masks = found["masks"][:, 0] > 0.5  # they are (N, 1, H, W) float32 from 0 to 1
sharp = sharpcontour.load_refiner().refine(image, masks, scores=found["scores"], labels=found["labels"])
Path("sharp.json").write_text(json.dumps(sharp.to_coco(image_id=1)))
