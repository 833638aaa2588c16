"""Draw masks, maps and fields: pure functions from arrays to uint8 RGB [H,W,3].

An overlay changes only the pixels of what it draws. Label maps are uint8: 0 background, c + 1 class
c, 255 ignore.
"""

from collections.abc import Callable, Sequence
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.core.artifacts import IGNORE

PAPER, INK = (255, 255, 255), (38, 38, 44)
HATCH = (205, 205, 205), (150, 150, 150)
"""The two grays of ignored pixels."""
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


@cache
def palette(count: int) -> np.ndarray:
    """Return the first `count` colors, uint8 [count,3], read-only; color c is that of class c.

    In OKLCH (Ottosson 2020): hues by the golden angle, lightness in turn.
    """
    index = np.arange(count)
    L = np.array([0.70, 0.80, 0.60])[index % 3]
    hue = np.deg2rad(25 + 137.508 * index)
    a, b = 0.16 * np.cos(hue), 0.16 * np.sin(hue)
    to_cone = np.array(
        [
            [0.3963377774, 0.2158037573],
            [-0.1055613458, -0.0638541728],
            [-0.0894841775, -1.2914855480],
        ]
    )
    cones = (L[:, None] + np.stack([a, b], 1) @ to_cone.T) ** 3
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(cones @ to_rgb.T, 0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colors = np.round(255 * gamma).astype(np.uint8)
    colors.setflags(write=False)
    return colors


def instance_palette(count: int) -> np.ndarray:
    """Return colors of the instances 1 to `count`, uint8 [count,3]; not those of classes."""
    return palette(count + 3)[3:]


@cache
def _label_colors() -> np.ndarray:
    """Return the color of every label, uint8 [256,3]; black for background and ignored pixels."""
    colors = np.zeros((256, 3), np.uint8)
    colors[1:IGNORE] = palette(IGNORE - 1)
    return colors


def css_color(color: Sequence[int]) -> str:
    """Return #rrggbb of three values of 0..255."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image [H,W,3] or map f4 [H,W] to (height, width), by area when it shrinks."""
    shrinks = size[0] < image.shape[0]
    return cv2.resize(
        image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def resized_ids(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a label or id map [H,W] to (height, width) by the nearest pixel center; keep dtype."""
    rows, columns = (
        ((2 * np.arange(n) + 1) * m) // (2 * n) for n, m in zip(size, ids.shape, strict=True)
    )
    return ids[rows[:, None], columns[None]]


def labels_over(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Draw a label map: class colors with light contours, ignored pixels hatched gray.

    image: uint8 [H,W,3]; labels: uint8 [H,W]. Background pixels are unchanged.
    """
    inside = (labels > 0) & (labels != IGNORE)
    drawn = _painted(image, labels, _label_colors()[labels], inside, 0.5)
    return _hatched(drawn, labels == IGNORE)


def regions_over(image: np.ndarray, ids: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Draw regions: a color per id with light contours.

    image: uint8 [H,W,3]; ids: unsigned integers [H,W], 0 none; opacity of the colors in [0,1]. All
    other pixels are unchanged.
    """
    colors = np.concatenate([np.zeros((1, 3), np.uint8), instance_palette(int(ids.max(initial=0)))])
    return _painted(image, ids, colors[ids], ids > 0, opacity)


def instances_over(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Draw instances: regions (see `regions_over`) with their id where it fits."""
    drawn = regions_over(image, ids)
    size = max(12, min(ids.shape) // 13)
    for number in np.unique(ids[ids > 0]).tolist():
        mask = ids == number
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[y, x] >= 0.6 * size:
            written = write(
                drawn, str(number), (int(x), int(y)), size, (255, 255, 255), anchor="mm", halo=True
            )
            drawn[mask] = written[mask]
    return drawn


def heat_over(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Draw a class map in inferno colors: the higher, the more opaque.

    image: uint8 [H,W,3]; cam: float [H,W], clipped to [0,1]. Zeros show the image itself.
    """
    strength = np.clip(cam.astype(np.float32), 0, 1)
    colors = cv2.applyColorMap(np.round(255 * strength).astype(np.uint8), cv2.COLORMAP_INFERNO)[
        ..., ::-1
    ]
    return _blend(image, colors, 0.8 * strength[..., None] ** np.float32(0.6))


def outlines_over(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Outline a label map's regions, two pixels wide: dark outside, the class's color inside.

    image: uint8 [H,W,3]; labels: uint8 [H,W].
    """
    inside = (labels > 0) & (labels != IGNORE)
    rim = inside & (
        cv2.erode(labels, _CROSS, iterations=2) != cv2.dilate(labels, _CROSS, iterations=2)
    )
    around = ~inside & cv2.dilate(inside.astype(np.uint8), _CROSS).astype(bool)
    drawn = _blend(image, np.array(INK, np.uint8), 0.8 * around[..., None].astype(np.float32))
    drawn[rim] = (_label_colors() // 2 + 127)[labels[rim]]
    return drawn


def arrows_over(image: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Draw arrows of a displacement field, from a cell to where it points, about 40 pixels apart.

    image: uint8 [H,W,3]; displacement: float [2,h,w], (y, x) in cells.
    """
    drawn = image.copy()
    h, w = displacement.shape[1:]
    scale = np.array([image.shape[0] / h, image.shape[1] / w])
    steps = np.maximum(1, np.round(40 / scale)).astype(int)
    for y in range(steps[0] // 2, h, steps[0]):
        for x in range(steps[1] // 2, w, steps[1]):
            start = (np.array([y, x]) + 0.5) * scale
            end = start + displacement[:, y, x].astype(np.float32) * scale
            ends = [(round(float(at[1])), round(float(at[0]))) for at in (start, end)]
            tip = min(0.4, 5 / max(1.0, float(np.hypot(*(end - start)))))
            cv2.arrowedLine(drawn, ends[0], ends[1], INK, 1, cv2.LINE_AA, tipLength=tip)
    return drawn


def points_over(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Draw white points with a dark rim; points: float [N,2], (y, x) in pixels."""
    drawn = image.copy()
    for y, x in points:
        at = round(float(x)), round(float(y))
        cv2.circle(drawn, at, 7, INK, -1, cv2.LINE_AA)
        cv2.circle(drawn, at, 5, PAPER, -1, cv2.LINE_AA)
    return drawn


def layer(draw: Callable[[np.ndarray], np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Return what a drawing adds to images of a size (height, width), as uint8 RGBA to blend.

    draw: any of the `..._over` functions with everything but the image. Drawn over black and over
    white, it reveals color and opacity.
    """
    black, white = (
        draw(np.full((*size, 3), value, np.uint8)).astype(np.float32) for value in (0, 255)
    )
    cover = 1 - (white - black).mean(-1, keepdims=True) / 255
    color = np.divide(black, cover, out=np.zeros_like(black), where=cover > 0)
    return np.round(np.concatenate([np.minimum(color, 255), 255 * cover], -1)).astype(np.uint8)


def boundary_map(boundary: np.ndarray) -> np.ndarray:
    """Draw class boundaries, float [H,W] in [0,1], dark on light."""
    strength = np.clip(boundary.astype(np.float32), 0, 1)[..., None]
    paper = np.full((*boundary.shape, 3), PAPER, np.uint8)
    return _blend(paper, np.array(INK, np.uint8), strength)


def displacement_map(displacement: np.ndarray, limit: float) -> np.ndarray:
    """Draw displacements as a color wheel: hue is the direction, saturation the length.

    displacement: float [2,H,W], (y, x); limit: length of full saturation, in the same unit. Right
    is red, opposite directions have opposite hues, and white does not move.
    """
    y, x = displacement.astype(np.float32)
    hue = np.rad2deg(np.arctan2(y, x)) % 360
    saturation = np.minimum(np.hypot(y, x) / max(limit, 1e-6), 1)
    value = 1 - 0.08 * saturation
    hsv = np.stack([hue, saturation, value], -1).astype(np.float32)
    return np.round(255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).astype(np.uint8)


def reach(displacement: np.ndarray) -> float:
    """Return a limit for `displacement_map`: the 99th percentile of lengths, at least 1 cell."""
    return max(1.0, float(np.percentile(np.hypot(*displacement.astype(np.float32)), 99)))


def color_wheel(size: int) -> np.ndarray:
    """Return the legend of `displacement_map`, uint8 [size,size,3]; its rim is the limit."""
    axis = (2 * np.arange(size, dtype=np.float32) + 1) / size - 1
    field = np.stack(np.meshgrid(axis, axis, indexing="ij"))
    inside = np.clip((1 - np.hypot(*field)) * size / 2, 0, 1)[..., None]
    return _blend(np.full((size, size, 3), PAPER, np.uint8), displacement_map(field, 1), inside)


def write(
    image: np.ndarray,
    text: str,
    at: tuple[int, int],
    size: int,
    color: Sequence[int],
    anchor: str = "lm",
    halo: bool = False,
) -> np.ndarray:
    """Write text at (x, y); anchor as in Pillow ("lm": left, middle); halo: a dark rim."""
    canvas = Image.fromarray(image)
    ImageDraw.Draw(canvas).text(
        at,
        text,
        tuple(color),
        _font(size),
        anchor,
        stroke_width=2 if halo else 0,
        stroke_fill=(0, 0, 0),
    )
    return np.array(canvas)


def text_width(text: str, size: int) -> int:
    """Return the width of a text in pixels."""
    return int(np.ceil(_font(size).getlength(text)))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _painted(
    image: np.ndarray, ids: np.ndarray, colors: np.ndarray, inside: np.ndarray, opacity: float
) -> np.ndarray:
    """Color regions and their contours of one pixel, both inside the regions only."""
    drawn = _blend(image, colors, np.where(inside, np.float32(opacity), 0)[..., None])
    padded = np.pad(ids, 1, mode="edge")
    center = padded[1:-1, 1:-1]
    neighbors = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    rim = inside & np.any([center != other for other in neighbors], 0)
    return _blend(drawn, (colors // 3 + 170).astype(np.uint8), rim[..., None].astype(np.float32))


def _hatched(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Draw gray diagonal stripes inside a mask."""
    if not where.any():
        return image
    y, x = np.indices(where.shape)
    stripes = np.array(HATCH[::-1], np.uint8)[(x + y) // 4 % 2]
    return _blend(image, stripes, np.where(where, np.float32(0.72), 0)[..., None])


def _blend(under: np.ndarray, over: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Return (1 - cover) * under + cover * over, rounded; exactly `under` where cover is 0."""
    mixed = under + cover * (over.astype(np.float32) - under)
    return np.round(mixed).astype(np.uint8)
