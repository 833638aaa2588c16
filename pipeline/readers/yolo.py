"""Ultralytics' YOLO layout: data.yaml, folders or lists of images, one text file of labels each.

A line of a label file is `class x y w h` (a box, which only gives a tag) or `class x y x y x y ...`
(an outline), relative to the image's size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.data.images import DatasetError, error
from pipeline.readers.outlines import MaskRenderer, Outline, whole
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
from pipeline.readers.tables import read_text

SPLITS = ("train", "val", "valid", "validation", "test")
DO_NAME = "name a folder of images or a list in data.yaml"


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
    """Read the images of all splits of data.yaml; raise DatasetError if it cannot be used."""
    path = find_yaml(root)
    if path is None:
        raise DatasetError(error(root, "has no data.yaml with names", "export it again"))
    content = _load(path)
    names = content["names"]
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names or ())
    classes = {whole(k): normalize(str(name).strip()) for k, name in pairs}
    if not classes or None in classes:
        what = "has no list `names` of classes"
        raise DatasetError(error(path, what, "list the class names there"))
    ordered = [classes[k] for k in sorted(k for k in classes if k is not None)]
    source = Source(root, number([name for name in ordered if no_class(name) is None]))
    given = {split: content[split] for split in SPLITS if content.get(split)}
    for split, places in given.items():
        fixed = None if list(given) == ["train"] else normalize_split(split)
        for place in [places] if isinstance(places, str) else places:
            for image, folder, found in _find(source, path, str(place)):
                source.entries.append(_entry(source, image, folder, found, fixed, classes))
    if any(entry.render for entry in source.entries):  # no line is an image without objects
        empty = RelativeOutlines(())
        source.entries = [
            replace(entry, render=empty) if not (entry.render or entry.tags) else entry
            for entry in source.entries
        ]
    source.separate_ids()
    return source


def _find(source: Source, file: Path, place: str) -> list[tuple[str, str, Files]]:
    """Return (id, folder, its files) of the images of a folder or of a list.

    Paths may be those of another machine: what counts is their end that exists in the source.
    """
    parts = [part for part in place.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    path = next((end for end in ends if (source.root / end).exists()), None)
    if path is None or leaves(source.root, path):
        source.problems.append(error(file, f"{place!r} is not in the folder", DO_NAME))
        return []
    if (source.root / path).is_dir():
        files = Files(source.root, path)
        source.problems += files.problems + files.unsupported()
        return [(name, path, files) for name in files.found]
    lines = [line.strip() for line in read_text(source.root / path).splitlines() if line.strip()]
    files = Files(source.root, "images")
    found = []
    for k, line in enumerate(lines, start=1):
        name = files.id(line, anywhere=True)
        if name not in files.found:
            where = f"{source.root / path}:{k}"
            source.problems.append(error(where, f"{line!r} is not in images/", "put it there"))
            continue
        found.append((name, "images", files))
    return found


def _entry(
    source: Source,
    name: str,
    folder: str,
    files: Files,
    split: str | None,
    classes: Mapping[int | None, str],
) -> Entry:
    image = files.found[name]
    parts = image.rpartition(".")[0].split("/")
    for k in reversed(range(len(parts) - 1)):  # as Ultralytics does: the last folder `images`
        if parts[k] == "images":
            parts[k] = "labels"
            break
    label = "/".join(parts) + ".txt"
    outlines = _outlines(source, label, classes)
    complete = bool(outlines) and all(outline.segmentation for outline in outlines)
    tags = frozenset(outline.name for outline in outlines if no_class(outline.name) is None)
    render = RelativeOutlines(tuple(outlines)) if complete else None
    return Entry(name, image, str(source.root / label), tags, split, render=render)


def _outlines(source: Source, label: str, classes: Mapping[int | None, str]) -> Sequence[Outline]:
    """Return the objects of a label file, none if there is no file; boxes have no outline."""
    path = source.root / label
    if not path.is_file():
        return []
    outlines = []
    for k, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            values = [float(word) for word in words[1:]]
        except ValueError:
            values = []
        name = classes.get(whole(words[0]))
        if name is None or len(values) < 4 or (len(values) > 5 and len(values) % 2):
            what = f"{line.strip()[:60]!r} is not a class number with a box or an outline"
            source.problems.append(error(f"{path}:{k}", what, "fix or delete the line"))
            continue
        outlines.append(Outline(name, [values] if len(values) > 5 else None, False))
    return outlines


@dataclass(frozen=True, slots=True)
class RelativeOutlines:
    """Renders the masks of one image from outlines relative to its size."""

    outlines: tuple[Outline, ...]

    def __call__(
        self, labels: Mapping[str, int], size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return label map and instance ids as MaskRenderer does."""
        scale = np.array(size[::-1])
        pixels = [
            Outline(o.name, [(np.reshape(o.segmentation, (-1, 2)) * scale).ravel().tolist()], False)
            for o in self.outlines
        ]
        return MaskRenderer(size, tuple(pixels))(labels, size)
