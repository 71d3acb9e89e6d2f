"""Pictures of detections before and after refinement, with close-ups.

Images are (height, width, 3) uint8 RGB arrays, in and out; what is handed in is never drawn on.
"""

from sharpcontour.pictures.comparison import compare, draw_detections
from sharpcontour.pictures.drawing import save

__all__ = ["compare", "draw_detections", "save"]
