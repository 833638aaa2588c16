"""The built-in scenes as files: pictures and exact masks, drawn anew from a seed and without a download."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets import scenes
from pipeline.datasets.archive import INSTANCES, MASKS, SEMANTIC, writing_archive
from pipeline.datasets.index import Picture
from pipeline.datasets.processes import Progress, spread
from pipeline.work import writing

IMAGES = "images"


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draws picture number `index` of the set `seed` into the folder `out`; `labels` maps a scene class to
    its class id in use."""

    out: Path
    seed: int
    val: float
    labels: dict[int, int]

    def __call__(self, index: int) -> tuple[Picture, bytes, bytes]:
        """The picture, and the PNG files of its semantic and its instance mask."""
        scene = scenes.draw(index, self.seed)
        name = f"scene_{index:06d}"
        files = [encode_png(array) for array in (scene.image, scene.semantic, shrink(scene.instances))]
        image = f"{IMAGES}/{name}.png"
        with writing(self.out / image):
            (self.out / image).write_bytes(files[0])
        digest = hashlib.blake2b(b"".join(files), digest_size=16).hexdigest()
        height, width = scene.image.shape[:2]
        tags = tuple(sorted(self.labels[tag] for tag in scene.tags if tag in self.labels))
        split = "val" if is_val(index, self.val) else "train"
        masks = SEMANTIC.format(name), INSTANCES.format(name)
        return Picture(name, image, height, width, split, tags, *masks, digest), files[1], files[2]


def draw_all(
    out: Path,
    pictures: int,
    seed: int,
    val: float,
    labels: dict[int, int],
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Picture]:
    """Draw pictures 0..pictures-1 into out/images and out/masks.zip; the same bytes for any number of workers."""
    with writing(out / IMAGES):
        (out / IMAGES).mkdir(parents=True, exist_ok=True)
    drawn = []
    with writing_archive(out / MASKS) as add:
        for picture, *masks in spread(Drawing(out, seed, val, labels), range(pictures), workers, progress):
            for name, data in zip((picture.semantic, picture.instances), masks, strict=True):
                add(str(name), data)
            drawn.append(picture)
    return drawn


def is_val(index: int, val: float) -> bool:
    """Whether picture `index` is held out: evenly spread, a share `val` of any first n pictures, however many
    are drawn."""
    # The small number keeps 0.29 * 100, a hair under 29 in floating point, from losing a picture.
    return int((index + 1) * val + 1e-9) > int(index * val + 1e-9)


def shrink(ids: np.ndarray) -> np.ndarray:
    """Instance ids in 8 bits where they fit below 255, which is void in 8-bit files, else in 16."""
    return ids.astype(np.uint8 if ids.max(initial=0) < 255 else np.uint16)


def encode_png(array: np.ndarray) -> bytes:
    """An array (uint8 [H,W,3], uint8 or uint16 [H,W]) as the bytes of a PNG file without metadata."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()
