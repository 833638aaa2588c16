"""From a source folder, or from nothing, to the index that every stage reads.

The built-in scenes as files: images and exact masks, drawn again from a seed and without a
download.
"""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.artifacts import IGNORE
from pipeline.core.resume import writing
from pipeline.core.workers import Progress, spread
from pipeline.data.images import encode_png, shrink
from pipeline.data.index import FORMAT, HEADER, TABLE, ImageEntry, Index
from pipeline.data.masks import INSTANCES, MASKS, SEMANTIC, writing_archive
from pipeline.data.problems import DatasetError, Problem, error, stop_at_errors
from pipeline.readers import scenes
from pipeline.readers.validation import Options, choose, examine, read_source

IMAGES = "images"


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draws image number `index` of the set `seed` into the folder `out`; `labels` maps a scene
    class to its class id in use.
    """

    out: Path
    seed: int
    val: float
    labels: dict[int, int]

    def __call__(self, index: int) -> tuple[ImageEntry, bytes, bytes]:
        """The image, and the PNG files of its semantic and its instance mask."""
        scene = scenes.draw(index, self.seed)
        name = f"scene_{index:06d}"
        files = [
            encode_png(array) for array in (scene.image, scene.semantic, shrink(scene.instances))
        ]
        image = f"{IMAGES}/{name}.png"
        with writing(self.out / image):
            (self.out / image).write_bytes(files[0])
        digest = hashlib.blake2b(b"".join(files), digest_size=16).hexdigest()
        height, width = scene.image.shape[:2]
        tags = tuple(sorted(self.labels[tag] for tag in scene.tags if tag in self.labels))
        split = "val" if is_val(index, self.val) else "train"
        masks = SEMANTIC.format(name), INSTANCES.format(name)
        return (
            ImageEntry(name, image, height, width, split, tags, *masks, digest),
            files[1],
            files[2],
        )


def draw_all(
    out: Path,
    images: int,
    seed: int,
    val: float,
    labels: dict[int, int],
    workers: int = 1,
    progress: Progress | None = None,
) -> list[ImageEntry]:
    """Draw images 0..images-1 into out/images and out/masks.zip; the same bytes for any number of
    workers.
    """
    with writing(out / IMAGES):
        (out / IMAGES).mkdir(parents=True, exist_ok=True)
    drawn = []
    with writing_archive(out / MASKS) as add:
        for image, *masks in spread(
            Drawing(out, seed, val, labels), range(images), workers, progress
        ):
            for name, data in zip((image.semantic, image.instances), masks, strict=True):
                add(str(name), data)
            drawn.append(image)
    return drawn


def is_val(index: int, val: float) -> bool:
    """Whether image `index` is held out: evenly spread, a share `val` of any first n images,
    however many are drawn.
    """
    # The small number keeps 0.29 * 100, a hair under 29 in floating point, from losing an image.
    return int((index + 1) * val + 1e-9) > int(index * val + 1e-9)


log = logging.getLogger(__name__)
SHOWN = 5


def build(
    format: str,  # noqa: A002
    source: Path,
    out: Path,
    *,
    classes: Sequence[str] = (),
    val: float = 0.0,
    seed: int = 0,
    images: int = 480,
    lists: Mapping[str, str] | None = None,
    annotations: Mapping[str, tuple[str, str]] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Index:
    """Check a source and write its index into the folder `out`, with images and masks where they
    have to be drawn.

    `format` is scenes (draws `images` scenes of set `seed`, needs no source), voc, coco or folder.
    `classes` chooses a subset and its order, the others become background. `val` is the share held
    out where the source names no splits. `lists` maps splits to lists of voc, `annotations` to
    (json, image folder) of coco. `progress(done, total)` is called after every image. Equal input
    gives equal bytes for any number of `workers`. Raises DatasetError listing all errors at once;
    logs warnings.
    """
    source, out = Path(source), Path(out)
    if not 0 <= val < 1:
        raise DatasetError(error("dataset.val", f"is {val}", "give a share from 0 to below 1"))
    if format == "scenes":
        index = _build_scenes(out, classes, val, seed, images, workers, progress)
    else:
        index = _build_source(
            format, source, out, classes, val, Options(lists, annotations), workers, progress
        )
    index.save(out)
    return index


def _build_scenes(
    out: Path,
    wanted: Sequence[str],
    val: float,
    seed: int,
    images: int,
    workers: int,
    progress: Progress | None,
) -> Index:
    choice = choose(scenes.CLASSES, wanted)
    if images < 1:
        raise DatasetError(error("dataset.scenes.images", f"is {images}", "give at least 1"))
    _clear(out)
    labels = {
        k: choice.labels[name] - 1 for k, name in enumerate(scenes.CLASSES) if name in choice.labels
    }
    drawn = draw_all(out, images, seed, val, labels, workers, progress)
    return Index(choice.classes, drawn, out, out / MASKS, choice.values)


def _build_source(
    name: str,
    source: Path,
    out: Path,
    wanted: Sequence[str],
    val: float,
    options: Options,
    workers: int,
    progress: Progress | None,
) -> Index:
    found = read_source(name, source, options)
    if out.resolve() == source.resolve():
        raise DatasetError(error(out, "is the source folder itself", "write the index elsewhere"))
    stop = [problem for problem in found.problems if problem.level == "error"]
    try:
        choice = choose(found.classes, wanted)
    except DatasetError as problem:
        raise DatasetError(stop + problem.problems) from None
    _clear(out)
    images, problems = examine(found, choice, val=val, out=out, workers=workers, progress=progress)
    stop_at_errors(problems)
    _log(problems)
    if any(entry.render for entry in found.entries):
        drawn = {0: 0, **{label: label for label in choice.labels.values()}, IGNORE: IGNORE}
        return Index(choice.classes, images, source, out / MASKS, drawn)
    return Index(choice.classes, images, source, source, choice.values)


def _clear(out: Path) -> None:
    """Take away what an earlier build wrote into the folder, and nothing else."""
    try:
        ours = json.loads((out / HEADER).read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if ours:
        for file in (HEADER, TABLE, MASKS):
            (out / file).unlink(missing_ok=True)
        shutil.rmtree(out / IMAGES, ignore_errors=True)


def _log(problems: Sequence[Problem]) -> None:
    """Log warnings, of each kind the first few."""
    seen: Counter[str] = Counter()
    for problem in problems:
        seen[problem.do] += 1
        if seen[problem.do] <= SHOWN:
            log.warning("%s", problem)
    for kind, count in seen.items():
        if count > SHOWN:
            log.warning("%d more of: %s (`weakmask check` lists them all)", count - SHOWN, kind)
