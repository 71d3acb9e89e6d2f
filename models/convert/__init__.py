"""Weights of other projects -> this one's names and layout."""
