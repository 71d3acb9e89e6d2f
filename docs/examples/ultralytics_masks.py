"""Refine the masks of an Ultralytics YOLO segmentation model on photo.jpg, and print polygons by class."""

from ultralytics import YOLO

import sharpcontour

result = YOLO("yolo11n-seg.pt")("photo.jpg", retina_masks=True)[0]  # else masks have the network's size
if result.masks is not None:  # None where nothing was found
    image = result.orig_img[..., ::-1]  # it is (H, W, 3) BGR
    masks = result.masks.data.cpu().numpy() > 0.5  # (N, H, W)
    labels, scores = result.boxes.cls.cpu().int(), result.boxes.conf.cpu()
    sharp = sharpcontour.load_refiner().refine(image, masks, scores=scores, labels=labels)
    for label, rings in zip(labels.tolist(), sharp.rings, strict=True):
        print(result.names[label], [ring.round(1).tolist() for ring in rings])
