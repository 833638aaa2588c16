"""The random walk of class maps against dense squarings and against 256 sparse products."""

from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.sparse
import torch

from benchmarks.measure import Benchmark, Measurement
from pipeline.irnet.paths import directions, line_cells
from pipeline.irnet.walk import random_walk

RADIUS, BETA, STEPS = 5, 10.0, 256
PUBLISHED = "published code (dense, 8 squarings), measured on two cores"
PRODUCTS = "256 CSR products (scipy), same run"
SQUARINGS = "dense matrix, 8 squarings (torch), same run"


def inputs_of(
    height: int, width: int, maps: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a boundary map [h,w] with a few closed outlines, and smooth class maps [maps,h,w]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [
        np.sin(x * rng.uniform(4, 12) + y * rng.uniform(4, 12) + rng.uniform(0, 6))
        for _ in range(maps + 1)
    ]
    boundary = np.exp(-((waves[0] / 0.2) ** 2)) * 0.9 + rng.uniform(0, 0.1, (height, width))
    scores = np.clip(waves[1:], 0, 1)
    return torch.from_numpy(boundary.astype(np.float32)), torch.from_numpy(
        scores.astype(np.float32)
    )


def ours(height: int, width: int, maps: int, images: int = 1) -> Callable[[], object]:
    boundaries, scores = zip(
        *(inputs_of(height, width, maps, seed) for seed in range(images)), strict=True
    )
    return partial(random_walk, boundaries, scores, radius=RADIUS, beta=BETA, steps=STEPS)


def products(height: int, width: int, maps: int, images: int = 1) -> Callable[[], object]:
    inputs = [inputs_of(height, width, maps, seed) for seed in range(images)]

    def call() -> list[np.ndarray]:
        return [_products(boundary.numpy(), scores.numpy()) for boundary, scores in inputs]

    return call


def squarings(height: int, width: int, maps: int) -> Callable[[], object]:
    boundary, scores = inputs_of(height, width, maps)
    dense = torch.from_numpy(_transitions(boundary.numpy()).toarray())
    seeds = (scores * (1 - boundary)).flatten(1)

    def call() -> torch.Tensor:
        transition = dense
        for _ in range(STEPS.bit_length() - 1):
            transition = transition @ transition
        return seeds @ transition

    return call


def _products(boundary: np.ndarray, scores: np.ndarray) -> np.ndarray:
    transition = _transitions(boundary).T.tocsr()
    seeds = np.ascontiguousarray((scores * (1 - boundary)).reshape(len(scores), -1).T)
    for _ in range(STEPS):
        seeds = transition @ seeds
    return seeds.T


def _transitions(boundary: np.ndarray) -> scipy.sparse.csr_matrix:
    """Return a^beta over its column sums, from a table of every pair's line."""
    height, width = boundary.shape
    cells = np.arange(height * width).reshape(height, width)
    padded = np.pad(boundary, RADIUS, constant_values=1.0)
    rows, columns, values = [], [], []
    for dy, dx in directions(RADIUS):
        source = np.s_[: height - dy, max(0, -dx) : width - max(0, dx)]
        target = np.s_[dy:, max(0, dx) : width + min(0, dx)]
        line = [
            padded[RADIUS + y :, RADIUS + x :][:height, :width][source]
            for y, x in line_cells(dy, dx)
        ]
        rows.append(cells[source].ravel())
        columns.append(cells[target].ravel())
        values.append((1 - np.max(line, axis=0)).ravel() ** BETA)
    half = scipy.sparse.coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(cells.size, cells.size),
    )
    matrix = (half + half.T + scipy.sparse.identity(cells.size, dtype=np.float32)).tocsr()
    return matrix @ scipy.sparse.diags(1 / np.asarray(matrix.sum(0))[0]).astype(np.float32)


BENCHMARKS = (
    Benchmark(
        "random walk",
        "64x64 cells, 2 maps",
        partial(ours, 64, 64, 2),
        partial(squarings, 64, 64, 2),
        SQUARINGS,
        runs=3,
    ),
    Benchmark(
        "random walk",
        "94x125 cells, 2 maps",
        partial(ours, 94, 125, 2),
        partial(products, 94, 125, 2),
        PRODUCTS,
    ),
    Benchmark(
        "random walk",
        "94x125 cells, 2 maps",
        partial(ours, 94, 125, 2),
        Measurement(301.7, 1900),
        PUBLISHED,
    ),
    Benchmark(
        "random walk",
        "64 images of 48x48 cells, 2 maps",
        partial(ours, 48, 48, 2, 64),
        partial(products, 48, 48, 2, 64),
        PRODUCTS,
        runs=3,
    ),
)
