"""How far two results of a graph agree."""

from collections.abc import Sequence

import numpy as np

Results = Sequence[np.ndarray]


def of_labels(ours: Results, theirs: Results) -> float:
    """IoU of two label maps [B,H,W], the first of the results, all labels taken together; 1 for
    equal ones.
    """
    same = int((ours[0] == theirs[0]).sum())
    return same / (2 * ours[0].size - same)


def of_instances(ours: Results, theirs: Results) -> float:
    """IoU of masks bool [M,H,W], the last of images [M], classes [M], scores [M] and masks; 1 for
    equal ones, and where none are.

    How often each pixel is covered counts, image by image and class by class: no order of the
    instances matters, and the smaller of two counts is what both sides have in common.
    """
    one, two = _layers(ours), _layers(theirs)
    nothing = np.zeros(ours[3].shape[1:], np.int32)
    pairs = [
        (one.get(place, nothing), two.get(place, nothing)) for place in one.keys() | two.keys()
    ]
    union = sum(int(np.maximum(*pair).sum()) for pair in pairs)
    return sum(int(np.minimum(*pair).sum()) for pair in pairs) / union if union else 1.0


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference of two arrays; infinite where their shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max(initial=0))


def _layers(results: Results) -> dict[tuple[int, int], np.ndarray]:
    """By (image, class): how many masks cover each pixel, int32 [H,W]."""
    layers: dict[tuple[int, int], np.ndarray] = {}
    for image, number, mask in zip(
        results[0].tolist(), results[1].tolist(), results[3], strict=True
    ):
        place = image, number
        layers[place] = layers[place] + mask if place in layers else mask.astype(np.int32)
    return layers
