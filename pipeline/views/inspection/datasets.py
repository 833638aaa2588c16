"""What a dataset holds, in words and as an image with its truth."""

from collections import Counter

import numpy as np

from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.views import sheets
from pipeline.views.inspection.words import SHOWN


def describe_index(index: Index) -> list[str]:
    """Lines of text on a dataset: images by split, sizes, masks, and how many images have each
    class.
    """
    splits = Counter(image.split for image in index.values())
    tags = Counter(tag for image in index.values() for tag in image.tags)
    sides = sorted({(image.height, image.width) for image in index.values()})
    masks = sum(index.has_masks(name) for name in index)
    instances = sum(index.has_instances(name) for name in index)
    lines = [
        f"dataset: {len(index)} images, "
        + ", ".join(f"{n} {split}" for split, n in sorted(splits.items())),
        f"sizes: {len(sides)} different, {sides[0]} to {sides[-1]} (height, width)"
        if sides
        else "sizes: none",
        f"masks: {masks} semantic, {instances} with instances",
        *(f"  {name}: {tags[number]} images" for number, name in enumerate(index.classes)),
    ]
    untagged = [name for name, image in index.items() if not image.tags]
    return (
        [*lines, f"odd: {len(untagged)} images without tags: {', '.join(untagged[:SHOWN])}"]
        if untagged
        else lines
    )


def draw_image(index: Index, name: str, side: int = 360) -> np.ndarray:
    """One sheet of an image and its truth, where it has any, uint8 RGB; side: the longer side of a
    panel in pixels.
    """
    truth = read_semantic(index, name) if index.has_masks(name) else None
    instances = read_instances(index, name)[0] if index.has_instances(name) else None
    drawn = sheets.panels(index.image(name), truth=truth, true_instances=instances, side=side)
    row = [sheets.captioned(panel, title) for title, panel in drawn.items()]
    tags = sheets.legend([np.array(index[name].tags, np.uint8) + np.uint8(1)], index.classes)
    return sheets.sheet([row], [f"{name}, {index[name].split}"], keys=[tags])
