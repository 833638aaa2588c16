"""Weakly supervised segmentation: from pictures and their tags to masks, pseudo-labels and trained models."""
