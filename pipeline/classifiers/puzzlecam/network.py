"""Puzzle-CAM's network: the plain classifier, seen in training both whole and in tiles."""

import torch
from torch import Tensor

from pipeline.classifiers.base import Classifier


class Network(Classifier):
    """Class maps of whole images and of their tiles, from the same weights; only the whole ones
    count afterwards.
    """

    def forward(self, images: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Class maps A^s of images [B,3,H,W] in 0..255, and A^re put together from `grid` (rows,
        columns) of tiles; both [B,C,h,w].

        The tiles of all images are one batch. They hold as many pixels as the images do, so this
        takes twice the time.
        """
        normalized = self.backbone.normalize(images)
        tiles = tile(normalized, grid).contiguous(memory_format=torch.channels_last)
        whole, parts = self.head(self.features(normalized)), self.head(self.features(tiles))
        return whole, merge(parts, grid)


def tile(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cut [B,K,H,W] into `grid` (rows, columns) of tiles [rows*columns*B,K,H/rows,W/columns], all
    top left ones first.

    The sides must divide by the grid.
    """
    rows, columns = grid
    samples, channels, height, width = images.shape
    cut = images.reshape(samples, channels, rows, height // rows, columns, width // columns)
    return cut.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)


def merge(tiles: Tensor, grid: tuple[int, int]) -> Tensor:
    """Put tiles [rows*columns*B,K,h,w] in the order of `tile` back together:
    [B,K,rows*h,columns*w].
    """
    rows, columns = grid
    _, channels, height, width = tiles.shape
    cut = tiles.reshape(rows, columns, -1, channels, height, width)
    return cut.permute(2, 3, 0, 4, 1, 5).flatten(4, 5).flatten(2, 3)
