"""One picture of toys with its exact masks."""

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.datasets.scenes.backdrops import choose_backdrop, paint_backdrop
from pipeline.datasets.scenes.bodies import PALETTE
from pipeline.datasets.scenes.canvas import Colour
from pipeline.datasets.scenes.layout import SIZES, arrange, draw_count, draw_labels
from pipeline.datasets.scenes.parts import CLASSES
from pipeline.datasets.scenes.toys import Sprite, Toy, Window, render, silhouettes

SMALLEST_SCALE = 0.2


@dataclass(frozen=True)
class Scene:
    """A picture and its pixel truth.

    `image` is uint8 [H,W,3] RGB; `instances` uint16 [H,W], 0 none, 1..N; `classes` uint8 [N], 0-based class
    of each instance; `backdrop` names the ground. Every instance shows at least 15 % of its area.
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
        """Sorted classes with at least one visible instance."""
        return tuple(sorted({int(label) for label in self.classes}))


def draw(index: int, seed: int = 0, scale: float = 1.0) -> Scene:
    """Picture `index` of the endless set `seed`; depends on nothing else and is the same in every process.

    `scale` multiplies the sides, 144..224 pixels at 1. Raises ValueError for a scale below 0.2, where toys
    would be no more than a few pixels, and for a negative index or seed.
    """
    if not scale >= SMALLEST_SCALE:
        raise ValueError(f"scale is {scale}; give at least {SMALLEST_SCALE}, 1 for sides of 144 to 224 px")
    if index < 0 or seed < 0:
        raise ValueError(f"index is {index} and seed {seed}; neither may be negative")
    rng, toys, (height, width) = place(index, seed)
    backdrop = choose_backdrop(rng, {toy.name for toy in toys})
    image = paint_backdrop(rng, backdrop, height, width, scale)
    sprites: list[Sprite] = []
    free = PALETTE
    for toy in toys:
        colour = choose_colour(image, toy, scale, free)
        free = tuple(other for other in free if other != colour)
        sprites.append(render(toy, colour, scale))
        image = compose(image, sprites[-1], scale)
    classes = np.array([toy.label for toy in toys], np.uint8)
    return Scene(image, owners(sprites, image.shape[:2]), classes, backdrop)


def place(index: int, seed: int) -> tuple[np.random.Generator, list[Toy], tuple[int, int]]:
    """The toys of a picture, back to front, its (height, width) in units, and the generator that draws the rest of it."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    height, width = SIZES[int(rng.integers(len(SIZES)))]
    return rng, arrange(rng, draw_labels(rng, draw_count(rng), len(CLASSES)), height, width), (height, width)


def choose_colour(image: np.ndarray, toy: Toy, unit: float, free: tuple[Colour, ...]) -> Colour:
    """One of the colours `free` that stand out from the picture around the toy, picked by `toy.grain`."""
    height, width = image.shape[:2]
    whole = silhouettes(toy, height, width, unit)[0].astype(np.uint8)
    reach = 2 * max(1, round(5 * unit)) + 1
    ring = cv2.dilate(whole, np.ones((reach, reach), np.uint8)) > whole
    around = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[ring].astype(np.float32).mean(0)
    palette = cv2.cvtColor(np.array([free], np.uint8), cv2.COLOR_RGB2LAB)[0].astype(np.float32)
    contrast = np.linalg.norm(palette - around, axis=1)
    order = np.argsort(-contrast, kind="stable")
    suited = order[: max(3, int((contrast > 45).sum()))]
    return free[int(suited[int(toy.grain * len(suited))])]


def compose(image: np.ndarray, sprite: Sprite, unit: float) -> np.ndarray:
    """The picture with a soft shadow and the sprite on it; sprites may reach beyond the picture."""
    pad = round(14 * unit)
    cover = np.pad(sprite.cover, pad)
    shadow = cv2.GaussianBlur(cover, (0, 0), 3.2 * unit)
    drop = round(4.5 * unit)
    window = sprite.window
    shaded = _weigh(
        image, Window(window.top - pad + drop, window.left - pad, *shadow.shape), 0.42 * shadow, None
    )
    return _weigh(shaded, window, sprite.cover, sprite.colour)


def _weigh(image: np.ndarray, window: Window, weight: np.ndarray, colour: np.ndarray | None) -> np.ndarray:
    """Blend `colour` (None: a night blue) into the part of the window that lies in the picture."""
    here, there = clip(window, image.shape[:2])
    result = image.copy()
    under = image[here].astype(np.float32)
    over = np.array((14, 14, 34), np.float32) if colour is None else colour[there]
    result[here] = np.clip(np.rint(under + (over - under) * weight[there][..., None]), 0, 255)
    return result


def clip(window: Window, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the picture and of the window where the two meet."""
    top, left = max(0, window.top), max(0, window.left)
    bottom, right = min(shape[0], window.top + window.height), min(shape[1], window.left + window.width)
    here = slice(top, bottom), slice(left, right)
    there = slice(top - window.top, bottom - window.top), slice(left - window.left, right - window.left)
    return here, there


def owners(sprites: list[Sprite], shape: tuple[int, ...]) -> np.ndarray:
    """Instances uint16 [H,W], sprite k being k+1: a pixel goes to whoever gives most of its colour."""
    shares = np.zeros((len(sprites) + 1, *shape), np.float32)
    shares[0] = 1.0
    for k, sprite in enumerate(sprites, start=1):
        here, there = clip(sprite.window, shape)
        shares[(slice(None), *here)] *= 1 - sprite.cover[there]
        shares[(k, *here)] = sprite.cover[there]
    return shares.argmax(0).astype(np.uint16)
