"""Backdrops of the toys: outdoors and indoors, with small things of no class that lie around."""

from collections.abc import Callable

import numpy as np

from pipeline.readers.scenes.shapes import (
    Canvas,
    Color,
    arc,
    blend,
    blob,
    box,
    count_per_area,
    darker,
    ellipse,
    fractal,
    gradient,
    move,
    noise,
    pick,
    ribbon,
    rotate,
    rounded,
    shade,
    spot,
    vary,
)

_GRAYS: tuple[Color, ...] = ((128, 130, 134), (150, 146, 140), (108, 112, 120))


def meadow(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint grass with flowers and stones."""
    gradient(canvas, (104, 138, 74), (74, 112, 58))
    shade(canvas, 1 + 0.16 * fractal(rng, canvas, 48))
    greens = (92, 130, 62), (70, 108, 56), (116, 150, 78), (84, 118, 70)
    for _ in range(count_per_area(canvas, 130)):
        _grass(rng, canvas, greens, float(rng.uniform(5, 10)))
    for _ in range(int(rng.integers(2, 6))):
        _stone(rng, canvas, pick(rng, _GRAYS), float(rng.uniform(4, 9)))
    for _ in range(int(rng.integers(8, 20))):
        colors = (236, 232, 222), (222, 206, 150), (198, 190, 214)
        _flower(rng, canvas, colors, float(rng.uniform(1.4, 2.4)))


def beach(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint sand with shells below a strip of sea."""
    gradient(canvas, (222, 200, 154), (206, 180, 132))
    shade(canvas, 1 + 0.05 * fractal(rng, canvas, 40) + 0.06 * noise(rng, canvas, 5, (1.0, 5.0)))
    _shore(rng, canvas)
    for _ in range(int(rng.integers(6, 14))):
        gray = pick(rng, ((176, 160, 140), (150, 140, 132)))
        _stone(rng, canvas, gray, float(rng.uniform(2, 6)))
    for _ in range(int(rng.integers(4, 9))):
        colors = (240, 226, 208), (224, 190, 174), (206, 196, 190)
        _shell(rng, canvas, colors, float(rng.uniform(4, 7)))
    for _ in range(int(rng.integers(1, 4))):
        _twig(rng, canvas, (134, 108, 84), float(rng.uniform(8, 16)))


def _shore(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint a strip of sea with foam along the top of a beach."""
    depth = float(rng.uniform(0.0, 0.3)) * canvas.height
    x = np.linspace(-5, canvas.width + 5, 24)
    y = depth + 4 * np.sin(x / 17 + rng.uniform(0, 6)) + 2.5 * np.sin(x / 7 + rng.uniform(0, 6))
    colors = (190, 164, 120), (232, 236, 230), (118, 172, 178), (92, 152, 168)
    for lift, color in zip((9, 4, 0, -9), colors, strict=True):
        edge = np.stack([x, y + lift], 1)
        canvas.fill(np.concatenate([edge, [(canvas.width + 5, -30.0), (-5.0, -30.0)]]), color)


def water(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint waves with water lilies."""
    gradient(canvas, (66, 132, 150), (30, 84, 116))
    shade(canvas, 1 + 0.12 * noise(rng, canvas, 7, (1.0, 5.0)) + 0.08 * fractal(rng, canvas, 50))
    for _ in range(count_per_area(canvas, 700)):
        _ripple(rng, canvas, vary(rng, (112, 172, 184), 0.1), float(rng.uniform(5, 13)))
    for _ in range(count_per_area(canvas, 1400)):
        _ripple(rng, canvas, vary(rng, (24, 70, 102), 0.1), float(rng.uniform(5, 12)))
    for _ in range(int(rng.integers(2, 6))):
        _lily(rng, canvas)
    for _ in range(int(rng.integers(0, 3))):
        _stone(rng, canvas, pick(rng, _GRAYS), float(rng.uniform(5, 10)))


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
    rust = (124, 78, 52), (108, 88, 56), (92, 86, 54), (136, 98, 68), (82, 62, 52)
    for _ in range(count_per_area(canvas, 200)):
        _leaf(rng, canvas, rust, float(rng.uniform(4, 8)))
    for _ in range(int(rng.integers(3, 8))):
        _twig(rng, canvas, (84, 64, 50), float(rng.uniform(10, 22)))
    for _ in range(int(rng.integers(1, 5))):
        _stone(rng, canvas, pick(rng, _GRAYS), float(rng.uniform(4, 8)))


def snow(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint snow with a sledge's tracks, twigs and stones."""
    gradient(canvas, (226, 234, 244), (206, 218, 236))
    shade(canvas, 1 + 0.05 * fractal(rng, canvas, 44) + 0.02 * noise(rng, canvas, 3))
    _tracks(rng, canvas)
    for _ in range(int(rng.integers(3, 8))):
        _twig(rng, canvas, (110, 92, 84), float(rng.uniform(7, 15)))
    for _ in range(int(rng.integers(3, 8))):
        _stone(rng, canvas, pick(rng, _GRAYS), float(rng.uniform(3, 8)))
    for _ in range(count_per_area(canvas, 1600)):
        _leaf(rng, canvas, ((126, 142, 120), (146, 128, 110)), float(rng.uniform(3, 5)))


def _tracks(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint the two tracks of a sledge's runners."""
    x = np.linspace(-10, canvas.width + 10, 20)
    start = rng.uniform(0.1, 0.9) * canvas.height
    middle = start + rng.uniform(4, 16) * np.sin(x / rng.uniform(30, 60))
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
        house = box(x, top, x + wide, ground)
        canvas.fill(house, wall)
        canvas.stroke(house[:3], (34, 32, 54), 1.4)
        for row in np.arange(top + 9, ground - 16, 19):
            for left in np.arange(x + 7, x + wide - 11, 15):
                lit = rng.random() < 0.4
                pane = vary(rng, (206, 176, 112) if lit else (40, 42, 66), 0.1)
                canvas.fill(box(left, row, left + 8, row + 11), pane)
        x += wide


def _cobbles(rng: np.random.Generator, canvas: Canvas, ground: float) -> None:
    canvas.fill(box(-5, ground, canvas.width + 10, canvas.height + 5), (46, 46, 60))
    for row, y in enumerate(np.arange(ground + 5, canvas.height + 8, 9)):
        for x in np.arange(-6 + 7 * (row % 2), canvas.width + 8, 14):
            canvas.fill(ellipse(x, y, 6.0, 3.7, count=12), vary(rng, (84, 82, 98), 0.14))


def _lamp(rng: np.random.Generator, canvas: Canvas, ground: float) -> None:
    x, top = float(rng.uniform(8, canvas.width - 8)), ground * float(rng.uniform(0.2, 0.4))
    rows, columns = np.indices(canvas.pixels.shape[:2])
    glow = np.exp(-((columns - x) ** 2 + (rows - top) ** 2) / 24.0**2)
    blend(canvas, (236, 206, 140), 0.6 * glow.astype(np.float32))
    post = [(x - 1.6, top), (x + 1.6, top), (x + 2.2, ground + 8), (x - 2.2, ground + 8)]
    canvas.fill(np.array(post), (24, 24, 36))
    canvas.fill(ellipse(x, top, 4.5, 5.5, count=16), (250, 234, 190))


def table(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint wooden planks with mug stains, coins and crumbs."""
    board = vary(rng, pick(rng, ((150, 102, 66), (124, 84, 58), (170, 122, 82))), 0.06)
    canvas.pixels[:] = board
    high = float(rng.uniform(26, 40))
    for y in np.arange(-rng.uniform(0, high), canvas.height, high):
        plank = box(-5, y, canvas.width + 5, y + high)
        canvas.fill(plank, vary(rng, board, 0.09))
        canvas.stroke(plank[:2], darker(board, 0.55), 1.6)
    grain = 1 + 0.09 * noise(rng, canvas, 2.5, (1.0, 18.0))
    shade(canvas, grain + 0.06 * noise(rng, canvas, 6, (1.0, 10.0)))
    for _ in range(int(rng.integers(1, 4))):
        _mug_stain(rng, canvas, board)
    for _ in range(int(rng.integers(2, 5))):
        _coin(rng, canvas)
    for _ in range(count_per_area(canvas, 1500)):
        _stone(rng, canvas, (196, 162, 112), float(rng.uniform(0.8, 1.8)))
    for _ in range(int(rng.integers(1, 4))):
        _leaf(rng, canvas, ((112, 124, 84), (140, 130, 92)), float(rng.uniform(6, 10)))


def _mug_stain(rng: np.random.Generator, canvas: Canvas, board: Color) -> None:
    x, y = spot(rng, canvas)
    ring = arc(x, y, float(rng.uniform(12, 19)), 0, float(rng.uniform(4.5, 6.3)), 30)
    canvas.stroke(ring, darker(board, 0.74), 2.4)


def _coin(rng: np.random.Generator, canvas: Canvas) -> None:
    x, y = spot(rng, canvas)
    radius = float(rng.uniform(4, 7))
    metal = vary(rng, pick(rng, ((168, 150, 110), (160, 160, 164))), 0.08)
    canvas.fill(ellipse(x + 0.8, y + 1.6, radius, radius), (66, 46, 34))
    canvas.fill(ellipse(x, y, radius, radius), metal)
    rim = ellipse(x, y, 0.72 * radius, 0.72 * radius)
    canvas.stroke(rim, darker(metal, 0.8), 1.0, True)


def wall(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint bricks, some overgrown with ivy."""
    canvas.pixels[:] = vary(rng, (150, 138, 128), 0.06)
    brick = vary(rng, pick(rng, ((134, 78, 66), (148, 96, 78), (112, 84, 82))), 0.06)
    high, wide = 13.0, 30.0
    for row, y in enumerate(np.arange(-rng.uniform(0, high), canvas.height, high)):
        for x in np.arange(-wide + 0.5 * wide * (row % 2), canvas.width, wide):
            edges = box(x + 1, y + 1, x + wide - 1, y + high - 1)
            canvas.fill(edges, vary(rng, brick, 0.14))
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
            leaf = ellipse(x + side * 4.5, y, 4.2, 2.8, float(rng.uniform(-0.7, 0.7)), 10)
            canvas.fill(leaf, color)
        x, y = after


def _stone(rng: np.random.Generator, canvas: Canvas, color: Color, radius: float) -> None:
    """Draw a rounded stone with a dark base and a light top."""
    x, y = spot(rng, canvas)
    color = vary(rng, color, 0.12)
    shape = rounded(blob(0, 0, radius * rng.uniform(0.8, 1.15, 9))) * (1.25, 0.85)
    canvas.fill(move(shape, x, y + 0.22 * radius), darker(color, 0.55))
    canvas.fill(move(shape, x, y), color)
    light = tuple(int(value + 0.3 * (255 - value)) for value in color)
    top = move(shape * 0.55, x - 0.15 * radius, y - 0.22 * radius)
    canvas.fill(top, vary(rng, light, 0.02))


def _leaf(
    rng: np.random.Generator, canvas: Canvas, colors: tuple[Color, ...], length: float
) -> None:
    """Draw a pointed leaf with its rib."""
    x, y = spot(rng, canvas)
    turn = float(rng.uniform(0, 2 * np.pi))
    color = vary(rng, pick(rng, colors), 0.15)
    along = np.linspace(-1, 1, 9)
    spine = np.stack([along * length, 0 * along], 1)
    shape = ribbon(spine, 0.85 * length * np.sqrt(1.02 - along**2))
    canvas.fill(move(rotate(shape, turn), x + 0.8, y + 1.2), darker(color, 0.5))
    canvas.fill(move(rotate(shape, turn), x, y), color)
    rib = move(rotate(np.array([(-1.3 * length, 0.0), (0.8 * length, 0.0)]), turn), x, y)
    canvas.stroke(rib, darker(color, 0.7), 0.8)


def _grass(
    rng: np.random.Generator, canvas: Canvas, colors: tuple[Color, ...], height: float
) -> None:
    """Draw a tuft of three blades."""
    x, y = spot(rng, canvas)
    color = vary(rng, pick(rng, colors), 0.12)
    for lean in rng.uniform(-0.5, 0.5, 3):
        tip = height * rng.uniform(0.7, 1.1)
        middle, end = (x + lean * tip * 0.4, y - 0.6 * tip), (x + lean * tip, y - tip)
        canvas.fill(np.array([(x - 1.1, y), middle, end, (x + 1.1, y)]), color)
        x += 1.6


def _flower(
    rng: np.random.Generator, canvas: Canvas, colors: tuple[Color, ...], radius: float
) -> None:
    """Draw a small flower with five petals."""
    x, y = spot(rng, canvas)
    color = vary(rng, pick(rng, colors), 0.05)
    turn = rng.uniform(0, 2 * np.pi)
    for angle in turn + np.arange(5) * 2 * np.pi / 5:
        center = x + radius * np.cos(angle), y + radius * np.sin(angle)
        canvas.fill(ellipse(*center, 0.75 * radius, 0.75 * radius, count=12), color)
    canvas.fill(ellipse(x, y, 0.55 * radius, 0.55 * radius, count=10), (206, 172, 96))


def _twig(rng: np.random.Generator, canvas: Canvas, color: Color, length: float) -> None:
    """Draw a forked stick."""
    x, y = spot(rng, canvas)
    turn = float(rng.uniform(0, 2 * np.pi))
    color = vary(rng, color, 0.15)
    for line, width in (
        (np.array([(-length, 0.0), (0.0, 0.12 * length), (length, 0.0)]), 2.2),
        (np.array([(0.0, 0.12 * length), (0.55 * length, 0.5 * length)]), 1.5),
    ):
        canvas.stroke(move(rotate(line, turn), x + 0.6, y + 1.2), darker(color, 0.5), width)
        canvas.stroke(move(rotate(line, turn), x, y), color, width)


def _shell(
    rng: np.random.Generator, canvas: Canvas, colors: tuple[Color, ...], radius: float
) -> None:
    """Draw a fan-shaped sea shell."""
    x, y = spot(rng, canvas)
    turn = float(rng.uniform(0, 2 * np.pi))
    color = vary(rng, pick(rng, colors), 0.06)
    foot = [(0.25 * radius, 0.3 * radius), (-0.25 * radius, 0.3 * radius)]
    fan = np.concatenate([arc(0, 0, radius, -2.6, -0.54, 9), foot])
    canvas.fill(move(rotate(fan, turn), x + 0.7, y + 1.3), darker(color, 0.6))
    canvas.fill(move(rotate(fan, turn), x, y), color)
    for angle in (-2.2, -1.57, -0.94):
        end = 0.85 * radius * np.cos(angle), 0.85 * radius * np.sin(angle)
        rib = np.array([(0.0, 0.2 * radius), end])
        canvas.stroke(move(rotate(rib, turn), x, y), darker(color, 0.8), 0.8)


def _ripple(rng: np.random.Generator, canvas: Canvas, color: Color, length: float) -> None:
    """Draw the curved crest of a wave."""
    x, y = spot(rng, canvas)
    along = np.linspace(-1, 1, 9)
    spine = np.stack([x + length * along, y + 0.22 * length * along**2], 1)
    canvas.fill(ribbon(spine, 2.6 * (1.04 - along**2)), color)


_PAINTERS: dict[str, Callable[[np.random.Generator, Canvas], None]] = {
    "beach": beach, "forest": forest, "meadow": meadow, "snow": snow, "street": street,
    "table": table, "wall": wall, "water": water,
}  # fmt: skip
BACKDROPS: tuple[str, ...] = tuple(_PAINTERS)
HABITATS: dict[str, tuple[str, float]] = {"boat": ("water", 0.66), "rabbit": ("snow", 0.35)}
"""Where a class often occurs, and the fraction of its images in which this decides the backdrop."""


def choose_backdrop(rng: np.random.Generator, names: set[str]) -> str:
    """Draw a backdrop for an image of classes `names`, sometimes the habitat of such a class."""
    backdrop = str(rng.choice(BACKDROPS))
    for name in sorted(names & HABITATS.keys()):
        habitat, share = HABITATS[name]
        if rng.random() < share:
            backdrop = habitat
    return backdrop


def paint_backdrop(rng: np.random.Generator, name: str, height: int, width: int) -> np.ndarray:
    """Paint a backdrop, uint8 [height,width,3]."""
    pixels = np.zeros((height, width, 3), np.uint8)
    _PAINTERS[name](rng, Canvas(pixels))
    return pixels
