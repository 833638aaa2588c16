"""Toys: a body that all classes share and a part that tells the class, in a pose, rendered.

A body lies around the origin with half length 1 along x; its part sits near x = 1.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from pipeline.readers.scenes.parts import CLASSES, Part, part_of
from pipeline.readers.scenes.shapes import (
    Canvas,
    Color,
    area,
    bean,
    box,
    capsule,
    darker,
    ellipse,
    rotate,
    superellipse,
)

SUPERSAMPLING = 4
OUTLINE_WIDTH = 1.9  # units; only its inner half is visible
MARGIN = 3.0  # units around a toy's polygons

SHAPES: tuple[str, ...] = ("ellipse", "box", "bean", "capsule")
PATTERNS: tuple[str, ...] = ("plain", "stripes", "spots", "belly", "saddle")

# Muted while the parts are vivid, so that no body looks like a part.
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
    """A body: shape, height (half of it, in half lengths), pattern, and whether it has feet."""

    shape: str
    height: float
    pattern: str
    feet: bool

    def outline(self) -> np.ndarray:
        """Return the outline [n,2] without feet."""
        match self.shape:
            case "ellipse":
                return superellipse(1.0, self.height, 2.0)
            case "box":
                return superellipse(1.0, self.height * 0.92, 4.0)
            case "bean":
                return bean(1.0, self.height * 0.92, 0.22)
        return capsule(1.0, self.height * 0.9)

    def foot_outlines(self) -> list[np.ndarray]:
        """Return the outlines of the feet below the body."""
        if not self.feet:
            return []
        return [ellipse(x, self.height * 0.86, 0.2, 0.2) for x in (-0.5, 0.5)]


def draw_body(rng: np.random.Generator) -> Body:
    """Draw a random body, independent of the class."""
    return Body(
        shape=str(rng.choice(SHAPES)),
        height=float(rng.uniform(0.52, 0.72)),
        pattern=str(rng.choice(PATTERNS)),
        feet=bool(rng.random() < 0.6),
    )


def pattern_outlines(body: Body) -> list[np.ndarray]:
    """Return the outlines of the body's pattern, which may extend beyond its outline."""
    high = body.height
    match body.pattern:
        case "stripes":
            xs = np.linspace(-0.9, 0.7, 5)
            return [box(x, -1.2, x + 0.17, 1.2) for x in xs]
        case "spots":
            left = (-0.7, -0.1), (-0.4, 0.45), (-0.32, -0.5), (0.0, 0.05)
            spots = *left, (0.34, 0.55), (0.42, -0.35), (0.7, 0.2)
            return [ellipse(x, y * high, 0.12, 0.12) for x, y in spots]
        case "belly":
            return [ellipse(0.0, 0.75 * high, 0.85, 0.55 * high)]
        case "saddle":
            return [ellipse(-0.12, -0.95 * high, 0.48, 0.85 * high)]
    return []


@dataclass(frozen=True)
class Window:
    """The box of a toy in pixels, possibly beyond the image."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Sprite:
    """A rendered toy: color f4 [h,w,3] in 0..255 and coverage f4 [h,w] in [0,1]."""

    window: Window
    color: np.ndarray
    cover: np.ndarray


@dataclass(frozen=True)
class Toy:
    """A toy in a pose, in units.

    label: class; x, y: center; length: the body's half length; turn: rotation in radians; flipped:
    faces left; share: the part's fraction of the toy's area; grain: in [0,1], chooses the color.
    """

    label: int
    body: Body
    x: float
    y: float
    length: float
    turn: float
    flipped: bool
    share: float
    grain: float

    @property
    def name(self) -> str:
        """The class name."""
        return CLASSES[self.label]

    def at(self, x: float, y: float) -> "Toy":
        """Return the same toy at another position."""
        return replace(self, x=x, y=y)

    def place(self, points: np.ndarray) -> np.ndarray:
        """Transform points of the body's frame to the image."""
        flipped = points * ((-1.0, 1.0) if self.flipped else (1.0, 1.0))
        return rotate(flipped, self.turn) * self.length + (self.x, self.y)

    @cached_property
    def body_polygons(self) -> list[np.ndarray]:
        """Outlines of the feet, then of the body, in the image."""
        return [self.place(points) for points in (*self.body.foot_outlines(), self.body.outline())]

    @cached_property
    def part_pieces(self) -> list[tuple[np.ndarray, Color]]:
        """Pieces of the part in the image."""
        part = part_of(self.name)
        place, size = self._part_frame(part)
        return [(self.place(points * size + place), color) for points, color in part.pieces]

    def _part_frame(self, part: Part) -> tuple[np.ndarray, float]:
        outline = self.body.outline()
        bearing = np.deg2rad(part.bearing)
        # Half of the part lies beyond the body: the toy's area is the body's plus half the part's.
        size = float(np.sqrt(self.share * area(outline) / (1 - 0.5 * self.share) / part.area))
        direction = np.array([np.cos(bearing), np.sin(bearing)])
        rim = outline[np.argmax(outline @ direction)]
        return rim * 0.93, size

    @property
    def window(self) -> Window:
        """The pixels that the toy may cover."""
        points = np.concatenate([*self.body_polygons, *(points for points, _ in self.part_pieces)])
        low = np.floor(points.min(0) - MARGIN).astype(int)
        high = np.ceil(points.max(0) + MARGIN).astype(int)
        return Window(int(low[1]), int(low[0]), int(high[1] - low[1]), int(high[0] - low[0]))


def draw_toy(rng: np.random.Generator, label: int, length: float) -> Toy:
    """Draw a random toy of a class at the origin; only its part depends on the class."""
    return Toy(
        label=label,
        body=draw_body(rng),
        x=0.0,
        y=0.0,
        length=length,
        turn=float(np.deg2rad(rng.uniform(-25, 25))),
        flipped=bool(rng.random() < 0.5),
        share=float(rng.uniform(0.125, 0.155)),
        grain=float(rng.random()),
    )


def silhouettes(toy: Toy, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return masks bool [height,width] of the toy and of its part, without anti-aliasing."""
    part = Canvas(np.zeros((height, width), np.uint8), smooth=False)
    part.fill_all([points for points, _ in toy.part_pieces], (1,))
    whole = Canvas(part.pixels.copy(), smooth=False)
    whole.fill_all(toy.body_polygons, (1,))
    return whole.pixels > 0, part.pixels > 0


def render(toy: Toy, color: Color) -> Sprite:
    """Render the toy with a body of `color`."""
    window = toy.window
    surface = _Surface(window)
    cover = surface.mask([*toy.body_polygons, *(points for points, _ in toy.part_pieces)])
    part = surface.mask([points for points, _ in toy.part_pieces])
    rim = surface.rim(cover)
    body = _body_layer(surface, toy, color)
    front = surface.layer(part_of(toy.name).color, toy.part_pieces)

    cover, part, rim = (surface.shrink(mask) / 255 for mask in (cover, part, rim))
    # The part is airbrushed: its edge on the body is softer than the toy's edge in the image.
    soft = cv2.GaussianBlur(part, (0, 0), 1.2)[..., None]
    pixels = surface.shrink(body) * (1 - soft) + surface.shrink(front) * soft
    pixels *= _light(cover, toy.length)[..., None]
    ink = 0.28 * np.array(color, np.float32) + (10, 8, 16)
    pixels += (ink.astype(np.float32) - pixels) * (0.92 * rim)[..., None]
    return Sprite(window, np.clip(pixels, 0, 255), cover)


class _Surface:
    """Supersampled layers of a window."""

    def __init__(self, window: Window) -> None:
        self.size = (window.height * SUPERSAMPLING, window.width * SUPERSAMPLING)
        self.target = (window.width, window.height)
        self.origin = np.array([window.left, window.top])

    def mask(self, polygons: list[np.ndarray]) -> np.ndarray:
        """Return a mask, 255 inside any polygon."""
        canvas = Canvas(np.zeros(self.size, np.uint8), SUPERSAMPLING, smooth=False)
        canvas.fill_all([points - self.origin for points in polygons], (255,))
        return canvas.pixels

    def layer(self, ground: Color, pieces: list[tuple[np.ndarray, Color]]) -> np.ndarray:
        """Paint pieces on a uniform color."""
        pixels = np.empty((*self.size, 3), np.uint8)
        pixels[:] = ground
        canvas = Canvas(pixels, SUPERSAMPLING, smooth=False)
        for points, color in pieces:
            canvas.fill(points - self.origin, color)
        return pixels

    def rim(self, cover: np.ndarray) -> np.ndarray:
        """Return a mask, 255 along both sides of the border of a mask."""
        contours, _ = cv2.findContours(cover, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        line = np.zeros(self.size, np.uint8)
        cv2.drawContours(line, contours, -1, 255, round(OUTLINE_WIDTH * SUPERSAMPLING))
        return line

    def shrink(self, pixels: np.ndarray) -> np.ndarray:
        """Return the mean over each pixel of the image, f4."""
        return cv2.resize(pixels, self.target, interpolation=cv2.INTER_AREA).astype(np.float32)


def _body_layer(surface: _Surface, toy: Toy, color: Color) -> np.ndarray:
    """Paint body, pattern and feet on the part's color, so that both blend without a gap."""
    tone, foot = _tone(color), darker(color, 0.62)
    feet = [(points, foot) for points in toy.body_polygons[:-1]]
    plain = surface.layer(part_of(toy.name).color, feet)
    pattern = [(toy.place(points), tone) for points in pattern_outlines(toy.body)]
    patterned = surface.layer(color, pattern)
    inside = surface.mask(toy.body_polygons[-1:])
    return cv2.copyTo(patterned, inside, plain)


def _tone(color: Color) -> Color:
    """Return a similar color for patterns: darker if light, lighter if dark."""
    if sum(color) > 450:
        return darker(color, 0.87)
    return tuple(int(value + 0.16 * (255 - value)) for value in color)


def _light(cover: np.ndarray, length: float) -> np.ndarray:
    """Return the factor that lights a toy from above: the slope of the blurred mask along y."""
    spread = 0.22 * length
    smooth = cv2.GaussianBlur(cover, (0, 0), spread, borderType=cv2.BORDER_CONSTANT)
    step = max(1, round(0.5 * spread))
    framed = np.pad(smooth, ((step, step), (0, 0)))
    slope = framed[2 * step :] - framed[: -2 * step]
    return np.clip(1.0 + 0.38 * slope, 0.72, 1.25)
