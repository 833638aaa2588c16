"""Procedural images of toys: large bodies that all classes share, and a small part that tells the
class.
"""

from pipeline.readers.scenes.backdrops import BACKDROPS
from pipeline.readers.scenes.scene import Scene, draw
from pipeline.readers.scenes.toys import CLASSES

__all__ = ["BACKDROPS", "CLASSES", "Scene", "draw"]
