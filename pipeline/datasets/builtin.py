"""The built-in scenes as files: pictures and exact masks, drawn anew from a seed and without a download."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets import scenes
from pipeline.datasets.index import Picture
from pipeline.datasets.processes import Progress, spread
from pipeline.work import writing


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draws picture number `index` of the set `seed` into the folder `out`; `labels` maps a scene class to
    its class id in use."""

    out: Path
    seed: int
    val: float
    labels: dict[int, int]

    def __call__(self, index: int) -> Picture:
        scene = scenes.draw(index, self.seed)
        name = f"scene_{index:06d}"
        arrays = {
            f"images/{name}.png": scene.image,
            f"masks/semantic/{name}.png": scene.semantic,
            f"masks/instances/{name}.png": shrink(scene.instances),
        }
        digest = hashlib.blake2b(digest_size=16)
        for path, array in arrays.items():
            digest.update(write_png(self.out / path, array))
        height, width = scene.image.shape[:2]
        tags = tuple(sorted(self.labels[tag] for tag in scene.tags if tag in self.labels))
        image, semantic, instances = arrays
        split = "val" if is_val(index, self.val) else "train"
        return Picture(name, image, height, width, split, tags, semantic, instances, digest.hexdigest())


def draw_all(
    out: Path,
    pictures: int,
    seed: int,
    val: float,
    labels: dict[int, int],
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Picture]:
    """Draw pictures 0..pictures-1 into out/images and out/masks; the same bytes for any number of workers."""
    for folder in ("images", "masks/semantic", "masks/instances"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    return spread(Drawing(out, seed, val, labels), range(pictures), workers, progress)


def is_val(index: int, val: float) -> bool:
    """Whether picture `index` is held out: evenly spread, a share `val` of any first n pictures, however many
    are drawn."""
    # The small number keeps 0.29 * 100, a hair under 29 in floating point, from losing a picture.
    return int((index + 1) * val + 1e-9) > int(index * val + 1e-9)


def shrink(ids: np.ndarray) -> np.ndarray:
    """Instance ids in 8 bits where they fit below 255, which is void in 8-bit files, else in 16."""
    return ids.astype(np.uint8 if ids.max(initial=0) < 255 else np.uint16)


def write_png(path: Path, array: np.ndarray) -> bytes:
    """Write an array (uint8 [H,W,3], uint8 or uint16 [H,W]) as PNG without metadata and give back the bytes
    of the file."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, format="PNG", compress_level=6)
    return path.read_bytes()
