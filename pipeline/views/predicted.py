"""What a model says of a picture, drawn over it, with the names of what it found below."""

from collections.abc import Sequence

import numpy as np

from pipeline.instances.masks import exclusive
from pipeline.views import overlays, sheets

SIDE = 1280
"""The longer side of the drawn picture in pixels, at most."""


def labelled(image: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Label map uint8 [H,W] over its picture uint8 [H,W,3] with a key of its classes; uint8 [h,w,3], the key below the picture."""
    size = _size(image)
    small = overlays.resized_ids(labels, size)
    drawn = overlays.labels_over(overlays.resized(image, size), small)
    return _with_key(drawn, sheets.legend([small], classes))


def found(
    image: np.ndarray, masks: np.ndarray, numbers: np.ndarray, scores: np.ndarray, classes: Sequence[str]
) -> np.ndarray:
    """Instances over their picture uint8 [H,W,3], the surest in front, with a key of number, class and score.

    masks: bool [N,H,W]; numbers: class ids [N]; scores: [N]. Returns uint8 [h,w,3], the key below the picture; what lies wholly
    behind others is in neither.
    """
    size = _size(image)
    ids = overlays.resized_ids(exclusive(masks, scores), size)
    drawn = overlays.instances_over(overlays.resized(image, size), ids)
    colours = overlays.instance_palette(len(masks))
    keys = [
        (f"{n} {classes[numbers[n - 1]]} {scores[n - 1]:.2f}", tuple(colours[n - 1].tolist()))
        for n in np.unique(ids[ids > 0]).tolist()
    ]
    return _with_key(drawn, keys)


def _size(image: np.ndarray) -> tuple[int, int]:
    return sheets.fitted(image.shape[:2], min(SIDE, max(image.shape[:2])))


def _with_key(drawn: np.ndarray, keys: Sequence[sheets.Key]) -> np.ndarray:
    return np.concatenate([drawn, sheets.key_bars(keys, drawn.shape[1])])
