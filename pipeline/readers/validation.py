"""Everything that may be wrong with a source, found in one pass.

One look at every image and mask file: decoded whole, measured, compared, and its digest taken.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.artifacts import IGNORE, MAX_CLASSES
from pipeline.core.workers import Progress, spread
from pipeline.data.images import decode_image, encode_png, read_bytes, shrink
from pipeline.data.index import ImageEntry
from pipeline.data.masks import (
    INSTANCES,
    MASKS,
    SEMANTIC,
    decode_values,
    number_instances,
    translate,
    writing_archive,
)
from pipeline.data.problems import DatasetError, Problem, error, warning
from pipeline.readers import coco, folder, scenes, voc
from pipeline.readers.source import (
    OUTSIDE,
    Entry,
    Source,
    complain_of_id,
    complain_of_split,
    leaves,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What the files of an entry turned out to be; size (0, 0) where the image cannot be read.

    drawn: the PNG files of its semantic and its instance mask where they had to be drawn.
    """

    size: tuple[int, int]
    digest: str
    semantic: str | None
    instances: str | None
    problems: tuple[Problem, ...]
    drawn: tuple[bytes, bytes] | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """Looks at entries below `root`; labels are class name -> label in use, `values` the table of
    mask values.
    """

    root: Path
    labels: Mapping[str, int]
    values: Mapping[int, int]

    def __call__(self, entry: Entry) -> Finding:
        look = _Look(self)
        size = look.image(entry)
        semantic = instances = drawn = None
        if size != (0, 0) and entry.render is None:
            semantic, instances = look.files(entry, size)
        elif size != (0, 0) and (drawn := look.rendered(entry, size)):
            semantic, instances = SEMANTIC.format(entry.id), INSTANCES.format(entry.id)
        return Finding(
            size, look.digest.hexdigest(), semantic, instances, tuple(look.problems), drawn
        )


class _Look:
    """The state of one inspection: digest so far and problems so far."""

    def __init__(self, inspection: Inspection) -> None:
        self.setting = inspection
        self.digest = hashlib.blake2b(digest_size=16)
        self.problems: list[Problem] = []

    def image(self, entry: Entry) -> tuple[int, int]:
        """Size (H,W) of the decoded image; (0, 0), and a problem, where it cannot be read."""
        try:
            data, path = self._read(entry.path)
            height, width = decode_image(data, path).shape[:2]
        except DatasetError as problem:
            self.problems += problem.problems
            return 0, 0
        return height, width

    def files(self, entry: Entry, size: tuple[int, int]) -> tuple[str | None, str | None]:
        """Check the mask files and say which of them are of use."""
        semantic = self._values(entry.semantic, size)
        instances = self._values(entry.instances, size)
        labels = None
        if semantic is not None and entry.semantic is not None:
            try:
                labels = translate(
                    semantic, self.setting.values, self.setting.root / entry.semantic
                )
            except DatasetError as problem:
                self.problems += problem.problems
        if labels is None or instances is None:
            return entry.semantic, None
        return entry.semantic, entry.instances if self._complete(entry, labels, instances) else None

    def rendered(self, entry: Entry, size: tuple[int, int]) -> tuple[bytes, bytes] | None:
        """The semantic and the instance mask of the entry as PNG files; None, and a problem, where
        they cannot be drawn.
        """
        assert entry.render is not None
        try:
            semantic, instances = entry.render(self.setting.labels, size)
        except ValueError as problem:
            self.problems.append(error(entry.where, str(problem), "mend or delete the annotation"))
            return None
        drawn = encode_png(semantic), encode_png(shrink(instances))
        for data in drawn:
            self.digest.update(data)
        return drawn

    def _read(self, path: str) -> tuple[bytes, Path]:
        full = self.setting.root / path
        if leaves(self.setting.root, path):
            raise DatasetError(error(full, OUTSIDE, "copy it into the folder, or take a hard link"))
        data = read_bytes(full, "put the file there or take it off the list")
        self.digest.update(data)
        return data, full

    def _values(self, path: str | None, size: tuple[int, int]) -> np.ndarray | None:
        if path is None:
            return None
        try:
            data, full = self._read(path)
            values = decode_values(data, full)
            if values.shape != size:
                raise DatasetError(_other_size(full, values.shape, size))
        except DatasetError as problem:
            self.problems += problem.problems
            return None
        return values

    def _complete(self, entry: Entry, labels: np.ndarray, ids: np.ndarray) -> bool:
        """Whether every class of the label map has an instance; else the file does not tell how
        many there are of each.
        """
        classes = number_instances(ids, labels)[1]
        lacking = (
            set(np.unique(labels).tolist()) - {0, IGNORE} - {int(label) + 1 for label in classes}
        )
        if not lacking:
            return True
        named = ", ".join(
            sorted(name for name, label in self.setting.labels.items() if label in lacking)
        )
        what = f"has no instance of {named}, which the semantic mask shows"
        self.problems.append(
            warning(
                self.setting.root / str(entry.instances),
                what,
                "the image is left out of instance scores",
            )
        )
        return False


def _other_size(where: object, have: tuple[int, ...], want: tuple[int, int]) -> Problem:
    what = f"mask of {have[1]} x {have[0]} pixels on an image of {want[1]} x {want[0]} (upright)"
    return error(
        where,
        what,
        "make the mask as large as the image; turn it too where an EXIF tag turns the image",
    )


@dataclass(frozen=True, slots=True)
class Options:
    """What a format may be told: `lists` of voc (split -> list name), `annotations` of coco (split
    -> json and image folder).
    """

    lists: Mapping[str, str] | None = None
    annotations: Mapping[str, tuple[str, str]] | None = None


READERS: Mapping[str, Callable[[Path, Options], Source]] = {
    "voc": lambda source, options: voc.read(source, options.lists),
    "coco": lambda source, options: coco.read(source, options.annotations),
    "folder": lambda source, options: folder.read(source),
}
FORMATS = ("scenes", *READERS)


@dataclass(frozen=True, slots=True)
class Choice:
    """The classes in use: their order, the label 1.. of each by name, and the table from mask value
    to label.
    """

    classes: tuple[str, ...]
    labels: Mapping[str, int]
    values: Mapping[int, int]


def check(
    format: str,  # noqa: A002
    source: Path,
    *,
    classes: Sequence[str] = (),
    lists: Mapping[str, str] | None = None,
    annotations: Mapping[str, tuple[str, str]] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Problem]:
    """All problems of a source at once, errors first; writes nothing.

    `format` is one of FORMATS, or "auto" for a guess from the layout; the rest is as in build.
    """
    source = Path(source)
    try:
        name = guess(source) if format == "auto" else format
        if name == "scenes":
            choose(scenes.CLASSES, classes)
            return []
        found = read_source(name, source, Options(lists, annotations))
    except DatasetError as problem:
        return problem.problems
    try:
        choice = choose(found.classes, classes)
    except DatasetError as problem:
        return found.problems + problem.problems
    problems = examine(found, choice, workers=workers, progress=progress)[1]
    return sorted(problems, key=lambda problem: problem.level)


def guess(source: Path) -> str:
    """The format of a folder by its layout; raises DatasetError that shows the layouts there are."""
    _expect_source(source, "give the folder of your images")
    if (source / "JPEGImages").is_dir():
        return "voc"
    if (source / "annotations").is_dir():
        return "coco"
    if (source / "labels.csv").is_file() or (source / "images").is_dir():
        return "folder"
    layouts = "JPEGImages/ (voc), annotations/ (coco), or images/ and labels.csv (folder)"
    raise DatasetError(
        error(source, "has none of the layouts known here", f"it must hold {layouts}")
    )


def read_source(name: str, source: Path, options: Options) -> Source:
    """What the reader of format `name` finds in the folder; raises DatasetError for an unknown
    format or a missing folder.
    """
    if name not in READERS:
        raise DatasetError(
            error("dataset.format", f"{name!r} is unknown", f"valid are {', '.join(FORMATS)}")
        )
    _expect_source(source, "set dataset.source to the folder of your images")
    return READERS[name](source, options)


def _expect_source(source: Path, do: str) -> None:
    """Raise DatasetError unless the source is a folder whose files can be listed."""
    try:
        os.scandir(source).close()
    except FileNotFoundError:
        raise DatasetError(error(source, "no such folder", do)) from None
    except NotADirectoryError:
        raise DatasetError(error(source, "is a file, no folder", do)) from None
    except (OSError, ValueError) as problem:
        what = f"cannot be read ({getattr(problem, 'strerror', problem)})"
        raise DatasetError(error(source, what, do)) from None


def choose(known: Sequence[str], wanted: Sequence[str]) -> Choice:
    """The classes to use, all of `known` where `wanted` is empty; mask values count `known` from 1,
    others become background.

    Raises DatasetError for unknown or repeated names and for more than 254 classes.
    """
    classes = tuple(wanted) or tuple(known)
    valid = f"valid are {', '.join(known)}"
    strange = sorted(set(classes) - set(known))
    problems = [
        error("dataset.classes", f"{name!r} is no class of the source", valid) for name in strange
    ]
    for name, count in Counter(classes).items():
        if count > 1:
            problems.append(
                error(
                    "dataset.classes", f"{name!r} is listed {count} times", "list every class once"
                )
            )
    for name in dict.fromkeys(classes):
        if name.lower() == "background":
            do = "leave it out: what shows no class is background"
            problems.append(
                error("dataset.classes", f"{name!r} is the name of what is no class", do)
            )
        elif not name or name != name.strip() or not name.isprintable():
            what = f"the class name {name!r} is empty, has blanks at its ends or holds control characters"
            problems.append(error("dataset.classes", what, "give it a readable name"))
    if len(classes) > MAX_CLASSES:
        what = f"there are {len(classes)} classes, more than {MAX_CLASSES}"
        problems.append(
            error("dataset.classes", what, "choose those you need with dataset.classes")
        )
    if problems:
        raise DatasetError(problems)
    labels = {name: label for label, name in enumerate(classes, start=1)}
    values = {
        value: labels.get(name, 0) for value, name in enumerate(known, start=1) if value < IGNORE
    }
    return Choice(classes, labels, {0: 0, **values, IGNORE: IGNORE})


def examine(
    source: Source,
    choice: Choice,
    *,
    val: float = 0.0,
    out: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[list[ImageEntry], list[Problem]]:
    """Look at all files; the images that are fit for an index, and all problems of the source.

    Masks that have to be drawn go into an archive in `out`, nowhere for None.
    """
    problems = list(source.problems)
    entries = _listed_once(source.entries, problems)
    look = Inspection(source.root, choice.labels, choice.values)
    if not source.entries:
        problems.append(error(source.root, "lists no image", "name images in its lists or labels"))
    draws = out is not None and any(entry.render for entry in entries)
    images = []
    with writing_archive(out / MASKS) if out is not None and draws else nullcontext() as add:
        for entry, finding in zip(entries, spread(look, entries, workers, progress), strict=True):
            problems += finding.problems
            problems += _check_tags(entry)
            problems += _check_split(entry)
            if finding.size != (0, 0):
                images.append(_image(entry, finding, choice, val))
            if add is not None and finding.drawn is not None:
                add(str(finding.semantic), finding.drawn[0])
                add(str(finding.instances), finding.drawn[1])
    problems += _check_whole(images, choice, source.root, val)
    return images, problems


def held_out(name: str, val: float) -> bool:
    """Whether an image goes to split `val`: a fixed hash of its id below the share, so that new
    images move no others.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < val * 2**64


def _listed_once(entries: Sequence[Entry], problems: list[Problem]) -> list[Entry]:
    """Entries with a sound id of their own; the others go into the problems."""
    kept: dict[str, Entry] = {}
    for entry in entries:
        complaint = complain_of_id(entry.id)
        if complaint is not None:
            what = f"the id {entry.id!r} {complaint}"
            problems.append(
                error(
                    entry.where, what, "give the path of the image below its folder, without suffix"
                )
            )
        elif entry.id in kept:
            what = f"{entry.id!r} is listed already by {kept[entry.id].where}"
            problems.append(error(entry.where, what, "list every image once, in one split"))
        else:
            kept[entry.id] = entry
    return list(kept.values())


def _check_tags(entry: Entry) -> list[Problem]:
    if entry.tags is None:
        return [
            warning(
                entry.where,
                f"{entry.id!r} has no row or file with tags",
                "it counts as showing no class",
            )
        ]
    if not entry.tags:
        return [
            warning(
                entry.where, f"{entry.id!r} has no tags", "right if it shows none of the classes"
            )
        ]
    return []


def _check_split(entry: Entry) -> list[Problem]:
    complaint = None if entry.split is None else complain_of_split(entry.split)
    if complaint is None:
        return []
    return [
        error(
            entry.where, f"the split {entry.split!r} {complaint}", "call it train, val or the like"
        )
    ]


def _image(entry: Entry, finding: Finding, choice: Choice, val: float) -> ImageEntry:
    tags = sorted(choice.labels[tag] - 1 for tag in entry.tags or () if tag in choice.labels)
    split = entry.split or ("val" if held_out(entry.id, val) else "train")
    height, width = finding.size
    masks = finding.semantic, finding.instances
    return ImageEntry(
        entry.id, entry.path, height, width, split, tuple(tags), *masks, finding.digest
    )


def _check_whole(
    images: Sequence[ImageEntry], choice: Choice, root: Path, val: float
) -> list[Problem]:
    """What shows only in the whole: classes without images, splits without images."""
    if not images:
        return []
    problems = []
    count = Counter(tag for image in images if image.split == "train" for tag in image.tags)
    for label, name in enumerate(choice.classes):
        if not count[label]:
            do = "tag some, or leave it out of dataset.classes"
            problems.append(warning(root, f"class {name!r} has no images in split 'train'", do))
    problems += _check_twins(images, root)
    splits = {image.split for image in images}
    if "train" not in splits:
        problems.append(
            error(root, "has no image in split 'train'", "put some there, or lower dataset.val")
        )
    elif not count:
        what = "has no image in split 'train' that is tagged with a class in use"
        problems.append(
            error(root, what, "tag some, or move tagged ones there: nothing can be learned else")
        )
    if val > 0 and len(splits) == 1:
        problems.append(
            warning(
                root,
                f"dataset.val is {val} but all images fell into one split",
                "change dataset.val",
            )
        )
    return problems


def _check_twins(images: Sequence[ImageEntry], root: Path) -> list[Problem]:
    """Images whose ids become one where case does not count, and equal images in two splits."""
    problems = []
    ids: dict[str, ImageEntry] = {}
    contents: dict[str, ImageEntry] = {}
    for image in images:
        other = ids.setdefault(image.id.casefold(), image)
        if other is not image:
            what = f"{image.id!r} and {other.id!r} differ by case alone"
            do = "rename one of the two: Windows and macOS keep files of both names as one"
            problems.append(warning(root, what, do))
        twin = contents.setdefault(image.digest, image)
        if twin.split != image.split:
            what = f"{image.id!r} of split {image.split!r} is the same image as {twin.id!r} of {twin.split!r}"
            problems.append(
                warning(
                    root, what, "keep one of the two, or scores tell of what was learned by heart"
                )
            )
    return problems
