"""A final model on images of which nothing is known: masks written as files, one by one, so that a
kill leaves whole ones.

An image that cannot be read is named with its reason, and the others go on.

The final models, semantic and instance: rebuilt from their weights files, and what they say of
images.

Everything that uses them takes them from here, so that equal images and settings give equal masks
everywhere.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.core import engine
from pipeline.core.artifacts import Record
from pipeline.core.device import Runtime
from pipeline.core.engine import killed_workers_told
from pipeline.core.weights import WeightsError, load_network, read_header
from pipeline.data.images import read_image
from pipeline.data.loading import stack
from pipeline.errors import UserError
from pipeline.export import coco
from pipeline.export.files import keep_out, write
from pipeline.export.images import ExportImage
from pipeline.export.voc import color_map, palette_png
from pipeline.instances.base import Detections, none_found, pack, unpack
from pipeline.labelling.crf import refine_probabilities
from pipeline.methods import INSTANCES, rebuild, room
from pipeline.nets.deeplab import SemanticNet, probabilities
from pipeline.readers.inputs import InputImages
from pipeline.readers.source import without_suffix
from pipeline.views import sheets
from pipeline.views.sheets import jpeg

KINDS = ("semantic", "instance")
Labeller = Callable[[Tensor], np.ndarray]
"""From images [B,3,H,W] in 0..255 to class probabilities float32 [B,L,H,W], background first."""
Finder = Callable[[Sequence[Tensor] | Tensor], list[Detections]]
"""From images [3,H,W] in 0..255, or a batch of them, to the instances of each."""


def final_header(path: Path) -> Mapping[str, Any]:
    """The header of a weights file that holds a final model; raises WeightsError for all other
    files.
    """
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file; give the semantic.safetensors or instance.safetensors of a finished run"
        )
    header = read_header(path)
    if header["kind"] not in KINDS:
        raise WeightsError(
            f"{path}: holds the weights of stage {header['kind']}, which is no final model; give semantic.safetensors or "
            f"instance.safetensors"
        )
    if header.get("method") == "none":
        raise WeightsError(
            f"{path}: holds no instance model, as instance.method was none; set it to sparseinst or maskrcnn and run "
            f"`dvc repro instance`, or give semantic.safetensors"
        )
    return header


def semantic_network(header: Mapping[str, Any]) -> SemanticNet:
    """The untrained semantic network that a weights file's header describes."""
    return SemanticNet(len(header["classes"]) + 1, header["backbone"])


def labeller(path: Path, device: torch.device, *, scales: Sequence[float], flip: bool) -> Labeller:
    """What gives the class probabilities of images: the semantic model of a weights file; raises
    WeightsError.

    scales, flip: see semantic.probabilities.
    """
    network = load_network(path, "semantic", semantic_network, device)
    return lambda images: probabilities(network, images, scales, flip).cpu().numpy()


def finder(path: Path, device: torch.device, **settings: Any) -> Finder:
    """What finds the instances of images: the model of a weights file, or nothing where that holds
    none; raises WeightsError.

    settings: score and sides, see the function `detect` of the methods.
    """
    method = read_header(path)["method"]
    if method == "none":
        return lambda images: [none_found(*image.shape[1:]) for image in images]
    network = load_network(path, "instance", partial(rebuild, INSTANCES), device)
    return partial(room(INSTANCES, method, "detections").detect, network, **settings)


def label_map(image: np.ndarray, probabilities: np.ndarray, crf: Mapping[str, Any]) -> np.ndarray:
    """The label map uint8 [H,W] of an image uint8 [H,W,3] from its class probabilities [L,H,W],
    refined as `crf` says.
    """
    return refine_probabilities(image, probabilities, crf).argmax(0).astype(np.uint8)


def as_record(found: Detections) -> Record:
    """Detections as artifacts hold them: masks as bits (see masks.pack), classes uint8 [N], scores
    float32 [N].
    """
    masks, classes, scores = (part.cpu().numpy() for part in found)
    return {"instances": pack(masks), "classes": classes.astype(np.uint8), "scores": scores}


def trained_sides(header: Mapping[str, Any]) -> tuple[int, int] | None:
    """Sides (shorter, longest) in pixels at which an instance model should look at images, as far
    as its weights tell.

    The shorter is the middle of those that it was trained at, the longest twice that; None for a
    file that does not hold them.
    """
    if "resize" not in header:
        return None
    low, high = header["resize"]
    shorter = round((low + high) / 2)
    return shorter, 2 * shorter


MASKS, OVERLAYS = "masks", "overlays"
LABELMAP, INSTANCES_JSON = "labelmap.csv", "instances.json"
"""What is written to the output folder: folders of a file per image, and files about all."""
FEW = 8
"""ExportImages that are worth a process of their own, whose start takes seconds."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where results go.

    classes: names by class id; overlays: whether each image is drawn with what was found; files:
    name -> image file.
    """

    folder: Path
    classes: Sequence[str]
    overlays: bool
    files: Mapping[str, Path]

    def load(self, name: str) -> np.ndarray:
        """The image uint8 [H,W,3], upright."""
        return read_image(self.files[name])

    def draw(self, name: str, drawn: np.ndarray) -> None:
        """Write an overlay."""
        write(self.folder / OVERLAYS / f"{without_suffix(name)}.jpg", jpeg(drawn))


@dataclass(slots=True)
class Outcome:
    """What came out: numbers of images and instances written, and the images that failed with their
    reasons.
    """

    images: int = 0
    instances: int = 0
    failures: dict[str, str] = field(default_factory=dict)


class Labeled(NamedTuple):
    """An image uint8 [H,W,3] and its class probabilities [L,H,W]."""

    image: np.ndarray
    probabilities: np.ndarray


class Found(NamedTuple):
    """An image uint8 [H,W,3] and its instances, masks as bits."""

    image: np.ndarray
    instances: Record


@dataclass(frozen=True, slots=True)
class LabelMaps:
    """Writes label maps, refined as `crf` says, in worker processes."""

    output: Output
    crf: Mapping[str, Any]

    def finish(self, name: str, labeled: Labeled) -> None:
        """Write masks/<name>.png, whose values are labels, and the overlay."""
        labels = label_map(*labeled, self.crf)
        write(self.output.folder / MASKS / f"{without_suffix(name)}.png", palette_png(labels))
        if self.output.overlays:
            self.output.draw(name, sheets.labeled(labeled.image, labels, self.output.classes))


@dataclass(frozen=True, slots=True)
class Instances:
    """Draws instances and says of each what COCO wants to know, in worker processes."""

    output: Output

    def finish(self, name: str, found: Found) -> tuple[tuple[int, int], list[dict[str, Any]]]:
        """Write the overlay; returns the image's (height, width) and its annotations."""
        size, record = (found.image.shape[0], found.image.shape[1]), found.instances
        masks = unpack(record["instances"], size[1])
        if self.output.overlays:
            drawn = sheets.found(
                found.image, masks, record["classes"], record["scores"], self.output.classes
            )
            self.output.draw(name, drawn)
        image = ExportImage(name, size, None, masks, record["classes"], record["scores"])
        return size, [
            coco.annotation(image, number, mask, polygons=False)
            for number, mask in enumerate(masks)
        ]


def spare_images(folder: Path, given: InputImages) -> None:
    """Raise UserError for a folder where results would be taken for images the next time, or would
    replace images.
    """
    for searched in given.folders:
        keep_out(folder, searched, "the images are")
    written = [(folder / part).resolve() for part in (MASKS, OVERLAYS)]
    for path in given.files.values():
        if any(path.resolve().is_relative_to(part) for part in written):
            raise UserError(f"{path}: lies where -o {folder} is written to; name another folder")


def predict_labels(
    label: Labeller, output: Output, crf: Mapping[str, Any], runtime: Runtime
) -> Outcome:
    """Write the label maps of all images of `output`, and labelmap.csv; crf: its section of the
    parameters.
    """

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Labeled]:
        """ExportImages with their class probabilities."""
        probabilities: dict[int, np.ndarray] = {}
        for numbers, pixels in _stacks(images, runtime.device):
            with runtime.autocast():
                probabilities |= zip(numbers, label(pixels), strict=True)
        return [Labeled(image, probabilities[number]) for number, image in enumerate(images)]

    outcome = Outcome()
    write(output.folder / LABELMAP, labelmap(output.classes))
    task = engine.Task(output.load, LabelMaps(output, crf).finish, compute)
    for _ in _results(task, output, runtime, outcome):
        outcome.images += 1
    return outcome


def predict_instances(find: Finder, output: Output, runtime: Runtime) -> Outcome:
    """Write instances.json, of COCO's layout with run lengths and scores, of all samples of
    `output`.
    """

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Found]:
        """ExportImages with their instances."""
        samples = [stack([image], runtime.device)[0] for image in images]
        with runtime.autocast():
            instances = find(samples)
        return [Found(image, as_record(one)) for image, one in zip(images, instances, strict=True)]

    outcome = Outcome()
    task = engine.Task(output.load, Instances(output).finish, compute)
    with coco.document(output.folder / INSTANCES_JSON, output.classes) as content:
        for name, (size, annotations) in _results(task, output, runtime, outcome):
            content.add(name, size, annotations)
    outcome.images, outcome.instances = content.images, content.instances
    return outcome


def labelmap(classes: Sequence[str]) -> bytes:
    """A csv of what the values of label maps mean, and their colors in the palette (VOC's)."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["value", "name", "red", "green", "blue"])
    for value, name in enumerate(["background", *classes]):
        rows.writerow([value, name, *color_map()[value].tolist()])
    return text.getvalue().encode()


def _results(
    task: engine.Task, output: Output, runtime: Runtime, outcome: Outcome
) -> Iterator[tuple[str, Any]]:
    """(name, what finish gave) of the images that succeed, in order; the others go to the outcome's
    failures.
    """
    workers = min(runtime.workers, 1 + (len(output.files) - 1) // FEW)
    results = engine.stream(task, [list(output.files)], workers, runtime.batch)
    again = "files written so far are whole, run again with --force"
    with (
        killed_workers_told(UserError, after=again, option="--workers"),
        closing(results),
        tqdm(results, "predict", len(output.files), unit="image", mininterval=1) as bar,
    ):
        for name, result in bar:
            if isinstance(result, Exception):
                outcome.failures[name] = _reason(output.files[name], result)
            else:
                yield name, result


def _reason(path: Path, error: Exception) -> str:
    return (
        str(error) if isinstance(error, UserError) else f"{path}: {type(error).__name__}: {error}"
    )


def _stacks(
    images: Sequence[np.ndarray], device: torch.device
) -> Iterator[tuple[list[int], Tensor]]:
    """Images of one size as (their numbers, uint8 [B,3,H,W])."""
    numbers: dict[tuple[int, ...], list[int]] = {}
    for number, image in enumerate(images):
        numbers.setdefault(image.shape, []).append(number)
    for alike in numbers.values():
        yield alike, stack([images[number] for number in alike], device)
