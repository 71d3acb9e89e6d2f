"""Masks from anywhere, whatever made them, and the trained network that refines them."""
