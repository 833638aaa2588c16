"""Your own folders: images/ with labels.csv, or one folder of images per class."""

import re
from pathlib import Path

from pipeline.data.images import DatasetError, error, warning
from pipeline.readers.source import (
    ABSENT,
    Entry,
    Files,
    Source,
    no_class,
    normalize,
    normalize_split,
    number,
    problem_of_id,
    require_folder,
    strays,
    warn_unread,
)
from pipeline.readers.tables import (
    LABELS,
    Row,
    check_blanks,
    check_names,
    find_classes,
    names_in,
    read_labels,
    split_cell,
)

IMAGES = "images"
MASKS = "masks"
SEMANTIC, INSTANCES = ("semantic/{}", "{}"), "instances/{}"
"""Masks of an image below masks/."""
MASK_NAME = re.compile(r"[ _-](mask|gt|seg|label)([ _-]?\d+)?$", re.IGNORECASE)
MASK_FOLDER = re.compile(r"(?:^|/)(ground_?truth|masks)/", re.IGNORECASE)
"""What masks among the images of a class are called, or the folders that they are in."""
SPLIT_FOLDER = re.compile(
    r"(?:seg|images?)?[ _-]?((?:train|val|test)(?:ing|id|idation)?)[ _-]?(?:set|images?|data)?",
    re.IGNORECASE,
)
"""Folders of a split above those of the classes."""


def read(root: Path) -> Source:
    """Read images/**, labels.csv (`image,classes[,split]`), and classes.txt and masks/ if present.

    An id is the path below images/ without suffix; a mask holds class number + 1. Raises
    DatasetError if labels.csv or classes.txt as a whole is unusable.
    """
    require_folder(root, IMAGES)
    images, masks = Files(root, IMAGES), Files(root, MASKS, (".png",))
    table = root / LABELS
    rows = read_labels(table)
    listed = find_classes(root)
    names = listed or number(names_in(rows))
    if not names:
        do = "write class names into the column classes"
        raise DatasetError(error(table, "names no class", do))
    source = Source(root, names)
    source.problems += images.problems + masks.problems
    if not listed:
        source.problems += check_blanks(table, rows, source.classes)
    source.problems += check_names(table, source.classes)
    source.entries = [_entry(source, row, images, masks) for row in rows]
    for name in sorted(images.found.keys() - {entry.id for entry in source.entries}):
        what = f"has no row in {table.name}"
        source.problems.append(warning(root / images.found[name], what, "it is left out"))
    used = {file for entry in source.entries for file in (entry.semantic, entry.instances)}
    unread = [
        path
        for name, path in masks.found.items()
        if path not in used and not {name, name.partition("/")[2]} & images.found.keys()
    ]
    unread += [*masks.others, *strays(root, IMAGES, MASKS)]
    source.problems += warn_unread(root, unread, MASKS)
    return source


def _entry(source: Source, row: Row, images: Files, masks: Files) -> Entry:
    name = images.id(row.image)
    path = images.found.get(name, f"{IMAGES}/{row.image}")
    tags = source.known_classes(split_cell(row.cell, source.classes), row.where)
    semantic = instances = None
    if problem_of_id(name) is None:
        semantic = next(filter(None, (masks.path(place.format(name)) for place in SEMANTIC)), None)
        instances = masks.path(INSTANCES.format(name)) if semantic else None
    return Entry(name, path, row.where, tags, row.split, semantic, instances)


def read_class_folders(root: Path) -> Source:
    """Read one folder of images per class, or one per split that holds these; also in images/.

    A folder whose name stands for no class, such as background/, holds images without tags. Masks
    among the images are left out, as `crack_mask.png` next to `crack.png`.
    """
    images = _class_images(root)
    masks = {name: path for name, path in images.found.items() if _is_mask(name, images)}
    source = Source(root, problems=images.problems)
    source.problems += warn_unread(root, [*masks.values()], MASKS)
    places = _places(images)
    folders = sorted({normalize(folder) for folder, _ in places.values() if folder})
    source.names = number([folder for folder in folders if no_class(folder) is None])
    source.problems += check_names(root, source.classes)
    for name, (folder, split) in places.items():
        where = str(root / images.found[name])
        if folder:
            tags = source.known_classes([ABSENT if no_class(folder) == 0 else folder], where)
            source.entries.append(Entry(name, images.found[name], where, tags, split))
        else:
            source.problems.append(warning(where, "is in no folder of a class", "it is left out"))
    return source


def has_class_folders(root: Path) -> bool:
    """Return whether all images are in folders of classes, at least two of them."""
    folders = {folder for folder, _ in _places(_class_images(root)).values()}
    return len(folders) > 1 and all(folders) and not all(map(SPLIT_FOLDER.fullmatch, folders))


def _class_images(root: Path) -> Files:
    return Files(root, IMAGES if (root / IMAGES).is_dir() else ".")


def _is_mask(name: str, images: Files) -> bool:
    """Return whether an image is a mask by the name of its folder, or by its own next to the image
    that it is of.
    """
    base = MASK_NAME.sub("", name)
    return MASK_FOLDER.search(name) is not None or (base != name and base in images.found)


def _places(images: Files) -> dict[str, tuple[str, str | None]]:
    """Return the class, or nothing, and the split of each image but masks, by its folders.

    A folder whose name is that of a split is one if it holds folders of images, else a class:
    `train` may be either.
    """
    parts = {name: name.split("/")[:-1] for name in images.found if not _is_mask(name, images)}
    above = {(*own[:k],) for own in parts.values() for k in range(1, len(own))}
    places = {}
    for name, own in parts.items():
        split, folder = None, ""
        for depth, folder in enumerate(own, start=1):
            found = SPLIT_FOLDER.fullmatch(folder)
            if found is None or (*own[:depth],) not in above:
                break
            split = normalize_split(found[1])
        else:
            folder = ""
        places[name] = folder, split
    return places
