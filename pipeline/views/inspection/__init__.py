"""What artifacts hold and what is odd about them, in words and as one image."""

from pipeline.views.inspection.artifacts import describe
from pipeline.views.inspection.datasets import describe_index
from pipeline.views.inspection.drawing import draw
from pipeline.views.inspection.networks import describe_weights
from pipeline.views.inspection.places import inspect, look_up

__all__ = ["describe", "describe_index", "describe_weights", "draw", "inspect", "look_up"]
