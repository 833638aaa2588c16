"""Label maps: uint8 [H,W], 0 background, c + 1 class c (0-based), IGNORE where nothing is known or counted."""

IGNORE = 255
MAX_CLASSES = 254
"""Classes beside background that fit."""
