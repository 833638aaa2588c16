"""What an artifact holds and what is odd about it, in words."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Protocol

import numpy as np

from pipeline.core.artifacts import ArtifactError
from pipeline.views.inspection.facts import CLASSLESS, FACTS, Facts, Item
from pipeline.views.inspection.words import SHOWN, count, known, listed


class Artifact(Protocol):
    """What is needed of a reader: a mapping of image id to arrays that knows its format and
    classes.
    """

    @property
    def format(self) -> str:
        """What it holds: a key of store.LAYOUTS."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Names by class id."""
        ...

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...
    def __getitem__(self, name: str, /) -> Item: ...


def describe(reader: Artifact) -> list[str]:
    """Lines of text: kind and number of images, sizes, ranges of values, classes, and oddities with
    names.

    Reads each image once; memory does not grow with their number. Raises ValueError for an unknown
    format.
    """
    look = known(FACTS, reader.format)
    ranges: dict[str, tuple[float, float]] = {}
    pixels, classes = Counter[str](), Counter[int]()
    odd: dict[str, list[str]] = {}
    odd_count = Counter[str]()
    for name in reader:
        facts = _facts(look, reader, name)
        for key, values in facts.values.items():
            finite = values[np.isfinite(values)].astype(np.float64)
            low, high = ranges.get(key, (inf, -inf))
            ranges[key] = (
                float(min(low, finite.min(initial=inf))),
                float(max(high, finite.max(initial=-inf))),
            )
        pixels.update(facts.pixels)
        classes.update(facts.classes)
        for oddity in facts.oddities:
            odd_count[oddity] += 1
            if odd_count[oddity] <= SHOWN:
                odd.setdefault(oddity, []).append(name)
    size = f"{count(len(reader), 'image')}, {count(len(reader.classes), 'class', 'classes')}"
    lines = [f"{reader.format}: {size}"]
    if not len(reader):
        return [*lines, "odd: no images at all"]
    lines += [
        f"{key}: {low:.4g} to {high:.4g}" for key, (low, high) in ranges.items() if low <= high
    ]
    whole = sum(pixels.values())
    if whole:
        lines.append(
            "pixels: " + ", ".join(f"{100 * n / whole:.1f} % {kind}" for kind, n in pixels.items())
        )
    if reader.format not in CLASSLESS:
        lines += _class_lines(classes, reader.classes)
    for oddity in sorted(odd, key=lambda key: (-odd_count[key], key)):
        named = listed(odd[oddity], odd_count[oddity])
        lines.append(f"odd: {oddity} in {count(odd_count[oddity], 'image')}: {named}")
    return lines if odd else [*lines, "nothing odd"]


def _facts(look: Callable[[Item, int], Facts], reader: Artifact, name: str) -> Facts:
    """The facts of an image; one that cannot be read is odd, and the others are looked at all the
    same.
    """
    try:
        return look(reader[name], len(reader.classes))
    except ArtifactError:
        return Facts({}, oddities=["damaged data that cannot be read"])


def _class_lines(found: Counter[int], classes: Sequence[str]) -> list[str]:
    there = [f"{name} {found[c]}" for c, name in enumerate(classes) if found[c]]
    never = [name for c, name in enumerate(classes) if not found[c]]
    lines = [f"images by class: {', '.join(there) or 'none'}"]
    return [*lines, f"classes in no image: {', '.join(never)}"] if never else lines
