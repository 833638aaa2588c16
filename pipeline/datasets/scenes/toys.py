"""A toy - one body and one part in a pose - and its picture with exact coverage."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from pipeline.datasets.scenes.bodies import Body, draw_body, pattern_outlines
from pipeline.datasets.scenes.canvas import Canvas, Colour
from pipeline.datasets.scenes.outlines import area, rotate
from pipeline.datasets.scenes.parts import CLASSES, Part, part_of

SUPERSAMPLING = 4
OUTLINE_WIDTH = 1.9  # units; half of it, the inner one, shows
MARGIN = 3.0  # units around a toy's polygons


@dataclass(frozen=True)
class Window:
    """Where a toy's pixels lie in the picture: top, left, height, width in pixels, perhaps outside it."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Sprite:
    """Pixels of a toy: `colour` f4 [h,w,3] in 0..255, `cover` and `part` f4 [h,w] in [0,1], at `window`."""

    window: Window
    colour: np.ndarray
    cover: np.ndarray
    part: np.ndarray


@dataclass(frozen=True)
class Toy:
    """A toy of class `label` around (x, y); `length` is its body's half length, all in units.

    `turn` is in radians, `mirrored` faces left, `share` is the part's share of the toy's area, `grain` in
    [0,1] picks the body's colour.
    """

    label: int
    body: Body
    x: float
    y: float
    length: float
    turn: float
    mirrored: bool
    share: float
    grain: float

    @property
    def name(self) -> str:
        """Class name."""
        return CLASSES[self.label]

    def at(self, x: float, y: float) -> "Toy":
        """The same toy elsewhere."""
        return Toy(self.label, self.body, x, y, self.length, self.turn, self.mirrored, self.share, self.grain)

    def place(self, points: np.ndarray) -> np.ndarray:
        """Points of the body's frame in the picture."""
        flipped = points * ((-1.0, 1.0) if self.mirrored else (1.0, 1.0))
        return rotate(flipped, self.turn) * self.length + (self.x, self.y)

    @cached_property
    def body_polygons(self) -> list[np.ndarray]:
        """Feet, then body, in the picture."""
        return [self.place(points) for points in (*self.body.foot_outlines(), self.body.outline())]

    @cached_property
    def part_pieces(self) -> list[tuple[np.ndarray, Colour]]:
        """Pieces of the part in the picture."""
        part = part_of(self.name)
        place, size = self._part_frame(part)
        return [(self.place(points * size + place), colour) for points, colour in part.pieces]

    def _part_frame(self, part: Part) -> tuple[np.ndarray, float]:
        outline = self.body.outline()
        bearing = np.deg2rad(part.bearing)
        # half of the part lies beyond the body, so the toy's area is the body's and half the part's
        size = float(np.sqrt(self.share * area(outline) / (1 - 0.5 * self.share) / part.area))
        direction = np.array([np.cos(bearing), np.sin(bearing)])
        rim = outline[np.argmax(outline @ direction)]
        return rim * 0.93, size

    def window(self, unit: float) -> Window:
        """Pixels the toy may touch at `unit` pixels a unit."""
        points = np.concatenate([*self.body_polygons, *(points for points, _ in self.part_pieces)])
        low = np.floor((points.min(0) - MARGIN) * unit).astype(int)
        high = np.ceil((points.max(0) + MARGIN) * unit).astype(int)
        return Window(int(low[1]), int(low[0]), int(high[1] - low[1]), int(high[0] - low[0]))


def draw_toy(rng: np.random.Generator, label: int, length: float) -> Toy:
    """A random toy of class `label` at the origin; only its part depends on the class."""
    return Toy(
        label=label,
        body=draw_body(rng),
        x=0.0,
        y=0.0,
        length=length,
        turn=float(np.deg2rad(rng.uniform(-25, 25))),
        mirrored=bool(rng.random() < 0.5),
        share=float(rng.uniform(0.125, 0.155)),
        grain=float(rng.random()),
    )


def silhouettes(toy: Toy, height: int, width: int, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Masks, bool [height,width], of the toy and of its part, without anti-aliasing."""
    part = Canvas(np.zeros((height, width), np.uint8), unit, smooth=False)
    part.fill_all([points for points, _ in toy.part_pieces], (1,))
    whole = Canvas(part.pixels.copy(), unit, smooth=False)
    whole.fill_all(toy.body_polygons, (1,))
    return whole.pixels > 0, part.pixels > 0


def render(toy: Toy, colour: Colour, unit: float) -> Sprite:
    """Paint the toy with a body of `colour` at `unit` pixels a unit."""
    window = toy.window(unit)
    surface = _Surface(window, unit)
    cover = surface.mask([*toy.body_polygons, *(points for points, _ in toy.part_pieces)])
    part = surface.mask([points for points, _ in toy.part_pieces])
    rim = surface.rim(cover)
    body = _body_layer(surface, toy, colour)
    front = surface.layer(part_of(toy.name).colour, toy.part_pieces)

    cover, part, rim = (surface.shrink(mask) / 255 for mask in (cover, part, rim))
    # an airbrushed part: its border to the body is softer than the toy's border to the picture
    soft = cv2.GaussianBlur(part, (0, 0), 1.2 * unit)[..., None]
    pixels = surface.shrink(body) * (1 - soft) + surface.shrink(front) * soft
    pixels *= _light(cover, toy.length * unit)[..., None]
    ink = 0.28 * np.array(colour, np.float32) + (10, 8, 16)
    pixels += (ink.astype(np.float32) - pixels) * (0.92 * rim)[..., None]
    return Sprite(window, np.clip(pixels, 0, 255), cover, part)


class _Surface:
    """Supersampled layers of one window."""

    def __init__(self, window: Window, unit: float) -> None:
        self.size = (window.height * SUPERSAMPLING, window.width * SUPERSAMPLING)
        self.target = (window.width, window.height)
        self.unit = unit * SUPERSAMPLING
        self.origin = np.array([window.left, window.top]) / unit

    def mask(self, polygons: list[np.ndarray]) -> np.ndarray:
        """255 inside any polygon."""
        canvas = Canvas(np.zeros(self.size, np.uint8), self.unit, smooth=False)
        canvas.fill_all([points - self.origin for points in polygons], (255,))
        return canvas.pixels

    def layer(self, ground: Colour, pieces: list[tuple[np.ndarray, Colour]]) -> np.ndarray:
        """Pieces painted on a plain ground."""
        pixels = np.empty((*self.size, 3), np.uint8)
        pixels[:] = ground
        canvas = Canvas(pixels, self.unit, smooth=False)
        for points, colour in pieces:
            canvas.fill(points - self.origin, colour)
        return pixels

    def rim(self, cover: np.ndarray) -> np.ndarray:
        """255 along the border of a mask, both sides."""
        contours, _ = cv2.findContours(cover, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        line = np.zeros(self.size, np.uint8)
        cv2.drawContours(line, contours, -1, 255, max(1, round(OUTLINE_WIDTH * self.unit)))
        return line

    def shrink(self, pixels: np.ndarray) -> np.ndarray:
        """Mean over each picture pixel, f4."""
        return cv2.resize(pixels, self.target, interpolation=cv2.INTER_AREA).astype(np.float32)


def _body_layer(surface: _Surface, toy: Toy, colour: Colour) -> np.ndarray:
    """Body, pattern and feet; beyond the body the part's colour, so that it blends with no gap."""
    tone = _tone(colour)
    foot = tuple(int(0.62 * value) for value in colour)
    plain = surface.layer(part_of(toy.name).colour, [(points, foot) for points in toy.body_polygons[:-1]])
    patterned = surface.layer(colour, [(toy.place(points), tone) for points in pattern_outlines(toy.body)])
    inside = surface.mask(toy.body_polygons[-1:])
    return cv2.copyTo(patterned, inside, plain)


def _tone(colour: Colour) -> Colour:
    """A neighbouring colour for patterns: darker when light, lighter when dark."""
    if sum(colour) > 450:
        return tuple(int(0.87 * value) for value in colour)
    return tuple(int(value + 0.16 * (255 - value)) for value in colour)


def _light(cover: np.ndarray, length: float) -> np.ndarray:
    """Factor that lights a round toy from above: the blurred mask's slope along y."""
    spread = 0.22 * length
    smooth = cv2.GaussianBlur(cover, (0, 0), spread, borderType=cv2.BORDER_CONSTANT)
    step = max(1, round(0.5 * spread))
    framed = np.pad(smooth, ((step, step), (0, 0)))
    slope = framed[2 * step :] - framed[: -2 * step]
    return np.clip(1.0 + 0.38 * slope, 0.72, 1.25)
