"""Comparison of masks with tags over a whole source: what no single image gives away.

A wrong numbering of the classes, or objects saved as 255, leaves every file valid and every score
wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.core.artifacts import IGNORE
from pipeline.data.images import Problem, error, warning


@dataclass(frozen=True, slots=True)
class Shown:
    """What one image is tagged with and what its mask shows, as labels 1.. (and 255 for ignore)."""

    mask: str
    tags: frozenset[int]
    labels: frozenset[int]


def check_agreement(root: Path, images: Sequence[Shown], names: Mapping[int, str]) -> list[Problem]:
    """Report masks that contradict the tags: by a pattern that explains them, else one by one.

    names: label -> class name.
    """
    tagged = [image for image in images if image.tags]
    differing = [image for image in images if image.labels - {IGNORE} != image.tags]
    if not differing or not tagged:
        return []
    where = f"{root}, {len(images)} masks"
    only_void = [image for image in tagged if image.labels == {IGNORE}]
    if only_void and not any(image.labels - {IGNORE} for image in images):
        what = f"255 is the only value besides 0 ({len(only_void)} masks of tagged images)"
        own = ", ".join(f"{label} for {name}" for label, name in list(names.items())[:3])
        do = f"255 means pixels to ignore: save {own}{' and so on' if len(names) > 3 else ''}"
        return [error(where, what, do)]
    shifted = [frozenset(v + 1 for v in i.labels - {IGNORE}) for i in images]
    contradicted = any(image.labels - image.tags - {IGNORE} for image in images)
    if contradicted and all(
        i.tags - {1} <= s <= i.tags for i, s in zip(images, shifted, strict=True)
    ):
        what = f"the values begin with 0 for {names[1]}"
        return [error(where, what, "add 1 to all values: 0 is the background")]
    return _check_order(where, images, names) or [
        _contradiction(root, image, names) for image in differing
    ]


def _contradiction(root: Path, image: Shown, names: Mapping[int, str]) -> Problem:
    """Describe how the mask of one image contradicts its tags."""
    extra, missing = image.labels - image.tags - {IGNORE}, image.tags - image.labels
    parts = [
        f"{verb} {', '.join(names[label] for label in sorted(labels))}"
        for verb, labels in (("shows", extra), ("lacks", missing))
        if labels
    ]
    what = f"the mask {' and '.join(parts)}, against the tags"
    do = "correct the tags, the mask, or the order of the classes"
    if image.labels == {IGNORE}:
        do = "255 means pixels to ignore: save the number of the class"
    return warning(root / image.mask, what, do)


def _check_order(where: str, images: Sequence[Shown], names: Mapping[int, str]) -> list[Problem]:
    """Report another numbering of the classes that makes masks and tags agree.

    It is an error where the masks of most images contradict the tags as they are.
    """
    count = max(names) + 1
    together = np.zeros((count, count))
    labels = [image.labels - {IGNORE} for image in images]
    for shown, image in zip(labels, images, strict=True):
        for value in shown:  # a class that is tagged with the value speaks for it, others against
            together[value] -= 1
            together[value, list(image.tags)] += 2
    rows, columns = linear_sum_assignment(together[1:, 1:], maximize=True)
    order = {int(row) + 1: int(column) + 1 for row, column in zip(rows, columns, strict=True)}
    explained = sum({order[v] for v in s} == i.tags for s, i in zip(labels, images, strict=True))
    agreeing = sum(s == i.tags for s, i in zip(labels, images, strict=True))
    mostly_wrong = 2 * agreeing < len(images)
    if explained <= agreeing or explained < (0.9 if mostly_wrong else 1) * len(images):
        return []
    found = ", ".join(f"{v} is {names[order[v]]}" for v in sorted(frozenset().union(*labels)))
    what = f"the values follow another order than the list of classes: {found}"
    do = "list the classes in that order in classes.txt"
    return [(error if mostly_wrong else warning)(where, what, do)]
