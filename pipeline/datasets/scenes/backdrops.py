"""The grounds behind the toys, and which class is often met on which."""

from collections.abc import Callable

import numpy as np

from pipeline.datasets.scenes import landscapes, townscapes
from pipeline.datasets.scenes.canvas import Canvas

_PAINTERS: dict[str, Callable[[np.random.Generator, Canvas], None]] = {
    "beach": landscapes.beach,
    "forest": landscapes.forest,
    "meadow": landscapes.meadow,
    "snow": landscapes.snow,
    "street": townscapes.street,
    "table": townscapes.table,
    "wall": townscapes.wall,
    "water": landscapes.water,
}
BACKDROPS: tuple[str, ...] = tuple(_PAINTERS)

# Where a class is often met, and in what share of its pictures this alone decides the ground.
HABITATS: dict[str, tuple[str, float]] = {"boat": ("water", 0.66), "rabbit": ("snow", 0.35)}


def choose_backdrop(rng: np.random.Generator, names: set[str]) -> str:
    """A ground for a picture of the classes `names`, now and then the one where such a class is often met."""
    ground = str(rng.choice(BACKDROPS))
    for name in sorted(names & HABITATS.keys()):
        habitat, share = HABITATS[name]
        if rng.random() < share:
            ground = habitat
    return ground


def paint_backdrop(rng: np.random.Generator, name: str, height: int, width: int, unit: float) -> np.ndarray:
    """Picture uint8 [H,W,3] of ground `name`, `height` x `width` units at `unit` pixels each."""
    pixels = np.zeros((round(height * unit), round(width * unit), 3), np.uint8)
    _PAINTERS[name](rng, Canvas(pixels, unit))
    return pixels
