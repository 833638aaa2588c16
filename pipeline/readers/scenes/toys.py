"""The small part that alone tells the class of a toy.

A part lies around the origin, with x pointing away from the body and y down; its pieces are painted
in order. Its main color comes first and occurs on no body.

A toy - one body and one part in a pose - and its image with exact coverage.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import cv2
import numpy as np

from pipeline.readers.scenes.shapes import (
    Body,
    Canvas,
    Color,
    arc,
    area,
    draw_body,
    ellipse,
    move,
    pattern_outlines,
    ribbon,
    rotate,
    rounded,
    scallop,
)

Piece = tuple[np.ndarray, Color]

DARK = (38, 32, 46)
WHITE = (255, 255, 250)


@dataclass(frozen=True)
class Part:
    """Pieces of a part, its `area` as a union, and the side of the body that bears it.

    `bearing` is the angle in degrees around the body, from its end (0) to its top (-90).
    """

    pieces: tuple[Piece, ...]
    area: float
    bearing: float

    @property
    def color(self) -> Color:
        """Main color, that of the first piece."""
        return self.pieces[0][1]


def _polygon(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, float)


def _flipped(piece: Piece) -> tuple[Piece, Piece]:
    points, color = piece
    return piece, (points * (-1, 1), color)


def _eye(x: float, y: float, radius: float) -> list[Piece]:
    return [
        (ellipse(x, y, radius, radius * 1.1), WHITE),
        (ellipse(x, y + 0.1 * radius, 0.62 * radius, 0.72 * radius), DARK),
        (ellipse(x + 0.2 * radius, y - 0.25 * radius, 0.22 * radius, 0.22 * radius), WHITE),
    ]


def _boat() -> list[Piece]:
    """A navy sail with white bands, and a white jib, on a mast."""
    white, navy, wood = (250, 250, 246), (28, 48, 150), (122, 84, 56)
    main = _polygon((0.08, 0.12), (0.08, -1.75), (0.6, -1.15), (1.0, -0.4), (1.2, 0.12))
    bands = [
        _polygon((0.08, -0.2), (1.07, -0.2), (0.9, -0.58), (0.08, -0.58)),
        _polygon((0.08, -0.92), (0.72, -0.92), (0.44, -1.32), (0.08, -1.32)),
    ]
    jib = _polygon((-0.08, 0.12), (-0.08, -1.5), (-0.6, -0.7), (-1.0, 0.12))
    mast = _polygon((-0.09, 0.6), (0.09, 0.6), (0.09, -1.8), (-0.09, -1.8))
    flag = _polygon((0.0, -2.1), (0.5, -1.9), (0.0, -1.7))
    return [
        (main, navy),
        *((band, white) for band in bands),
        (jib, white),
        (mast, wood),
        (flag, navy),
    ]


def _cat() -> list[Piece]:
    """An orange head with two pointed ears."""
    orange, deep, blush = (246, 138, 30), (206, 96, 14), (255, 206, 160)
    ears = _flipped((_polygon((-0.95, -0.2), (-0.95, -1.4), (-0.08, -0.75)), orange))
    inner = _flipped((_polygon((-0.8, -0.55), (-0.82, -1.1), (-0.4, -0.78)), blush))
    stripes = [
        _polygon((x - 0.07, -0.84), (x + 0.07, -0.84), (x, -0.46)) for x in (-0.22, 0.0, 0.22)
    ]
    nose = _polygon((-0.13, 0.16), (0.13, 0.16), (0.0, 0.32))
    return [
        *ears, *inner, (ellipse(0, 0, 1.05, 0.88), orange), *((stripe, deep) for stripe in stripes),
        (ellipse(0, 0.42, 0.5, 0.36), blush), *_eye(-0.45, -0.1, 0.24), *_eye(0.45, -0.1, 0.24), (nose, DARK),
    ]  # fmt: skip


def _elephant() -> list[Piece]:
    """A blue head with a hanging trunk; its ear is of nearly the same blue, lest its rim be an edge
    across the toy.
    """
    blue, soft, light = (46, 122, 232), (66, 138, 236), (88, 156, 242)
    spine = _polygon((0.5, 0.0), (0.92, 0.12), (1.08, 0.5), (1.02, 0.86), (1.2, 1.08))
    trunk = ribbon(spine, np.array([0.8, 0.62, 0.5, 0.42, 0.36]))
    tusk = rounded(_polygon((0.42, 0.5), (0.66, 0.6), (0.7, 0.94), (0.46, 0.78)))
    ear = ellipse(-0.42, -0.1, 0.66, 0.92, 0.15)
    return [
        (trunk, blue), (ellipse(0.25, -0.05, 0.86, 0.86), blue), (tusk, WHITE), (ear, soft),
        (ellipse(-0.42, -0.1, 0.5, 0.7, 0.15), light), *_eye(0.6, -0.25, 0.22),
    ]  # fmt: skip


def _frog() -> list[Piece]:
    """A green head with bulging eyes and a wide mouth."""
    green, deep, light = (66, 196, 52), (24, 112, 30), (190, 240, 120)
    bulges = _flipped((ellipse(-0.62, -0.68, 0.44, 0.44), green))
    mouth = ribbon(arc(0, -0.35, 0.95, 0.25 * np.pi, 0.75 * np.pi), np.full(12, 0.12))
    return [
        (ellipse(0, 0, 1.2, 0.82), green), (ellipse(0, 0.5, 0.75, 0.26), light), *bulges,
        *_eye(-0.62, -0.7, 0.3), *_eye(0.62, -0.7, 0.3), (mouth, deep),
    ]  # fmt: skip


def _lion() -> list[Piece]:
    """A golden mane around a pale face."""
    gold, deep, pale = (255, 204, 0), (226, 160, 0), (255, 240, 190)
    nose = _polygon((-0.17, 0.08), (0.17, 0.08), (0.0, 0.3))
    mouth = ribbon(arc(0, 0.2, 0.26, 0.15 * np.pi, 0.85 * np.pi), np.full(12, 0.07))
    return [
        (scallop(0, 0, 1.08, 0.22, 10), gold), (scallop(0, 0, 0.8, 0.16, 10), deep),
        (ellipse(0, 0.04, 0.7, 0.7), pale), *_eye(-0.28, -0.14, 0.17), *_eye(0.28, -0.14, 0.17),
        (nose, (120, 62, 20)), (mouth, (120, 62, 20)),
    ]  # fmt: skip


def _parrot() -> list[Piece]:
    """A red head with a crest and a hooked beak."""
    red, deep, beak = (232, 24, 36), (160, 8, 30), (66, 62, 74)
    crest = [
        rotate(rounded(_polygon((0, -0.5), (-0.26, -1.0), (0.0, -1.55), (0.22, -1.0))), turn)
        for turn in (-1.0, -0.5, 0.0)
    ]
    hook = rounded(
        _polygon((0.45, -0.5), (1.05, -0.45), (1.5, 0.1), (1.35, 0.8), (1.05, 0.25), (0.45, 0.35))
    )
    return [
        (crest[0], red), (crest[1], deep), (crest[2], red), (ellipse(0, 0, 0.92, 0.9), red), (hook, beak),
        (ellipse(0.25, -0.12, 0.38, 0.34), WHITE), (ellipse(0.28, -0.12, 0.17, 0.19), DARK),
        (ellipse(0.33, -0.18, 0.06, 0.06), WHITE),
    ]  # fmt: skip


def _rabbit() -> list[Piece]:
    """A pink head with two long ears."""
    pink, pale = (255, 92, 164), (255, 206, 226)
    ears = _flipped((ellipse(-0.42, -1.25, 0.3, 0.92, -0.18), pink))
    inner = _flipped((ellipse(-0.42, -1.22, 0.15, 0.64, -0.18), pale))
    return [
        *ears, *inner, (ellipse(0, 0, 0.9, 0.82), pink), (ellipse(0, 0.36, 0.5, 0.36), pale),
        *_eye(-0.4, -0.14, 0.2), *_eye(0.4, -0.14, 0.2), (ellipse(0, 0.2, 0.12, 0.09), DARK),
    ]  # fmt: skip


def _unicorn() -> list[Piece]:
    """A violet horse head with a dark mane and a golden horn."""
    violet, mane, gold, pale = (148, 60, 222), (84, 20, 150), (252, 206, 84), (214, 170, 250)
    locks = [
        (ellipse(x, y, 0.36, 0.36), mane)
        for x, y in ((-0.1, -0.78), (-0.52, -0.5), (-0.72, -0.05), (-0.75, 0.45))
    ]
    head = rounded(
        _polygon(
            (-0.7, -0.6),
            (0.3, -0.85),
            (1.0, 0.0),
            (1.45, 0.75),
            (0.95, 1.05),
            (0.1, 0.6),
            (-0.7, 0.8),
        )
    )
    horn = _polygon((0.25, -0.7), (0.62, -0.45), (1.1, -1.65))
    ear = _polygon((-0.12, -0.65), (0.12, -1.2), (0.28, -0.6))
    return [
        (head, violet), *locks, (ear, violet), (horn, gold), (ellipse(1.1, 0.72, 0.3, 0.26, 0.5), pale),
        *_eye(0.4, -0.1, 0.22),
    ]  # fmt: skip


_MAKERS: dict[str, tuple[Callable[[], list[Piece]], float]] = {
    "boat": (_boat, -62.0),
    "cat": (_cat, -18.0),
    "elephant": (_elephant, -12.0),
    "frog": (_frog, -22.0),
    "lion": (_lion, -12.0),
    "parrot": (_parrot, -30.0),
    "rabbit": (_rabbit, -25.0),
    "unicorn": (_unicorn, -25.0),
}
CLASSES: tuple[str, ...] = tuple(_MAKERS)


@cache
def part_of(name: str) -> Part:
    """The part of class `name`, one of `CLASSES`."""
    maker, bearing = _MAKERS[name]
    pieces = tuple(maker())
    grain = 48.0
    canvas = Canvas(np.zeros((288, 288), np.uint8), grain, smooth=False)
    canvas.fill_all([move(points, 3.0, 3.5) for points, _ in pieces], (1,))
    return Part(pieces, cv2.countNonZero(canvas.pixels) / grain**2, bearing)


SUPERSAMPLING = 4
OUTLINE_WIDTH = 1.9  # units; half of it, the inner one, shows
MARGIN = 3.0  # units around a toy's polygons


@dataclass(frozen=True)
class Window:
    """Where a toy's pixels lie in the image: top, left, height, width in pixels, perhaps outside
    it.
    """

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Sprite:
    """Pixels of a toy: `color` f4 [h,w,3] in 0..255, `cover` and `part` f4 [h,w] in [0,1], at
    `window`.
    """

    window: Window
    color: np.ndarray
    cover: np.ndarray
    part: np.ndarray


@dataclass(frozen=True)
class Toy:
    """A toy of class `label` around (x, y); `length` is its body's half length, all in units.

    `turn` is in radians, `flipped` faces left, `share` is the part's share of the toy's area,
    `grain` in [0,1] picks the body's color.
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
        """Class name."""
        return CLASSES[self.label]

    def at(self, x: float, y: float) -> "Toy":
        """The same toy elsewhere."""
        return Toy(
            self.label,
            self.body,
            x,
            y,
            self.length,
            self.turn,
            self.flipped,
            self.share,
            self.grain,
        )

    def place(self, points: np.ndarray) -> np.ndarray:
        """Points of the body's frame in the image."""
        flipped = points * ((-1.0, 1.0) if self.flipped else (1.0, 1.0))
        return rotate(flipped, self.turn) * self.length + (self.x, self.y)

    @cached_property
    def body_polygons(self) -> list[np.ndarray]:
        """Feet, then body, in the image."""
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
        flipped=bool(rng.random() < 0.5),
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


def render(toy: Toy, color: Color, unit: float) -> Sprite:
    """Paint the toy with a body of `color` at `unit` pixels a unit."""
    window = toy.window(unit)
    surface = _Surface(window, unit)
    cover = surface.mask([*toy.body_polygons, *(points for points, _ in toy.part_pieces)])
    part = surface.mask([points for points, _ in toy.part_pieces])
    rim = surface.rim(cover)
    body = _body_layer(surface, toy, color)
    front = surface.layer(part_of(toy.name).color, toy.part_pieces)

    cover, part, rim = (surface.shrink(mask) / 255 for mask in (cover, part, rim))
    # an airbrushed part: its border to the body is softer than the toy's border to the image
    soft = cv2.GaussianBlur(part, (0, 0), 1.2 * unit)[..., None]
    pixels = surface.shrink(body) * (1 - soft) + surface.shrink(front) * soft
    pixels *= _light(cover, toy.length * unit)[..., None]
    ink = 0.28 * np.array(color, np.float32) + (10, 8, 16)
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

    def layer(self, ground: Color, pieces: list[tuple[np.ndarray, Color]]) -> np.ndarray:
        """Pieces painted on a plain ground."""
        pixels = np.empty((*self.size, 3), np.uint8)
        pixels[:] = ground
        canvas = Canvas(pixels, self.unit, smooth=False)
        for points, color in pieces:
            canvas.fill(points - self.origin, color)
        return pixels

    def rim(self, cover: np.ndarray) -> np.ndarray:
        """255 along the border of a mask, both sides."""
        contours, _ = cv2.findContours(cover, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        line = np.zeros(self.size, np.uint8)
        cv2.drawContours(line, contours, -1, 255, max(1, round(OUTLINE_WIDTH * self.unit)))
        return line

    def shrink(self, pixels: np.ndarray) -> np.ndarray:
        """Mean over each image pixel, f4."""
        return cv2.resize(pixels, self.target, interpolation=cv2.INTER_AREA).astype(np.float32)


def _body_layer(surface: _Surface, toy: Toy, color: Color) -> np.ndarray:
    """Body, pattern and feet; beyond the body the part's color, so that it blends with no gap."""
    tone = _tone(color)
    foot = tuple(int(0.62 * value) for value in color)
    plain = surface.layer(
        part_of(toy.name).color, [(points, foot) for points in toy.body_polygons[:-1]]
    )
    patterned = surface.layer(
        color, [(toy.place(points), tone) for points in pattern_outlines(toy.body)]
    )
    inside = surface.mask(toy.body_polygons[-1:])
    return cv2.copyTo(patterned, inside, plain)


def _tone(color: Color) -> Color:
    """A neighboring color for patterns: darker when light, lighter when dark."""
    if sum(color) > 450:
        return tuple(int(0.87 * value) for value in color)
    return tuple(int(value + 0.16 * (255 - value)) for value in color)


def _light(cover: np.ndarray, length: float) -> np.ndarray:
    """Factor that lights a round toy from above: the blurred mask's slope along y."""
    spread = 0.22 * length
    smooth = cv2.GaussianBlur(cover, (0, 0), spread, borderType=cv2.BORDER_CONSTANT)
    step = max(1, round(0.5 * spread))
    framed = np.pad(smooth, ((step, step), (0, 0)))
    slope = framed[2 * step :] - framed[: -2 * step]
    return np.clip(1.0 + 0.38 * slope, 0.72, 1.25)
