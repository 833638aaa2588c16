"""Small artificial results to export, and helpers that read them back."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pipeline.data.instance_masks import pack
from pipeline.export.images import ExportImages, Target

CLASSES = ("cat", "fire engine", "日本")

MASKS = st.tuples(st.integers(1, 18), st.integers(1, 18)).flatmap(
    lambda size: st.one_of(
        arrays(bool, size),
        st.integers(0, 2**32).map(lambda seed: blob(size, seed)),
        st.just(np.ones(size, bool)),
    )
)
"""Masks bool [H,W]: any pixels at all, round ones, full ones."""


def blob(size: tuple[int, int], seed: int, fineness: int = 4) -> np.ndarray:
    """A mask bool [H,W] of round parts with holes, about half the image."""
    coarse = np.random.default_rng(seed).random([n // fineness + 2 for n in size], np.float32)
    smooth = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(smooth) > 0.5


def record(
    masks: np.ndarray, classes: list[int], scores: list[float], semantic: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Masks bool [N,H,W] as a record of layout `predictions`; the semantic map is 0 by default."""
    return {
        "semantic": np.zeros(masks.shape[1:], np.uint8) if semantic is None else semantic,
        "instances": pack(masks),
        "classes": np.array(classes, np.uint8),
        "scores": np.array(scores, np.float32),
    }


def scenery() -> dict[str, dict[str, np.ndarray]]:
    """Four images: overlaps and holes, labels in a subfolder, no instance, non-ASCII letters."""
    size = (40, 53)
    masks = np.stack([blob(size, 1, 12), blob(size, 2, 12), blob(size, 3)])
    ids = np.zeros((31, 20), np.uint16)
    ids[2:9, 3:], ids[12:30, :7], ids[20, 10] = 1, 2, 3
    nothing = np.zeros((0, 8, 9), bool)
    return {
        "a b": record(
            masks, [0, 2, 0], [0.4, 0.9, 0.75], np.where(masks[0], 1, 255).astype(np.uint8)
        ),
        "deep/er/x": {  # of layout `labels`
            "semantic": np.array([0, 2, 1, 3], np.uint8)[ids],
            "instances": ids,
            "classes": np.array([1, 0, 2], np.uint8),
            "scores": np.array([1, 0.75, 0.5], np.float32),
        },
        "empty": record(nothing, [], []),
        "日本 été": record(masks[:1], [2], [0.5]),
    }


def export_images(
    records: Mapping[str, Mapping[str, np.ndarray]], min_score: float = 0.0
) -> ExportImages:
    """All records as images to export."""
    return ExportImages(records, sorted(records), len(CLASSES), min_score)


def target(
    folder: Path, records: Mapping[str, Mapping[str, np.ndarray]], images: str = "copy"
) -> Target:
    """Target folder/out; all images are PNGs in folder/source, the first of split val."""
    files = {name: folder / "source" / f"{name}.png" for name in records}
    for name, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = records[name]["semantic"].shape
        Image.fromarray(np.full((height, width, 3), 99, np.uint8)).save(path)
    splits = {name: "train" if number else "val" for number, name in enumerate(sorted(records))}
    return Target(folder / "out", CLASSES, files, splits, images)  # type: ignore[arg-type]


def values(path: Path) -> np.ndarray:
    """The palette indices of a PNG, uint8 [H,W]."""
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two masks bool [H,W]."""
    return float((a & b).sum() / max(1, (a | b).sum()))
