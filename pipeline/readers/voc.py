"""PASCAL VOC's layout: JPEGImages, ImageSets, Annotations, SegmentationClass, SegmentationObject.

Everingham et al., The PASCAL Visual Object Classes Challenge 2012, development kit. Tags come from
labels.csv, from the annotations, from cls_labels.npy, the table that much code on VOC ships, or
from the masks. FiftyOne writes the same with the folders data and labels, and without lists; CVAT
with a labelmap.txt and colored masks.
"""

import os
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from pipeline.data.images import DatasetError, error, read_bytes, warning
from pipeline.readers.source import (
    DO_COPY,
    OUTSIDE,
    Entry,
    Files,
    Source,
    leaves,
    no_class,
    normalize,
    number,
    problem_of_id,
    strays,
    warn_unread,
)
from pipeline.readers.tables import (
    LABELMAP,
    LABELS,
    find_classes,
    read_colors,
    read_labels,
    read_text,
    split_cell,
)

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
FOLDERS = (("JPEGImages", "Annotations"), ("data", "labels"))
"""Images and annotations, as the development kit and as FiftyOne call them."""
LISTED = "ImageSets/Segmentation"
LISTS = (LISTED, "ImageSets/Main")
AUGMENTED = "SegmentationClassAug"
SEMANTIC = ("SegmentationClass", AUGMENTED)
INSTANCES = "SegmentationObject"

Tags = Callable[[str], frozenset[str] | None]


def find_folders(root: Path) -> tuple[str, str] | None:
    """Return the folders of images and annotations, None if the layout is another one."""
    kit, other = FOLDERS
    if (root / kit[0]).is_dir():
        return kit
    found = (root / other[0]).is_dir() and any((root / other[1]).glob("*.xml"))
    return other if found else None


def find_inner(root: Path) -> Path | None:
    """Return a folder of the kit's layout one or two levels below a folder, None without one."""
    found = (*sorted(root.glob("*/JPEGImages")), *sorted(root.glob("*/*/JPEGImages")))
    return found[0].parent if found else None


def find_lists(root: Path) -> dict[str, Path]:
    """Return the lists of images by name, those for segmentation first."""
    paths = [path for folder in reversed(LISTS) for path in sorted((root / folder).glob("*.txt"))]
    return {path.stem: path for path in paths}


def read(root: Path, lists: Mapping[str, str]) -> Source:
    """Read the images of the lists.

    Tags come from labels.csv, else Annotations/*.xml (difficult objects count), else
    cls_labels.npy, else the masks; classes from classes.txt or labelmap.txt, else VOC's 20. A mask
    in SegmentationClass, which has void borders, takes precedence over one in SegmentationClassAug.

    Args:
        root: folder with JPEGImages.
        lists: split -> name of ImageSets/Segmentation/<name>.txt, or of one in ImageSets/Main;
            empty names are skipped. A lone train list leaves the choice of held-out images to the
            fraction `val`, and so do all images, which are read if there is no name at all.

    Raises:
        DatasetError: a file as a whole is unusable.
    """
    folders = find_folders(root)
    if folders is None:
        do = "it must contain JPEGImages and ImageSets"
        if inner := find_inner(root):
            do = f"set dataset.source to {inner}"
        raise DatasetError(error(root, "has no folder JPEGImages", do))
    images = Files(root, folders[0])
    source = Source(root, problems=images.problems)
    wanted = {split: name for split, name in lists.items() if name}
    rows = [
        (split, _parse_line(line, images), where)
        for split, name in wanted.items()
        for line, where in _read_list(source, name)
    ]
    if not wanted:
        rows = [("train", name, str(root / path)) for name, path in images.found.items()]
    annotations = Files(root, folders[1], (".xml",))
    listed = find_classes(root)
    source.names = listed or number(CLASSES)
    if not listed and annotations.found and not any((root / name).is_dir() for name in SEMANTIC):
        source.names = _name_classes(annotations)
    masks = {folder: Files(root, folder, (".png",)) for folder in (*SEMANTIC, INSTANCES)}
    colors = read_colors(root / LABELMAP, source.names) if (root / LABELMAP).is_file() else None
    tags = _choose_tags(source, images, {name for _, name, _ in rows}, annotations)
    fixed = list(wanted) not in ([], ["train"])
    for split, name, where in rows:
        path = images.found.get(name, f"{images.folder}/{name}.jpg")
        if problem_of_id(name) is not None:
            source.entries.append(Entry(name, path, where))
            continue
        semantic = next(filter(None, (masks[folder].path(name) for folder in SEMANTIC)), None)
        instances = masks[INSTANCES].path(name) if semantic else None
        entry = Entry(name, path, where, tags(name), split if fixed else None, semantic, instances)
        source.entries.append(replace(entry, colors=colors))
    unread = strays(root, *folders, *masks)
    for files in masks.values():
        source.problems += files.problems
        unread += [path for name, path in files.found.items() if name not in images.found]
        unread += files.others
    source.problems += warn_unread(root, unread, SEMANTIC[0])
    return source


def _read_list(source: Source, name: str) -> list[tuple[str, str]]:
    """Return the image and the place of every line of a list."""
    found = find_lists(source.root)
    path = found.get(name, source.root / LISTED / f"{name}.txt")
    if leaves(source.root, os.path.relpath(path, source.root)):
        source.problems.append(error(path, OUTSIDE, DO_COPY))
        return []
    if not os.path.isfile(path):
        names = ", ".join(sorted(found)) or "none"
        do = f"name another one, or none, in dataset.voc; the lists are {names}"
        source.problems.append(error(path, "no such list", do))
        return []
    lines = enumerate(read_text(path).splitlines(), start=1)
    rows = [(line, f"{path}:{k}") for k, line in lines if line.strip()]
    if not rows:
        do = "add images, or leave its name in dataset.voc empty"
        source.problems.append(error(path, "lists no image", do))
    return rows


def _parse_line(line: str, images: Files) -> str:
    """Return the id in a line.

    DeepLab's train_aug has paths of image and mask, the lists of a class in Main a flag.
    """
    pattern = r"/?JPEGImages/(.+?\.(?:jpg|jpeg|jfif|png|webp))(?:\s|$)"
    paths = re.match(pattern, line.strip(), re.IGNORECASE)
    name = images.id(paths[1] if paths else line.strip())
    flagged = re.fullmatch(r"(\S+)\s+(?:-1|0|1)", name)
    return images.id(flagged[1]) if flagged and name not in images.found else name


def _choose_tags(source: Source, images: Files, listed: set[str], annotations: Files) -> Tags:
    """Return a function from id to tags, from the best file that is present."""
    table, multihot = source.root / LABELS, source.root / "cls_labels.npy"
    if table.is_file():
        return _from_table(table, source, images, listed).get
    if (source.root / annotations.folder).is_dir():
        source.problems += annotations.problems
        return lambda name: _from_annotation(annotations.path(name), source)
    if multihot.is_file():
        return read_multihot(multihot, source.classes).get
    if any((source.root / folder).is_dir() for folder in SEMANTIC):
        what = f"has no tags: neither {LABELS} nor {annotations.folder}/ nor {multihot.name}"
        do = "the classes of its masks are used; images without a mask count as showing none"
        source.problems.append(warning(source.root, what, do))
        source.tags_of_masks = True
        return lambda name: frozenset()
    what = f"has no tags: neither {LABELS} nor {annotations.folder}/ nor {multihot.name}"
    source.problems.append(error(source.root, what, "add one of them"))
    return lambda name: frozenset()


def _from_table(
    path: Path, source: Source, images: Files, listed: set[str]
) -> dict[str, frozenset[str]]:
    tags: dict[str, frozenset[str]] = {}
    for row in read_labels(path):
        name = images.id(row.image)
        if name in tags:
            what = f"{name!r} already has a row"
            source.problems.append(error(row.where, what, "keep one of the two"))
        elif name not in images.found and name not in listed:
            what = f"{name!r} is not in {images.folder}"
            source.problems.append(error(row.where, what, "put the image there or delete the row"))
        tags[name] = source.known_classes(split_cell(row.cell, source.classes), row.where)
    return tags


def _name_classes(annotations: Files) -> dict[int, str]:
    """Return VOC's 20 classes by number, or those of the annotations if these name others."""
    names: set[str] = set()
    for path in annotations.found.values():
        try:
            names |= read_objects(annotations.root / path)
        except DatasetError:  # reported with its image
            continue
    own = sorted(name for name in names if no_class(name) is None)
    return number(own if set(own) - set(CLASSES) else CLASSES)


def _from_annotation(path: str | None, source: Source) -> frozenset[str] | None:
    if path is None:
        return None
    if leaves(source.root, path):
        source.problems.append(error(source.root / path, OUTSIDE, DO_COPY))
        return frozenset()
    try:
        names = read_objects(source.root / path)
    except DatasetError as problem:
        source.problems += problem.problems
        return frozenset()
    return source.known_classes(names, str(source.root / path))


def read_objects(path: Path) -> frozenset[str]:
    """Return the object names of an annotation; raise DatasetError.

    Objects count in any namespace and at any depth, except as parts of others.
    """
    try:
        tree = ElementTree.fromstring(read_bytes(path, "put the file there"))
    except (ElementTree.ParseError, ValueError, LookupError) as problem:
        raise DatasetError(error(path, f"is not valid XML ({problem})", "fix it")) from problem
    objects = tree.iterfind(".//{*}object")
    return frozenset(normalize(item.findtext("{*}name", "").strip()) for item in objects)


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
