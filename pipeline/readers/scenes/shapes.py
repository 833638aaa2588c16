"""Drawing: a canvas in units at any resolution, closed curves, soft textures and random colors.

Curves are points [n,2], x right and y down.
"""

from collections.abc import Sequence

import cv2
import numpy as np

Color = tuple[int, ...]
Points = np.ndarray

SHIFT = 4  # fractional bits of cv2's coordinates


class Canvas:
    """Pixels uint8 [H,W,3] RGB or [H,W] with `unit` pixels per unit (more than 1 to supersample).

    All coordinates and widths are in units, x right and y down; the corner of the image is (0, 0).
    """

    def __init__(self, pixels: np.ndarray, unit: float = 1.0, smooth: bool = True) -> None:
        self.pixels = pixels
        self.unit = unit
        self.line_type = cv2.LINE_AA if smooth else cv2.LINE_8

    @property
    def height(self) -> float:
        """The height in units."""
        return self.pixels.shape[0] / self.unit

    @property
    def width(self) -> float:
        """The width in units."""
        return self.pixels.shape[1] / self.unit

    def _fixed(self, points: Points) -> np.ndarray:
        # The origin of cv2 is the center of the first pixel, ours its corner.
        return np.rint((np.asarray(points) * self.unit - 0.5) * (1 << SHIFT)).astype(np.int32)

    def fill(self, points: Points, color: Color) -> None:
        """Fill a polygon [n,2]."""
        cv2.fillPoly(self.pixels, [self._fixed(points)], color, self.line_type, SHIFT)

    def stroke(self, points: Points, color: Color, width: float, closed: bool = False) -> None:
        """Draw a line through points [n,2], `width` units wide and at least one pixel."""
        thickness = max(1, round(width * self.unit))
        cv2.polylines(
            self.pixels, [self._fixed(points)], closed, color, thickness, self.line_type, SHIFT
        )

    def fill_all(self, polygons: Sequence[Points], color: Color) -> None:
        """Fill the union of polygons."""
        for points in polygons:
            self.fill(points, color)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return the corners of a box, from the top left one clockwise."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def ellipse(
    x: float, y: float, rx: float, ry: float, turn: float = 0.0, count: int = 32
) -> np.ndarray:
    """Return an ellipse around (x, y) with half axes rx, ry, rotated by `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    points = np.stack([rx * np.cos(angle), ry * np.sin(angle)], 1)
    return move(rotate(points, turn), x, y)


def superellipse(rx: float, ry: float, power: float, count: int = 48) -> np.ndarray:
    """Return an ellipse (power 2) to rounded box (power above 3) around the origin."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    x = rx * np.sign(cos) * np.abs(cos) ** (2 / power)
    y = ry * np.sign(sin) * np.abs(sin) ** (2 / power)
    return np.stack([x, y], 1)


def capsule(rx: float, ry: float, count: int = 48) -> np.ndarray:
    """Return a box with half-circle ends around the origin; rx is at least ry."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    points = ry * np.stack([np.cos(angle), np.sin(angle)], 1)
    points[:, 0] += np.sign(points[:, 0]) * max(0.0, rx - ry)
    return points


def bean(rx: float, ry: float, bend: float, count: int = 48) -> np.ndarray:
    """Return a capsule with a bent axis: its ends lie `bend` above its middle."""
    points = superellipse(rx, ry, 2.4, count)
    points[:, 1] -= bend * ((points[:, 0] / rx) ** 2 - 0.5)
    return points


def blob(x: float, y: float, radii: np.ndarray) -> np.ndarray:
    """Return a closed curve around (x, y) with the radii at equally spaced angles."""
    angle = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.stack([x + radii * np.cos(angle), y + radii * np.sin(angle)], 1)


def scallop(
    x: float, y: float, radius: float, depth: float, lobes: int, count: int = 80
) -> np.ndarray:
    """Return a circle with `lobes` round bumps of height `depth`."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return blob(x, y, radius + depth * np.abs(np.sin(lobes * angle / 2)))


def ribbon(spine: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Return a band around the line `spine` [n,2] with full width `widths` [n] at each point."""
    along = np.gradient(spine, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    half = normal * np.asarray(widths)[:, None] / 2
    return np.concatenate([spine + half, (spine - half)[::-1]])


def arc(
    x: float, y: float, radius: float, start: float, stop: float, count: int = 12
) -> np.ndarray:
    """Return an open arc around (x, y) from angle `start` to `stop` in radians."""
    angle = np.linspace(start, stop, count)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1)


def rounded(points: np.ndarray, rounds: int = 2) -> np.ndarray:
    """Cut off the corners of a polygon `rounds` times (Chaikin 1974)."""
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0)
        cut = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1)
        points = cut.reshape(-1, 2)
    return points


def rotate(points: np.ndarray, turn: float) -> np.ndarray:
    """Rotate points by `turn` radians around the origin (clockwise, as y points down)."""
    cos, sin = np.cos(turn), np.sin(turn)
    return points @ np.array([[cos, sin], [-sin, cos]])


def move(points: np.ndarray, x: float, y: float) -> np.ndarray:
    """Shift points by (x, y)."""
    return points + np.array([x, y])


def area(points: np.ndarray) -> float:
    """Return the area of a polygon (shoelace formula)."""
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def noise(
    rng: np.random.Generator, canvas: Canvas, cell: float, stretch: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """Draw smooth noise f4 [H,W] in about [-1,1]; features are `cell` wide, stretched by (y, x)."""
    rows = round(canvas.height / (cell * stretch[0])) + 3
    columns = round(canvas.width / (cell * stretch[1])) + 3
    grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    height, width = canvas.pixels.shape[:2]
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def fractal(rng: np.random.Generator, canvas: Canvas, cell: float, octaves: int = 3) -> np.ndarray:
    """Draw noise of octaves, each half as wide and half as strong, f4 [H,W] in about [-1,1]."""
    total = sum(noise(rng, canvas, cell / 2**octave) / 2**octave for octave in range(octaves))
    return np.asarray(total, np.float32) / (2 - 0.5 ** (octaves - 1))


def shade(canvas: Canvas, factor: np.ndarray) -> None:
    """Multiply the pixels by `factor` [H,W]."""
    canvas.pixels[:] = np.clip(canvas.pixels * factor[..., None], 0, 255)


def blend(canvas: Canvas, color: Color, weight: np.ndarray) -> None:
    """Blend the pixels with `color` by `weight` [H,W] in [0,1]."""
    pixels = canvas.pixels.astype(np.float32)
    pixels += (np.array(color, np.float32) - pixels) * weight[..., None]
    canvas.pixels[:] = np.clip(pixels, 0, 255)


def gradient(canvas: Canvas, top: Color, bottom: Color) -> None:
    """Fill with a vertical gradient."""
    weight = np.linspace(0, 1, canvas.pixels.shape[0], dtype=np.float32)[:, None, None]
    ends = np.array([top, bottom], np.float32)
    canvas.pixels[:] = (1 - weight) * ends[0] + weight * ends[1]


def vary(rng: np.random.Generator, color: Color, amount: float) -> Color:
    """Draw a color near `color`, up to a fraction `amount` lighter or darker, of nearly its hue."""
    light = 1 + rng.uniform(-amount, amount)
    return tuple(int(np.clip(value * light + rng.uniform(-5, 5), 0, 255)) for value in color)


def darker(color: Color, factor: float) -> Color:
    """Return the color times a factor below 1."""
    return tuple(int(factor * value) for value in color)


def pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    """Draw one of the colors."""
    return colors[int(rng.integers(len(colors)))]


def spot(rng: np.random.Generator, canvas: Canvas) -> tuple[float, float]:
    """Draw a position (x, y) in the image."""
    return float(rng.uniform(0, canvas.width)), float(rng.uniform(0, canvas.height))


def count_per_area(canvas: Canvas, area: float) -> int:
    """Return how many things to draw, one per `area` square units."""
    return max(1, round(canvas.width * canvas.height / area))
