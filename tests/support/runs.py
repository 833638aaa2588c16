"""A small complete run: a dataset with masks and every artifact, with ids as people choose them."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.browser.run import FORMATS, SCORED, TABLES, Run, RunPaths
from pipeline.core.artifacts import Record, Writer
from pipeline.data.index import ImageEntry, Index
from pipeline.data.instance_masks import pack
from pipeline.irnet.instances import walk_input, walk_instances

CLASSES = ("cat", "dog, or wolf", "日本")
NAMES = ("a one", "b/two", "c été <b>", "d-日本", "e100%", "f")
HEIGHT, WIDTH = 30, 41
GRID = (8, 11)
WALK: dict[str, Any] = {"radius": 3, "beta": 10, "steps": 32, "iterations": 20, "background": 2.5}
PARAMETERS: dict[str, dict[str, Any]] = {
    "scores": {"background": 0.3},
    "walk": {**WALK, "centroid_radius": 1.0},
    "labels": {
        "background": 0.25,
        "normalize": "class",
        "min_area": 0.0,
        "boundary_threshold": 0.5,
        "vote": "none",
        "agreement": 0.8,
    },
    "classifier": {"method": "cam", "cam": {}, "s2c": {"features": 256}},
}


def truth(number: int) -> np.ndarray:
    """Return the ground truth of image `number`: two rectangles of two classes, and a void row."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[5:20, 5:20], labels[10:25, 25:38] = 1 + number % 3, 1 + (number + 1) % 3
    labels[28] = 255
    return labels


def record(format_: str, number: int, shift: int = 0) -> Record:
    """Return what an artifact holds of image `number`; shift: pixels its labels are off by."""
    generator = np.random.default_rng(number)
    labels = np.roll(np.where(truth(number) == 255, 0, truth(number)), shift, 1).astype(np.uint8)
    present = np.unique(labels[labels > 0])
    ids = sum((labels == label) * (n + 1) for n, label in enumerate(present)).astype(np.uint16)
    found = {
        "classes": (present - 1).astype(np.uint8),
        "scores": np.linspace(1, 0.5, len(present), dtype=np.float32),
    }
    size = np.array([HEIGHT, WIDTH], np.int32)
    if format_ == "walk":
        return _walk(number)
    cells = np.stack([labels[::4, ::4] == label for label in present])
    return {
        "segments": {
            "embeddings": np.zeros((0, 0, 0), np.float16),
            "segments": ids,
            "stability": np.ones(2, np.float32),
            "iou": np.ones(2, np.float32),
        },
        "hints": {
            "pixels": np.where(ids == 1, labels, np.uint8(255)),
            "instances": np.zeros((HEIGHT, WIDTH), np.uint16),
            "evidence": (ids == 2)[None] * np.float16(0.5),
            "classes": (present[1:] - 1).astype(np.uint8),
            "objects": np.zeros((0, 3), np.float32),
            "boxes": np.zeros((0, 7), np.float32),
            "gated": np.array([2], np.uint8),
        },
        "features": {
            "features": generator.normal(size=(6, 2, 3)).astype(np.float16),
            "stride": np.array([16], np.int32),
        },
        "cams": {
            "cams": (cells * generator.uniform(0.4, 1, GRID)).astype(np.float16),
            "labels": (present - 1).astype(np.uint8),
            "size": size,
        },
        "seeds": {"seeds": np.where(generator.random(labels.shape) < 0.2, np.uint8(255), labels)},
        "fields": {
            "boundary": generator.uniform(0.1, 0.9, GRID).astype(np.float16),
            "displacement": generator.normal(size=(2, *GRID)).astype(np.float16),
        },
        "labels": {"semantic": labels, "instances": ids, **found},
        "predictions": {
            "semantic": labels,
            "instances": pack(ids == np.array([[[1]], [[2]]])),
            **found,
        },
    }[format_]


@cache
def _walk(number: int) -> Record:
    """Walk the maps of image `number` as stage walk does."""
    radius = PARAMETERS["walk"]["centroid_radius"]
    start = walk_input(record("cams", number), record("fields", number), radius)
    (walked,) = walk_instances([start], torch.device("cpu"), **WALK)
    return walked


def write_dataset(folder: Path) -> None:
    """Write images, masks and index."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    images = []
    for number, name in enumerate(NAMES):
        labels = truth(number)
        image = np.random.default_rng(number).integers(60, 200, (HEIGHT, WIDTH, 3), np.uint8)
        ids = np.where(labels == 255, 0, labels)
        files = f"images/{number}.png", f"masks/{number}.png", f"masks/{number}i.png"
        for file, pixels in zip(files, (image, labels, ids), strict=True):
            Image.fromarray(pixels).save(folder / file)
        tags = tuple(sorted({number % 3, (number + 1) % 3}))
        split = "val" if number % 3 == 2 else "train"
        images.append(
            ImageEntry(name, files[0], HEIGHT, WIDTH, split, tags, files[1], files[2], "0")
        )
    values = {value: value for value in (0, 1, 2, 3, 255)}
    Index(CLASSES, images, folder, folder, values).save(folder)


def write_artifact(folder: Path, format_: str, *, shift: int = 0) -> None:
    """Write one artifact of all images."""
    with Writer(folder / f"{format_}.h5", format_, CLASSES) as writer:
        for number, name in enumerate(NAMES):
            writer.write(name, record(format_, number, shift))


def write_table(folder: Path, step: str, best: float = 0.9) -> None:
    """Write score tables in which each image is worse than the previous; the last one fails."""
    path = folder / "scores" / step
    path.mkdir(parents=True, exist_ok=True)
    rows = [f'"{name}",{best - 0.1 * number:.2f},0.5' for number, name in enumerate(NAMES)]
    tables = {
        "images": ["id,miou,foreground_iou", *rows],
        "summary": ["score,value", f"images,{len(NAMES)}", f"miou,{best - 0.25:.2f}", "AP,"],
        "failures": ["id,missed,split", f'"{NAMES[0]}",0,', f'"{NAMES[-1]}",1,'],
    }
    for table, lines in tables.items():
        if (step, table) in TABLES:
            text = "\n".join(lines) + "\n"
            (path / f"{table}.csv").write_text(text, encoding="utf-8")


def write_run(folder: Path, *, shift: int = 0) -> None:
    """Write dataset, all artifacts and score tables; labels are off by `shift` pixels."""
    write_dataset(folder / "dataset")
    for format_ in FORMATS:
        write_artifact(folder, format_, shift=shift if format_ == "labels" else 0)
    for step in SCORED:
        write_table(folder, step)


def run_of(folder: Path, name: str = "workspace", missing: dict[str, str] | None = None) -> Run:
    """Return the run in a folder."""
    paths = RunPaths(
        folder / "dataset",
        {format_: folder / f"{format_}.h5" for format_ in FORMATS},
        {(step, table): folder / "scores" / step / f"{table}.csv" for step, table in TABLES},
        missing or {},
    )
    return Run(name, paths, lambda: PARAMETERS)
