"""Metrics: COCO mask AP, Boundary AP, and how a model is scored with them."""
