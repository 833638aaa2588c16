"""Ultralytics' YOLO layout: data.yaml, folders or lists of images, one text file of labels each.

A line of a label file is `class x y w h` (a box, which only gives a tag) or `class x y x y x y ...`
(an outline), relative to the image's size.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.data.images import DatasetError, error
from pipeline.readers.outlines import MaskRenderer, Outline, fill, whole
from pipeline.readers.source import (
    Entry,
    Files,
    Source,
    leaves,
    no_class,
    normalize,
    normalize_split,
    number,
)
from pipeline.readers.tables import find_classes, read_text

SPLITS = ("train", "val", "valid", "validation", "test")
IMAGES = "images"


def is_yolo(root: Path) -> bool:
    """Return whether a folder has a data.yaml, or labels as text next to images/."""
    return find_yaml(root) is not None or any((root / "labels").glob("*.txt"))


def find_yaml(root: Path) -> Path | None:
    """Return the description of a YOLO dataset: data.yaml, or the only YAML file with names."""
    paths = [path for suffix in ("yaml", "yml") for path in sorted(root.glob(f"*.{suffix}"))]
    found = [path for path in paths if "names" in _load(path)]
    return next((path for path in found if path.stem == "data"), found[0] if found else None)


def _load(path: Path) -> Mapping[str, Any]:
    """Return the content of a YAML file; nothing if it has another form."""
    try:
        content = yaml.safe_load(read_text(path))
    except Exception:  # PyYAML raises nearly anything where a tag does not fit its value
        return {}
    return content if isinstance(content, dict) else {}


def read(root: Path) -> Source:
    """Read the images of all splits of data.yaml; raise DatasetError if it cannot be used.

    Without one, as Label Studio exports it, read images/ and classes.txt. An image without a label
    file shows nothing, as everywhere in YOLO.
    """
    path = find_yaml(root)
    content: Mapping[str, Any] = _load(path) if path else {"train": IMAGES}
    names = content["names"] if path else [*find_classes(root).values()]
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names or ())
    classes = {whole(k): normalize(str(name).strip()) for k, name in pairs}
    if not classes or None in classes:
        do = "list the class names there"
        raise DatasetError(error(path or root, "has no list `names` of classes", do))
    ordered = [classes[k] for k in sorted(k for k in classes if k is not None)]
    source = Source(root, number([name for name in ordered if no_class(name) is None]))
    given = {split: content[split] for split in SPLITS if content.get(split)}
    for split, places in given.items():
        fixed = None if list(given) == ["train"] else normalize_split(split)
        for place in [places] if isinstance(places, str) else places:
            images, found = _find(source, path or root, str(place))
            labels = Files(root, _labels_of(images.folder), (".txt",))
            source.problems += labels.problems
            for name in found:
                outlines = tuple(_outlines(source, labels.path(name), classes))
                where = str(root / images.found[name])
                shown = {o.name for o in outlines if no_class(o.name) is None}
                outlined = all(o.segmentation for o in outlines)
                render = MaskRenderer(None, outlines, fill) if outlined else None
                entry = Entry(name, images.found[name], where, frozenset(shown), fixed)
                source.entries.append(replace(entry, render=render))
    if not any(entry.render and entry.tags for entry in source.entries):  # boxes only
        source.entries = [replace(entry, render=None) for entry in source.entries]
    source.separate_ids()
    return source


def _find(source: Source, file: Path, place: str) -> tuple[Files, list[str]]:
    """Return the files and the ids of the images of a folder or of a list.

    Paths may be those of another machine: what counts is their end that exists in the source.
    """
    parts = [part for part in place.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    path = next((end for end in ends if (source.root / end).exists()), None)
    if path is None or leaves(source.root, path):
        do = "name a folder of images or a list in data.yaml"
        source.problems.append(error(file, f"{place!r} is not in the folder", do))
        return Files(source.root, IMAGES), []
    is_folder = (source.root / path).is_dir()
    images = Files(source.root, path if is_folder else IMAGES)
    source.problems += images.problems
    if is_folder:
        return images, list(images.found)
    lines = enumerate(read_text(source.root / path).splitlines(), start=1)
    rows = [(k, images.id(line.strip(), anywhere=True)) for k, line in lines if line.strip()]
    for k, name in rows:
        if name not in images.found:
            where = f"{source.root / path}:{k}"
            source.problems.append(error(where, f"{name!r} is not in {IMAGES}/", "put it there"))
    return images, [name for _, name in rows if name in images.found]


def _labels_of(folder: str) -> str:
    """Return the folder of the labels of a folder of images: the last `images` in it replaced."""
    before, found, after = f"/{folder}/".rpartition(f"/{IMAGES}/")
    return f"{before}/labels/{after}".strip("/") if found else folder


def _outlines(
    source: Source, label: str | None, classes: Mapping[int | None, str]
) -> Iterator[Outline]:
    """Yield the objects of a label file, none if there is no file; boxes have no outline."""
    path = source.root / (label or "")
    for k, line in enumerate(read_text(path).splitlines() if label else (), start=1):
        first, *words = line.split() or [""]
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        name = classes.get(whole(first))
        if name is not None and (
            len(values) in (4, 5) or (len(values) > 5 and not len(values) % 2)
        ):
            yield Outline(name, [values] if len(values) > 5 else None, False)
        elif first:
            what = f"{line.strip()[:60]!r} is not a class number with a box or an outline"
            source.problems.append(error(f"{path}:{k}", what, "fix or delete the line"))
