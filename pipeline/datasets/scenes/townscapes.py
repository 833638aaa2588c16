"""Grounds of houses and rooms; each fills a canvas from its own random numbers."""

import numpy as np

from pipeline.datasets.scenes import clutter
from pipeline.datasets.scenes.canvas import Canvas, Colour
from pipeline.datasets.scenes.outlines import arc, ellipse
from pipeline.datasets.scenes.textures import blend, crowd, fractal, gradient, noise, pick, shade, spot, vary


def street(rng: np.random.Generator, canvas: Canvas) -> None:
    """Houses at night above cobbles, with lamps."""
    gradient(canvas, (26, 30, 58), (54, 54, 86))
    ground = float(rng.uniform(0.55, 0.72)) * canvas.height
    _houses(rng, canvas, ground)
    _cobbles(rng, canvas, ground)
    for _ in range(int(rng.integers(1, 3))):
        _lamp(rng, canvas, ground)
    shade(canvas, 1 + 0.1 * fractal(rng, canvas, 30))


def _houses(rng: np.random.Generator, canvas: Canvas, ground: float) -> None:
    x = -float(rng.uniform(0, 20))
    while x < canvas.width:
        wide, top = float(rng.uniform(34, 62)), ground * float(rng.uniform(0.05, 0.4))
        wall = vary(rng, pick(rng, ((62, 56, 84), (50, 56, 78), (72, 58, 74))), 0.12)
        canvas.fill(np.array([(x, top), (x + wide, top), (x + wide, ground), (x, ground)]), wall)
        canvas.stroke(np.array([(x, top), (x + wide, top), (x + wide, ground)]), (34, 32, 54), 1.4)
        for row in np.arange(top + 9, ground - 16, 19):
            for left in np.arange(x + 7, x + wide - 11, 15):
                lit = rng.random() < 0.4
                pane = vary(rng, (206, 176, 112) if lit else (40, 42, 66), 0.1)
                canvas.fill(
                    np.array([(left, row), (left + 8, row), (left + 8, row + 11), (left, row + 11)]), pane
                )
        x += wide


def _cobbles(rng: np.random.Generator, canvas: Canvas, ground: float) -> None:
    corner = canvas.width + 10
    canvas.fill(
        np.array([(-5, ground), (corner, ground), (corner, canvas.height + 5), (-5, canvas.height + 5)]),
        (46, 46, 60),
    )
    for row, y in enumerate(np.arange(ground + 5, canvas.height + 8, 9)):
        for x in np.arange(-6 + 7 * (row % 2), canvas.width + 8, 14):
            canvas.fill(ellipse(x, y, 6.0, 3.7, count=12), vary(rng, (84, 82, 98), 0.14))


def _lamp(rng: np.random.Generator, canvas: Canvas, ground: float) -> None:
    x, top = float(rng.uniform(8, canvas.width - 8)), ground * float(rng.uniform(0.2, 0.4))
    rows, columns = np.indices(canvas.pixels.shape[:2]) / canvas.unit
    glow = np.exp(-((columns - x) ** 2 + (rows - top) ** 2) / 24.0**2)
    blend(canvas, (236, 206, 140), 0.6 * glow.astype(np.float32))
    canvas.fill(
        np.array([(x - 1.6, top), (x + 1.6, top), (x + 2.2, ground + 8), (x - 2.2, ground + 8)]), (24, 24, 36)
    )
    canvas.fill(ellipse(x, top, 4.5, 5.5, count=16), (250, 234, 190))


def table(rng: np.random.Generator, canvas: Canvas) -> None:
    """Wooden planks with mug stains, coins and crumbs."""
    board = vary(rng, pick(rng, ((150, 102, 66), (124, 84, 58), (170, 122, 82))), 0.06)
    canvas.pixels[:] = board
    high = float(rng.uniform(26, 40))
    for y in np.arange(-rng.uniform(0, high), canvas.height, high):
        plank = np.array([(-5, y), (canvas.width + 5, y), (canvas.width + 5, y + high), (-5, y + high)])
        canvas.fill(plank, vary(rng, board, 0.09))
        canvas.stroke(plank[:2], tuple(int(0.55 * value) for value in board), 1.6)
    shade(canvas, 1 + 0.09 * noise(rng, canvas, 2.5, (1.0, 18.0)) + 0.06 * noise(rng, canvas, 6, (1.0, 10.0)))
    for _ in range(int(rng.integers(1, 4))):
        _mug_stain(rng, canvas, board)
    for _ in range(int(rng.integers(2, 5))):
        _coin(rng, canvas)
    for _ in range(crowd(canvas, 1500)):
        clutter.stone(rng, canvas, (196, 162, 112), float(rng.uniform(0.8, 1.8)))
    for _ in range(int(rng.integers(1, 4))):
        clutter.leaf(rng, canvas, ((112, 124, 84), (140, 130, 92)), float(rng.uniform(6, 10)))


def _mug_stain(rng: np.random.Generator, canvas: Canvas, board: Colour) -> None:
    x, y = spot(rng, canvas)
    ring = arc(x, y, float(rng.uniform(12, 19)), 0, float(rng.uniform(4.5, 6.3)), 30)
    canvas.stroke(ring, tuple(int(0.74 * value) for value in board), 2.4)


def _coin(rng: np.random.Generator, canvas: Canvas) -> None:
    x, y = spot(rng, canvas)
    radius = float(rng.uniform(4, 7))
    metal = vary(rng, pick(rng, ((168, 150, 110), (160, 160, 164))), 0.08)
    canvas.fill(ellipse(x + 0.8, y + 1.6, radius, radius), (66, 46, 34))
    canvas.fill(ellipse(x, y, radius, radius), metal)
    canvas.stroke(
        ellipse(x, y, 0.72 * radius, 0.72 * radius), tuple(int(0.8 * value) for value in metal), 1.0, True
    )


def wall(rng: np.random.Generator, canvas: Canvas) -> None:
    """Bricks, some overgrown with ivy."""
    canvas.pixels[:] = vary(rng, (150, 138, 128), 0.06)
    brick = vary(rng, pick(rng, ((134, 78, 66), (148, 96, 78), (112, 84, 82))), 0.06)
    high, wide = 13.0, 30.0
    for row, y in enumerate(np.arange(-rng.uniform(0, high), canvas.height, high)):
        for x in np.arange(-wide + 0.5 * wide * (row % 2), canvas.width, wide):
            box = np.array(
                [(x + 1, y + 1), (x + wide - 1, y + 1), (x + wide - 1, y + high - 1), (x + 1, y + high - 1)]
            )
            canvas.fill(box, vary(rng, brick, 0.14))
    shade(canvas, 1 + 0.1 * fractal(rng, canvas, 36) + 0.06 * noise(rng, canvas, 2.5))
    for _ in range(int(rng.integers(0, 3))):
        _ivy(rng, canvas)


def _ivy(rng: np.random.Generator, canvas: Canvas) -> None:
    x, y = float(rng.uniform(0, canvas.width)), -4.0
    while y < canvas.height * 0.75:
        after = (x + float(rng.uniform(-5, 5)), y + 6.0)
        canvas.stroke(np.array([(x, y), after]), (66, 78, 52), 1.5)
        for side in (-1, 1):
            colour = vary(rng, (74, 104, 66), 0.2)
            canvas.fill(ellipse(x + side * 4.5, y, 4.2, 2.8, float(rng.uniform(-0.7, 0.7)), 10), colour)
        x, y = after
