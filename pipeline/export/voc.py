"""PASCAL VOC: palette PNGs of classes and of objects, lists of the splits, and CVAT's labelmap.txt.

Everingham et al., The PASCAL Visual Object Classes Challenge 2012, development kit. The format
loses scores, occluded parts of instances, and the class of an instance that differs from the
semantic map (readers take it from SegmentationClass).
"""

from collections import defaultdict
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from pipeline.core.artifacts import IGNORE
from pipeline.core.resume import write_atomically
from pipeline.data.instance_masks import exclusive
from pipeline.errors import UserError
from pipeline.export.images import ExportImage, ExportImages, Summary, Target

RESERVED = ("background", "ignored")
"""Labels 0 and 255 in labelmap.txt."""


def export(images: ExportImages, target: Target) -> Summary:
    """Write SegmentationClass, SegmentationObject, labelmap.txt and ImageSets/Segmentation.

    Subfolders in names are preserved; the lists are written last. Raises UserError for names of
    images or classes that the format cannot represent, and for more than 254 instances.
    """
    labelmap = format_labelmap(target.classes)
    summary, lists = Summary(), defaultdict[str, list[str]](list)
    hidden = mislabeled = 0
    for image in images:
        classes, objects = image.semantic, object_map(image)
        for folder, values in (("SegmentationClass", classes), ("SegmentationObject", objects)):
            write_atomically(target.folder / folder / f"{image.name}.png", palette_png(values))
        suffix = target.files[image.name].suffix
        target.place(image.name, f"JPEGImages/{image.name}{suffix}")
        lists[target.splits[image.name]].append(image.name)
        losses = _count_lost(image, classes, objects)
        hidden, mislabeled = hidden + losses[0], mislabeled + losses[1]
        summary.instances += len(image.masks) - losses[0]
    for split, names in lists.items():
        text = "".join(f"{name}\n" for name in names)
        write_atomically(target.folder / f"ImageSets/Segmentation/{split}.txt", text.encode())
    write_atomically(target.folder / "labelmap.txt", labelmap.encode())
    if hidden:
        summary.lost.append(f"instances wholly behind others: {hidden}")
    if mislabeled:
        summary.lost.append(f"instances mostly on another class of the semantic map: {mislabeled}")
    return summary


def object_map(image: ExportImage) -> np.ndarray:
    """Return the map of objects uint8 [H,W] of an image: 0 background, n + 1 mask n, 255 void.

    Where masks overlap, the highest score is in front. Raises UserError for more than 254
    instances.
    """
    if len(image.masks) >= IGNORE:
        raise UserError(
            f"{image.name!r} has {len(image.masks)} instances, VOC allows {IGNORE - 1}; "
            f"raise --min-score, or use --format coco"
        )
    ids = exclusive(image.masks, image.scores).astype(np.uint8)
    void = (image.semantic == IGNORE) & (ids == 0)
    return np.where(void, IGNORE, ids).astype(np.uint8)


def palette_png(values: np.ndarray) -> bytes:
    """Encode values uint8 [H,W] as a PNG with VOC's palette."""
    image, data = Image.fromarray(values), BytesIO()
    image.putpalette(color_map().tobytes())
    image.save(data, "PNG")
    return data.getvalue()


def color_map() -> np.ndarray:
    """Return VOC's palette, uint8 [256,3].

    Bits 3k, 3k + 1 and 3k + 2 of a value are bit 7 - k of red, green and blue.
    """
    values = np.arange(256)[:, None]
    colors = np.zeros((256, 3), np.uint8)
    for k in range(3):
        colors |= ((values >> (3 * k + np.arange(3)) & 1) << (7 - k)).astype(np.uint8)
    return colors


def format_labelmap(classes: Sequence[str]) -> str:
    """Return labelmap.txt: a line `name:r,g,b:parts:actions` per label, 0 first, 255 last.

    Raises UserError for a class name that the file cannot represent.
    """
    for name in classes:
        padded = name != name.strip()
        if name in RESERVED or name.startswith("#") or padded or set(name) & set(":\n\r"):
            raise UserError(
                f"class {name!r}: labelmap.txt allows no `:`, no leading `#` or blank, and keeps "
                f"{' and '.join(RESERVED)}; rename the class, or use --format coco"
            )
    colors = color_map()
    labels = {0: RESERVED[0], **dict(enumerate(classes, start=1)), IGNORE: RESERVED[1]}
    lines = [f"{name}:{','.join(map(str, colors[c]))}::\n" for c, name in labels.items()]
    return "# label:color_rgb:parts:actions\n" + "".join(lines)


def _count_lost(image: ExportImage, classes: np.ndarray, objects: np.ndarray) -> tuple[int, int]:
    """Count instances that are fully hidden, and those mostly on another class."""
    count = len(image.masks)
    inside = (objects > 0) & (objects != IGNORE)
    pairs = objects[inside].astype(np.intp) * 256 + classes[inside]
    votes = np.bincount(pairs, minlength=(count + 1) * 256).reshape(-1, 256)[1:]
    hidden = votes.sum(1) == 0
    mislabeled = (votes.argmax(1) != image.classes.astype(int) + 1) & ~hidden
    return int(hidden.sum()), int(mislabeled.sum())
