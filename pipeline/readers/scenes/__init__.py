"""Procedural scenes of toys that touch and occlude each other, rendered with exact masks.

All classes share large bodies; only small parts tell them apart.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.readers.scenes.backdrops import choose_backdrop, paint_backdrop
from pipeline.readers.scenes.parts import CLASSES
from pipeline.readers.scenes.shapes import Color
from pipeline.readers.scenes.toys import PALETTE, Sprite, Toy, Window, draw_toy, render, silhouettes

SIZES = ((192, 192), (160, 224), (224, 160), (176, 208), (208, 176), (144, 192))

_COUNTS = (0.2, 0.32, 0.28, 0.2)  # one to four toys
# Of the square root of the image's area, for one to four toys.
_LENGTHS = ((0.50, 0.60), (0.44, 0.55), (0.39, 0.48), (0.35, 0.43))
_SAME_CLASS = 0.42  # probability that a further toy is of the class of the one before
_ATTEMPTS = 40


@dataclass
class _Placed:
    """Toys placed so far, later ones in front, with the masks of each toy and its part."""

    toys: list[Toy]
    wholes: list[np.ndarray]
    parts: list[np.ndarray]

    def push(self, toy: Toy, whole: np.ndarray, part: np.ndarray) -> None:
        """Place a toy in front of all others."""
        self.toys.append(toy)
        self.wholes.append(whole)
        self.parts.append(part)

    def add(self, toy: Toy, whole: np.ndarray, part: np.ndarray, max_hidden: float) -> bool:
        """Place a toy in front unless it leaves the image or hides too much of another one.

        Returns whether it was placed; max_hidden is the fraction of another toy it may hide.
        """
        if not _lies_inside(toy, *whole.shape):
            return False
        hidden = whole
        for other, other_part in zip(reversed(self.wholes), reversed(self.parts), strict=True):
            if _share(other & whole, other) > max_hidden or _share(other & ~hidden, other) < 0.45:
                return False
            if _share(other_part & ~hidden, other_part) < 0.7:
                return False
            hidden = hidden | other
        self.push(toy, whole, part)
        return True


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(np.count_nonzero(part)) / max(1, int(np.count_nonzero(whole)))


def draw_labels(rng: np.random.Generator, count: int, classes: int) -> list[int]:
    """Draw the classes of `count` toys, often the same as the one before."""
    labels = [int(rng.integers(classes))]
    while len(labels) < count:
        repeat = rng.random() < _SAME_CLASS
        other = int(rng.integers(classes))
        labels.append(labels[-1] if repeat else other)
    return labels


def arrange(rng: np.random.Generator, labels: list[int], height: int, width: int) -> list[Toy]:
    """Arrange toys of the classes `labels` in `height` x `width` units; return them back to front.

    At least 45 % of each toy and 70 % of its part are visible; a toy without such a place is left
    out, except for the first. Toys of the same class often touch.
    """
    low, high = _LENGTHS[len(labels) - 1]
    side = float(np.sqrt(height * width))
    placed = _Placed([], [], [])
    for label in labels:
        toy = draw_toy(rng, label, 0.5 * side * float(rng.uniform(low, high)))
        touches = bool(placed.toys) and placed.toys[-1].label == label and rng.random() < 0.7
        if touches and _place_touching(rng, placed, toy, height, width):
            continue
        _place_anywhere(rng, placed, toy, height, width)
    return placed.toys


def _place_touching(
    rng: np.random.Generator, placed: _Placed, toy: Toy, height: int, width: int
) -> bool:
    """Move the toy towards the last one from a random side until they touch."""
    other, target = placed.toys[-1], placed.wholes[-1]
    for _ in range(_ATTEMPTS // 2):
        angle = rng.uniform(0, 2 * np.pi)
        away = np.array([np.cos(angle), np.sin(angle)])
        for reach in np.arange(1.25, 0.5, -0.08) * (other.length + toy.length):
            x, y = away * reach + (other.x, other.y)
            candidate = toy.at(float(x), float(y))
            whole, part = silhouettes(candidate, height, width)
            if (whole & target).any():
                if placed.add(candidate, whole, part, max_hidden=0.2):
                    return True
                break
    return False


def _place_anywhere(
    rng: np.random.Generator, placed: _Placed, toy: Toy, height: int, width: int
) -> None:
    """Try random positions until one suits the toy and all those behind it."""
    max_hidden = float(rng.choice([0.0, 0.15, 0.4]))
    margin = 0.62 * toy.length
    for attempt in range(_ATTEMPTS):
        x, y = rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)
        candidate = toy.at(float(x), float(y))
        whole, part = silhouettes(candidate, height, width)
        # Half of the attempts keep to the drawn limit, the others take whatever fits.
        if placed.add(candidate, whole, part, max_hidden if attempt < _ATTEMPTS // 2 else 0.4):
            return
    if not placed.toys:
        candidate = toy.at(width / 2, height / 2)
        placed.push(candidate, *silhouettes(candidate, height, width))


def _lies_inside(toy: Toy, height: int, width: int) -> bool:
    """Return whether the whole part and at least 80 % of the body's outline lie in the image."""
    part = np.concatenate([points for points, _ in toy.part_pieces])
    if part.min() < 2 or part[:, 0].max() > width - 2 or part[:, 1].max() > height - 2:
        return False
    outline = toy.body_polygons[-1]
    held = ((outline >= 0) & (outline <= (width, height))).all(1)
    return bool(held.mean() >= 0.8)


@dataclass(frozen=True)
class Scene:
    """An image and its ground truth.

    image: uint8 [H,W,3] RGB; instances: uint16 [H,W], 0 none, 1..N; classes: uint8 [N], 0-based
    class of each instance; backdrop: its name. At least 15 % of every instance is visible.
    """

    image: np.ndarray
    instances: np.ndarray
    classes: np.ndarray
    backdrop: str

    @property
    def semantic(self) -> np.ndarray:
        """Label map uint8 [H,W]: 0 background, c+1 class c."""
        table = np.concatenate([np.zeros(1, np.uint8), self.classes + np.uint8(1)])
        return table[self.instances]

    @property
    def tags(self) -> tuple[int, ...]:
        """The sorted classes of the instances."""
        return tuple(sorted({int(label) for label in self.classes}))


def draw(index: int, seed: int = 0) -> Scene:
    """Draw image `index` of the endless set `seed`; equal arguments give equal bytes everywhere."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    height, width = SIZES[int(rng.integers(len(SIZES)))]
    count = int(rng.choice(len(_COUNTS), p=_COUNTS)) + 1
    toys = arrange(rng, draw_labels(rng, count, len(CLASSES)), height, width)
    backdrop = choose_backdrop(rng, {toy.name for toy in toys})
    image = paint_backdrop(rng, backdrop, height, width)
    sprites: list[Sprite] = []
    free = PALETTE
    for toy in toys:
        color = choose_color(image, toy, free)
        free = tuple(other for other in free if other != color)
        sprites.append(render(toy, color))
        image = compose(image, sprites[-1])
    classes = np.array([toy.label for toy in toys], np.uint8)
    return Scene(image, visible_instances(sprites, image.shape[:2]), classes, backdrop)


def choose_color(image: np.ndarray, toy: Toy, free: tuple[Color, ...]) -> Color:
    """Choose one of the colors `free` that contrast with the image around the toy, by toy.grain."""
    whole = silhouettes(toy, *image.shape[:2])[0].astype(np.uint8)
    ring = cv2.dilate(whole, np.ones((11, 11), np.uint8)) > whole
    around = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[ring].astype(np.float32).mean(0)
    palette = cv2.cvtColor(np.array([free], np.uint8), cv2.COLOR_RGB2LAB)[0].astype(np.float32)
    contrast = np.linalg.norm(palette - around, axis=1)
    order = np.argsort(-contrast, kind="stable")
    suited = order[: max(3, int((contrast > 45).sum()))]
    return free[int(suited[int(toy.grain * len(suited))])]


def compose(image: np.ndarray, sprite: Sprite) -> np.ndarray:
    """Draw a soft shadow and the sprite on a copy of the image; sprites may extend beyond it."""
    pad, drop, window = 14, 4, sprite.window
    shadow = cv2.GaussianBlur(np.pad(sprite.cover, pad), (0, 0), 3.2)
    below = Window(window.top - pad + drop, window.left - pad, *shadow.shape)
    shaded = _blend(image, below, 0.42 * shadow, None)
    return _blend(shaded, window, sprite.cover, sprite.color)


def _blend(
    image: np.ndarray, window: Window, weight: np.ndarray, color: np.ndarray | None
) -> np.ndarray:
    """Blend `color` (None: dark blue) into the part of the window that lies in the image."""
    here, there = clip(window, image.shape[:2])
    result = image.copy()
    under = image[here].astype(np.float32)
    over = np.array((14, 14, 34), np.float32) if color is None else color[there]
    result[here] = np.clip(np.rint(under + (over - under) * weight[there][..., None]), 0, 255)
    return result


def clip(window: Window, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices of the image and of the window where the two overlap."""
    top, left = max(0, window.top), max(0, window.left)
    bottom = min(shape[0], window.top + window.height)
    right = min(shape[1], window.left + window.width)
    rows = slice(top - window.top, bottom - window.top)
    columns = slice(left - window.left, right - window.left)
    return (slice(top, bottom), slice(left, right)), (rows, columns)


def visible_instances(sprites: list[Sprite], shape: tuple[int, ...]) -> np.ndarray:
    """Return instances uint16 [H,W]: the sprite (k + 1) with the largest share of a pixel."""
    shares = np.zeros((len(sprites) + 1, *shape), np.float32)
    shares[0] = 1.0
    for k, sprite in enumerate(sprites, start=1):
        here, there = clip(sprite.window, shape)
        shares[(slice(None), *here)] *= 1 - sprite.cover[there]
        shares[(k, *here)] = sprite.cover[there]
    return shares.argmax(0).astype(np.uint16)
