"""Contact sheets: one row per image, one column per step of the pipeline."""

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest

import cv2
import numpy as np

from pipeline.data.instance_masks import exclusive
from pipeline.labelling import upsample
from pipeline.views import overlays

PAGE, MISSING, MUTED = (242, 242, 240), (226, 226, 224), (110, 110, 116)
GAP, BAR = 6, 22
SIDE = 1280
"""Longer side of an overlay of predictions in pixels, at most."""
Size = tuple[int, int]
Key = tuple[str, tuple[int, int, int]]


def _heat(image: np.ndarray, maps: np.ndarray, full: Size) -> np.ndarray:
    highest = np.nan_to_num(maps).max(0, initial=0).astype(np.float32)
    return overlays.heat_over(image, overlays.resized(highest, _size_of(image)))


def _boundary(image: np.ndarray, boundary: np.ndarray, full: Size) -> np.ndarray:
    return overlays.boundary_map(scaled(boundary, full, _size_of(image)))


def _displacement(image: np.ndarray, displacement: np.ndarray, full: Size) -> np.ndarray:
    return displacement_panel(displacement, full, _size_of(image))


def _components(image: np.ndarray, components: np.ndarray, full: Size) -> np.ndarray:
    return overlays.resized(components[: full[0], : full[1]], _size_of(image))


def _labels(image: np.ndarray, labels: np.ndarray, full: Size) -> np.ndarray:
    return overlays.labels_over(image, overlays.resized_ids(labels, _size_of(image)))


def _instances(image: np.ndarray, ids: np.ndarray, full: Size) -> np.ndarray:
    return overlays.instances_over(image, overlays.resized_ids(ids, _size_of(image)))


COLUMNS: Mapping[str, Callable[[np.ndarray, np.ndarray, Size], np.ndarray]] = {
    "segments": _instances,
    "hints": _labels,
    "evidence": _heat,
    "features": _components,
    "cams": _heat,
    "seeds": _labels,
    "boundary": _boundary,
    "displacement": _displacement,
    "walk": _heat,
    "labels": _labels,
    "instances": _instances,
    "predictions": _labels,
    "predicted instances": _instances,
    "ground truth": _labels,
    "ground-truth instances": _instances,
}
"""Title of a panel -> what draws an array over a small image; in the order of the pipeline."""


def panels(image: np.ndarray, arrays: Mapping[str, np.ndarray], side: int) -> dict[str, np.ndarray]:
    """Draw the panels of one image.

    Args:
        image: uint8 [H,W,3].
        arrays: title in COLUMNS -> class maps float [K,H,W] (the highest of all classes is drawn),
            boundary float [h,w], displacement float [2,h,w] in cells, label maps uint8 [H,W] or
            instance ids uint16 [H,W], or colors uint8 of at least [H,W,3].
        side: longer side of a panel in pixels.

    Returns:
        Title -> uint8 [h',w',3], all of one size: the image first, then in the order of COLUMNS.
    """
    full = _size_of(image)
    small = overlays.resized(image, fitted(full, side))
    drawn = {
        title: COLUMNS[title](small, arrays[title], full) for title in COLUMNS if title in arrays
    }
    return {"image": small, **drawn}


def _size_of(image: np.ndarray) -> Size:
    return image.shape[0], image.shape[1]


def displacement_panel(displacement: np.ndarray, full: Size, size: Size) -> np.ndarray:
    """Draw the displacement [2,h,w] of an image of size `full` at `size`, with a color wheel."""
    field = np.stack([scaled(component, full, size) for component in displacement])
    panel = overlays.displacement_map(field, overlays.reach(displacement))
    wheel = overlays.color_wheel(min(36, *size))
    axis = (2 * np.arange(len(wheel)) + 1) / len(wheel) - 1
    corner = panel[-len(wheel) :, -len(wheel) :]
    corner[np.hypot(*np.meshgrid(axis, axis)) < 1] = wheel[np.hypot(*np.meshgrid(axis, axis)) < 1]
    return panel


def fitted(size: Sequence[int], side: int) -> Size:
    """Return (height, width) of the same aspect ratio whose longer side is `side`, at least 1."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scaled(grid: np.ndarray, full: Size, size: Size) -> np.ndarray:
    """Resize a stride-4 grid [h,w], upsampled to the image as it is scored; NaN becomes 0."""
    return overlays.resized(upsample(np.nan_to_num(grid)[None], full)[0], size)


def legend(labels: Sequence[np.ndarray], classes: Sequence[str]) -> list[Key]:
    """Return (name, color) of the labels in any of the label maps, in order; unknown ones too."""
    found = sorted({int(v) for one in labels for v in np.unique(one)} - {0, overlays.IGNORE})
    colors = overlays.palette(overlays.IGNORE)
    names = [classes[v - 1] if v <= len(classes) else f"unknown label {v}" for v in found]
    return [(name, tuple(colors[v - 1].tolist())) for name, v in zip(names, found, strict=True)]


def contact_sheet(
    rows: Mapping[str, Mapping[str, np.ndarray]], keys: Sequence[Sequence[Key]] = ()
) -> np.ndarray:
    """Draw one row per image under common headings; a missing panel is gray.

    rows: id -> title -> uint8 [h,w,3] (see `panels`), at least one; keys: (name, color) pairs
    written next to each id (see `legend`). Returns uint8 RGB.
    """
    titles = {title for row in rows.values() for title in row}
    order = [title for title in ("image", *COLUMNS) if title in titles]
    return sheet(
        [[row.get(title) for title in order] for row in rows.values()], list(rows), order, keys
    )


def sheet(
    rows: Sequence[Sequence[np.ndarray | None]],
    captions: Sequence[str],
    headings: Sequence[str] = (),
    keys: Sequence[Sequence[Key]] = (),
) -> np.ndarray:
    """Draw a grid of panels with a caption bar above each row and headings above the columns.

    rows: lists of uint8 [h,w,3] or None; captions: one per row ("" for none); headings: one per
    column; keys: colored names after each caption. Panels are centered, never scaled.
    """
    widths = [
        max(1 if panel is None else panel.shape[1] for panel in column)
        for column in zip_longest(*rows)
    ]
    total = sum(widths) + GAP * (len(widths) + 1)
    parts = [_headings(headings, widths, total)] if headings else []
    for number, (row, text) in enumerate(zip(rows, captions, strict=True)):
        names = keys[number] if keys else ()
        if text or names:
            parts.append(caption_bar(text, total, names))
        parts.append(_row(row, widths, total))
    return np.concatenate([*parts, _blank(GAP, total)])


def captioned(panel: np.ndarray, text: str) -> np.ndarray:
    """Put a caption bar on top of a panel, uint8 [h+22,w,3]."""
    return np.concatenate([caption_bar(text, panel.shape[1]), panel])


def caption_bar(text: str, width: int, keys: Sequence[Key] = ()) -> np.ndarray:
    """Draw a bar of text and colored names, uint8 [22,width,3]; an ellipsis ends a long text."""
    bar = _blank(BAR, width)
    x = GAP
    for part, color in [*([(text, None)] if text else []), *keys]:
        if color is not None and x + 12 < width:
            cv2.rectangle(bar, (x, 6), (x + 9, 15), color, -1, cv2.LINE_AA)
            x += 14
        fitting = _cut(part, width - x - 2)
        bar = overlays.write(bar, fitting, (x, BAR // 2), 12, overlays.INK)
        x += overlays.text_width(fitting, 12) + 14
    return bar


def key_bars(keys: Sequence[Key], width: int) -> np.ndarray:
    """Draw colored names in as many bars as they need, uint8 [22n,width,3]."""
    rows: list[list[Key]] = []
    used = width
    for key in keys:
        length = overlays.text_width(key[0], 12) + 28
        if used + length > width:
            rows.append([])
            used = GAP
        rows[-1].append(key)
        used += length
    return np.concatenate([_blank(0, width), *(caption_bar("", width, row) for row in rows)])


def png(image: np.ndarray, compression: int = 6) -> bytes:
    """Encode a uint8 RGB or RGBA image as PNG; equal pixels give equal bytes."""
    return _encoded(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, compression])


def jpeg(image: np.ndarray) -> bytes:
    """Encode a uint8 RGB image as JPEG; equal pixels give equal bytes."""
    return _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])


def _encoded(suffix: str, image: np.ndarray, options: Sequence[int]) -> bytes:
    swapped = np.ascontiguousarray(image[..., [2, 1, 0, *range(3, image.shape[2])]])
    return cv2.imencode(suffix, swapped, options)[1].tobytes()


def _blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), PAGE, np.uint8)


def _headings(headings: Sequence[str], widths: Sequence[int], total: int) -> np.ndarray:
    bar, x = _blank(BAR, total), GAP
    for text, width in zip(headings, widths, strict=True):
        middle = x + width // 2, BAR // 2 + 2
        bar = overlays.write(bar, _cut(text, width), middle, 12, MUTED, "mm")
        x += width + GAP
    return bar


def _row(row: Sequence[np.ndarray | None], widths: Sequence[int], total: int) -> np.ndarray:
    height = max([panel.shape[0] for panel in row if panel is not None] or [BAR])
    strip, x = _blank(height, total), GAP
    for panel, width in zip(row, widths, strict=False):
        if panel is None:
            strip[:, x : x + width] = MISSING
        else:
            h, w = panel.shape[:2]
            top, left = (height - h) // 2, x + (width - w) // 2
            strip[top : top + h, left : left + w] = panel
        x += width + GAP
    return strip


def _cut(text: str, width: int) -> str:
    """Return the text, shortened with an ellipsis if it does not fit."""
    if overlays.text_width(text, 12) <= width:
        return text
    while text and overlays.text_width(text + "…", 12) > width:
        text = text[:-1]
    return text + "…" if text else ""


def labeled(image: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Draw a label map uint8 [H,W] over its image uint8 [H,W,3], with the legend below."""
    size = _overlay_size(image)
    small = overlays.resized_ids(labels, size)
    drawn = overlays.labels_over(overlays.resized(image, size), small)
    return _with_key(drawn, legend([small], classes))


def found(
    image: np.ndarray,
    masks: np.ndarray,
    numbers: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
) -> np.ndarray:
    """Draw instances over their image uint8 [H,W,3], the highest score in front.

    masks: bool [N,H,W]; numbers: class ids [N]; scores: [N]. The legend below names number, class
    and score of each instance that is visible.
    """
    size = _overlay_size(image)
    ids = overlays.resized_ids(exclusive(masks, scores), size)
    drawn = overlays.instances_over(overlays.resized(image, size), ids)
    colors = overlays.instance_palette(len(masks))
    keys = [
        (f"{n} {classes[numbers[n - 1]]} {scores[n - 1]:.2f}", tuple(colors[n - 1].tolist()))
        for n in np.unique(ids[ids > 0]).tolist()
    ]
    return _with_key(drawn, keys)


def _overlay_size(image: np.ndarray) -> Size:
    return fitted(image.shape[:2], min(SIDE, max(image.shape[:2])))


def _with_key(drawn: np.ndarray, keys: Sequence[Key]) -> np.ndarray:
    return np.concatenate([drawn, key_bars(keys, drawn.shape[1])])
