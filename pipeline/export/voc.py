"""PASCAL VOC: palette PNGs of classes and of objects, lists of the splits, and CVAT's labelmap.txt.

Everingham et al., The PASCAL Visual Object Classes Challenge 2012, development kit. Lost: scores, what lies behind another instance,
and the class of an instance where the semantic map says another one (readers take it from SegmentationClass).
"""

from collections import defaultdict
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from pipeline.export.files import place, write
from pipeline.export.pictures import ExportError, Picture, Pictures, Summary, Target, check_names
from pipeline.instances.masks import exclusive
from pipeline.label_map import IGNORE

RESERVED = ("background", "ignored")
"""Names of the labels 0 and 255 in labelmap.txt."""


def export(pictures: Pictures, target: Target) -> Summary:
    """Write SegmentationClass, SegmentationObject, ImageSets/Segmentation/<split>.txt and labelmap.txt, the lists last.

    Sub-folders in names stay. Raises ExportError for names of pictures or classes that the format cannot hold, and for a picture of
    more than 254 instances.
    """
    check_names(pictures.names)
    labelmap = label_map(target.classes)
    summary, lists = Summary(), defaultdict[str, list[str]](list)
    hidden = astray = 0
    for picture in pictures:
        classes, objects = maps(picture)
        for folder, values in (("SegmentationClass", classes), ("SegmentationObject", objects)):
            write(target.folder / folder / f"{picture.name}.png", palette_png(values))
        source = target.files[picture.name]
        place(source, target.folder / "JPEGImages" / f"{picture.name}{source.suffix}", target.images)
        lists[target.splits[picture.name]].append(picture.name)
        behind, other = _lost(picture, classes, objects)
        hidden, astray = hidden + behind, astray + other
        summary.pictures += 1
        summary.instances += len(picture.masks) - behind
    for split, names in lists.items():
        text = "".join(f"{name}\n" for name in names)
        write(target.folder / "ImageSets" / "Segmentation" / f"{split}.txt", text.encode())
    write(target.folder / "labelmap.txt", labelmap.encode())
    if hidden:
        summary.lost.append(f"instances wholly behind others: {hidden}")
    if astray:
        summary.lost.append(f"instances mostly on another class of the semantic map: {astray}")
    return summary


def maps(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Class and object maps uint8 [H,W] of a picture, 0 background, 255 void.

    Object n + 1 is mask n; of masks that overlap the highest score is in front. The class map is the semantic map, or painted from
    the masks where there is none. Raises ExportError for more than 254 instances.
    """
    if len(picture.masks) >= IGNORE:
        raise ExportError(
            f"{picture.name!r} has {len(picture.masks)} instances, VOC holds {IGNORE - 1}; "
            f"raise --min-score, or use --format coco"
        )
    ids = exclusive(picture.masks, picture.scores).astype(np.uint8)
    if picture.semantic is None:
        return np.r_[0, picture.classes + 1].astype(np.uint8)[ids], ids
    void = (picture.semantic == IGNORE) & (ids == 0)
    return picture.semantic, np.where(void, IGNORE, ids).astype(np.uint8)


def palette_png(values: np.ndarray) -> bytes:
    """A PNG of values uint8 [H,W] with the colours of VOC."""
    image, data = Image.fromarray(values), BytesIO()
    image.putpalette(colour_map().tobytes())
    image.save(data, "PNG")
    return data.getvalue()


def colour_map() -> np.ndarray:
    """The colours of VOC, uint8 [256,3]: bits 3k, 3k + 1 and 3k + 2 of a value are bit 7 - k of red, green and blue."""
    values = np.arange(256)[:, None]
    colours = np.zeros((256, 3), np.uint8)
    for k in range(3):
        colours |= ((values >> (3 * k + np.arange(3)) & 1) << (7 - k)).astype(np.uint8)
    return colours


def label_map(classes: Sequence[str]) -> str:
    """labelmap.txt: a line `name:r,g,b:parts:actions` per label, `background` first, `ignored` for 255; raises ExportError."""
    for name in classes:
        if name in RESERVED or name.startswith("#") or name != name.strip() or set(name) & set(":\n\r"):
            raise ExportError(
                f"class {name!r}: labelmap.txt takes no `:`, no `#` or blank in front, and keeps {' and '.join(RESERVED)} "
                f"for itself; rename the class, or use --format coco"
            )
    colours = colour_map()
    labels = [(RESERVED[0], 0), *((name, c + 1) for c, name in enumerate(classes)), (RESERVED[1], IGNORE)]
    lines = [f"{name}:{','.join(map(str, colours[label]))}::\n" for name, label in labels]
    return "# label:color_rgb:parts:actions\n" + "".join(lines)


def _lost(picture: Picture, classes: np.ndarray, objects: np.ndarray) -> tuple[int, int]:
    """How many instances have no pixel left, and of how many the commonest label in the class map is another class."""
    count = len(picture.masks)
    inside = (objects > 0) & (objects != IGNORE)
    pairs = objects[inside].astype(np.intp) * 256 + classes[inside]
    votes = np.bincount(pairs, minlength=(count + 1) * 256).reshape(-1, 256)[1:]
    hidden = votes.sum(1) == 0
    return int(hidden.sum()), int(((votes.argmax(1) != picture.classes.astype(int) + 1) & ~hidden).sum())
