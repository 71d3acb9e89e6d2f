"""Time of Mask R-CNN beside torchvision's own with the same weights: python -m tests.models.bench_torchvision.

Not collected by pytest. Inference goes from an image to run lengths, in both with resizing, suppression and pasting;
training from an image with its objects to changed weights. Both models take turns, on the same threads.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN as Reference
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.resnet import Bottleneck

from eval.diagnostics.timing import take_turns
from models.mask_rcnn import MaskRCNN, torchvision
from models.predictor import Predictor
from tests.models.helpers import drawn
from tests.models.test_mask_rcnn import renamed

CLASSES = 90
CANDIDATES = 1000  # pairs of box and class that reach the suppression


def make_pair(image: Tensor, short_side: int) -> tuple[Any, MaskRCNN]:
    """torchvision's maskrcnn_resnet50_fpn and ours with the same random weights, norms and first stages frozen.

    The score threshold is set so that ``CANDIDATES`` reach the suppression on the image (3, H, W) uint8.
    """
    torch.manual_seed(0)
    body = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    reference = Reference(body, CLASSES + 1, min_size=short_side, max_size=short_side * 5 // 3)
    for name, parameter in reference.named_parameters():
        if name.startswith(("rpn", "roi_heads")) and parameter.dim() > 1:
            nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    for block in reference.modules():
        if isinstance(block, Bottleneck):
            nn.init.constant_(block.bn3.weight, 0.1)  # else the sums grow from block to block
    heads, logits = reference.roi_heads, []
    hook = heads.box_predictor.cls_score.register_forward_hook(lambda layer, given, made: logits.append(made))
    with torch.no_grad():
        reference.eval()([image / 255])
    hook.remove()
    heads.score_thresh = float(logits[0].softmax(1)[:, 1:].flatten().topk(CANDIDATES).values[-1])
    config = torchvision()
    config.backbone.weights, config.box_head.score_threshold = "none", heads.score_thresh
    mine = MaskRCNN(config, CLASSES)
    mine.load_state_dict(renamed(reference.state_dict()))
    learned = {key for key, value in renamed(dict(reference.named_parameters())).items() if value.requires_grad}
    for key, value in mine.named_parameters():
        value.requires_grad_(key in learned)
    return reference, mine


def inference(reference: nn.Module, mine: MaskRCNN, image: np.ndarray, short_side: int) -> dict[str, Callable[[], Any]]:
    """Calls that give the COCO run lengths of one image (H, W, 3) uint8."""
    device = mine.pixel_mean.device
    categories = [{"id": k + 1, "name": str(k + 1)} for k in range(CLASSES)]
    predictor = Predictor(mine, categories, short_side, short_side * 5 // 3, "torchvision")
    reference.eval()

    @torch.inference_mode()
    def theirs() -> list[dict[str, Any]]:
        pixels = torch.from_numpy(image).to(device).permute(2, 0, 1) / 255
        masks = (reference([pixels])[0]["masks"][:, 0] > 0.5).cpu().numpy()
        return coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))

    return {"torchvision": theirs, "ours": lambda: predictor.predict(image).rles()}


def training(
    reference: nn.Module, mine: MaskRCNN, image: Tensor, target: dict[str, Any]
) -> dict[str, Callable[[], Any]]:
    """Calls that make one update of the weights from one image (3, H, W) uint8 at network size."""
    device = mine.pixel_mean.device
    ours = {"masks": target["masks"], **{key: target[key].to(device) for key in ("boxes", "labels")}}
    ours["masks"] = ours["masks"].to(device)
    pixels, size = image.to(device), target["size"]
    theirs = {"boxes": ours["boxes"], "labels": ours["labels"] + 1, "masks": target["masks"].dense(*size).byte()}
    theirs["masks"] = theirs["masks"].to(device)
    calls: dict[str, Callable[[], Any]] = {}
    for name, model, given in (("torchvision", reference, theirs), ("ours", mine, ours)):
        model.train()
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-6)

        def step(model: Any = model, given: Any = given, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            images = [pixels / 255] if model is reference else [pixels]
            sum(model(images, [given]).values()).backward()
            optimizer.step()

        calls[name] = step
    return calls


def report(title: str, calls: dict[str, Callable[[], Any]], device: str, warmup: int, repeats: int) -> float:
    """Print the medians and the median of the ratios of every turn, ours / theirs; return the latter."""
    times = take_turns(calls, device, warmup, repeats)
    ratios = sorted(mine / other for mine, other in zip(times["ours"], times["torchvision"], strict=True))
    medians = ", ".join(f"{name} {statistics.median(values):.0f} ms" for name, values in times.items())
    ratio = statistics.median(ratios)
    print(f"{title:<10} {medians}; ours / torchvision {ratio:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})", flush=True)
    return ratio


def main() -> None:
    """Compare, after a check that both find the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short-side", type=int, default=800, help="px of the network input (default: 800)")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--warmup", type=int, default=1, help="turns that do not count (default: 1)")
    parser.add_argument("--repeats", type=int, default=5, help="turns that do (default: 5)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    short, long = args.short_side, args.short_side * 5 // 3
    # At network size already: resized, the last bits differ, and random weights make other detections of them.
    image, target = drawn(3, 6, short, long)
    reference, mine = make_pair(image, short)
    reference.to(args.device), mine.to(args.device)
    print(f"torch {torch.__version__}, {args.device}, {args.threads} threads, network input {long} x {short}")
    calls = inference(reference, mine, image.permute(1, 2, 0).contiguous().numpy(), short)
    found = {name: call() for name, call in calls.items()}
    assert len(found["ours"]) == len(found["torchvision"]) > 0
    same = [float(coco_mask.iou([a], [b], [0])[0, 0]) for a, b in zip(*found.values(), strict=True)]
    print(f"{len(same)} detections, mean IoU of the masks {np.mean(same):.6f}")
    assert np.mean(same) > 0.9  # scores that nearly tie may change places
    report("inference", calls, args.device, args.warmup, args.repeats)
    report("training", training(reference, mine, image, target), args.device, args.warmup, args.repeats)


if __name__ == "__main__":
    main()
