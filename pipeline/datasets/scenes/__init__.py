"""Procedural pictures of toys: large bodies that all classes share, and a small part that tells the class."""

from pipeline.datasets.scenes.backdrops import BACKDROPS
from pipeline.datasets.scenes.parts import CLASSES
from pipeline.datasets.scenes.scene import Scene, draw

__all__ = ["BACKDROPS", "CLASSES", "Scene", "draw"]
