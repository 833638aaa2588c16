"""Procedural scenes of toys: large bodies that all classes share, small parts that tell them."""

from pipeline.readers.scenes.backdrops import BACKDROPS
from pipeline.readers.scenes.scene import Scene, draw
from pipeline.readers.scenes.toys import CLASSES

__all__ = ["BACKDROPS", "CLASSES", "Scene", "draw"]
