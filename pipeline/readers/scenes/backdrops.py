"""Backdrops of the toys, outdoors and indoors, and the classes that often occur on them."""

from collections.abc import Callable

import numpy as np

from pipeline.readers.scenes import clutter
from pipeline.readers.scenes.shapes import (
    Canvas,
    Color,
    arc,
    blend,
    count_per_area,
    ellipse,
    fractal,
    gradient,
    move,
    noise,
    pick,
    ribbon,
    shade,
    spot,
    vary,
)

_GRAYS: tuple[Color, ...] = ((128, 130, 134), (150, 146, 140), (108, 112, 120))


def meadow(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint grass with flowers and stones."""
    gradient(canvas, (104, 138, 74), (74, 112, 58))
    shade(canvas, 1 + 0.16 * fractal(rng, canvas, 48))
    greens: tuple[Color, ...] = ((92, 130, 62), (70, 108, 56), (116, 150, 78), (84, 118, 70))
    for _ in range(count_per_area(canvas, 130)):
        clutter.grass(rng, canvas, greens, float(rng.uniform(5, 10)))
    for _ in range(int(rng.integers(2, 6))):
        clutter.stone(rng, canvas, pick(rng, _GRAYS), float(rng.uniform(4, 9)))
    for _ in range(int(rng.integers(8, 20))):
        clutter.flower(
            rng,
            canvas,
            ((236, 232, 222), (222, 206, 150), (198, 190, 214)),
            float(rng.uniform(1.4, 2.4)),
        )


def beach(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint sand with shells below a strip of sea."""
    gradient(canvas, (222, 200, 154), (206, 180, 132))
    shade(canvas, 1 + 0.05 * fractal(rng, canvas, 40) + 0.06 * noise(rng, canvas, 5, (1.0, 5.0)))
    _shore(rng, canvas)
    for _ in range(int(rng.integers(6, 14))):
        clutter.stone(
            rng, canvas, pick(rng, ((176, 160, 140), (150, 140, 132))), float(rng.uniform(2, 6))
        )
    for _ in range(int(rng.integers(4, 9))):
        clutter.shell(
            rng,
            canvas,
            ((240, 226, 208), (224, 190, 174), (206, 196, 190)),
            float(rng.uniform(4, 7)),
        )
    for _ in range(int(rng.integers(1, 4))):
        clutter.twig(rng, canvas, (134, 108, 84), float(rng.uniform(8, 16)))


def _shore(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint a strip of sea with foam along the top of a beach."""
    depth = float(rng.uniform(0.0, 0.3)) * canvas.height
    x = np.linspace(-5, canvas.width + 5, 24)
    y = depth + 4 * np.sin(x / 17 + rng.uniform(0, 6)) + 2.5 * np.sin(x / 7 + rng.uniform(0, 6))
    for lift, color in (
        (9, (190, 164, 120)),
        (4, (232, 236, 230)),
        (0, (118, 172, 178)),
        (-9, (92, 152, 168)),
    ):
        edge = np.stack([x, y + lift], 1)
        canvas.fill(np.concatenate([edge, [(canvas.width + 5, -30.0), (-5.0, -30.0)]]), color)


def water(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint waves with water lilies."""
    gradient(canvas, (66, 132, 150), (30, 84, 116))
    shade(canvas, 1 + 0.12 * noise(rng, canvas, 7, (1.0, 5.0)) + 0.08 * fractal(rng, canvas, 50))
    for _ in range(count_per_area(canvas, 700)):
        clutter.ripple(rng, canvas, vary(rng, (112, 172, 184), 0.1), float(rng.uniform(5, 13)))
    for _ in range(count_per_area(canvas, 1400)):
        clutter.ripple(rng, canvas, vary(rng, (24, 70, 102), 0.1), float(rng.uniform(5, 12)))
    for _ in range(int(rng.integers(2, 6))):
        _lily(rng, canvas)
    for _ in range(int(rng.integers(0, 3))):
        clutter.stone(rng, canvas, pick(rng, _GRAYS), float(rng.uniform(5, 10)))


def _lily(rng: np.random.Generator, canvas: Canvas) -> None:
    x, y = spot(rng, canvas)
    radius, start = float(rng.uniform(5, 10)), float(rng.uniform(0, 6))
    pad = np.concatenate([arc(0, 0, radius, start, start + 5.6, 20), [(0.0, 0.0)]]) * (1, 0.6)
    canvas.fill(move(pad, x, y + 1.2), (24, 62, 84))
    canvas.fill(move(pad, x, y), vary(rng, (84, 122, 84), 0.12))


def forest(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint a forest floor full of leaves and sticks."""
    gradient(canvas, (78, 62, 48), (60, 48, 40))
    shade(canvas, 1 + 0.2 * fractal(rng, canvas, 30))
    rust: tuple[Color, ...] = (
        (124, 78, 52),
        (108, 88, 56),
        (92, 86, 54),
        (136, 98, 68),
        (82, 62, 52),
    )
    for _ in range(count_per_area(canvas, 200)):
        clutter.leaf(rng, canvas, rust, float(rng.uniform(4, 8)))
    for _ in range(int(rng.integers(3, 8))):
        clutter.twig(rng, canvas, (84, 64, 50), float(rng.uniform(10, 22)))
    for _ in range(int(rng.integers(1, 5))):
        clutter.stone(rng, canvas, pick(rng, _GRAYS), float(rng.uniform(4, 8)))


def snow(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint snow with a sledge's tracks, twigs and stones."""
    gradient(canvas, (226, 234, 244), (206, 218, 236))
    shade(canvas, 1 + 0.05 * fractal(rng, canvas, 44) + 0.02 * noise(rng, canvas, 3))
    _tracks(rng, canvas)
    for _ in range(int(rng.integers(3, 8))):
        clutter.twig(rng, canvas, (110, 92, 84), float(rng.uniform(7, 15)))
    for _ in range(int(rng.integers(3, 8))):
        clutter.stone(rng, canvas, pick(rng, _GRAYS), float(rng.uniform(3, 8)))
    for _ in range(count_per_area(canvas, 1600)):
        clutter.leaf(rng, canvas, ((126, 142, 120), (146, 128, 110)), float(rng.uniform(3, 5)))


def _tracks(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint the two tracks of a sledge's runners."""
    x = np.linspace(-10, canvas.width + 10, 20)
    middle = rng.uniform(0.1, 0.9) * canvas.height + rng.uniform(4, 16) * np.sin(
        x / rng.uniform(30, 60)
    )
    for lift in (0.0, 13.0):
        canvas.fill(ribbon(np.stack([x, middle + lift], 1), np.full(20, 4.0)), (182, 196, 220))


def street(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint houses at night above cobblestones, with lamps."""
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
                    np.array(
                        [(left, row), (left + 8, row), (left + 8, row + 11), (left, row + 11)]
                    ),
                    pane,
                )
        x += wide


def _cobbles(rng: np.random.Generator, canvas: Canvas, ground: float) -> None:
    corner = canvas.width + 10
    canvas.fill(
        np.array(
            [(-5, ground), (corner, ground), (corner, canvas.height + 5), (-5, canvas.height + 5)]
        ),
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
        np.array([(x - 1.6, top), (x + 1.6, top), (x + 2.2, ground + 8), (x - 2.2, ground + 8)]),
        (24, 24, 36),
    )
    canvas.fill(ellipse(x, top, 4.5, 5.5, count=16), (250, 234, 190))


def table(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint wooden planks with mug stains, coins and crumbs."""
    board = vary(rng, pick(rng, ((150, 102, 66), (124, 84, 58), (170, 122, 82))), 0.06)
    canvas.pixels[:] = board
    high = float(rng.uniform(26, 40))
    for y in np.arange(-rng.uniform(0, high), canvas.height, high):
        plank = np.array(
            [(-5, y), (canvas.width + 5, y), (canvas.width + 5, y + high), (-5, y + high)]
        )
        canvas.fill(plank, vary(rng, board, 0.09))
        canvas.stroke(plank[:2], tuple(int(0.55 * value) for value in board), 1.6)
    shade(
        canvas,
        1 + 0.09 * noise(rng, canvas, 2.5, (1.0, 18.0)) + 0.06 * noise(rng, canvas, 6, (1.0, 10.0)),
    )
    for _ in range(int(rng.integers(1, 4))):
        _mug_stain(rng, canvas, board)
    for _ in range(int(rng.integers(2, 5))):
        _coin(rng, canvas)
    for _ in range(count_per_area(canvas, 1500)):
        clutter.stone(rng, canvas, (196, 162, 112), float(rng.uniform(0.8, 1.8)))
    for _ in range(int(rng.integers(1, 4))):
        clutter.leaf(rng, canvas, ((112, 124, 84), (140, 130, 92)), float(rng.uniform(6, 10)))


def _mug_stain(rng: np.random.Generator, canvas: Canvas, board: Color) -> None:
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
        ellipse(x, y, 0.72 * radius, 0.72 * radius),
        tuple(int(0.8 * value) for value in metal),
        1.0,
        True,
    )


def wall(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint bricks, some overgrown with ivy."""
    canvas.pixels[:] = vary(rng, (150, 138, 128), 0.06)
    brick = vary(rng, pick(rng, ((134, 78, 66), (148, 96, 78), (112, 84, 82))), 0.06)
    high, wide = 13.0, 30.0
    for row, y in enumerate(np.arange(-rng.uniform(0, high), canvas.height, high)):
        for x in np.arange(-wide + 0.5 * wide * (row % 2), canvas.width, wide):
            box = np.array(
                [
                    (x + 1, y + 1),
                    (x + wide - 1, y + 1),
                    (x + wide - 1, y + high - 1),
                    (x + 1, y + high - 1),
                ]
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
            color = vary(rng, (74, 104, 66), 0.2)
            canvas.fill(
                ellipse(x + side * 4.5, y, 4.2, 2.8, float(rng.uniform(-0.7, 0.7)), 10), color
            )
        x, y = after


_PAINTERS: dict[str, Callable[[np.random.Generator, Canvas], None]] = {
    "beach": beach,
    "forest": forest,
    "meadow": meadow,
    "snow": snow,
    "street": street,
    "table": table,
    "wall": wall,
    "water": water,
}
BACKDROPS: tuple[str, ...] = tuple(_PAINTERS)

# Where a class often occurs, and the fraction of its images in which this decides the backdrop.
HABITATS: dict[str, tuple[str, float]] = {"boat": ("water", 0.66), "rabbit": ("snow", 0.35)}


def choose_backdrop(rng: np.random.Generator, names: set[str]) -> str:
    """Draw a backdrop for an image of classes `names`, sometimes the habitat of such a class."""
    backdrop = str(rng.choice(BACKDROPS))
    for name in sorted(names & HABITATS.keys()):
        habitat, share = HABITATS[name]
        if rng.random() < share:
            backdrop = habitat
    return backdrop


def paint_backdrop(
    rng: np.random.Generator, name: str, height: int, width: int, unit: float
) -> np.ndarray:
    """Paint a backdrop of `height` x `width` units at `unit` pixels per unit, uint8 [H,W,3]."""
    pixels = np.zeros((round(height * unit), round(width * unit), 3), np.uint8)
    _PAINTERS[name](rng, Canvas(pixels, unit))
    return pixels
