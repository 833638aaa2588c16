"""Readers of image sources: VOC, COCO, folders, the built-in scenes; and their validation."""
