"""A surface that is drawn on in image units, at any resolution.

Closed curves as point lists [n,2], x right and y down.

Soft random textures and gradients for backdrops.

The large bodies that all classes share: shapes, colors, patterns and feet.

A body lies around the origin with half length 1 along x; its part sits near x = 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Color = tuple[int, ...]
Points = np.ndarray

SHIFT = 4  # fractional bits of the coordinates cv2 receives


class Canvas:
    """Pixels and the number of pixels in a unit, so that one drawing serves every scale.

    `pixels` is uint8 [H,W,3] RGB or [H,W]; all coordinates and widths are in units, x right and y
    down, and the corner of the image is (0, 0).
    """

    def __init__(self, pixels: np.ndarray, unit: float, smooth: bool = True) -> None:
        self.pixels = pixels
        self.unit = unit
        self.line_type = cv2.LINE_AA if smooth else cv2.LINE_8

    @property
    def height(self) -> float:
        """Height in units."""
        return self.pixels.shape[0] / self.unit

    @property
    def width(self) -> float:
        """Width in units."""
        return self.pixels.shape[1] / self.unit

    def _fixed(self, points: Points) -> np.ndarray:
        # cv2 counts from the center of the first pixel, an image from its corner
        return np.rint((np.asarray(points) * self.unit - 0.5) * (1 << SHIFT)).astype(np.int32)

    def fill(self, points: Points, color: Color) -> None:
        """Fill the polygon `points` [n,2]."""
        cv2.fillPoly(self.pixels, [self._fixed(points)], color, self.line_type, SHIFT)

    def stroke(self, points: Points, color: Color, width: float, closed: bool = False) -> None:
        """Draw the line through `points` [n,2], `width` units wide and at least one pixel."""
        thickness = max(1, round(width * self.unit))
        cv2.polylines(
            self.pixels, [self._fixed(points)], closed, color, thickness, self.line_type, SHIFT
        )

    def fill_all(self, polygons: Sequence[Points], color: Color) -> None:
        """Fill every polygon, so that what several cover stays filled."""
        for points in polygons:
            self.fill(points, color)


def ellipse(
    x: float, y: float, rx: float, ry: float, turn: float = 0.0, count: int = 32
) -> np.ndarray:
    """Ellipse around (x, y) with half axes `rx`, `ry`, turned by `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    points = np.stack([rx * np.cos(angle), ry * np.sin(angle)], 1)
    return move(rotate(points, turn), x, y)


def superellipse(rx: float, ry: float, power: float, count: int = 48) -> np.ndarray:
    """Ellipse (`power` 2) to rounded box (`power` above 3) around the origin."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    x = rx * np.sign(cos) * np.abs(cos) ** (2 / power)
    y = ry * np.sign(sin) * np.abs(sin) ** (2 / power)
    return np.stack([x, y], 1)


def capsule(rx: float, ry: float, count: int = 48) -> np.ndarray:
    """Box with half-circle ends around the origin; `rx` is at least `ry`."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    points = ry * np.stack([np.cos(angle), np.sin(angle)], 1)
    points[:, 0] += np.sign(points[:, 0]) * max(0.0, rx - ry)
    return points


def bean(rx: float, ry: float, bend: float, count: int = 48) -> np.ndarray:
    """Capsule whose axis is bent: its ends lie `bend` higher than its middle."""
    points = superellipse(rx, ry, 2.4, count)
    points[:, 1] -= bend * ((points[:, 0] / rx) ** 2 - 0.5)
    return points


def blob(x: float, y: float, radii: np.ndarray) -> np.ndarray:
    """Closed curve around (x, y) with the given radius at equal angles."""
    angle = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.stack([x + radii * np.cos(angle), y + radii * np.sin(angle)], 1)


def scallop(
    x: float, y: float, radius: float, depth: float, lobes: int, count: int = 80
) -> np.ndarray:
    """Circle with `lobes` round bumps of height `depth`."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return blob(x, y, radius + depth * np.abs(np.sin(lobes * angle / 2)))


def ribbon(spine: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Band around the line `spine` [n,2] with full width `widths` [n] at each point."""
    along = np.gradient(spine, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    half = normal * np.asarray(widths)[:, None] / 2
    return np.concatenate([spine + half, (spine - half)[::-1]])


def arc(
    x: float, y: float, radius: float, start: float, stop: float, count: int = 12
) -> np.ndarray:
    """Open arc around (x, y) from angle `start` to `stop` in radians."""
    angle = np.linspace(start, stop, count)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1)


def rounded(points: np.ndarray, rounds: int = 2) -> np.ndarray:
    """Polygon with its corners cut off `rounds` times (Chaikin 1974)."""
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1).reshape(
            -1, 2
        )
    return points


def rotate(points: np.ndarray, turn: float) -> np.ndarray:
    """Points turned by `turn` radians around the origin (clockwise, as y points down)."""
    cos, sin = np.cos(turn), np.sin(turn)
    return points @ np.array([[cos, sin], [-sin, cos]])


def move(points: np.ndarray, x: float, y: float) -> np.ndarray:
    """Points shifted by (x, y)."""
    return points + np.array([x, y])


def area(points: np.ndarray) -> float:
    """Area inside a polygon (shoelace formula)."""
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def noise(
    rng: np.random.Generator, canvas: Canvas, cell: float, stretch: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """Smooth noise f4 [H,W] in about [-1,1] with features `cell` units wide, stretched by (y, x).

    The number of values drawn does not depend on the resolution, so that a scaled image shows the
    same.
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


def blend(canvas: Canvas, color: Color, weight: np.ndarray) -> None:
    """Move the pixels towards `color` by `weight` [H,W] in [0,1]."""
    pixels = canvas.pixels.astype(np.float32)
    pixels += (np.array(color, np.float32) - pixels) * weight[..., None]
    canvas.pixels[:] = np.clip(pixels, 0, 255)


def gradient(canvas: Canvas, top: Color, bottom: Color) -> None:
    """Fill with a vertical gradient."""
    weight = np.linspace(0, 1, canvas.pixels.shape[0], dtype=np.float32)[:, None, None]
    canvas.pixels[:] = (1 - weight) * np.array(top, np.float32) + weight * np.array(
        bottom, np.float32
    )


def vary(rng: np.random.Generator, color: Color, amount: float) -> Color:
    """A color near `color`: lighter or darker by up to the share `amount`, and a little off in hue."""
    light = 1 + rng.uniform(-amount, amount)
    return tuple(int(np.clip(value * light + rng.uniform(-5, 5), 0, 255)) for value in color)


def pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    """One of `colors`."""
    return colors[int(rng.integers(len(colors)))]


def spot(rng: np.random.Generator, canvas: Canvas) -> tuple[float, float]:
    """A place (x, y) anywhere in the image."""
    return float(rng.uniform(0, canvas.width)), float(rng.uniform(0, canvas.height))


def crowd(canvas: Canvas, each: float) -> int:
    """How many things fit when each is given `each` square units."""
    return max(1, round(canvas.width * canvas.height / each))


SHAPES: tuple[str, ...] = ("ellipse", "box", "bean", "capsule")
PATTERNS: tuple[str, ...] = ("plain", "stripes", "spots", "belly", "saddle")

# Muted, where the parts are vivid, so that no body passes for a part.
PALETTE: tuple[Color, ...] = (
    (236, 222, 196),  # cream
    (206, 168, 150),  # clay
    (168, 186, 160),  # sage
    (150, 172, 190),  # dove blue
    (186, 170, 196),  # lilac
    (142, 128, 124),  # taupe
    (112, 132, 138),  # slate
    (206, 204, 204),  # pearl
    (122, 106, 128),  # plum
    (196, 180, 132),  # straw
)


@dataclass(frozen=True)
class Body:
    """One body: `shape`, `height` (half height, unit half length), `pattern` and whether it has
    `feet`.
    """

    shape: str
    height: float
    pattern: str
    feet: bool

    def outline(self) -> np.ndarray:
        """Outline [n,2] without feet."""
        match self.shape:
            case "ellipse":
                return superellipse(1.0, self.height, 2.0)
            case "box":
                return superellipse(1.0, self.height * 0.92, 4.0)
            case "bean":
                return bean(1.0, self.height * 0.92, 0.22)
            case "capsule":
                return capsule(1.0, self.height * 0.9)
        raise ValueError(f"shape is {self.shape!r}; use one of {', '.join(SHAPES)}")

    def foot_outlines(self) -> list[np.ndarray]:
        """Outlines of the feet below the body, none for a body without."""
        if not self.feet:
            return []
        return [ellipse(x, self.height * 0.86, 0.2, 0.2) for x in (-0.5, 0.5)]


def draw_body(rng: np.random.Generator) -> Body:
    """A random body; nothing of it depends on a class."""
    return Body(
        shape=str(rng.choice(SHAPES)),
        height=float(rng.uniform(0.52, 0.72)),
        pattern=str(rng.choice(PATTERNS)),
        feet=bool(rng.random() < 0.6),
    )


def pattern_outlines(body: Body) -> list[np.ndarray]:
    """Shapes of the body's pattern; they may reach beyond its outline."""
    high = body.height
    match body.pattern:
        case "plain":
            return []
        case "stripes":
            xs = np.linspace(-0.9, 0.7, 5)
            return [np.array([(x, -1.2), (x + 0.17, -1.2), (x + 0.17, 1.2), (x, 1.2)]) for x in xs]
        case "spots":
            spots = (
                (-0.7, -0.1),
                (-0.4, 0.45),
                (-0.32, -0.5),
                (0.0, 0.05),
                (0.34, 0.55),
                (0.42, -0.35),
                (0.7, 0.2),
            )
            return [ellipse(x, y * high, 0.12, 0.12) for x, y in spots]
        case "belly":
            return [ellipse(0.0, 0.75 * high, 0.85, 0.55 * high)]
        case "saddle":
            return [ellipse(-0.12, -0.95 * high, 0.48, 0.85 * high)]
    raise ValueError(f"pattern is {body.pattern!r}; use one of {', '.join(PATTERNS)}")
