"""Predictions of the final models on new images, written as files.

Results are written image by image, each file atomically: an interrupted run leaves only complete
files. An image that cannot be read is recorded with its reason, and the others continue.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from pipeline.core import engine
from pipeline.core.artifacts import Record
from pipeline.core.device import Runtime, stack
from pipeline.core.resume import write_atomically
from pipeline.core.workers import reraise_worker_death
from pipeline.data.images import read_image, read_size
from pipeline.data.instance_masks import unpack
from pipeline.errors import UserError
from pipeline.export import coco
from pipeline.export.images import keep_out
from pipeline.export.voc import color_map, palette_png
from pipeline.labelling.crf import refine_probabilities
from pipeline.predict import (
    InstancePredictor,
    SemanticPredictor,
    detection_record,
    enlarged_labels,
)
from pipeline.readers.inputs import InputImages
from pipeline.readers.source import without_suffix
from pipeline.tiles import BlendedLabels, Tile, Tiling
from pipeline.views import sheets

MASKS, OVERLAYS = "masks", "overlays"
LABELMAP, INSTANCES_JSON = "labelmap.csv", "instances.json"
"""Names in the output folder: folders with a file per image, and files about all images."""
IMAGES_PER_WORKER = 16
"""Images that are worth a process of their own, whose start takes seconds."""


@dataclass(frozen=True, slots=True)
class OutputPaths:
    """Where results go, and what they are about.

    classes: names by class id; overlays: whether to draw the results over the images; files: name
    -> image file.
    """

    folder: Path
    classes: Sequence[str]
    overlays: bool
    files: Mapping[str, Path]

    def load(self, name: str) -> np.ndarray:
        """Read an image as uint8 [H,W,3], upright."""
        return read_image(self.files[name])

    def write_overlay(self, name: str, drawn: np.ndarray) -> None:
        """Write overlays/<name>.jpg."""
        write_atomically(self.folder / OVERLAYS / f"{without_suffix(name)}.jpg", sheets.jpeg(drawn))


@dataclass(frozen=True, slots=True)
class Part:
    """What a semantic model sees at once: a tile of an image.

    size: (height, width) of the image; shown: of the image as it is shown to the model.
    """

    name: str
    size: tuple[int, int]
    shown: tuple[int, int]
    tile: Tile

    @property
    def whole(self) -> bool:
        """Whether the tile is the whole image."""
        return self.tile == (0, self.shown[0], 0, self.shown[1])


@dataclass(slots=True)
class PredictionSummary:
    """Number of instances written; failed images with their reasons."""

    instances: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def check_output_folder(folder: Path, inputs: InputImages) -> None:
    """Raise UserError for a folder whose results would overwrite images, or be read as images the
    next time.
    """
    for searched in inputs.folders:
        keep_out(folder, searched, "the images are")
    written = [(folder / part).resolve() for part in (MASKS, OVERLAYS)]
    for path in inputs.files.values():
        if any(path.resolve().is_relative_to(part) for part in written):
            raise UserError(f"{path}: is in -o {folder}, which is written to; name another folder")


def plan(
    files: Mapping[str, Path], shown: Callable[[tuple[int, int]], tuple[int, int]], tiling: Tiling
) -> dict[str, Part]:
    """Return what a semantic model sees at once, by keys in order: the tiles of each image.

    shown: returns the (height, width) at which to show an image of some size.
    """
    parts: dict[str, Part] = {}
    for name, path in files.items():
        size = read_size(path) or (1, 1)  # an image that cannot be read fails where it is loaded
        scaled = shown(size)
        for number, tile in enumerate(tiling.tiles(scaled)):
            parts[f"{name}:{number}"] = Part(name, size, scaled, tile)
    return parts


@dataclass(slots=True)
class PartLoader:
    """Loads parts of images; remembers the last image, whose other tiles come next."""

    output: OutputPaths
    parts: Mapping[str, Part]
    last: tuple[str, np.ndarray] | None = None

    def __call__(self, key: str) -> np.ndarray:
        """Return the pixels of a part, uint8 [h,w,3]."""
        part = self.parts[key]
        if self.last is None or self.last[0] != part.name:
            image = self.output.load(part.name)
            if part.shown != part.size:
                image = cv2.resize(image, part.shown[::-1], interpolation=cv2.INTER_AREA)
            self.last = part.name, image
        return np.ascontiguousarray(part.tile.cut(self.last[1]))


def predict_labels(
    predictor: SemanticPredictor,
    output: OutputPaths,
    parts: Mapping[str, Part],
    tiling: Tiling,
    crf: Mapping[str, Any],
    runtime: Runtime,
) -> PredictionSummary:
    """Write masks/<name>.png of all images, overlays and labelmap.csv.

    Args:
        predictor: the model.
        output: where to.
        parts: what it sees at once, see plan.
        tiling: what the tiles among them are of.
        crf: parameters of the CRF that refines each part.
        runtime: the machine.
    """
    summary = PredictionSummary()
    write_atomically(output.folder / LABELMAP, labelmap(output.classes))
    task = engine.Task(
        PartLoader(output, parts),
        partial(_refined, output, parts, crf),
        partial(_class_probabilities, predictor, runtime),
    )
    names = {key: part.name for key, part in parts.items()}
    blended: BlendedLabels | None = None
    for key, refined in _results(task, names, output, runtime, summary):
        part = parts[key]
        if not part.whole and part.name not in summary.failures:
            if part.tile.top == part.tile.left == 0:
                blended = BlendedLabels(tiling, part.shown, len(refined))
            assert blended is not None
            blended.add(part.tile, refined)
            if (part.tile.bottom, part.tile.right) == part.shown:
                labels = cv2.resize(blended.labels, part.size[::-1], None, 0, 0, cv2.INTER_NEAREST)
                _write_label_map(output, part.name, output.load(part.name), labels)
    return summary


def _class_probabilities(
    predictor: SemanticPredictor,
    runtime: Runtime,
    names: Sequence[str],
    images: Sequence[np.ndarray],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each image with its probabilities [L,H,W]; those of one size are a batch."""
    numbers: dict[tuple[int, ...], list[int]] = {}
    for number, image in enumerate(images):
        numbers.setdefault(image.shape, []).append(number)
    found: dict[int, np.ndarray] = {}
    for alike in numbers.values():
        pixels = stack([images[number] for number in alike], runtime.device)
        with runtime.autocast():
            found |= zip(alike, predictor(pixels), strict=True)
    return [(image, found[number]) for number, image in enumerate(images)]


def _refined(
    output: OutputPaths,
    parts: Mapping[str, Part],
    crf: Mapping[str, Any],
    key: str,
    found: tuple[np.ndarray, np.ndarray],
) -> np.ndarray | None:
    """Return the refined class probabilities of a tile; of a whole image, write the results."""
    part, (pixels, probabilities) = parts[key], found
    refined = refine_probabilities(pixels, probabilities, crf)
    if not part.whole:
        return refined
    image = pixels if part.shown == part.size else output.load(part.name)
    _write_label_map(output, part.name, image, enlarged_labels(refined, part.size))
    return None


def _write_label_map(output: OutputPaths, name: str, image: np.ndarray, labels: np.ndarray) -> None:
    """Write the label map and overlay of an image."""
    write_atomically(output.folder / MASKS / f"{without_suffix(name)}.png", palette_png(labels))
    if output.overlays:
        output.write_overlay(name, sheets.labeled(image, labels, output.classes))


def predict_instances(
    predictor: InstancePredictor, output: OutputPaths, runtime: Runtime
) -> PredictionSummary:
    """Write instances.json of all images, in COCO's format with RLE and scores, and overlays."""
    summary = PredictionSummary()
    task = engine.Task(
        output.load, partial(_annotations, output), partial(_instance_records, predictor, runtime)
    )
    with coco.document(output.folder / INSTANCES_JSON, output.classes) as content:
        names = {name: name for name in output.files}
        for name, (size, annotations) in _results(task, names, output, runtime, summary):
            content.add(name, size, annotations)
    summary.instances = content.instances
    return summary


def _instance_records(
    predictor: InstancePredictor,
    runtime: Runtime,
    names: Sequence[str],
    images: Sequence[np.ndarray],
) -> list[tuple[np.ndarray, Record]]:
    """Return each image with the record of its instances."""
    pixels = [stack([image], runtime.device)[0] for image in images]
    with runtime.autocast():
        found = predictor(pixels)
    return [(image, detection_record(one)) for image, one in zip(images, found, strict=True)]


def _annotations(
    output: OutputPaths, name: str, found: tuple[np.ndarray, Record]
) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """Write the overlay of an image; return its (height, width) and COCO annotations."""
    image, record = found
    size = image.shape[0], image.shape[1]
    masks = unpack(record["instances"], size[1])
    classes, scores = record["classes"], record["scores"]
    if output.overlays:
        drawn = sheets.found(image, masks, classes, scores, output.classes)
        output.write_overlay(name, drawn)
    rows = zip(masks, classes, scores, strict=True)
    return size, [coco.annotation(mask, c, score) for mask, c, score in rows]


def labelmap(classes: Sequence[str]) -> bytes:
    """Return a CSV of label values, class names and their colors (VOC's palette)."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["value", "name", "red", "green", "blue"])
    for value, name in enumerate(["background", *classes]):
        rows.writerow([value, name, *color_map()[value].tolist()])
    return text.getvalue().encode()


def _results(
    task: engine.Task,
    names: Mapping[str, str],
    output: OutputPaths,
    runtime: Runtime,
    summary: PredictionSummary,
) -> Iterator[tuple[str, Any]]:
    """Yield (key, result) of what succeeds, in order; record failing images in `summary`.

    names: image name of each key.
    """
    workers = min(runtime.workers, 1 + (len(names) - 1) // IMAGES_PER_WORKER)
    results = engine.stream(task, [list(names)], workers, runtime.batch)
    resume = "the files written so far are complete, run again with --force"
    unit = "image" if len(names) == len(output.files) else "tile"
    with (
        reraise_worker_death(UserError, after=resume, option="--workers"),
        closing(results),
        tqdm(results, "predict", len(names), unit=unit, mininterval=1) as bar,
    ):
        for key, result in bar:
            name = names[key]
            if isinstance(result, UserError):
                summary.failures[name] = str(result)
            elif isinstance(result, Exception):
                kind = type(result).__name__
                summary.failures[name] = f"{output.files[name]}: {kind}: {result}"
            else:
                yield key, result
