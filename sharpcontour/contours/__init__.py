"""Contours: their types, from masks and to masks, their geometry."""
