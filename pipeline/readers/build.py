"""The index of a dataset, built from a source folder or from rendered scenes."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pipeline.core.resume import writing
from pipeline.core.workers import Progress, spread
from pipeline.data.images import (
    DatasetError,
    encode_png,
    error,
    raise_errors,
    smallest_dtype,
    summarize,
)
from pipeline.data.index import FORMAT, HEADER, TABLE, ImageEntry, Index
from pipeline.data.masks import INSTANCES, MASKS, SEMANTIC, writing_archive
from pipeline.readers import scenes
from pipeline.readers.layout import layout_of, read_source
from pipeline.readers.source import number
from pipeline.readers.validation import Choice, choose, examine

IMAGES = "images"
log = logging.getLogger(__name__)


def build(
    format: str,  # noqa: A002
    source: Path,
    out: Path,
    *,
    classes: Sequence[str] = (),
    val: float = 0.0,
    untagged: str = "absent",
    seed: int = 0,
    images: int = 480,
    lists: Mapping[str, str] | None = None,
    annotations: Mapping[str, tuple[str, str]] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Index:
    """Check a source and write its index; equal input gives equal bytes for any `workers`.

    Args:
        format: scenes (needs no source), folder, classes, voc, coco, yolo or roboflow.
        source: folder of images and tags, which is only read.
        out: folder of the index, and of images and masks that are rendered.
        classes: subset of the classes in the order wanted, the others become background; empty for
            all.
        val: fraction of held-out images if the source names no splits.
        untagged: `absent` or `unknown`, what classes without a tag are; scenes have all tags.
        seed: seed of the scenes.
        images: number of scenes.
        lists: voc, split -> list name; None to choose the usual ones.
        annotations: coco, split -> (JSON, image folder); None to choose the usual ones.
        workers: number of processes.
        progress: called with (done, total) after every image.

    Raises:
        DatasetError: lists all errors at once; warnings are logged.
    """
    if not 0 <= val < 1:
        raise DatasetError(error("dataset.val", f"is {val}", "use a fraction from 0 to below 1"))
    if format == "scenes":
        choice = choose(scenes.CLASSES, classes, number(scenes.CLASSES))
        _clear(out)
        entries = render_scenes(out, images, seed, val, choice, workers, progress)
        index = Index(choice.classes, entries, out, out / MASKS, choice.values)
    else:
        found = read_source(source, layout_of(format, source, lists, annotations))
        if out.resolve() == source.resolve():
            do = "write the index elsewhere"
            raise DatasetError(error(out, "is the source folder itself", do))
        try:
            choice = choose(found.classes, classes, found.names)
        except DatasetError as problem:
            errors = [other for other in found.problems if other.level == "error"]
            raise DatasetError(errors + problem.problems) from None
        _clear(out)
        entries, problems = examine(
            found,
            choice,
            val=val,
            untagged=untagged,
            out=out,
            workers=workers,
            progress=progress,
        )
        raise_errors(problems)
        for _, line in summarize(problems):
            log.warning("dataset: %s", line)
        masks_root = out / MASKS if found.renders else source
        index = Index(choice.classes, entries, source, masks_root, choice.values_in(found))
    index.save(out)
    return index


def render_scene(
    out: Path, seed: int, val: float, labels: Mapping[int, int], index: int
) -> tuple[ImageEntry, bytes, bytes]:
    """Write the image of scene `index`; return its entry and the PNG files of its two masks.

    labels: class of a scene -> class id in use; other arguments as in build.
    """
    scene = scenes.draw(index, seed)
    name = f"scene_{index:06d}"
    arrays = scene.image, scene.semantic, smallest_dtype(scene.instances)
    files = [encode_png(array) for array in arrays]
    path = f"{IMAGES}/{name}.png"
    with writing(out / path):
        (out / path).write_bytes(files[0])
    digest = hashlib.blake2b(b"".join(files), digest_size=16).hexdigest()
    height, width = scene.image.shape[:2]
    tags = tuple(sorted(labels[tag] for tag in scene.tags if tag in labels))
    split = "val" if is_val(index, val) else "train"
    masks = SEMANTIC.format(name), INSTANCES.format(name)
    entry = ImageEntry(name, path, height, width, split, tags, *masks, digest)
    return entry, files[1], files[2]


def render_scenes(
    out: Path,
    images: int,
    seed: int,
    val: float,
    choice: Choice,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[ImageEntry]:
    """Render scenes 0..images-1 into out/images and out/masks.zip; arguments as in build."""
    with writing(out / IMAGES):
        (out / IMAGES).mkdir(parents=True, exist_ok=True)
    numbers = enumerate(scenes.CLASSES)
    labels = {k: choice.labels[name] - 1 for k, name in numbers if name in choice.labels}
    render = partial(render_scene, out, seed, val, labels)
    entries = []
    with writing_archive(out / MASKS) as add:
        for entry, semantic, instances in spread(render, range(images), workers, progress):
            add(str(entry.semantic), semantic)
            add(str(entry.instances), instances)
            entries.append(entry)
    return entries


def is_val(index: int, val: float) -> bool:
    """Return whether scene `index` is held out: evenly spaced, a fraction `val` of any first n."""
    # The small number keeps 0.29 * 100, slightly below 29 in floating point, from losing an image.
    return int((index + 1) * val + 1e-9) > int(index * val + 1e-9)


def _clear(out: Path) -> None:
    """Remove what an earlier build wrote into the folder, and nothing else."""
    try:
        ours = json.loads((out / HEADER).read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if ours:
        for file in (HEADER, TABLE, MASKS):
            (out / file).unlink(missing_ok=True)
        shutil.rmtree(out / IMAGES, ignore_errors=True)
