"""Everything that may be wrong with a source, found in one pass."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets import coco, folder, scenes, voc
from pipeline.datasets.archive import MASKS, writing_archive
from pipeline.datasets.index import MAX_CLASSES, Picture
from pipeline.datasets.inspection import Finding, Inspection
from pipeline.datasets.problems import DatasetError, Problem, error, warning
from pipeline.datasets.processes import Progress, spread
from pipeline.datasets.source import Entry, Source, complain_of_id, complain_of_split
from pipeline.label_map import IGNORE


@dataclass(frozen=True, slots=True)
class Options:
    """What a format may be told: `lists` of voc (split -> list name), `annotations` of coco (split -> json
    and picture folder)."""

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
    """The classes in use: their order, the label 1.. of each by name, and the table from mask value to
    label."""

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
    _expect_source(source, "give the folder of your pictures")
    if (source / "JPEGImages").is_dir():
        return "voc"
    if (source / "annotations").is_dir():
        return "coco"
    if (source / "labels.csv").is_file() or (source / "images").is_dir():
        return "folder"
    layouts = "JPEGImages/ (voc), annotations/ (coco), or images/ and labels.csv (folder)"
    raise DatasetError(error(source, "has none of the layouts known here", f"it must hold {layouts}"))


def read_source(name: str, source: Path, options: Options) -> Source:
    """What the reader of format `name` finds in the folder; raises DatasetError for an unknown format or a
    missing folder."""
    if name not in READERS:
        raise DatasetError(error("dataset.format", f"{name!r} is unknown", f"valid are {', '.join(FORMATS)}"))
    _expect_source(source, "set dataset.source to the folder of your pictures")
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
    """The classes to use, all of `known` where `wanted` is empty; mask values count `known` from 1, others
    become background.

    Raises DatasetError for unknown or repeated names and for more than 254 classes.
    """
    classes = tuple(wanted) or tuple(known)
    valid = f"valid are {', '.join(known)}"
    strange = sorted(set(classes) - set(known))
    problems = [error("dataset.classes", f"{name!r} is no class of the source", valid) for name in strange]
    for name, count in Counter(classes).items():
        if count > 1:
            problems.append(
                error("dataset.classes", f"{name!r} is listed {count} times", "list every class once")
            )
    for name in dict.fromkeys(classes):
        if name.lower() == "background":
            do = "leave it out: what shows no class is background"
            problems.append(error("dataset.classes", f"{name!r} is the name of what is no class", do))
        elif not name or name != name.strip() or not name.isprintable():
            what = f"the class name {name!r} is empty, has blanks at its ends or holds control characters"
            problems.append(error("dataset.classes", what, "give it a readable name"))
    if len(classes) > MAX_CLASSES:
        what = f"there are {len(classes)} classes, more than {MAX_CLASSES}"
        problems.append(error("dataset.classes", what, "choose those you need with dataset.classes"))
    if problems:
        raise DatasetError(problems)
    labels = {name: label for label, name in enumerate(classes, start=1)}
    values = {value: labels.get(name, 0) for value, name in enumerate(known, start=1) if value < IGNORE}
    return Choice(classes, labels, {0: 0, **values, IGNORE: IGNORE})


def examine(
    source: Source,
    choice: Choice,
    *,
    val: float = 0.0,
    out: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[list[Picture], list[Problem]]:
    """Look at all files; the pictures that are fit for an index, and all problems of the source.

    Masks that have to be drawn go into an archive in `out`, nowhere for None.
    """
    problems = list(source.problems)
    entries = _listed_once(source.entries, problems)
    look = Inspection(source.root, choice.labels, choice.values)
    if not source.entries:
        problems.append(error(source.root, "lists no picture", "name pictures in its lists or labels"))
    draws = out is not None and any(entry.render for entry in entries)
    pictures = []
    with writing_archive(out / MASKS) if out is not None and draws else nullcontext() as add:
        for entry, finding in zip(entries, spread(look, entries, workers, progress), strict=True):
            problems += finding.problems
            problems += _check_tags(entry)
            problems += _check_split(entry)
            if finding.size != (0, 0):
                pictures.append(_picture(entry, finding, choice, val))
            if add is not None and finding.drawn is not None:
                add(str(finding.semantic), finding.drawn[0])
                add(str(finding.instances), finding.drawn[1])
    problems += _check_whole(pictures, choice, source.root, val)
    return pictures, problems


def held_out(name: str, val: float) -> bool:
    """Whether a picture goes to split `val`: a fixed hash of its id below the share, so that new pictures
    move no others."""
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
                error(entry.where, what, "give the path of the picture below its folder, without suffix")
            )
        elif entry.id in kept:
            what = f"{entry.id!r} is listed already by {kept[entry.id].where}"
            problems.append(error(entry.where, what, "list every picture once, in one split"))
        else:
            kept[entry.id] = entry
    return list(kept.values())


def _check_tags(entry: Entry) -> list[Problem]:
    if entry.tags is None:
        return [
            warning(
                entry.where, f"{entry.id!r} has no row or file with tags", "it counts as showing no class"
            )
        ]
    if not entry.tags:
        return [warning(entry.where, f"{entry.id!r} has no tags", "right if it shows none of the classes")]
    return []


def _check_split(entry: Entry) -> list[Problem]:
    complaint = None if entry.split is None else complain_of_split(entry.split)
    if complaint is None:
        return []
    return [error(entry.where, f"the split {entry.split!r} {complaint}", "call it train, val or the like")]


def _picture(entry: Entry, finding: Finding, choice: Choice, val: float) -> Picture:
    tags = sorted(choice.labels[tag] - 1 for tag in entry.tags or () if tag in choice.labels)
    split = entry.split or ("val" if held_out(entry.id, val) else "train")
    height, width = finding.size
    masks = finding.semantic, finding.instances
    return Picture(entry.id, entry.path, height, width, split, tuple(tags), *masks, finding.digest)


def _check_whole(pictures: Sequence[Picture], choice: Choice, root: Path, val: float) -> list[Problem]:
    """What shows only in the whole: classes without pictures, splits without pictures."""
    if not pictures:
        return []
    problems = []
    count = Counter(tag for picture in pictures if picture.split == "train" for tag in picture.tags)
    for label, name in enumerate(choice.classes):
        if not count[label]:
            do = "tag some, or leave it out of dataset.classes"
            problems.append(warning(root, f"class {name!r} has no pictures in split 'train'", do))
    problems += _check_twins(pictures, root)
    splits = {picture.split for picture in pictures}
    if "train" not in splits:
        problems.append(
            error(root, "has no picture in split 'train'", "put some there, or lower dataset.val")
        )
    elif not count:
        what = "has no picture in split 'train' that is tagged with a class in use"
        problems.append(error(root, what, "tag some, or move tagged ones there: nothing can be learnt else"))
    if val > 0 and len(splits) == 1:
        problems.append(
            warning(root, f"dataset.val is {val} but all pictures fell into one split", "change dataset.val")
        )
    return problems


def _check_twins(pictures: Sequence[Picture], root: Path) -> list[Problem]:
    """Pictures whose ids become one where case does not count, and equal pictures in two splits."""
    problems = []
    ids: dict[str, Picture] = {}
    contents: dict[str, Picture] = {}
    for picture in pictures:
        other = ids.setdefault(picture.id.casefold(), picture)
        if other is not picture:
            what = f"{picture.id!r} and {other.id!r} differ by case alone"
            do = "rename one of the two: Windows and macOS keep files of both names as one"
            problems.append(warning(root, what, do))
        twin = contents.setdefault(picture.digest, picture)
        if twin.split != picture.split:
            what = f"{picture.id!r} of split {picture.split!r} is the same picture as {twin.id!r} of {twin.split!r}"
            problems.append(
                warning(root, what, "keep one of the two, or scores tell of what was learnt by heart")
            )
    return problems
