"""Soft random textures and gradients for backdrops."""

import cv2
import numpy as np

from pipeline.datasets.scenes.canvas import Canvas, Colour


def noise(
    rng: np.random.Generator, canvas: Canvas, cell: float, stretch: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """Smooth noise f4 [H,W] in about [-1,1] with features `cell` units wide, stretched by (y, x).

    The number of values drawn does not depend on the resolution, so that a scaled picture shows the same.
    """
    rows = round(canvas.height / (cell * stretch[0])) + 3
    columns = round(canvas.width / (cell * stretch[1])) + 3
    grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    height, width = canvas.pixels.shape[:2]
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def fractal(rng: np.random.Generator, canvas: Canvas, cell: float, octaves: int = 3) -> np.ndarray:
    """Noise of several sizes, each half as wide and half as strong, f4 [H,W] in about [-1,1]."""
    total = sum(noise(rng, canvas, cell / 2**octave) / 2**octave for octave in range(octaves))
    return np.asarray(total, np.float32) / (2 - 0.5 ** (octaves - 1))


def shade(canvas: Canvas, factor: np.ndarray) -> None:
    """Multiply the pixels by `factor` [H,W]."""
    canvas.pixels[:] = np.clip(canvas.pixels * factor[..., None], 0, 255)


def blend(canvas: Canvas, colour: Colour, weight: np.ndarray) -> None:
    """Move the pixels towards `colour` by `weight` [H,W] in [0,1]."""
    pixels = canvas.pixels.astype(np.float32)
    pixels += (np.array(colour, np.float32) - pixels) * weight[..., None]
    canvas.pixels[:] = np.clip(pixels, 0, 255)


def gradient(canvas: Canvas, top: Colour, bottom: Colour) -> None:
    """Fill with a vertical gradient."""
    weight = np.linspace(0, 1, canvas.pixels.shape[0], dtype=np.float32)[:, None, None]
    canvas.pixels[:] = (1 - weight) * np.array(top, np.float32) + weight * np.array(bottom, np.float32)


def vary(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """A colour near `colour`: lighter or darker by up to the share `amount`, and a little off in hue."""
    light = 1 + rng.uniform(-amount, amount)
    return tuple(int(np.clip(value * light + rng.uniform(-5, 5), 0, 255)) for value in colour)


def pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """One of `colours`."""
    return colours[int(rng.integers(len(colours)))]


def spot(rng: np.random.Generator, canvas: Canvas) -> tuple[float, float]:
    """A place (x, y) anywhere in the picture."""
    return float(rng.uniform(0, canvas.width)), float(rng.uniform(0, canvas.height))


def crowd(canvas: Canvas, each: float) -> int:
    """How many things fit when each is given `each` square units."""
    return max(1, round(canvas.width * canvas.height / each))
