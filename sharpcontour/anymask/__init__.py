"""Masks from anywhere, whatever made them: read, and refined."""
