"""Masks in files: every usual kind is read, and refined objects are written as COCO JSON, SVG, PNG and a picture."""
