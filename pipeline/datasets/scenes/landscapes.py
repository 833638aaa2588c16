"""Grounds of the open country; each fills a canvas from its own random numbers."""

import numpy as np

from pipeline.datasets.scenes import clutter
from pipeline.datasets.scenes.canvas import Canvas, Colour
from pipeline.datasets.scenes.outlines import arc, move, ribbon
from pipeline.datasets.scenes.textures import crowd, fractal, gradient, noise, pick, shade, spot, vary

_GREYS: tuple[Colour, ...] = ((128, 130, 134), (150, 146, 140), (108, 112, 120))


def meadow(rng: np.random.Generator, canvas: Canvas) -> None:
    """Grass with flowers and stones."""
    gradient(canvas, (104, 138, 74), (74, 112, 58))
    shade(canvas, 1 + 0.16 * fractal(rng, canvas, 48))
    greens: tuple[Colour, ...] = ((92, 130, 62), (70, 108, 56), (116, 150, 78), (84, 118, 70))
    for _ in range(crowd(canvas, 130)):
        clutter.grass(rng, canvas, greens, float(rng.uniform(5, 10)))
    for _ in range(int(rng.integers(2, 6))):
        clutter.stone(rng, canvas, pick(rng, _GREYS), float(rng.uniform(4, 9)))
    for _ in range(int(rng.integers(8, 20))):
        clutter.flower(
            rng, canvas, ((236, 232, 222), (222, 206, 150), (198, 190, 214)), float(rng.uniform(1.4, 2.4))
        )


def beach(rng: np.random.Generator, canvas: Canvas) -> None:
    """Sand with shells below a strip of sea."""
    gradient(canvas, (222, 200, 154), (206, 180, 132))
    shade(canvas, 1 + 0.05 * fractal(rng, canvas, 40) + 0.06 * noise(rng, canvas, 5, (1.0, 5.0)))
    _shore(rng, canvas)
    for _ in range(int(rng.integers(6, 14))):
        clutter.stone(rng, canvas, pick(rng, ((176, 160, 140), (150, 140, 132))), float(rng.uniform(2, 6)))
    for _ in range(int(rng.integers(4, 9))):
        clutter.shell(
            rng, canvas, ((240, 226, 208), (224, 190, 174), (206, 196, 190)), float(rng.uniform(4, 7))
        )
    for _ in range(int(rng.integers(1, 4))):
        clutter.twig(rng, canvas, (134, 108, 84), float(rng.uniform(8, 16)))


def _shore(rng: np.random.Generator, canvas: Canvas) -> None:
    """A strip of sea with foam along the top of a beach."""
    depth = float(rng.uniform(0.0, 0.3)) * canvas.height
    x = np.linspace(-5, canvas.width + 5, 24)
    y = depth + 4 * np.sin(x / 17 + rng.uniform(0, 6)) + 2.5 * np.sin(x / 7 + rng.uniform(0, 6))
    for lift, colour in (
        (9, (190, 164, 120)),
        (4, (232, 236, 230)),
        (0, (118, 172, 178)),
        (-9, (92, 152, 168)),
    ):
        edge = np.stack([x, y + lift], 1)
        canvas.fill(np.concatenate([edge, [(canvas.width + 5, -30.0), (-5.0, -30.0)]]), colour)


def water(rng: np.random.Generator, canvas: Canvas) -> None:
    """Waves with water lilies."""
    gradient(canvas, (66, 132, 150), (30, 84, 116))
    shade(canvas, 1 + 0.12 * noise(rng, canvas, 7, (1.0, 5.0)) + 0.08 * fractal(rng, canvas, 50))
    for _ in range(crowd(canvas, 700)):
        clutter.ripple(rng, canvas, vary(rng, (112, 172, 184), 0.1), float(rng.uniform(5, 13)))
    for _ in range(crowd(canvas, 1400)):
        clutter.ripple(rng, canvas, vary(rng, (24, 70, 102), 0.1), float(rng.uniform(5, 12)))
    for _ in range(int(rng.integers(2, 6))):
        _lily(rng, canvas)
    for _ in range(int(rng.integers(0, 3))):
        clutter.stone(rng, canvas, pick(rng, _GREYS), float(rng.uniform(5, 10)))


def _lily(rng: np.random.Generator, canvas: Canvas) -> None:
    x, y = spot(rng, canvas)
    radius, start = float(rng.uniform(5, 10)), float(rng.uniform(0, 6))
    pad = np.concatenate([arc(0, 0, radius, start, start + 5.6, 20), [(0.0, 0.0)]]) * (1, 0.6)
    canvas.fill(move(pad, x, y + 1.2), (24, 62, 84))
    canvas.fill(move(pad, x, y), vary(rng, (84, 122, 84), 0.12))


def forest(rng: np.random.Generator, canvas: Canvas) -> None:
    """A forest floor full of leaves and sticks."""
    gradient(canvas, (78, 62, 48), (60, 48, 40))
    shade(canvas, 1 + 0.2 * fractal(rng, canvas, 30))
    rust: tuple[Colour, ...] = ((124, 78, 52), (108, 88, 56), (92, 86, 54), (136, 98, 68), (82, 62, 52))
    for _ in range(crowd(canvas, 200)):
        clutter.leaf(rng, canvas, rust, float(rng.uniform(4, 8)))
    for _ in range(int(rng.integers(3, 8))):
        clutter.twig(rng, canvas, (84, 64, 50), float(rng.uniform(10, 22)))
    for _ in range(int(rng.integers(1, 5))):
        clutter.stone(rng, canvas, pick(rng, _GREYS), float(rng.uniform(4, 8)))


def snow(rng: np.random.Generator, canvas: Canvas) -> None:
    """Snow with a sledge's tracks, twigs and stones."""
    gradient(canvas, (226, 234, 244), (206, 218, 236))
    shade(canvas, 1 + 0.05 * fractal(rng, canvas, 44) + 0.02 * noise(rng, canvas, 3))
    _tracks(rng, canvas)
    for _ in range(int(rng.integers(3, 8))):
        clutter.twig(rng, canvas, (110, 92, 84), float(rng.uniform(7, 15)))
    for _ in range(int(rng.integers(3, 8))):
        clutter.stone(rng, canvas, pick(rng, _GREYS), float(rng.uniform(3, 8)))
    for _ in range(crowd(canvas, 1600)):
        clutter.leaf(rng, canvas, ((126, 142, 120), (146, 128, 110)), float(rng.uniform(3, 5)))


def _tracks(rng: np.random.Generator, canvas: Canvas) -> None:
    """Two lines of a sledge's runners."""
    x = np.linspace(-10, canvas.width + 10, 20)
    middle = rng.uniform(0.1, 0.9) * canvas.height + rng.uniform(4, 16) * np.sin(x / rng.uniform(30, 60))
    for lift in (0.0, 13.0):
        canvas.fill(ribbon(np.stack([x, middle + lift], 1), np.full(20, 4.0)), (182, 196, 220))
