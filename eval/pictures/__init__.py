"""Pictures of detections: before and after refinement with close-ups, and the course of one contour.

Images are (height, width, 3) uint8 RGB arrays, in and out; what is handed in is never drawn on.
"""

from eval.pictures.course import evolution
from eval.pictures.examples import confident, select_examples
from sharpcontour.pictures.comparison import compare, draw_detections
from sharpcontour.pictures.drawing import save
from sharpcontour.pictures.moves import largest_moves

__all__ = ["compare", "confident", "draw_detections", "evolution", "largest_moves", "save", "select_examples"]
