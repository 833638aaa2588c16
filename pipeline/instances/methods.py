"""Where an instance method's room is."""

from importlib import import_module
from types import ModuleType


def room(method: str, part: str) -> ModuleType:
    """The module `part` (`network`, `training` or `detections`) of a method's room."""
    return import_module(f"pipeline.{method}.{part}")
