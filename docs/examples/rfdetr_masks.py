"""Refine the masks of RF-DETR on photo.jpg in place, so that what draws or saves its detections goes on with them."""

import numpy as np
import supervision
from PIL import Image
from rfdetr import RFDETRSegPreview

import sharpcontour

image = Image.open("photo.jpg").convert("RGB")
detections = RFDETRSegPreview().predict(image, threshold=0.5)  # a supervision.Detections
if detections.mask is not None:  # (N, H, W) bool
    sharp = sharpcontour.load_refiner().refine(image, detections.mask)
    detections.mask = sharp.masks()
    detections.xyxy = supervision.mask_to_xyxy(detections.mask)
    np.savez_compressed("sharp.npz", *detections.mask)
