"""PASCAL VOC's layout: JPEGImages, ImageSets/Segmentation, SegmentationClass, SegmentationObject.

Everingham et al., The PASCAL Visual Object Classes Challenge 2012, development kit. Tags come from
labels.csv, from the annotations, or from cls_labels.npy, the table that much code on VOC ships.
"""

import os
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from pipeline.data.images import DatasetError, error
from pipeline.readers.folder import read_classes, read_labels, read_text, split_cell
from pipeline.readers.source import (
    DO_COPY,
    OUTSIDE,
    Entry,
    Source,
    find_id,
    find_images,
    leaves,
    normalize,
    problem_of_id,
    without_suffix,
)

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
LISTS = {"train": "train", "val": "val"}
IMAGES = "JPEGImages"
LISTED = "ImageSets/Segmentation"
AUGMENTED = "SegmentationClassAug"
SEMANTIC = ("SegmentationClass", AUGMENTED)
INSTANCES = "SegmentationObject"

Tags = Callable[[str], frozenset[str] | None]


def read(root: Path, lists: Mapping[str, str] | None = None) -> Source:
    """Read the images of the lists.

    Tags come from labels.csv, else Annotations/*.xml (difficult objects count), else
    cls_labels.npy; classes from classes.txt, else VOC's 20. A mask in SegmentationClass, which has
    void borders, takes precedence over one in SegmentationClassAug.

    Args:
        root: folder with JPEGImages and ImageSets.
        lists: split -> name of ImageSets/Segmentation/<name>.txt; empty names are skipped. A lone
            train list leaves the choice of held-out images to the fraction `val`.

    Raises:
        DatasetError: a file as a whole is unusable.
    """
    if not (root / IMAGES).is_dir():
        inner = [*sorted(root.glob(f"*/{IMAGES}")), *sorted(root.glob(f"*/*/{IMAGES}"))]
        do = "it must contain JPEGImages and ImageSets"
        if inner:
            do = f"set dataset.source to {inner[0].parent}"
        raise DatasetError(error(root, f"has no folder {IMAGES}", do))
    listed = root / "classes.txt"
    source = Source(root, read_classes(listed) if listed.is_file() else CLASSES)
    found, source.problems = find_images(root, IMAGES)
    wanted = {split: name for split, name in (lists or {}).items() if name} or LISTS
    rows = [(split, *line) for split, name in wanted.items() for line in _read_list(source, name)]
    tags = _choose_tags(source, found, {name for _, name, _ in rows})
    for split, name, where in rows:
        fixed = None if list(wanted) == ["train"] else split
        source.entries.append(_entry(source, name, where, fixed, found, tags))
    return source


def _read_list(source: Source, name: str) -> list[tuple[str, str]]:
    """Return the id and the place of every line of a list."""
    path = source.root / LISTED / f"{name}.txt"
    if leaves(source.root, f"{LISTED}/{name}.txt"):
        source.problems.append(error(path, OUTSIDE, DO_COPY))
        return []
    if not os.path.isfile(path):
        valid = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt"))) or "none"
        do = f"name another one, or none, in dataset.voc; the lists are {valid}"
        source.problems.append(error(path, "no such list", do))
        return []
    lines = enumerate(read_text(path).splitlines(), start=1)
    rows = [(_parse_line(line), f"{path}:{number}") for number, line in lines if line.strip()]
    if not rows:
        do = "add images, or leave its name in dataset.voc empty"
        source.problems.append(error(path, "lists no image", do))
    return rows


def _parse_line(line: str) -> str:
    """Return the id in a line, which DeepLab's train_aug writes as paths of image and mask."""
    pattern = rf"/?{IMAGES}/(.+?)\.(?:jpg|jpeg|png|webp)(?:\s|$)"
    paths = re.match(pattern, line.strip(), re.IGNORECASE)
    return normalize(paths[1] if paths else line.strip())


def _entry(
    source: Source, name: str, where: str, split: str | None, found: Mapping[str, str], tags: Tags
) -> Entry:
    path = found.get(name, f"{IMAGES}/{name}.jpg")
    if problem_of_id(name) is not None:
        return Entry(name, path, where)
    file = without_suffix(path.removeprefix(f"{IMAGES}/")) + ".png"
    masks = [f"{folder}/{file}" for folder in (*SEMANTIC, INSTANCES)]
    exact, augmented, instances = (
        mask if os.path.lexists(source.root / mask) else None for mask in masks
    )
    semantic = exact or augmented
    return Entry(name, path, where, tags(name), split, semantic, instances if semantic else None)


def _choose_tags(source: Source, found: Mapping[str, str], listed: set[str]) -> Tags:
    """Return a function from id to tags, from the best file that is present."""
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
        name = find_id(row.image, IMAGES, found)
        if name in tags:
            what = f"{name!r} already has a row"
            source.problems.append(error(row.where, what, "keep one of the two"))
        elif name not in found and name not in listed:
            what = f"{name!r} is not in {IMAGES}"
            source.problems.append(error(row.where, what, "put the image there or delete the row"))
        tags[name] = source.known_classes(split_cell(row.cell, source.classes), row.where)
    return tags


def _from_annotation(path: Path, source: Source) -> frozenset[str] | None:
    try:
        names = read_objects(path)
    except DatasetError as problem:
        source.problems += problem.problems
        return frozenset()
    return None if names is None else source.known_classes(names, str(path))


def read_objects(path: Path) -> frozenset[str] | None:
    """Return the object names of an annotation, None if there is no file; raise DatasetError."""
    if not os.path.lexists(path):
        return None
    try:
        tree = ElementTree.fromstring(read_text(path))
    except (ElementTree.ParseError, ValueError) as problem:
        raise DatasetError(error(path, f"is not valid XML ({problem})", "fix it")) from problem
    return frozenset((item.findtext("name") or "").strip() for item in tree.iterfind("object"))


def read_multihot(path: Path, classes: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return class names by image id from a pickled {id: multi-hot vector [C]} in a .npy file.

    Numbers as ids become VOC's names: 2007000032 is 2007_000032. Raises DatasetError for anything
    else; a pickle that refers to more than numpy's arrays is not loaded.
    """
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            table = _ArrayUnpickler(file).load().item()
        return {_voc_name(key): _names(row, classes) for key, row in table.items()}
    except Exception as problem:  # a damaged pickle may raise anything
        what = f"is not a table of VOC tags ({problem})"
        do = "use labels.csv or Annotations/*.xml instead"
        raise DatasetError(error(path, what, do)) from problem


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of numpy arrays, scalars and dtypes that refuses every other global."""

    ALLOWED = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "scalar"),
            ("numpy._core.numeric", "_frombuffer"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return a global that arrays are pickled with; raise UnpicklingError for others."""
        module = module.replace("numpy.core.", "numpy._core.")  # before numpy 2
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is refused")
        return super().find_class(module, name)


def _voc_name(key: Any) -> str:
    if isinstance(key, str):
        return key
    year, number = divmod(int(key), 1_000_000)
    return f"{year:04d}_{number:06d}"


def _names(row: Any, classes: Sequence[str]) -> frozenset[str]:
    if np.shape(row) != (len(classes),):
        raise ValueError(f"a row of shape {np.shape(row)} for {len(classes)} classes")
    return frozenset(name for name, value in zip(classes, row, strict=True) if value > 0)
