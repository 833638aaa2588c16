"""Contact sheets: one row per image, one column per step of the pipeline."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import cv2
import numpy as np

from pipeline.instances.base import exclusive
from pipeline.views import overlays

PAGE, MISSING, MUTED = (242, 242, 240), (226, 226, 224), (110, 110, 116)
GAP, BAR = 6, 22
Key = tuple[str, tuple[int, int, int]]
COLUMNS = (
    "image",
    "CAM",
    "seeds",
    "boundary",
    "displacement",
    "pseudo-label",
    "instances",
    "prediction",
    "predicted instances",
    "truth",
    "true instances",
)


def panels(
    image: np.ndarray,
    *,
    cams: np.ndarray | None = None,
    seeds: np.ndarray | None = None,
    boundary: np.ndarray | None = None,
    displacement: np.ndarray | None = None,
    pseudo_label: np.ndarray | None = None,
    instances: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    predicted_instances: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    true_instances: np.ndarray | None = None,
    side: int = 240,
) -> dict[str, np.ndarray]:
    """The panels of one image that can be drawn from what is given, in the order of `COLUMNS`.

    image: uint8 [H,W,3]; cams: float [K,h,w] (the highest of all classes is shown); boundary: float
    [h,w]; displacement: float [2,h,w] in cells; label maps uint8 [H,W]; id maps uint16 [H,W]; side:
    the longer side of a panel in pixels. Returns title -> uint8 [h',w',3], all of one size.
    """
    size, full = fitted(image.shape[:2], side), (image.shape[0], image.shape[1])
    small = overlays.resized(image, size)
    drawn = {"image": small}
    if cams is not None:
        highest = cams.max(0, initial=0).astype(np.float32)
        drawn["CAM"] = overlays.heat_over(small, scaled(highest, full, size))
    if boundary is not None:
        drawn["boundary"] = overlays.boundary_map(scaled(boundary, full, size))
    if displacement is not None:
        drawn["displacement"] = displacement_panel(displacement, full, size)
    label_maps = {
        "seeds": seeds,
        "pseudo-label": pseudo_label,
        "prediction": prediction,
        "truth": truth,
    }
    for title, labels in label_maps.items():
        if labels is not None:
            drawn[title] = overlays.labels_over(small, overlays.resized_ids(labels, size))
    id_maps = {
        "instances": instances,
        "predicted instances": predicted_instances,
        "true instances": true_instances,
    }
    for title, ids in id_maps.items():
        if ids is not None:
            drawn[title] = overlays.instances_over(small, overlays.resized_ids(ids, size))
    return {title: drawn[title] for title in COLUMNS if title in drawn}


def displacement_panel(
    displacement: np.ndarray, full: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Displacement [2,h,w] of an image of size `full`, drawn at `size` with its color wheel in a
    corner.
    """
    field = np.stack([scaled(component, full, size) for component in displacement])
    panel = overlays.displacement_map(field, overlays.reach(displacement))
    wheel = overlays.color_wheel(min(36, *size))
    axis = (2 * np.arange(len(wheel)) + 1) / len(wheel) - 1
    corner = panel[-len(wheel) :, -len(wheel) :]
    corner[np.hypot(*np.meshgrid(axis, axis)) < 1] = wheel[np.hypot(*np.meshgrid(axis, axis)) < 1]
    return panel


def fitted(size: Sequence[int], side: int) -> tuple[int, int]:
    """(height, width) with the same shape and the longer side `side`, at least one pixel each."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scaled(grid: np.ndarray, full: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Stride-4 grid [h,w] at any size, by way of the pixels of the image; NaN becomes 0."""
    return scaled_map(overlays.upsampled(np.nan_to_num(grid.astype(np.float32)), full), size)


def scaled_map(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Map f4 [H,W] at size (height, width), by area when it shrinks."""
    shrinks = size[0] < values.shape[0]
    return cv2.resize(
        values, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def legend(labels: Sequence[np.ndarray], classes: Sequence[str]) -> list[Key]:
    """(name, color) of the classes in any of the label maps, by class id; labels without a name
    too.
    """
    there = sorted({int(v) for one in labels for v in np.unique(one)} - {0, overlays.IGNORE})
    colors = overlays.palette(overlays.IGNORE)
    names = [classes[v - 1] if v <= len(classes) else f"unknown label {v}" for v in there]
    return [(name, tuple(colors[v - 1].tolist())) for name, v in zip(names, there, strict=True)]


def contact_sheet(
    rows: Mapping[str, Mapping[str, np.ndarray]],
    keys: Mapping[str, Sequence[Key]] | None = None,
) -> np.ndarray:
    """One row per image under common headings; a panel that a row lacks is gray.

    rows: id -> title -> uint8 [h,w,3] (see `panels`); keys: id -> (name, color) pairs written
    beside the id (see `legend`). Returns uint8 RGB. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one image")
    titles = {title: None for row in rows.values() for title in row}
    order = [t for t in COLUMNS if t in titles] + [t for t in titles if t not in COLUMNS]
    grid = [[row.get(title) for title in order] for row in rows.values()]
    return sheet(grid, list(rows), order, [(keys or {}).get(name, ()) for name in rows])


def sheet(
    rows: Sequence[Sequence[np.ndarray | None]],
    captions: Sequence[str],
    headings: Sequence[str] = (),
    keys: Sequence[Sequence[Key]] = (),
) -> np.ndarray:
    """Grid of panels with a caption bar above every row and headings above the columns.

    rows: lists of uint8 [h,w,3] or None; captions: one a row ("" for none); headings: one a column;
    keys: colored names behind each caption. Panels are centerd in their cell and never scaled.
    """
    columns = max(len(row) for row in rows)
    widths = [1] * columns
    for row in rows:
        for column, panel in enumerate(row):
            widths[column] = max(widths[column], 0 if panel is None else panel.shape[1])
    total = sum(widths) + GAP * (columns + 1)
    parts = [_headings(headings, widths, total)] if headings else []
    for number, (row, text) in enumerate(zip(rows, captions, strict=True)):
        names = keys[number] if keys else ()
        if text or names:
            parts.append(caption_bar(text, total, names))
        parts.append(_row(row, widths, total))
    return np.concatenate([*parts, _blank(GAP, total)])


def captioned(panel: np.ndarray, text: str) -> np.ndarray:
    """Panel with a caption bar on top, uint8 [h+22,w,3]."""
    return np.concatenate([caption_bar(text, panel.shape[1]), panel])


def caption_bar(text: str, width: int, keys: Sequence[Key] = ()) -> np.ndarray:
    """Bar of text and colored names, uint8 [22,width,3]; what does not fit is cut with an ellipsis."""
    bar = _blank(BAR, width)
    x = GAP
    for part, color in [*([(text, None)] if text else []), *keys]:
        if color is not None and x + 12 < width:
            cv2.rectangle(bar, (x, 6), (x + 9, 15), color, -1, cv2.LINE_AA)
            x += 14
        shown = _cut(part, width - x - 2)
        bar = overlays.write(bar, shown, (x, BAR // 2), 12, overlays.INK)
        x += overlays.text_width(shown, 12) + 14
    return bar


def key_bars(keys: Sequence[Key], width: int) -> np.ndarray:
    """As many bars of colored names as they need below one another, uint8 [22n,width,3]; none for
    no names.
    """
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


def png(image: np.ndarray) -> bytes:
    """PNG file of a uint8 RGB image; the same bytes for the same pixels."""
    done, data = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not done:
        raise ValueError(
            f"cannot write {image.dtype} {image.shape} as PNG; it must be uint8 [H,W,3]"
        )
    return data.tobytes()


def jpeg(image: np.ndarray) -> bytes:
    """JPEG file of a uint8 RGB image; the same bytes for the same pixels."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not done:
        raise ValueError(
            f"cannot write {image.dtype} {image.shape} as JPEG; it must be uint8 [H,W,3]"
        )
    return data.tobytes()


def png_name(name: str) -> str:
    """File name of an image id: one file in one folder, different for different ids."""
    return f"{quote(name, safe=' ')}.png"


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
    """The longest beginning of the text that fits, with an ellipsis when it is not all of it."""
    if overlays.text_width(text, 12) <= width:
        return text
    while text and overlays.text_width(text + "…", 12) > width:
        text = text[:-1]
    return text + "…" if text else ""


SIDE = 1280
"""The longer side of the drawn image in pixels, at most."""


def labeled(image: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Label map uint8 [H,W] over its image uint8 [H,W,3] with a key of its classes; uint8 [h,w,3],
    the key below the image.
    """
    size = _size(image)
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
    """Instances over their image uint8 [H,W,3], the surest in front, with a key of number, class
    and score.

    masks: bool [N,H,W]; numbers: class ids [N]; scores: [N]. Returns uint8 [h,w,3], the key below
    the image; what lies wholly behind others is in neither.
    """
    size = _size(image)
    ids = overlays.resized_ids(exclusive(masks, scores), size)
    drawn = overlays.instances_over(overlays.resized(image, size), ids)
    colors = overlays.instance_palette(len(masks))
    keys = [
        (f"{n} {classes[numbers[n - 1]]} {scores[n - 1]:.2f}", tuple(colors[n - 1].tolist()))
        for n in np.unique(ids[ids > 0]).tolist()
    ]
    return _with_key(drawn, keys)


def _size(image: np.ndarray) -> tuple[int, int]:
    return fitted(image.shape[:2], min(SIDE, max(image.shape[:2])))


def _with_key(drawn: np.ndarray, keys: Sequence[Key]) -> np.ndarray:
    return np.concatenate([drawn, key_bars(keys, drawn.shape[1])])
