"""The small parts that alone tell the class of a toy.

A part lies around the origin, with x pointing away from the body and y down; its pieces are painted
in order. Its main color comes first and occurs on no body.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from pipeline.readers.scenes.shapes import (
    Canvas,
    Color,
    arc,
    ellipse,
    move,
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
    """A part: its pieces, the area of their union, and its place on the body.

    bearing: angle around the body in degrees, from its end (0) to its top (-90).
    """

    pieces: tuple[Piece, ...]
    area: float
    bearing: float

    @property
    def color(self) -> Color:
        """The main color, that of the first piece."""
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
    """Build a navy sail with white bands, and a white jib, on a mast."""
    white, navy, wood = (250, 250, 246), (28, 48, 150), (122, 84, 56)
    main = _polygon((0.08, 0.12), (0.08, -1.75), (0.6, -1.15), (1.0, -0.4), (1.2, 0.12))
    bands = [
        _polygon((0.08, -0.2), (1.07, -0.2), (0.9, -0.58), (0.08, -0.58)),
        _polygon((0.08, -0.92), (0.72, -0.92), (0.44, -1.32), (0.08, -1.32)),
    ]
    jib = _polygon((-0.08, 0.12), (-0.08, -1.5), (-0.6, -0.7), (-1.0, 0.12))
    mast = _polygon((-0.09, 0.6), (0.09, 0.6), (0.09, -1.8), (-0.09, -1.8))
    flag = _polygon((0.0, -2.1), (0.5, -1.9), (0.0, -1.7))
    sails = [(main, navy), *((band, white) for band in bands), (jib, white)]
    return [*sails, (mast, wood), (flag, navy)]


def _cat() -> list[Piece]:
    """Build an orange head with two pointed ears."""
    orange, deep, blush = (246, 138, 30), (206, 96, 14), (255, 206, 160)
    ears = _flipped((_polygon((-0.95, -0.2), (-0.95, -1.4), (-0.08, -0.75)), orange))
    inner = _flipped((_polygon((-0.8, -0.55), (-0.82, -1.1), (-0.4, -0.78)), blush))
    stripes = [
        _polygon((x - 0.07, -0.84), (x + 0.07, -0.84), (x, -0.46)) for x in (-0.22, 0.0, 0.22)
    ]
    nose = _polygon((-0.13, 0.16), (0.13, 0.16), (0.0, 0.32))
    return [
        *ears, *inner, (ellipse(0, 0, 1.05, 0.88), orange), *((stripe, deep) for stripe in stripes),
        (ellipse(0, 0.42, 0.5, 0.36), blush), *_eye(-0.45, -0.1, 0.24), *_eye(0.45, -0.1, 0.24),
        (nose, DARK),
    ]  # fmt: skip


def _elephant() -> list[Piece]:
    """Build a blue head with a trunk; the ear is nearly as blue, so that its rim is no edge."""
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
    """Build a green head with bulging eyes and a wide mouth."""
    green, deep, light = (66, 196, 52), (24, 112, 30), (190, 240, 120)
    bulges = _flipped((ellipse(-0.62, -0.68, 0.44, 0.44), green))
    mouth = ribbon(arc(0, -0.35, 0.95, 0.25 * np.pi, 0.75 * np.pi), np.full(12, 0.12))
    return [
        (ellipse(0, 0, 1.2, 0.82), green), (ellipse(0, 0.5, 0.75, 0.26), light), *bulges,
        *_eye(-0.62, -0.7, 0.3), *_eye(0.62, -0.7, 0.3), (mouth, deep),
    ]  # fmt: skip


def _lion() -> list[Piece]:
    """Build a golden mane around a pale face."""
    gold, deep, pale = (255, 204, 0), (226, 160, 0), (255, 240, 190)
    nose = _polygon((-0.17, 0.08), (0.17, 0.08), (0.0, 0.3))
    mouth = ribbon(arc(0, 0.2, 0.26, 0.15 * np.pi, 0.85 * np.pi), np.full(12, 0.07))
    return [
        (scallop(0, 0, 1.08, 0.22, 10), gold), (scallop(0, 0, 0.8, 0.16, 10), deep),
        (ellipse(0, 0.04, 0.7, 0.7), pale), *_eye(-0.28, -0.14, 0.17), *_eye(0.28, -0.14, 0.17),
        (nose, (120, 62, 20)), (mouth, (120, 62, 20)),
    ]  # fmt: skip


def _parrot() -> list[Piece]:
    """Build a red head with a crest and a hooked beak."""
    red, deep, beak = (232, 24, 36), (160, 8, 30), (66, 62, 74)
    crest = [
        rotate(rounded(_polygon((0, -0.5), (-0.26, -1.0), (0.0, -1.55), (0.22, -1.0))), turn)
        for turn in (-1.0, -0.5, 0.0)
    ]
    hook = rounded(
        _polygon((0.45, -0.5), (1.05, -0.45), (1.5, 0.1), (1.35, 0.8), (1.05, 0.25), (0.45, 0.35))
    )
    return [
        (crest[0], red), (crest[1], deep), (crest[2], red), (ellipse(0, 0, 0.92, 0.9), red),
        (hook, beak),
        (ellipse(0.25, -0.12, 0.38, 0.34), WHITE), (ellipse(0.28, -0.12, 0.17, 0.19), DARK),
        (ellipse(0.33, -0.18, 0.06, 0.06), WHITE),
    ]  # fmt: skip


def _rabbit() -> list[Piece]:
    """Build a pink head with two long ears."""
    pink, pale = (255, 92, 164), (255, 206, 226)
    ears = _flipped((ellipse(-0.42, -1.25, 0.3, 0.92, -0.18), pink))
    inner = _flipped((ellipse(-0.42, -1.22, 0.15, 0.64, -0.18), pale))
    return [
        *ears, *inner, (ellipse(0, 0, 0.9, 0.82), pink), (ellipse(0, 0.36, 0.5, 0.36), pale),
        *_eye(-0.4, -0.14, 0.2), *_eye(0.4, -0.14, 0.2), (ellipse(0, 0.2, 0.12, 0.09), DARK),
    ]  # fmt: skip


def _unicorn() -> list[Piece]:
    """Build a violet horse head with a dark mane and a golden horn."""
    violet, mane, gold, pale = (148, 60, 222), (84, 20, 150), (252, 206, 84), (214, 170, 250)
    locks = [
        (ellipse(x, y, 0.36, 0.36), mane)
        for x, y in ((-0.1, -0.78), (-0.52, -0.5), (-0.72, -0.05), (-0.75, 0.45))
    ]
    neck = (0.1, 0.6), (-0.7, 0.8)
    head = rounded(
        _polygon((-0.7, -0.6), (0.3, -0.85), (1.0, 0.0), (1.45, 0.75), (0.95, 1.05), *neck)
    )
    horn = _polygon((0.25, -0.7), (0.62, -0.45), (1.1, -1.65))
    ear = _polygon((-0.12, -0.65), (0.12, -1.2), (0.28, -0.6))
    return [
        (head, violet), *locks, (ear, violet), (horn, gold),
        (ellipse(1.1, 0.72, 0.3, 0.26, 0.5), pale),
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
    """Return the part of a class, one of CLASSES."""
    maker, bearing = _MAKERS[name]
    pieces = tuple(maker())
    grain = 48.0
    canvas = Canvas(np.zeros((288, 288), np.uint8), grain, smooth=False)
    canvas.fill_all([move(points, 3.0, 3.5) for points, _ in pieces], (1,))
    return Part(pieces, cv2.countNonZero(canvas.pixels) / grain**2, bearing)
