"""Recognition of a source: what its folder is, and the parameters to read it with."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.data.images import DatasetError, error
from pipeline.readers import coco, folder, roboflow, voc, yolo
from pipeline.readers.source import HINTS, Files, Source, normalize_split
from pipeline.readers.tables import LABELS

LAYOUTS = (
    "images/ and labels.csv, one folder per class, JPEGImages/ (VOC), a JSON of instances (COCO), "
    "data.yaml (YOLO), or _classes.csv (Roboflow)"
)
SPLIT_WORD = re.compile(r"(?<![a-z])(train|val|test)(ing|id|idation)?(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read a source.

    format: as in dataset.format; title: what the source is, for messages; lists: voc, split ->
    list; annotations: coco, split -> (JSON, image folder).
    """

    format: str
    title: str = ""
    lists: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """Return what section `dataset` of the parameters must say."""
        section: dict[str, Any] = {"format": self.format}
        if self.format == "voc":
            section["voc"] = {split: self.lists.get(split, "") for split in ("train", "val")}
        if self.format == "coco":
            section["coco"] = {}
            for split in ("train", "val"):
                file, images = self.annotations.get(split, ("", ""))
                section["coco"] |= {split: file, f"{split}_images": images}
        return section


def recognize(source: Path) -> Layout:
    """Recognize the layout of a folder; raise DatasetError that lists those that are known."""
    require_source(source, "name the folder of your images")
    if voc.find_folders(source):
        return _voc(source)
    if (source / LABELS).is_file() and (source / "images").is_dir() and not _jsons(source):
        return Layout("folder", f"your own folder, images/ with {LABELS}")
    if roboflow.find_tables(source):
        return Layout("roboflow", f"Roboflow, described by {roboflow.TABLE}")
    if yolo.is_yolo(source):
        file = yolo.find_yaml(source)
        return Layout("yolo", f"YOLO, described by {file.name if file else 'classes.txt'}")
    if files := _jsons(source):
        return _coco(source, files)
    if folder.has_class_folders(source):
        return Layout("classes", "one folder of images per class")
    if (source / LABELS).is_file() or (source / "images").is_dir():
        return Layout("folder", f"your own folder, images/ with {LABELS}")
    inner = voc.find_inner(source)
    do = f"name {inner} instead" if inner else f"it must contain {LAYOUTS}"
    raise DatasetError(error(source, "has none of the known layouts", do))


def layout_of(
    name: str,
    source: Path,
    lists: Mapping[str, str] | None,
    annotations: Mapping[str, tuple[str, str]] | None,
) -> Layout:
    """Return the layout of format `name` with these files, or with the usual ones for None."""
    require_source(source, "set dataset.source to the folder of your images")
    if name == "voc":
        return _voc(source) if lists is None else Layout(name, name, lists=lists)
    if name == "coco":
        named = {split: pair for split, pair in (annotations or {}).items() if pair[0]}
        return Layout(name, name, annotations=named) if named else _coco(source, _jsons(source))
    return Layout(name)


def require_source(source: Path, do: str) -> None:
    """Raise DatasetError unless the source is a folder that can be listed."""
    try:
        os.scandir(source).close()
    except FileNotFoundError:
        raise DatasetError(error(source, "no such folder", do)) from None
    except NotADirectoryError:
        raise DatasetError(error(source, "is a file, not a folder", do)) from None
    except OSError as problem:
        raise DatasetError(error(source, f"cannot be read ({problem.strerror})", do)) from None


def read_source(source: Path, layout: Layout) -> Source:
    """Read a folder in its layout; raise DatasetError if it has another one."""
    if layout.format == "voc":
        return voc.read(source, layout.lists)
    if layout.format == "coco":
        return coco.read(source, layout.annotations)
    if layout.format == "yolo":
        return yolo.read(source)
    if layout.format == "roboflow":
        return roboflow.read(source)
    return folder.read_class_folders(source) if layout.format == "classes" else folder.read(source)


def _voc(source: Path) -> Layout:
    """Choose the lists: train and val by their usual names, else the only one, else all images."""
    found = voc.find_lists(source)
    lists = {}
    for name in sorted(found, reverse=True):  # train before its longer names
        lists[normalize_split(name)] = name
    if "train" not in lists:
        others = [name for name in found if normalize_split(name) != "val"]
        usual = [name for name in ("trainval", "default") if name in found]
        only = usual or (others if len(others) == 1 else [])
        lists["train"] = only[0] if only else "train" if found else ""
    chosen = {split: lists[split] for split in ("train", "val") if lists.get(split)}
    listed = ", ".join(f"{name}.txt" for name in chosen.values())
    return Layout("voc", f"VOC, {f'listed in {listed}' if listed else 'all images'}", lists=chosen)


def _jsons(source: Path) -> list[Path]:
    """Return the files that may hold COCO's instances."""
    inner = source / "annotations"
    named = sorted(inner.glob("instances_*.json")) or sorted(inner.glob("*.json"))
    named = named or sorted(source.glob("*/_annotations.coco.json"))
    named = [path for path in named if path.parent.name != HINTS]
    return named or [
        path for path in sorted(source.glob("*.json")) if b'"annotations"' in path.read_bytes()
    ]


def _coco(source: Path, files: list[Path]) -> Layout:
    """Choose a file and its folder of images per split by the words in their names."""
    found: dict[str, tuple[str, str]] = {}
    for path in files:
        relative = path.relative_to(source).as_posix()
        word = SPLIT_WORD.search(relative)
        split = normalize_split(word[0]) if word else "train" if len(files) == 1 else ""
        found.setdefault(split, (relative, _image_folder(source, path, word[0] if word else "")))
    wanted: tuple[str, ...] = ("train", "val")
    chosen = {split: found[split] for split in wanted if split in found}
    if "train" not in chosen:
        others = f" (but {', '.join(path.name for path in files[:3])})" if files else ""
        what = f"has no annotations/instances_train*.json{others}"
        raise DatasetError(error(source, what, "name your file in dataset.coco.train"))
    title = " and ".join(f"{file} with {images}/" for file, images in chosen.values())
    return Layout("coco", f"COCO, {title}", annotations=chosen)


def _image_folder(source: Path, path: Path, split: str) -> str:
    """Return the folder of a JSON's images: named like the file, like the split, or as usual."""
    stem = path.stem.removeprefix("instances_")
    names = [stem, f"images/{stem}"]
    if split:
        names += [split, f"images/{split}"]
    if path.name.startswith("_"):  # Roboflow keeps images and annotations in one folder
        names = [path.parent.relative_to(source).as_posix()]
    names += ["images", "data", "."]
    for name in names:
        if Files(source, name).found:
            return name
    return stem
