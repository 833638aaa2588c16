"""Puzzle-CAM (Jo and Yu, ICIP 2021; its specification, section 2)."""
