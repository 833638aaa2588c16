"""Predictions of the final models on new images, written as files.

Results are written image by image, each file atomically: an interrupted run leaves only complete
files. An image that cannot be read is recorded with its reason, and the others continue.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.core import engine
from pipeline.core.artifacts import Record
from pipeline.core.device import Runtime, stack
from pipeline.core.workers import reraise_worker_death
from pipeline.data.images import read_image
from pipeline.data.instance_masks import unpack
from pipeline.errors import UserError
from pipeline.export import coco
from pipeline.export.images import keep_out, write
from pipeline.export.voc import color_map, palette_png
from pipeline.labelling.crf import label_map
from pipeline.predict import InstancePredictor, SemanticPredictor, detection_record
from pipeline.readers.inputs import InputImages
from pipeline.readers.source import without_suffix
from pipeline.views import sheets

MASKS, OVERLAYS = "masks", "overlays"
LABELMAP, INSTANCES_JSON = "labelmap.csv", "instances.json"
"""Names in the output folder: folders with a file per image, and files about all images."""
IMAGES_PER_WORKER = 8
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
        write(self.folder / OVERLAYS / f"{without_suffix(name)}.jpg", sheets.jpeg(drawn))


@dataclass(slots=True)
class PredictionSummary:
    """Numbers of images and instances written; failed images with their reasons."""

    images: int = 0
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


def predict_labels(
    predictor: SemanticPredictor, output: OutputPaths, crf: Mapping[str, Any], runtime: Runtime
) -> PredictionSummary:
    """Write masks/<name>.png of all images, overlays and labelmap.csv; crf: see label_map."""
    summary = PredictionSummary()
    write(output.folder / LABELMAP, labelmap(output.classes))
    task = engine.Task(
        output.load,
        partial(_write_label_map, output, crf),
        partial(_class_probabilities, predictor, runtime),
    )
    for _ in _results(task, output, runtime, summary):
        summary.images += 1
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


def _write_label_map(
    output: OutputPaths, crf: Mapping[str, Any], name: str, found: tuple[np.ndarray, np.ndarray]
) -> None:
    """Write the label map and overlay of an image, in a worker process."""
    labels = label_map(*found, crf)
    write(output.folder / MASKS / f"{without_suffix(name)}.png", palette_png(labels))
    if output.overlays:
        output.write_overlay(name, sheets.labeled(found[0], labels, output.classes))


def predict_instances(
    predictor: InstancePredictor, output: OutputPaths, runtime: Runtime
) -> PredictionSummary:
    """Write instances.json of all images, in COCO's format with RLE and scores, and overlays."""
    summary = PredictionSummary()
    task = engine.Task(
        output.load, partial(_annotations, output), partial(_instance_records, predictor, runtime)
    )
    with coco.document(output.folder / INSTANCES_JSON, output.classes) as content:
        for name, (size, annotations) in _results(task, output, runtime, summary):
            content.add(name, size, annotations)
    summary.images, summary.instances = content.images, content.instances
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
    task: engine.Task, output: OutputPaths, runtime: Runtime, summary: PredictionSummary
) -> Iterator[tuple[str, Any]]:
    """Yield (name, result) of the images that succeed, in order; record the others in `summary`."""
    workers = min(runtime.workers, 1 + (len(output.files) - 1) // IMAGES_PER_WORKER)
    results = engine.stream(task, [list(output.files)], workers, runtime.batch)
    resume = "the files written so far are complete, run again with --force"
    with (
        reraise_worker_death(UserError, after=resume, option="--workers"),
        closing(results),
        tqdm(results, "predict", len(output.files), unit="image", mininterval=1) as bar,
    ):
        for name, result in bar:
            if isinstance(result, UserError):
                summary.failures[name] = str(result)
            elif isinstance(result, Exception):
                kind = type(result).__name__
                summary.failures[name] = f"{output.files[name]}: {kind}: {result}"
            else:
                yield name, result
