"""Masks in files: every usual kind is read, and refined objects are written as what annotation tools open."""
