"""PASCAL VOC's layout: JPEGImages, ImageSets/Segmentation, SegmentationClass, SegmentationObject,
tags of three kinds.

Everingham et al., The PASCAL Visual Object Classes Challenge 2012, development kit.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree

from pipeline.data.problems import DatasetError, error
from pipeline.readers.folder import read_classes, read_labels, read_multihot, read_text, split_cell
from pipeline.readers.source import (
    OUTSIDE,
    Entry,
    Source,
    complain_of_id,
    find_images,
    identify,
    leaves,
    normalize,
    without_suffix,
)

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
LISTS = {"train": "train", "val": "val"}
IMAGES = "JPEGImages"
LISTED = "ImageSets/Segmentation"
SEMANTIC = ("SegmentationClass", "SegmentationClassAug")
INSTANCES = "SegmentationObject"
MAX_XML = 2**20

Tags = Callable[[str], frozenset[str] | None]


def read(root: Path, lists: Mapping[str, str] | None = None) -> Source:
    """Read the images of the lists (split -> name of ImageSets/Segmentation/<name>.txt; empty names
    do not count).

    A lone train list leaves the choice of held-out images to the share `val`. Tags come from
    labels.csv, else Annotations/*.xml (difficult objects count), else cls_labels.npy; classes from
    classes.txt, else VOC's 20. A mask in SegmentationClass, with its void borders, goes before one
    in SegmentationClassAug. Raises DatasetError where a file as a whole cannot be used.
    """
    if not (root / IMAGES).is_dir():
        inner = [
            folder.parent
            for folder in sorted(root.glob(f"*/{IMAGES}")) + sorted(root.glob(f"*/*/{IMAGES}"))
        ]
        do = (
            f"set dataset.source to {inner[0]}"
            if inner
            else "it must hold JPEGImages and ImageSets"
        )
        raise DatasetError(error(root, f"has no folder {IMAGES}", do))
    listed = root / "classes.txt"
    source = Source(root, read_classes(listed) if listed.is_file() else CLASSES)
    found, source.problems = find_images(root, IMAGES)
    wanted = {split: name for split, name in (lists or LISTS).items() if name}
    rows = [(split, *line) for split, name in wanted.items() for line in _read_list(source, name)]
    tags = _choose_tags(source, found, {name for _, name, _ in rows})
    for split, name, where in rows:
        fixed = None if list(wanted) == ["train"] else split
        source.entries.append(_entry(source, name, where, fixed, found, tags))
    return source


def _read_list(source: Source, name: str) -> list[tuple[str, str]]:
    """Id and place of every line of a list."""
    path = source.root / LISTED / f"{name}.txt"
    if leaves(source.root, f"{LISTED}/{name}.txt"):
        source.problems.append(error(path, OUTSIDE, "copy it into the folder, or take a hard link"))
        return []
    if not os.path.isfile(path):
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt"))) or "none"
        do = f"name another one, or none, in dataset.voc; lists there are: {there}"
        source.problems.append(error(path, "no such list", do))
        return []
    lines = enumerate(read_text(path).splitlines(), start=1)
    rows = [(_parse_line(line), f"{path}:{number}") for number, line in lines if line.strip()]
    if not rows:
        do = "name images in it, or leave its name in dataset.voc empty"
        source.problems.append(error(path, "lists no image", do))
    return rows


def _parse_line(line: str) -> str:
    """The id in a line, which some lists (DeepLab's train_aug) write as the paths of image and
    mask.
    """
    paths = re.match(
        rf"/?{IMAGES}/(.+?)\.(?:jpg|jpeg|png|webp)(?:\s|$)", line.strip(), re.IGNORECASE
    )
    return normalize(paths[1] if paths else line.strip())


def _entry(
    source: Source, name: str, where: str, split: str | None, found: Mapping[str, str], tags: Tags
) -> Entry:
    path = found.get(name, f"{IMAGES}/{name}.jpg")
    if complain_of_id(name) is not None:
        return Entry(name, path, where)
    file = without_suffix(path.removeprefix(f"{IMAGES}/")) + ".png"
    masks = [f"{folder}/{file}" for folder in (*SEMANTIC, INSTANCES)]
    there = [mask if os.path.lexists(source.root / mask) else None for mask in masks]
    semantic = there[0] or there[1]
    return Entry(name, path, where, tags(name), split, semantic, there[2] if semantic else None)


def _choose_tags(source: Source, found: Mapping[str, str], listed: set[str]) -> Tags:
    """Where the tags of an image come from."""
    table, folder, multihot = (
        source.root / name for name in ("labels.csv", "Annotations", "cls_labels.npy")
    )
    if table.is_file():
        return _from_table(table, source, found, listed).get
    if folder.is_dir():
        return lambda name: _from_annotation(folder / f"{name}.xml", source)
    if multihot.is_file():
        return read_multihot(multihot, source.classes).get
    what = "has no tags: neither labels.csv nor Annotations/ nor cls_labels.npy"
    source.problems.append(error(source.root, what, "add one of them"))
    return lambda name: frozenset()


def _from_table(
    path: Path, source: Source, found: Mapping[str, str], listed: set[str]
) -> dict[str, frozenset[str]]:
    tags: dict[str, frozenset[str]] = {}
    for row in read_labels(path):
        name = identify(row.image, IMAGES, found)
        if name in tags:
            source.problems.append(
                error(row.where, f"{name!r} has a row already", "keep one of the two")
            )
        elif name not in found and name not in listed:
            what = f"{name!r} is not in {IMAGES}"
            source.problems.append(error(row.where, what, "put the image there or delete the row"))
        tags[name] = source.admit(split_cell(row.cell, source.classes), row.where)
    return tags


def _from_annotation(path: Path, source: Source) -> frozenset[str] | None:
    try:
        names = read_objects(path)
    except DatasetError as problem:
        source.problems += problem.problems
        return frozenset()
    return None if names is None else source.admit(names, str(path))


def read_objects(path: Path) -> frozenset[str] | None:
    """Names of the objects in an annotation of VOC, None where the file is missing; raises
    DatasetError.

    A document type or entities, which can grow without bound or read other files, are refused.
    """
    if not os.path.lexists(path):
        return None
    if path.is_file() and path.stat().st_size > MAX_XML:
        raise DatasetError(
            error(path, f"is larger than {MAX_XML} bytes", "an annotation of VOC has a few kB")
        )
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DatasetError(
            error(path, "declares a document type or entities", "take the declaration away")
        )
    try:
        tree = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as problem:
        raise DatasetError(error(path, f"is no sound XML ({problem})", "mend it")) from problem
    return frozenset((item.findtext("name") or "").strip() for item in tree.iterfind("object"))
