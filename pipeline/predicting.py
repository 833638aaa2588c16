"""A final model on pictures of which nothing is known: masks written as files, one by one, so that a kill leaves whole ones.

A picture that cannot be read is named with its reason, and the others go on.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline import mapping
from pipeline.datasets.given import Given
from pipeline.datasets.images import read_image
from pipeline.datasets.loading import stack
from pipeline.datasets.source import without_suffix
from pipeline.errors import UserError
from pipeline.export import coco
from pipeline.export.files import keep_out, write
from pipeline.export.pictures import Picture
from pipeline.export.voc import colour_map, palette_png
from pipeline.final import Finder, Labeller, as_record, label_map
from pipeline.instances.masks import unpack
from pipeline.runtime import Runtime
from pipeline.store import Record
from pipeline.views import predicted
from pipeline.views.sheets import jpeg
from pipeline.workers import killed_workers_told

MASKS, OVERLAYS = "masks", "overlays"
LABELMAP, INSTANCES = "labelmap.csv", "instances.json"
"""What is written to the output folder: folders of a file per picture, and files about all."""
FEW = 8
"""Pictures that are worth a process of their own, whose start takes seconds."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where results go.

    classes: names by class id; overlays: whether each picture is drawn with what was found; files: name -> picture file.
    """

    folder: Path
    classes: Sequence[str]
    overlays: bool
    files: Mapping[str, Path]

    def load(self, name: str) -> np.ndarray:
        """The picture uint8 [H,W,3], upright."""
        return read_image(self.files[name])

    def draw(self, name: str, drawn: np.ndarray) -> None:
        """Write an overlay."""
        write(self.folder / OVERLAYS / f"{without_suffix(name)}.jpg", jpeg(drawn))


@dataclass(slots=True)
class Outcome:
    """What came out: numbers of pictures and instances written, and the pictures that failed with their reasons."""

    pictures: int = 0
    instances: int = 0
    failures: dict[str, str] = field(default_factory=dict)


class Labelled(NamedTuple):
    """A picture uint8 [H,W,3] and its class probabilities [L,H,W]."""

    image: np.ndarray
    probabilities: np.ndarray


class Found(NamedTuple):
    """A picture uint8 [H,W,3] and its instances, masks as bits."""

    image: np.ndarray
    instances: Record


@dataclass(frozen=True, slots=True)
class LabelMaps:
    """Writes label maps, refined as `crf` says, in worker processes."""

    output: Output
    crf: Mapping[str, Any]

    def finish(self, name: str, labelled: Labelled) -> None:
        """Write masks/<name>.png, whose values are labels, and the overlay."""
        labels = label_map(*labelled, self.crf)
        write(self.output.folder / MASKS / f"{without_suffix(name)}.png", palette_png(labels))
        if self.output.overlays:
            self.output.draw(name, predicted.labelled(labelled.image, labels, self.output.classes))


@dataclass(frozen=True, slots=True)
class Instances:
    """Draws instances and says of each what COCO wants to know, in worker processes."""

    output: Output

    def finish(self, name: str, found: Found) -> tuple[tuple[int, int], list[dict[str, Any]]]:
        """Write the overlay; returns the picture's (height, width) and its annotations."""
        size, record = (found.image.shape[0], found.image.shape[1]), found.instances
        masks = unpack(record["instances"], size[1])
        if self.output.overlays:
            drawn = predicted.found(
                found.image, masks, record["classes"], record["scores"], self.output.classes
            )
            self.output.draw(name, drawn)
        picture = Picture(name, size, None, masks, record["classes"], record["scores"])
        return size, [
            coco.annotation(picture, number, mask, polygons=False) for number, mask in enumerate(masks)
        ]


def spare_pictures(folder: Path, given: Given) -> None:
    """Raise UserError for a folder where results would be taken for pictures the next time, or would replace pictures."""
    for searched in given.folders:
        keep_out(folder, searched, "the pictures are")
    written = [(folder / part).resolve() for part in (MASKS, OVERLAYS)]
    for path in given.files.values():
        if any(path.resolve().is_relative_to(part) for part in written):
            raise UserError(f"{path}: lies where -o {folder} is written to; name another folder")


def predict_labels(label: Labeller, output: Output, crf: Mapping[str, Any], runtime: Runtime) -> Outcome:
    """Write the label maps of all pictures of `output`, and labelmap.csv; crf: its section of the parameters."""

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Labelled]:
        """Pictures with their class probabilities."""
        probabilities: dict[int, np.ndarray] = {}
        for numbers, pixels in _stacks(images, runtime.device):
            with runtime.autocast():
                probabilities |= zip(numbers, label(pixels), strict=True)
        return [Labelled(image, probabilities[number]) for number, image in enumerate(images)]

    outcome = Outcome()
    write(output.folder / LABELMAP, labelmap(output.classes))
    task = mapping.Task(output.load, LabelMaps(output, crf).finish, compute)
    for _ in _results(task, output, runtime, outcome):
        outcome.pictures += 1
    return outcome


def predict_instances(find: Finder, output: Output, runtime: Runtime) -> Outcome:
    """Write instances.json, of COCO's layout with run lengths and scores, of all pictures of `output`."""

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Found]:
        """Pictures with their instances."""
        pictures = [stack([image], runtime.device)[0] for image in images]
        with runtime.autocast():
            instances = find(pictures)
        return [Found(image, as_record(one)) for image, one in zip(images, instances, strict=True)]

    outcome = Outcome()
    task = mapping.Task(output.load, Instances(output).finish, compute)
    with coco.document(output.folder / INSTANCES, output.classes) as content:
        for name, (size, annotations) in _results(task, output, runtime, outcome):
            content.add(name, size, annotations)
    outcome.pictures, outcome.instances = content.pictures, content.instances
    return outcome


def labelmap(classes: Sequence[str]) -> bytes:
    """A csv of what the values of label maps mean, and their colours in the palette (VOC's)."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["value", "name", "red", "green", "blue"])
    for value, name in enumerate(["background", *classes]):
        rows.writerow([value, name, *colour_map()[value].tolist()])
    return text.getvalue().encode()


def _results(
    task: mapping.Task, output: Output, runtime: Runtime, outcome: Outcome
) -> Iterator[tuple[str, Any]]:
    """(name, what finish gave) of the pictures that succeed, in order; the others go to the outcome's failures."""
    workers = min(runtime.workers, 1 + (len(output.files) - 1) // FEW)
    results = mapping.stream(task, [list(output.files)], workers, runtime.batch)
    again = "files written so far are whole, run again with --force"
    with (
        killed_workers_told(UserError, after=again, option="--workers"),
        closing(results),
        tqdm(results, "predict", len(output.files), unit="picture", mininterval=1) as bar,
    ):
        for name, result in bar:
            if isinstance(result, Exception):
                outcome.failures[name] = _reason(output.files[name], result)
            else:
                yield name, result


def _reason(path: Path, error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{path}: {type(error).__name__}: {error}"


def _stacks(images: Sequence[np.ndarray], device: torch.device) -> Iterator[tuple[list[int], Tensor]]:
    """Pictures of one size as (their numbers, uint8 [B,3,H,W])."""
    numbers: dict[tuple[int, ...], list[int]] = {}
    for number, image in enumerate(images):
        numbers.setdefault(image.shape, []).append(number)
    for alike in numbers.values():
        yield alike, stack([images[number] for number in alike], device)
