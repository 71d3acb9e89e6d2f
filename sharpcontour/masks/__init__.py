"""Masks as pixels: packed for a loader, and as COCO's run lengths."""
