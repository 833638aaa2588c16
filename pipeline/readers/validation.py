"""Validation of a source: its reader, its classes, and all of its problems in one pass."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path

from pipeline.core.artifacts import IGNORE, MAX_CLASSES
from pipeline.core.workers import Progress, spread
from pipeline.data.images import DatasetError, Problem, error, warning
from pipeline.data.index import ImageEntry, Index
from pipeline.data.masks import MASKS, writing_archive
from pipeline.errors import count
from pipeline.readers.agreement import Shown, check_agreement
from pipeline.readers.hints import check_hints
from pipeline.readers.inspection import Finding, inspect
from pipeline.readers.layout import layout_of, read_source, recognize
from pipeline.readers.source import (
    ABSENT,
    UNKNOWN,
    Entry,
    Source,
    no_class,
    normalize_split,
    problem_of_id,
    problem_of_split,
    unmark,
)

RARE = 3
"""How many times as many images a class has whose name a rare class misspells."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The classes in use, in order; class name -> label 1..; value in a mask file -> label."""

    classes: tuple[str, ...]
    labels: Mapping[str, int]
    values: Mapping[int, int]

    def values_in(self, source: Source) -> Mapping[int, int]:
        """Return value -> label of the masks in the index of a source."""
        labels = {label: label for label in (0, *self.labels.values(), IGNORE)}
        return labels if source.renders else self.values


@dataclass(frozen=True, slots=True)
class Survey:
    """What a check found.

    problems: all of them, errors first; title: what the source was taken for; classes: in use;
    images: those that can be used.
    """

    problems: tuple[Problem, ...]
    title: str = ""
    classes: tuple[str, ...] = ()
    images: tuple[ImageEntry, ...] = ()

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(problem.level == "error" for problem in self.problems)

    def count_classes(self) -> dict[str, int]:
        """Return the number of images of each class."""
        return count_classes(self.classes, self.images)

    def count_split(self, split: str) -> int:
        """Return the number of images of a split."""
        return sum(image.split == split for image in self.images)

    def __str__(self) -> str:
        """Return the numbers of images, of each split and of masks."""
        splits = Counter(image.split for image in self.images)
        parts = [", ".join(f"{splits[split]} {split}" for split in sorted(splits))]
        for kind in ("semantic", "instances"):
            masks = sum(getattr(image, kind) is not None for image in self.images)
            parts.append(f"{masks or 'none'} with {kind.removesuffix('s')} masks")
        return f"{count(len(self.images), 'image')}: {'; '.join(filter(None, parts))}"


def count_classes(classes: Sequence[str], images: Sequence[ImageEntry]) -> dict[str, int]:
    """Return the number of images of each class."""
    found = Counter(tag for image in images for tag in image.tags)
    return {name: found[label] for label, name in enumerate(classes)}


def check(
    format: str,  # noqa: A002
    source: Path,
    *,
    classes: Sequence[str] = (),
    val: float = 0.0,
    untagged: str = "absent",
    lists: Mapping[str, str] | None = None,
    annotations: Mapping[str, tuple[str, str]] | None = None,
) -> Survey:
    """Return all problems of a folder at once; write nothing.

    Arguments as in `build`; `format` may be "auto" to recognize it by the layout.
    """
    problems, title, auto = list[Problem](), format, format == "auto"
    try:
        layout = recognize(source) if auto else layout_of(format, source, lists, annotations)
        title = layout.title or format
        found = read_source(source, layout)
        problems = found.problems
        choice = choose(found.classes, classes, found.names)
    except DatasetError as problem:
        return Survey(tuple(problems + problem.problems), title)
    images, problems = examine(found, choice, val=val, untagged=untagged)
    index = Index(choice.classes, images, source, source, choice.values_in(found))
    problems += check_hints(source, index)
    problems.sort(key=lambda problem: problem.level)
    return Survey(tuple(problems), title, choice.classes, tuple(images))


def choose(known: Sequence[str], wanted: Sequence[str], names: Mapping[int, str]) -> Choice:
    """Choose classes and number their labels.

    Args:
        known: classes of the source.
        wanted: a subset in the order wanted, empty for all; the others become background.
        names: of the source by mask value (see Source).

    Raises:
        DatasetError: unknown, repeated or unprintable names, or more than 254 classes.
    """
    classes = tuple(wanted) or tuple(known)
    found = [
        (f"{name!r} is not a class of the source", f"valid are {', '.join(known)}")
        for name in sorted(set(classes) - set(known))
    ]
    for name, times in Counter(classes).items():
        if times > 1:
            found.append((f"{name!r} is listed {times} times", "list every class once"))
        if no_class(name) is not None:
            do = "remove it: pixels without a class are background, and 255 is ignored"
            found.append((f"{name!r} cannot be a class", do))
        elif not name or name != name.strip() or not name.isprintable():
            what = f"the class name {name!r} is empty, has blanks at its ends or control characters"
            found.append((what, "use a readable name"))
    if len(classes) > MAX_CLASSES:
        what = f"there are {len(classes)} classes, more than {MAX_CLASSES}"
        found.append((what, "choose a subset with dataset.classes"))
    if found:
        raise DatasetError([error("dataset.classes", what, do) for what, do in found])
    labels = {name: label for label, name in enumerate(classes, start=1)}
    values = {
        value: labels.get(name, no_class(name) or 0)
        for value, name in names.items()
        if value < IGNORE
    }
    return Choice(classes, labels, {0: 0, **values, IGNORE: IGNORE})


def examine(
    source: Source,
    choice: Choice,
    *,
    val: float = 0.0,
    untagged: str = "absent",
    out: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[list[ImageEntry], list[Problem]]:
    """Inspect all files of a source.

    Args:
        source: what a reader found.
        choice: the classes in use.
        val: fraction of held-out images if the source names no splits.
        untagged: `absent` or `unknown`, what classes without a tag are.
        out: folder for the archive of rendered masks; None to write nothing.
        workers: number of processes.
        progress: called with (done, total) after every image.

    Returns:
        The images fit for an index, and all problems of the source.
    """
    entries, problems = _unique(source)
    if not source.entries:
        problems.append(error(source.root, "lists no image", "add images to its lists or labels"))
    work = partial(inspect, source.root, choice.labels, choice.values)
    images, shown = [], []
    with writing_archive(out / MASKS) if out and source.renders else nullcontext() as add:
        findings = spread(work, entries, workers, progress)
        for entry, finding in zip(entries, findings, strict=True):
            if source.tags_of_masks and finding.shown is not None:
                tags = frozenset(choice.classes[k - 1] for k in finding.shown - {IGNORE})
                entry = replace(entry, tags=tags | {ABSENT})
            present, unknown = resolve_tags(entry.tags or (), choice.labels, untagged)
            problems += finding.problems
            problems += _check_entry(entry, untagged)
            if finding.shown is not None:
                labels = finding.shown - unknown
                shown.append(Shown(str(entry.semantic), present, labels))
            if finding.size != (0, 0):
                images.append(_image(entry, finding, present, unknown, val))
            if add is not None and finding.rendered is not None:
                add(str(finding.semantic), finding.rendered[0])
                if finding.rendered[1]:
                    add(str(finding.instances), finding.rendered[1])
    problems += _check_tags(source.root, entries, untagged)
    problems += check_agreement(
        source.root, shown, {label: name for name, label in choice.labels.items()}
    )
    problems += _check_class_names(source.root, count_classes(choice.classes, images))
    if images:
        problems += _check_classes_and_splits(images, choice, source.root, val)
        problems += _check_twins(images, source.root)
    return images, problems


def resolve_tags(
    tags: Collection[str], labels: Mapping[str, int], untagged: str
) -> tuple[frozenset[int], frozenset[int]]:
    """Return the labels that are present in an image, and those that may be.

    tags: class names, perhaps marked; labels: class name -> label in use; untagged: `absent` or
    `unknown`, what classes without a tag are, unless a mark alone says it of this image.
    """
    marked: dict[str, set[int]] = {"": set(), UNKNOWN: set(), ABSENT: set()}
    for tag in tags:
        name, mark = unmark(tag, labels)
        if name in labels:
            marked[mark].add(labels[name])
    if UNKNOWN in tags or (untagged == "unknown" and ABSENT not in tags):
        marked[UNKNOWN] |= {*labels.values()} - marked[""] - marked[ABSENT]
    return frozenset(marked[""]), frozenset(marked[UNKNOWN])


def is_held_out(name: str, val: float) -> bool:
    """Return whether an image goes to split `val`: whether a fixed hash of its id is below `val`.

    New images therefore never move others to another split.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < val * 2**64


def _unique(source: Source) -> tuple[list[Entry], list[Problem]]:
    """Return the entries with a valid id of their own, and the source's problems with the rest."""
    kept: dict[str, Entry] = {}
    problems = list(source.problems)
    for entry in source.entries:
        problem = problem_of_id(entry.id)
        if problem is not None:
            what = f"the id {entry.id!r} {problem}"
            do = "write the path of the image below its folder, without suffix"
            problems.append(error(entry.where, what, do))
        elif entry.id in kept:
            what = f"{entry.id!r} is already listed by {kept[entry.id].where}"
            problems.append(error(entry.where, what, "list every image once, in one split"))
        else:
            kept[entry.id] = entry
    return list(kept.values()), problems


def _check_entry(entry: Entry, untagged: str) -> list[Problem]:
    """Check the tags and the split of an entry."""
    problems = []
    if entry.tags is not None and not entry.tags:
        do = "ignore this if it shows none of the classes"
        if untagged == "unknown":
            do = f"tag it {ABSENT} if it shows none of the classes; it teaches nothing otherwise"
        problems.append(warning(entry.where, f"{entry.id!r} has no tags", do))
    wrong = None if entry.split is None else problem_of_split(entry.split)
    if wrong is not None:
        what = f"the split {entry.split!r} {wrong}"
        problems.append(error(entry.where, what, "call it train, val or the like"))
    return problems


def _check_tags(root: Path, entries: Sequence[Entry], untagged: str) -> list[Problem]:
    """Report images without a row or file of tags: errors where most images have one."""
    without = [entry for entry in entries if entry.tags is None]
    report, do = warning, "it is treated as showing no class"
    if untagged == "unknown":
        do = "any class may be in it"
    elif 2 * len(without) < len(entries):
        report, do = error, "add it, empty if the image shows no class, or leave the image out"
    return [
        report(entry.where, f"{entry.id!r} has no row or file with tags", do) for entry in without
    ]


def _image(
    entry: Entry, finding: Finding, present: Iterable[int], unknown: Iterable[int], val: float
) -> ImageEntry:
    tags, maybe = (tuple(label - 1 for label in sorted(labels)) for labels in (present, unknown))
    held_out = "val" if is_held_out(entry.id, val) else "train"
    split = normalize_split(entry.split) if entry.split else held_out
    masks = finding.semantic, finding.instances
    return ImageEntry(
        entry.id, entry.path, *finding.size, split, tags, *masks, finding.digest, maybe
    )


def _check_classes_and_splits(
    images: Sequence[ImageEntry], choice: Choice, root: Path, val: float
) -> list[Problem]:
    """Report classes and splits with one image or none, and classes without negatives."""
    problems, everywhere = [], count_classes(choice.classes, images)
    trained = [image for image in images if image.split == "train"]
    count = Counter(tag for image in trained for tag in image.tags)
    maybe = Counter(tag for image in trained for tag in image.unknown)
    for label, name in enumerate(choice.classes):
        if not count[label]:
            do = "tag some, or leave it out of dataset.classes"
            problems.append(warning(root, f"class {name!r} has no images in split 'train'", do))
        elif everywhere[name] == 1:
            do = "tag more, or leave it out of dataset.classes; one image teaches little"
            problems.append(warning(root, f"class {name!r} has one image", do))
        elif maybe[label] and maybe[label] + count[label] == len(trained):
            what = f"class {name!r} is not marked absent in any image of split 'train'"
            do = f"tag some {ABSENT}{name}; a class without negatives is found everywhere"
            problems.append(warning(root, what, do))
    splits = Counter(image.split for image in images)
    if "train" not in splits:
        do = "put some there, or lower dataset.val"
        problems.append(error(root, "has no image in split 'train'", do))
    elif not count:
        what = "has no image in split 'train' that is tagged with a class in use"
        do = "tag some, or move tagged ones there; there is nothing to learn from otherwise"
        problems.append(error(root, what, do))
    if splits["val"] == 1:
        do = "put more there, or raise dataset.val; scores of one image say little"
        problems.append(warning(root, "has one image in split 'val'", do))
    others = sorted(splits.keys() - {"train", "val"})
    if others:
        what = f"{', '.join(others)}: splits that are neither train nor val"
        do = "ignore this if they are meant to be neither trained nor scored on"
        problems.append(warning(root, what, do))
    if val > 0 and len(splits) == 1:
        what = f"dataset.val is {val} but all images are in one split"
        problems.append(warning(root, what, "change dataset.val"))
    return problems


def _check_class_names(root: Path, images: Mapping[str, int]) -> list[Problem]:
    """Warn of classes whose names differ only in case or in blanks, `-` and `_`, or by one edit
    where one of them is rare; `images` counts those of each class.
    """
    problems, spellings = [], dict[str, str]()
    for name in images:
        key = re.sub(r"[\s_-]+", " ", name.casefold())
        do = "write both the same way if they are one class"
        if other := spellings.get(key):
            what = f"the classes {other!r} and {name!r} differ only in case or blanks"
            problems.append(warning(root, what, do))
        for seen, other in spellings.items():
            rare, usual = sorted((name, other), key=images.__getitem__)
            if 0 < RARE * images[rare] <= images[usual] and _is_near(key, seen):
                what = f"class {rare!r} ({count(images[rare], 'image')}) may be a misspelled "
                what += f"{usual!r} ({images[usual]})"
                problems.append(warning(root, what, do))
        spellings.setdefault(key, name)
    return problems


def _is_near(first: str, second: str) -> bool:
    """Return whether one letter that is added, left out, changed or moved by one makes one word of
    three letters or more into the other (Damerau, CACM 1964).
    """
    if min(len(first), len(second)) < 3 or first == second:
        return False
    for _ in range(2):  # the common beginning goes, then the common end
        pairs = zip(first, second, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        first, second = first[same:][::-1], second[same:][::-1]
    moved = len(first) == 2 and first == second[::-1]
    return (first + second).isalpha() and (moved or max(len(first), len(second)) == 1)


def _check_twins(images: Sequence[ImageEntry], root: Path) -> list[Problem]:
    """Warn of ids that differ only in case, and of equal images in two splits."""
    problems = []
    ids: dict[str, ImageEntry] = {}
    contents: dict[str, ImageEntry] = {}
    for image in images:
        other = ids.setdefault(image.id.casefold(), image)
        if other is not image:
            what = f"{image.id!r} and {other.id!r} differ only in case"
            do = "rename one of the two: Windows and macOS treat both names as one file"
            problems.append(warning(root, what, do))
        twin = contents.setdefault(image.digest, image)
        if twin.split != image.split:
            same = f"is the same image as {twin.id!r} of {twin.split!r}"
            what = f"{image.id!r} of split {image.split!r} {same}"
            do = "keep only one copy; otherwise the scores include training images"
            problems.append(warning(root, what, do))
    return problems
