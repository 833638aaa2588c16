"""Hints: what a person or another model knows about pixels, in the folder hints/ of a source.

| file | says |
|---|---|
| `NAME.png` | labels as in the source's masks; 255: nothing said |
| `*.json` | COCO: the mask of an annotation (a crowd is no object), else keypoints, else its box |
| `*.csv` | `image,class,x,y[,stroke]`: points in pixels; those of one stroke are a scribble |

They come from a person, whose word holds, unless an annotation has a score or the file lies in
hints/model/: models may be wrong. What lies in hints/trial/ only scores read. Class `background` is
a label like any other. Tags gate both: what is of a class that an image does not have is dropped
and counted.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipeline.core.artifacts import IGNORE, Record
from pipeline.data.images import DatasetError, Problem, error, raise_errors, warning
from pipeline.data.index import Index
from pipeline.data.masks import read_values, to_labels
from pipeline.errors import count
from pipeline.readers import coco
from pipeline.readers.outlines import clean, rasterize
from pipeline.readers.source import HINTS, Files, Names, no_class, normalize, without_suffix
from pipeline.readers.tables import read_rows

MODEL = "model/"
"""Subfolder of hints/ for what models say without a score."""
TRIAL = "trial/"
"""Subfolder of hints/ for what scores alone may know: the ground truth of a trial set."""
COLUMNS = ["image", "class", "x", "y", "stroke"]
WIDTH = 3
"""Width in pixels of a point and of a scribble."""
DO_EXPORT = "fix the file or export it again"
DO_POINT = f"write {','.join(COLUMNS)}, x and y in pixels; the stroke may be missing"


class Shape(NamedTuple):
    """One annotation, stroke or point of an image.

    label: 0 background, c + 1 class c; score: 1 without one; person: whether a person says so;
    where: file and place, for messages; segmentation: of COCO; whole: whether it is of one object;
    box: x0, y0, x1, y1; points: f4 [P,2], x then y.
    """

    label: int
    score: float
    person: bool
    where: str
    segmentation: Any = None
    whole: bool = True
    box: tuple[float, float, float, float] | None = None
    points: np.ndarray | None = None


@dataclass(slots=True)
class ImageHints:
    """The hints of one image: mask files, each with whether it is a person's, and shapes."""

    masks: list[tuple[Path, bool]] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)


@dataclass(slots=True)
class Hints:
    """All hints of a source: images by id, the files they came from, and the problems."""

    images: dict[str, ImageHints] = field(default_factory=lambda: defaultdict(ImageHints))
    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_hints(root: Path, index: Index, *, trial: bool = False) -> Hints:
    """Read the hints of a source, or its trial set, for the images of split train; nothing without
    a folder hints/.

    Raises:
        DatasetError: lists every file and row that cannot be used.
    """
    hints = _find(root, index, trial=trial)
    raise_errors(hints.problems)
    return hints


def check_hints(root: Path, index: Index) -> list[Problem]:
    """Return all problems of a source's hints and trial set, those of masks and outlines too."""
    problems = []
    for trial in (False, True):
        found = _find(root, index, trial=trial)
        problems += found.problems
        for name, hints in found.images.items():
            try:
                render(hints, index, name, None)
            except DatasetError as problem:
                problems += problem.problems
    return problems


def _find(root: Path, index: Index, *, trial: bool) -> Hints:
    """Read the hints as far as they can be, with all problems but those of rendering them."""
    hints, folder = Hints(), root / HINTS / (TRIAL if trial else "")
    names = image_names(index, [name for name, image in index.items() if image.split == "train"])
    unknown: dict[str, None] = {}
    masks = Files(root, folder.relative_to(root).as_posix(), (".png",))
    hints.problems += masks.problems
    for name, file in masks.found.items():
        if name.startswith(TRIAL):
            continue
        of_model = name not in index and name.startswith(MODEL)
        name = name.removeprefix(MODEL) if of_model else name
        if (found := names.find(name, anywhere=True)) is None:
            unknown[name] = None
        else:
            hints.images[found].masks.append((root / file, not of_model))
            hints.files.append(root / file)
    for path in sorted(folder.rglob("*")):
        read = {".json": _read_coco, ".csv": _read_points}.get(path.suffix.lower())
        below = path.relative_to(folder).as_posix()
        if read is not None and path.is_file() and not below.startswith(TRIAL):
            person = not below.startswith(MODEL)
            hints.files.append(path)
            try:
                for image, shape in read(path, index.classes, person, hints.problems):
                    if (found := names.find(image, anywhere=True)) is None:
                        unknown[image] = None
                    else:
                        hints.images[found].shapes.append(shape)
            except DatasetError as problem:
                hints.problems += problem.problems
    if unknown:
        images = count(len(unknown), "image")
        what = f"hints on {images}, such as {next(iter(unknown))!r}, are not used"
        do = "hints are used where their image is in split train"
        hints.problems.append(warning(folder, what, do))
    return hints


def image_names(index: Index, wanted: Collection[str]) -> Names[str]:
    """Return the wanted images by what files call them: an id, or a path that ends in it."""
    paths = {without_suffix(index[name].path): name for name in wanted}
    return Names({name: name for name in wanted} | paths)


def _label(name: str, classes: Sequence[str]) -> int | None:
    """Return the label of a class name, IGNORE for void, None if it is not a class."""
    known = no_class(name)
    return classes.index(name) + 1 if name in classes else known


def _read_coco(
    path: Path, classes: Sequence[str], person: bool, problems: list[Problem]
) -> Iterator[tuple[str, Shape]]:
    """Yield image file and shape of each annotation; what is of no class is one warning."""
    content = coco.load(path)
    labels = {number: _label(name, classes) for number, name in coco.categories(path, content)}
    files = {coco.key(row.get("id")): row.get("file_name") for row in content["images"]}
    foreign = 0
    for row in content["annotations"]:
        where = f"{path}, annotation {row.get('id')!r}"
        file = files.get(coco.key(row.get("image_id")))
        category = coco.key(row.get("category_id"))
        label = None if category is None else labels.get(category)
        if not isinstance(file, str):
            what = f"belongs to image {row.get('image_id')!r}, which is not listed"
            problems.append(error(where, what, DO_EXPORT))
        elif label is None:
            foreign += 1
        elif label != IGNORE:
            try:
                for shape in _shapes(row, label, person, where):
                    yield file, shape
            except (TypeError, ValueError, OverflowError) as problem:
                problems.append(error(where, str(problem), DO_EXPORT))
    if foreign:
        what, do = f"annotations of no class: {foreign}", f"the classes are {', '.join(classes)}"
        problems.append(warning(path, what, do))


def _shapes(row: coco.Json, label: int, person: bool, where: str) -> list[Shape]:
    """Return the shapes of an annotation, one per visible keypoint; raise ValueError that says what
    is wrong with it.
    """
    score = row.get("score")
    value = 1.0 if score is None else float(score)
    if not 0 <= value <= 1:
        raise ValueError(f"has the score {score}, which is not in 0..1")
    head = (label, value, person and score is None, where)
    segmentation, _ = clean(row.get("segmentation"))
    if segmentation and segmentation != [[]]:
        return [Shape(*head, segmentation=segmentation, whole=not coco.is_crowd(row))]
    if row.get("keypoints"):
        points = _numbers(row["keypoints"], 3, "keypoints").reshape(-1, 3)
        visible = points[points[:, 2] > 0, None, :2]
        if len(visible):
            return [Shape(*head, points=point) for point in visible]
    x, y, width, height = _numbers(row.get("bbox"), 4, "bbox")[:4].tolist()
    if width <= 0 or height <= 0:
        raise ValueError("its box has no area")
    return [Shape(*head, box=(x, y, x + width, y + height))]


def _numbers(values: Any, multiple: int, name: str) -> np.ndarray:
    try:
        numbers = np.asarray(values, np.float32).ravel()
    except (TypeError, ValueError):
        numbers = np.zeros(0, np.float32)
    if not len(numbers) or len(numbers) % multiple or not np.isfinite(numbers).all():
        raise ValueError(f"its {name} is not a list of {multiple} numbers")
    return numbers


def _read_points(
    path: Path, classes: Sequence[str], person: bool, problems: list[Problem]
) -> Iterator[tuple[str, Shape]]:
    """Yield image and shape of each stroke of a table; points without a stroke are one each."""
    strokes: dict[tuple[str, str, str], tuple[str, list[tuple[float, float]]]] = {}
    for where, cells in read_rows(path, COLUMNS, DO_POINT, problems):
        image, name, x, y, stroke = [*cells, ""][:5]
        try:
            point = float(x), float(y)
        except ValueError:
            point = math.nan, math.nan
        if not np.isfinite(point).all():
            problems.append(error(where, f"is {','.join(cells)!r}", DO_POINT))
        elif _label(normalize(name), classes) in (None, IGNORE):
            do = f"the classes are {', '.join(classes)} and background"
            problems.append(error(where, f"{name!r} is not a class", do))
        else:
            key = image, normalize(name), stroke or where
            strokes.setdefault(key, (where, []))[1].append(point)
    for (image, name, _), (where, points) in strokes.items():
        label = _label(name, classes)
        assert label is not None
        yield image, Shape(label, 1.0, person, where, points=np.array(points, np.float32))


def render(hints: ImageHints, index: Index, name: str, segments: np.ndarray | None) -> Record:
    """Return the record of an image, layout `hints`, gated by its tags.

    A person's masks, points and scribbles become `pixels`: 0 background, c + 1 class c, 255 nothing
    said. A point or scribble also speaks for the segments under it, unless those of two classes
    meet in one. A model's become `evidence` [K,H,W], its scores for each of `classes` [K].
    `instances` are the masks of objects 1..N, `objects` [N,3] their class, score and whether a
    person's; `boxes` [B,7] likewise, then x0, y0, x1, y1. `gated` are the classes of what was
    dropped.

    Args:
        hints: those of the image.
        index: the dataset.
        name: the image.
        segments: ids [H,W], 0 for none; None if there are no segments.

    Raises:
        DatasetError: a mask does not fit the image, or an outline is invalid.
    """
    size, tags, gated = index.size(name), index[name].tags, list[int]()
    allowed = {0, IGNORE, *(c + 1 for c in tags)}
    pixels, instances = np.full(size, IGNORE, np.uint8), np.zeros(size, np.uint16)
    evidence, objects = np.zeros((len(tags), *size), np.float32), list[tuple[float, ...]]()
    for path, person in hints.masks:
        labels = _mask(path, index, size)
        excluded = [int(value) for value in np.unique(labels) if value not in allowed]
        gated += [value - 1 for value in excluded]
        labels[np.isin(labels, excluded)] = IGNORE
        if person:
            pixels = np.where(labels == IGNORE, pixels, labels)
        elif tags:
            evidence = np.maximum(evidence, [labels == c + 1 for c in tags])
    gated += [shape.label - 1 for shape in hints.shapes if shape.label not in allowed]
    shapes = [shape for shape in hints.shapes if shape.label in allowed]
    outlines = [(shape, _area(shape, size)) for shape in shapes if shape.segmentation]
    outlines.sort(key=lambda pair: (pair[0].person, -int(pair[1].sum())))  # smaller ones in front
    for shape, mask in outlines:
        single = shape.whole and shape.label > 0
        if single:
            objects.append((shape.label - 1, shape.score, shape.person))
        if single or shape.person:
            instances[mask] = len(objects) if single else 0
        if shape.person:
            pixels[mask] = shape.label
        elif shape.label:
            own = evidence[tags.index(shape.label - 1)]
            own[mask] = np.maximum(own[mask], shape.score)
    _draw_points([shape for shape in shapes if shape.points is not None], pixels, segments)
    boxes = [(s.label - 1, s.score, s.person, *s.box) for s in shapes if s.box and s.label]
    kept = evidence.any((1, 2))
    return {
        "pixels": pixels,
        "instances": instances,
        "evidence": evidence[kept],
        "classes": np.array(tags, np.uint8)[kept],
        "objects": np.array(objects, np.float32).reshape(-1, 3),
        "boxes": np.array(boxes, np.float32).reshape(-1, 7),
        "gated": np.array(sorted(gated), np.uint8),
    }


def _mask(path: Path, index: Index, size: tuple[int, int]) -> np.ndarray:
    """Return the labels of a mask file, uint8 [H,W]."""
    values = read_values(path)
    if values.shape != size:
        what = f"is {values.shape[1]} x {values.shape[0]} pixels, its image {size[1]} x {size[0]}"
        raise DatasetError(error(path, what, "save it at the size of the image"))
    return to_labels(values, {**index.mask_values, IGNORE: IGNORE}, path)


def _area(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """Return the mask of an annotation, bool [H,W]."""
    try:
        return rasterize(shape.segmentation, size)
    except ValueError as problem:
        raise DatasetError(error(shape.where, str(problem), DO_EXPORT)) from None


def _draw_points(shapes: Sequence[Shape], pixels: np.ndarray, segments: np.ndarray | None) -> None:
    """Draw points and scribbles of persons on a label map, and before them the segments that they
    speak for, where nothing is said yet.
    """
    lines = [(shape.label, _line(shape, pixels.shape)) for shape in shapes if shape.person]
    if segments is not None:
        labels = defaultdict(set)
        for label, points in lines:
            thin = np.zeros(pixels.shape, np.uint8)
            cv2.polylines(thin, [points], isClosed=False, color=1)
            for segment in np.unique(segments[thin > 0]):
                labels[int(segment)].add(label)
        for segment, found in labels.items():
            if segment and len(found) == 1:
                pixels[(segments == segment) & (pixels == IGNORE)] = found.pop()
    for label, points in lines:
        cv2.polylines(pixels, [points], isClosed=False, color=label, thickness=WIDTH)


def _line(shape: Shape, size: tuple[int, ...]) -> np.ndarray:
    """Return the corners of a stroke as int32 [P,1,2], P >= 2, as OpenCV draws no single point.

    Raises DatasetError if one is outside the image.
    """
    assert shape.points is not None
    points = np.floor(shape.points).astype(np.int64)
    if (points < 0).any() or (points >= size[::-1]).any():
        what, do = "has a point outside the image", f"use pixels of 0..{size[1]}, 0..{size[0]}"
        raise DatasetError(error(shape.where, what, do))
    return np.concatenate([points, points[-1:]]).astype(np.int32)[:, None]
