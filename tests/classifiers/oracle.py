"""A prompter that knows the segments of the small data set, and a network that sees its objects."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.classifiers.base import TrainingData
from pipeline.core.artifacts import Reader
from pipeline.segmenters.prompting import Query

RED, GREEN = 1, 2
"""Segments of the two objects; 3 and 300 are background."""


class Oracle:
    """Answers with the stored segment that the first point lies on."""

    def __init__(self, stability: float = 0.9) -> None:
        self.stability = stability
        self.calls: list[Sequence[Query]] = []

    def prompt(self, queries: Sequence[Query]) -> list[Tensor]:
        self.calls.append(queries)
        answers = []
        for segments, points in ((query.record["segments"], query.points_xy) for query in queries):
            x, y = points[0].astype(int)
            answers.append(torch.from_numpy(segments == segments[y, x]) * self.stability)
        return answers


def color_maps(images: Tensor) -> Tensor:
    """Class maps [B,2,S/16,S/16] that see red and green as they are."""
    return F.avg_pool2d(images[:, :2].float() - 100, 16) / 50


class ColorMaps(nn.Module):
    """A network whose maps find the objects; it records the shape of its inputs and its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.calls: list[tuple[tuple[int, ...], bool]] = []

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append((tuple(images.shape), self.training))
        maps = color_maps(images) * self.weight
        return maps, maps.relu()


def reader(data: TrainingData) -> Reader:
    assert data.segments is not None
    return data.segments.reader


def prompter(data: TrainingData) -> Oracle:
    assert data.segments is not None
    oracle = data.segments.prompters["whole"]
    assert isinstance(oracle, Oracle)
    return oracle
