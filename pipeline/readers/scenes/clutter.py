"""Small things of no class that lie around."""

import numpy as np

from pipeline.readers.scenes.shapes import (
    Canvas,
    Color,
    arc,
    blob,
    ellipse,
    move,
    pick,
    ribbon,
    rotate,
    rounded,
    spot,
    vary,
)


def _darker(color: Color, factor: float) -> Color:
    return tuple(int(factor * value) for value in color)


def stone(rng: np.random.Generator, canvas: Canvas, color: Color, radius: float) -> None:
    """Draw a rounded stone with a dark base and a light top."""
    x, y = spot(rng, canvas)
    color = vary(rng, color, 0.12)
    shape = rounded(blob(0, 0, radius * rng.uniform(0.8, 1.15, 9))) * (1.25, 0.85)
    canvas.fill(move(shape, x, y + 0.22 * radius), _darker(color, 0.55))
    canvas.fill(move(shape, x, y), color)
    canvas.fill(
        move(shape * 0.55, x - 0.15 * radius, y - 0.22 * radius), vary(rng, _lighter(color), 0.02)
    )


def _lighter(color: Color, share: float = 0.3) -> Color:
    return tuple(int(value + share * (255 - value)) for value in color)


def leaf(
    rng: np.random.Generator, canvas: Canvas, colors: tuple[Color, ...], length: float
) -> None:
    """Draw a pointed leaf with its rib."""
    x, y = spot(rng, canvas)
    turn = float(rng.uniform(0, 2 * np.pi))
    color = vary(rng, pick(rng, colors), 0.15)
    along = np.linspace(-1, 1, 9)
    shape = ribbon(
        np.stack([along * length, 0 * along], 1), 0.85 * length * np.sqrt(1.02 - along**2)
    )
    canvas.fill(move(rotate(shape, turn), x + 0.8, y + 1.2), _darker(color, 0.5))
    canvas.fill(move(rotate(shape, turn), x, y), color)
    rib = move(rotate(np.array([(-1.3 * length, 0.0), (0.8 * length, 0.0)]), turn), x, y)
    canvas.stroke(rib, _darker(color, 0.7), 0.8)


def grass(
    rng: np.random.Generator, canvas: Canvas, colors: tuple[Color, ...], height: float
) -> None:
    """Draw a tuft of three blades."""
    x, y = spot(rng, canvas)
    color = vary(rng, pick(rng, colors), 0.12)
    for lean in rng.uniform(-0.5, 0.5, 3):
        tip = height * rng.uniform(0.7, 1.1)
        blade = np.array(
            [
                (x - 1.1, y),
                (x + lean * tip * 0.4, y - 0.6 * tip),
                (x + lean * tip, y - tip),
                (x + 1.1, y),
            ]
        )
        canvas.fill(blade, color)
        x += 1.6


def flower(
    rng: np.random.Generator, canvas: Canvas, colors: tuple[Color, ...], radius: float
) -> None:
    """Draw a small flower with five petals."""
    x, y = spot(rng, canvas)
    color = vary(rng, pick(rng, colors), 0.05)
    turn = rng.uniform(0, 2 * np.pi)
    for angle in turn + np.arange(5) * 2 * np.pi / 5:
        petal = ellipse(
            x + radius * np.cos(angle),
            y + radius * np.sin(angle),
            0.75 * radius,
            0.75 * radius,
            count=12,
        )
        canvas.fill(petal, color)
    canvas.fill(ellipse(x, y, 0.55 * radius, 0.55 * radius, count=10), (206, 172, 96))


def twig(rng: np.random.Generator, canvas: Canvas, color: Color, length: float) -> None:
    """Draw a forked stick."""
    x, y = spot(rng, canvas)
    turn = float(rng.uniform(0, 2 * np.pi))
    color = vary(rng, color, 0.15)
    for line, width in (
        (np.array([(-length, 0.0), (0.0, 0.12 * length), (length, 0.0)]), 2.2),
        (np.array([(0.0, 0.12 * length), (0.55 * length, 0.5 * length)]), 1.5),
    ):
        canvas.stroke(move(rotate(line, turn), x + 0.6, y + 1.2), _darker(color, 0.5), width)
        canvas.stroke(move(rotate(line, turn), x, y), color, width)


def shell(
    rng: np.random.Generator, canvas: Canvas, colors: tuple[Color, ...], radius: float
) -> None:
    """Draw a fan-shaped sea shell."""
    x, y = spot(rng, canvas)
    turn = float(rng.uniform(0, 2 * np.pi))
    color = vary(rng, pick(rng, colors), 0.06)
    fan = np.concatenate(
        [
            arc(0, 0, radius, -2.6, -0.54, 9),
            [(0.25 * radius, 0.3 * radius), (-0.25 * radius, 0.3 * radius)],
        ]
    )
    canvas.fill(move(rotate(fan, turn), x + 0.7, y + 1.3), _darker(color, 0.6))
    canvas.fill(move(rotate(fan, turn), x, y), color)
    for angle in (-2.2, -1.57, -0.94):
        rib = np.array(
            [(0.0, 0.2 * radius), (0.85 * radius * np.cos(angle), 0.85 * radius * np.sin(angle))]
        )
        canvas.stroke(move(rotate(rib, turn), x, y), _darker(color, 0.8), 0.8)


def ripple(rng: np.random.Generator, canvas: Canvas, color: Color, length: float) -> None:
    """Draw the curved crest of a wave."""
    x, y = spot(rng, canvas)
    along = np.linspace(-1, 1, 9)
    spine = np.stack([x + length * along, y + 0.22 * length * along**2], 1)
    canvas.fill(ribbon(spine, 2.6 * (1.04 - along**2)), color)
