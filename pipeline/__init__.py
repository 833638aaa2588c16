"""Weakly supervised segmentation: from images and their tags to masks, pseudo-labels and trained
models.
"""
