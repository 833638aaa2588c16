"""Small hand-made sources, and the index of a single image."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.index import ImageEntry, Index

SIZE = (12, 16)


def noise(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """An image uint8 [H,W,3]."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    """Write an array as the suffix says, with all folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def painted(
    folder: Path, pixels: np.ndarray, classes: Sequence[str], tags: tuple[int, ...]
) -> Index:
    """The index of one training image `p`, uint8 [H,W,3]."""
    save(folder / "p.png", pixels)
    height, width = pixels.shape[:2]
    entry = ImageEntry("p", "p.png", height, width, "train", tags, None, None, "")
    return Index(classes, [entry], folder, folder, {})


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """Write a text file, with all folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


def mask(*boxes: tuple[int, int, int, int, int], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Boxes (top, left, bottom, right, value) on zeros, uint8 [H,W]."""
    array = np.zeros(size, np.uint8)
    for top, left, bottom, right, value in boxes:
        array[top:bottom, left:right] = value
    return array


def own_folder(
    root: Path, rows: Sequence[str] = ("a,cat", "b,dog;cat"), header: str = "image,classes"
) -> Path:
    """Format folder: a PNG per row, named as the row says, and labels.csv."""
    for k, row in enumerate(rows):
        save(root / "images" / f"{row.split(',')[0]}.png", noise(k))
    write(root / "labels.csv", "\n".join([header, *rows]) + "\n")
    return root


def voc_folder(
    root: Path, train: Sequence[str] = ("x1", "x2"), val: Sequence[str] = ("y1",)
) -> Path:
    """Format voc with classes cat and dog, annotations as XML: everything shows a dog, x2 a cat
    too.
    """
    for k, name in enumerate([*train, *val]):
        save(root / "JPEGImages" / f"{name}.jpg", noise(k))
        names = ["dog", "cat"] if name == "x2" else ["dog"]
        objects = "".join(
            f"<object><name>{n}</name><part><name>head</name></part></object>" for n in names
        )
        write(root / "Annotations" / f"{name}.xml", f"<annotation>{objects}</annotation>")
    for split, listed in (("train", train), ("val", val)):
        write(root / "ImageSets" / "Segmentation" / f"{split}.txt", "\n".join(listed) + "\n")
    write(root / "classes.txt", "background\ncat\ndog\n")
    return root


def annotation(category: int, segmentation: object, *, image: int = 7, crowd: int = 0) -> dict:
    """One row of `annotations`."""
    return {
        "id": 1,
        "image_id": image,
        "category_id": category,
        "iscrowd": crowd,
        "segmentation": segmentation,
    }


def coco_folder(
    root: Path,
    annotations: Sequence[dict],
    categories: Sequence[tuple[int, str]] = ((3, "cat"), (9, "dog")),
) -> Path:
    """Format coco: images 7 and 8 in train2017."""
    images = []
    for number in (7, 8):
        save(root / "train2017" / f"{number:012d}.png", noise(number))
        images.append(
            {"id": number, "file_name": f"{number:012d}.png", "height": SIZE[0], "width": SIZE[1]}
        )
    content = {
        "images": images,
        "annotations": list(annotations),
        "categories": [{"id": number, "name": name} for number, name in categories],
    }
    write(root / "annotations" / "instances_train2017.json", json.dumps(content))
    return root
