"""Large images in tiles that overlap: where they lie, and how their predictions become one map."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Tile(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    bottom: int
    left: int
    right: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return this part of an image [H,W,...]."""
        return image[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True, slots=True)
class Tiling:
    """Squares of `side` pixels, each `step` pixels after the one before, at least half a side.

    All begin at multiples of `step`, so that a network whose stride divides it samples a tile as it
    samples the whole image; the last ones end with the image and may be smaller.
    """

    side: int
    step: int

    def tiles(self, size: tuple[int, int]) -> list[Tile]:
        """Return the tiles of an image of (height, width), row by row."""
        rows, columns = map(self._spans, size)
        return [Tile(*row, *column) for row in rows for column in columns]

    def _spans(self, length: int) -> list[tuple[int, int]]:
        count = 1 + max(0, -(-(length - self.side) // self.step))
        starts = (number * self.step for number in range(count))
        return [(start, min(start + self.side, length)) for start in starts]

    def weights(self, start: int, end: int, length: int) -> np.ndarray:
        """Return the weights float32 [end - start] of a span of an axis of `length` pixels.

        Over the middle half of an overlap the weight passes linearly from one tile to the next. The
        outer quarters, where a tile misses what surrounds it, count for one of them alone. The
        weights of all tiles sum to 1.
        """
        overlap = self.side - self.step
        weights = np.ones(end - start, np.float32)
        if overlap:
            centers = (np.arange(overlap, dtype=np.float32) + 0.5) / overlap
            rising = np.clip(2 * centers - 0.5, 0, 1)
            if start > 0:
                weights[:overlap] = rising
            if end < length:
                weights[-overlap:] = 1 - rising
        return weights


class BlendedLabels:
    """The label map of an image out of the class probabilities of its tiles.

    Memory holds the probabilities of one row of tiles. labels: uint8 [H,W], complete after the last
    tile.
    """

    def __init__(self, tiling: Tiling, size: tuple[int, int], count: int) -> None:
        self.tiling, self.labels = tiling, np.zeros(size, np.uint8)
        self.total = np.zeros((count, min(tiling.side, size[0]), size[1]), np.float32)

    def add(self, tile: Tile, probabilities: np.ndarray) -> None:
        """Add the probabilities [L,h,w] of the next tile, in the order of Tiling.tiles."""
        height, width = self.labels.shape
        across = self.tiling.weights(tile.left, tile.right, width)
        down = self.tiling.weights(tile.top, tile.bottom, height)[:, None]
        rows = tile.bottom - tile.top
        self.total[:, :rows, tile.left : tile.right] += probabilities * (down * across)
        if tile.right < width:
            return
        done = rows if tile.bottom == height else self.tiling.step
        self.labels[tile.top : tile.top + done] = self.total[:, :done].argmax(0)
        rest = self.total[:, done:rows].copy()
        self.total[:] = 0
        self.total[:, : rest.shape[1]] = rest
