"""`weakmask pick` and `weakmask hints add`: choose images to correct, add corrected masks.

weakmask pick -n 20 -o to_correct
weakmask hints add to_correct                   # after correcting its masks in an annotation tool
weakmask pick -n 20 --by random --format labelme -o to_correct
weakmask hints add --trial 0.5 to_correct       # half of them for scores alone
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cv2
import numpy as np
from tqdm import tqdm

from pipeline.core.artifacts import IGNORE, Reader, Record
from pipeline.core.device import resolve, stack
from pipeline.core.resume import write_atomically
from pipeline.data.images import raise_errors, summarize
from pipeline.data.index import Index
from pipeline.data.masks import decode_values, number_instances, read_values, to_labels
from pipeline.errors import UserError, count
from pipeline.labelling import upsample
from pipeline.labelling.hints import is_corrected
from pipeline.labelling.pseudo_labels import class_maps
from pipeline.params import Parameters
from pipeline.readers.coco import load as load_coco
from pipeline.readers.hints import TRIAL, image_names, read_hints
from pipeline.readers.outlines import MaskRenderer
from pipeline.readers.source import HINTS, no_class
from stages._command import DATASET, artifact, read_parameters

if TYPE_CHECKING:  # criteria but for disagreement need no network
    import torch

    from pipeline.predict import SemanticPredictor

CORRECTED = "corrected.json"
"""Where hints/ and hints/trial/ keep what was corrected in annotation tools."""
DO_LEAVE = "leave it out, or name it as in the dataset"
MARGIN = 3
"""Pixels around an outline of the labels within which a boundary is explained by it."""


@dataclass(frozen=True)
class Evidence:
    """What criteria judge labels by: tagged images, parameters, and artifacts by kind."""

    index: Index
    parameters: Parameters
    records: Mapping[str, Reader]

    @cached_property
    def device(self) -> "torch.device":
        """Where the model runs."""
        return resolve(**self.parameters.runtime.model_dump()).device

    @cached_property
    def model(self) -> "SemanticPredictor":
        """The final semantic model; raises WeightsError or UserError where there is none."""
        from pipeline.core.weights import read_header
        from pipeline.predict import semantic_predictor

        path, section = artifact("semantic", ".safetensors"), self.parameters.predictions
        model = semantic_predictor(path, self.device, scales=section.scales, flip=section.flip)
        if read_header(path)["classes"] != list(self.index.classes):
            raise UserError(f"{path}: knows other classes than {DATASET}; run `dvc repro semantic`")
        return model


def disagreement(evidence: Evidence, name: str) -> float:
    """Return 1 - the mean of the pixel accuracy and the mean IoU, in [0, 1], that the final
    semantic model expects of the labels, among the background and the tagged classes.

    It has learned from the labels of all images, so it sees where those of one are unlike the
    others (as in confident learning, Northcutt et al. 2021). IoU alone prefers tiny objects.
    """
    labels = evidence.records["labels"].array(name, "semantic")
    classes = [0, *(tag + 1 for tag in evidence.index[name].tags)]
    seen = evidence.model(stack([evidence.index.image(name)], evidence.device))[0][classes]
    seen /= seen.sum(0).clip(1e-6)  # 0 where the model is sure of an excluded class
    given = labels == np.reshape(classes, (-1, 1, 1))
    intersection = (seen * given).sum((1, 2))
    union = (seen + given).sum((1, 2)) - intersection
    return float(1 - (intersection.sum() / labels.size + (intersection / union).mean()) / 2)


def uncertainty(evidence: Evidence, name: str) -> float:
    """Return the mean closeness of the two highest scores of a pixel, background included."""
    rules = evidence.parameters.labels
    scores, _ = class_maps(evidence.records["walk"][name], rules.normalize)
    background = np.full((1, *scores.shape[1:]), rules.background, np.float32)
    zeros = np.zeros_like(background)  # two scores even where an image has no class
    top = np.sort(np.concatenate([background, zeros, scores]), 0)[-2:]
    return float(1 - (top[1] - top[0]).mean())


def boundary(evidence: Evidence, name: str) -> float:
    """Return the mean strength of class boundaries in the foreground, away from the labels' own
    outlines: objects that are cut short or merged.
    """
    labels = evidence.records["labels"].array(name, "semantic")
    edges = upsample(evidence.records["fields"].array(name, "boundary")[None], labels.shape)[0]
    kernel = np.ones((2 * MARGIN + 1,) * 2, np.uint8)
    outlines = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, kernel) > 0
    return float((edges * ~outlines).mean())


def chance(name: str) -> float:
    """Return a number that says nothing of an image: a trial set must be picked by it."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32


CRITERIA: Mapping[str, tuple[Callable[[Evidence, str], float], tuple[str, ...]]] = {
    "disagreement": (disagreement, ("labels",)),
    "uncertainty": (uncertainty, ("walk", "labels")),
    "boundary": (boundary, ("fields", "labels")),
    "random": (lambda evidence, name: chance(name), ("labels",)),
}
"""Criterion -> what scores an image by it, and the artifacts it reads."""


def choose(
    scores: Mapping[str, float], tags: Mapping[str, Sequence[int]], n: int, *, spread: bool
) -> list[str]:
    """Return the n images with the highest scores, highest first.

    Args:
        scores: score of each image.
        tags: class ids of each image.
        n: number of images.
        spread: each time choose among images with the class that was chosen least so far, so that
            no class takes all.
    """
    ordered, chosen = sorted(scores, key=lambda name: (-scores[name], name)), list[str]()
    picks = Counter({c: 0 for name in ordered for c in tags[name]})
    while ordered and len(chosen) < n:
        left = {c for name in ordered for c in tags[name]}
        rarest = min(left, key=lambda c: (picks[c], c)) if spread and left else None
        name = next(name for name in ordered if rarest is None or rarest in tags[name])
        ordered.remove(name)
        chosen.append(name)
        picks.update(tags[name])
    return chosen


@click.command()
@click.option(
    "-n",
    "number",
    default=20,
    show_default=True,
    type=click.IntRange(min=1),
    help="Images to pick.",
)
@click.option(
    "--by",
    default="disagreement",
    show_default=True,
    type=click.Choice([*CRITERIA]),
    help="Labels the final model doubts, close scores, boundaries without outline, or chance.",
)
@click.option("--spread", is_flag=True, help="Let the classes take turns.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to."
)
@click.option(
    "--format",
    "format_",
    default="coco",
    show_default=True,
    type=click.Choice(("coco", "labelstudio", "labelme")),
    help="Format to write; CVAT reads coco.",
)
@click.option("--polygons", is_flag=True, help="coco: polygons (approximate) instead of RLE.")
@click.option("--force", is_flag=True, help="Write to a folder that is not empty.")
def pick(
    number: int, by: str, spread: bool, output: Path, format_: str, polygons: bool, force: bool
) -> None:
    """Pick the images most worth correcting, with their pseudo-labels.

    Writes image files with masks to correct in an annotation tool, and picked.csv with the scores.
    Images that a person already said anything about are left out.
    """
    from pipeline.export import coco, labelme, labelstudio
    from pipeline.export.images import ExportImages, Target, keep_out, prepare
    from stages.cli.export import select

    index, parameters, (score, needed) = Index.load(DATASET), read_parameters(), CRITERIA[by]
    records = {kind: Reader(artifact(kind), kind) for kind in needed}
    hints, labels = Reader(artifact("hints"), "hints"), records["labels"]
    trial = read_hints(Path(parameters.dataset.source), index, trial=True)
    done = {name for name in hints if is_corrected(hints[name])} | trial.images.keys()
    names = [name for name in select(labels, index, None) if name not in done]
    names = [name for name in names if all(name in reader for reader in records.values())]
    evidence = Evidence(index, parameters, records)
    scores = {name: score(evidence, name) for name in tqdm(names, desc="pick", unit="image")}
    tags = {name: index[name].tags for name in names}
    chosen = choose(scores, tags, number, spread=spread)
    for root in (index.images_root, index.masks_root, DATASET):
        keep_out(output, root, "the dataset is")
    prepare(output, force=force)
    files = {name: index.images_root / index[name].path for name in chosen}
    splits = {name: index[name].split for name in chosen}
    target = Target(output, index.classes, files, splits, "copy")
    images = ExportImages(labels, chosen, len(index.classes))
    if format_ == "coco":
        coco.export(images, target, polygons=polygons)
    else:
        {"labelstudio": labelstudio, "labelme": labelme}[format_].export(images, target)
    rows = "".join(f'"{name}",{scores[name]:.4f}\n' for name in chosen)
    write_atomically(output / "picked.csv", f"image,{by}\n{rows}".encode())
    click.echo(f"wrote {count(len(chosen), 'image')} to {output}: correct the masks there, then")
    click.echo(f"weakmask hints add {output}")


@click.group()
def hints() -> None:
    """Add corrected masks to the hints of the source."""


@hints.command()
@click.argument("export", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--trial",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the images that no step but scores learns of.",
)
def add(export: Path, trial: float) -> None:
    """Add the corrected masks of EXPORT to the hints of the source.

    EXPORT is a folder of images with COCO, VOC, YOLO or LabelMe as annotation tools write them, or
    the JSON file of Label Studio. Every pixel of its images counts as corrected, what has no mask
    as background; void pixels say nothing. They replace what earlier exports said of these images.
    """
    index = Index.load(DATASET)
    section = read_parameters().dataset
    if section.format == "scenes":
        raise UserError("dataset.format: the built-in scenes take no hints; use a folder of yours")
    corrected = dict(_corrected(export, index))
    if not corrected:
        raise UserError(f"{export}: no image was corrected; save or submit them in the tool")
    folder = Path(section.source) / HINTS
    names, share = sorted(corrected, key=chance), round(trial * len(corrected))
    for path, part in (
        (folder / CORRECTED, names[share:]),
        (folder / TRIAL / CORRECTED, names[:share]),
    ):
        _update(path, {name: corrected[name] for name in sorted(part)}, corrected, index)
        if part:
            click.echo(f"added {count(len(part), 'image')} to {path}")
    click.echo("next: dvc repro")


def _update(
    path: Path, records: Mapping[str, Record], replaced: Iterable[str], index: Index
) -> None:
    """Write records to a file of COCO, with a category for the background.

    Args:
        path: the file; without images it is removed.
        records: image -> semantic u1 [H,W], 255 unknown, instances u2 [H,W] and classes u1 [N].
        replaced: images of which nothing that the file said is kept; those of `records` included.
        index: the dataset.

    Raises:
        UserError: the file is another one than this function writes.
    """
    content = {key: list[Any]() for key in ("images", "annotations", "categories")}
    if path.is_file():
        content = load_coco(path)
    files = {index[name].path for name in replaced}
    try:
        images = [row for row in content["images"] if row["file_name"] not in files]
        kept = {row["id"] for row in images}
        annotations = [row for row in content["annotations"] if row["image_id"] in kept]
        numbers = {row["name"]: row["id"] for row in content["categories"]}
        for name in ("background", *index.classes):
            numbers.setdefault(name, max(numbers.values(), default=-1) + 1)
        first = max(kept, default=0) + 1
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not as `weakmask hints add` writes it ({error!r}); name the file otherwise "
            "to keep it as hints of yours"
        ) from error
    for number, (name, record) in enumerate(records.items(), start=first):
        images.append({"id": number, "file_name": index[name].path})
        annotations += _rows(record, number, [numbers[n] for n in ("background", *index.classes)])
    if not images:
        path.unlink(missing_ok=True)
        return
    written = {
        "images": images,
        "annotations": [{**row, "id": k} for k, row in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }
    write_atomically(path, (json.dumps(written, ensure_ascii=False) + "\n").encode())


def _corrected(export: Path, index: Index) -> Iterator[tuple[str, Record]]:
    """Yield the images of an export, with semantic u1 [H,W], instances u2 [H,W] and classes."""
    from pipeline.export import labelme, labelstudio

    if export.is_file():
        yield from _rendered(((export, *task) for task in labelstudio.read(export)), index)
    elif files := labelme.find(export):
        found = ((path, str(path.with_suffix("")), labelme.read(path)) for path in files)
        yield from _rendered(found, index)
    else:
        yield from _built(export, index)


def _rendered(
    found: Iterable[tuple[Path, str, MaskRenderer]], index: Index
) -> Iterator[tuple[str, Record]]:
    """Yield what _corrected does from files, names of images, and their masks."""
    names, labels = image_names(index, index), {n: c + 1 for c, n in enumerate(index.classes)}
    for path, file, renderer in found:
        if (name := names.find(file, anywhere=True)) is None:
            raise UserError(f"{path}: {file} is not an image of the dataset; {DO_LEAVE}")
        drawn = {outline.name for outline in renderer.outlines}
        _check_classes({name for name in drawn if no_class(name) is None}, path, index)
        try:
            semantic, objects = renderer(labels, index.size(name))
        except ValueError as problem:
            raise UserError(f"{path}: {name}: {problem}; export it again") from problem
        ids, classes = number_instances(objects, semantic)
        yield name, {"semantic": semantic, "instances": ids, "classes": classes}


def _check_classes(names: Iterable[str], where: Path, index: Index) -> None:
    if unknown := sorted({*names} - {*index.classes}):
        raise UserError(
            f"{where}: {', '.join(unknown)} is not a class of the dataset, whose classes are "
            f"{', '.join(index.classes)}; rename it in the annotation tool"
        )


def _built(export: Path, index: Index) -> Iterator[tuple[str, Record]]:
    """Yield what _corrected does from a folder that could be a source itself."""
    from pipeline.readers.inspection import inspect
    from pipeline.readers.layout import read_source, recognize
    from pipeline.readers.validation import choose

    found = read_source(export, recognize(export))
    _check_classes(found.classes, export, index)
    choice, problems = choose(index.classes, index.classes, found.names), [*found.problems]
    raise_errors(problems)
    for entry in found.entries:
        finding = inspect(export, choice.labels, choice.values, entry)
        problems += finding.problems
        raise_errors(finding.problems)
        if entry.id not in index or index.size(entry.id) != finding.size:
            raise UserError(
                f"{export}: {entry.id} is not an image of the dataset, or has another size there; "
                f"{DO_LEAVE}"
            )
        semantic, instances = np.zeros(finding.size, np.uint8), np.zeros(finding.size, np.uint16)
        if finding.rendered is not None:
            semantic = decode_values(finding.rendered[0], export)
            if finding.rendered[1]:
                instances = decode_values(finding.rendered[1], export)
        elif finding.semantic is not None:
            path = export / finding.semantic
            semantic = to_labels(read_values(path), choice.values, path)
            if finding.instances is not None:
                instances = read_values(export / finding.instances)
        elif entry.tags:
            raise UserError(f"{export}: {entry.id} has no mask; export the masks, not only boxes")
        ids, classes = number_instances(instances, semantic)
        yield entry.id, {"semantic": semantic, "instances": ids, "classes": classes}
    for _, line in summarize(problems):
        click.echo(line, err=True)


def _rows(record: Record, image: int, categories: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield COCO's annotations of an image: its objects, and crowds of all other known pixels.

    categories: id of the category of each label.
    """
    from pipeline.export.coco import annotation

    ids, semantic = record["instances"], record["semantic"]
    masks = [(ids == k, int(c) + 1, 0) for k, c in enumerate(record["classes"], start=1)]
    rest = np.where(ids > 0, IGNORE, semantic)
    masks += [(rest == label, int(label), 1) for label in np.unique(rest[rest != IGNORE])]
    for mask, label, crowd in masks:
        row = annotation(mask, 0, 1.0)
        del row["score"]
        yield {**row, "image_id": image, "category_id": categories[label], "iscrowd": crowd}
