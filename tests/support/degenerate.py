"""Unusual folders of images, the graph run on them in this process, and checks of its artifacts."""

import csv
import importlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
import numpy as np
import pytest

from pipeline.core.artifacts import IGNORE, Reader, Record
from pipeline.core.weights import load_weights
from pipeline.metrics.steps import STEPS as SCORED
from tests.support.repository import BY_IMAGE, QUICK, ROOT, set_parameters
from tests.support.sources import save

STEPS = (
    *("dataset", "segments", "hints", "guidance", "features", "classifier", "cams", "seeds"),
    *("irnet", "fields", "walk", "labels"),
    *("semantic", "instance", "predictions", *(f"scores {name}" for name in SCORED), "report"),
)
TRAINED = ("classifier", "irnet", "semantic", "instance")
SMALLEST = {
    **QUICK,
    **{f"{stage}.backbone.name": "test_resnet" for stage in TRAINED},
    **{f"{stage}.backbone.weights": "none" for stage in TRAINED},
    "classifier.frozen_stages": 0,
    "dataset.format": "folder",
    "dataset.source": "source",
    "dataset.val": 0.0,
    "walk.iterations": 20,
    "walk.steps": 16,
    "seeds.crf.iterations": 1,
    "predictions.crf.iterations": 1,
    "runtime.batch": 4,
}


@dataclass(frozen=True, slots=True)
class Photo:
    """An image of size (height, width) with an object of each class.

    cover: share of the sides that an object takes; shown: the classes that are visible, if others.
    """

    id: str
    tags: Sequence[str] = ("cat",)
    size: tuple[int, int] = (48, 64)
    cover: float = 0.5
    split: str = "train"
    shown: Sequence[str] | None = None

    @property
    def objects(self) -> Sequence[str]:
        """The visible classes, which may differ from the tags."""
        return self.tags if self.shown is None else self.shown


def write_source(root: Path, photos: Sequence[Photo], classes: Sequence[str]) -> None:
    """Write a source folder: images/, labels.csv, classes.txt and masks/."""
    (root / "images").mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    with (root / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "classes", "split"))
        rows.writerows((photo.id, ";".join([*photo.tags, ""]), photo.split) for photo in photos)
    for number, photo in enumerate(photos):
        image, labels, ids = draw(photo, classes, np.random.default_rng(number))
        save(root / "images" / f"{photo.id}.png", image)
        save(root / "masks" / "semantic" / f"{photo.id}.png", labels)
        save(root / "masks" / "instances" / f"{photo.id}.png", ids)


def draw(
    photo: Photo, classes: Sequence[str], generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return noise with a rectangle for each object, its label map and its instance ids."""
    height, width = photo.size
    image = generator.integers(0, 90, (height, width, 3), np.uint8)
    labels, ids = np.zeros((2, height, width), np.uint8)
    share = 1 / max(1, len(photo.objects))
    for number, name in enumerate(photo.objects):
        label = classes.index(name) + 1
        left = round(width * number * share)
        place = (
            slice(0, max(1, round(height * photo.cover))),
            slice(left, left + max(1, round(width * share * photo.cover))),
        )
        image[place] = (255 - 37 * label % 150, 100 + 53 * label % 150, 100 + 91 * label % 150)
        labels[place], ids[place] = label, number + 1
    return image, labels, ids


def run_graph(
    folder: Path,
    values: Mapping[str, object],
    monkeypatch: pytest.MonkeyPatch,
    last: str = STEPS[-1],
) -> None:
    """Run the stages up to `last` in a folder; one that stops raises its message."""
    (folder / "params.yaml").write_text(
        (ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    set_parameters(folder, SMALLEST | dict(values))
    monkeypatch.chdir(folder)
    for step in STEPS[: STEPS.index(last) + 1]:
        stage, *arguments = step.split()
        command: click.Command = getattr(importlib.import_module(f"stages.{stage}"), stage)
        command.main(arguments, standalone_mode=False)


def check_artifacts(
    data: Path,
    photos: Sequence[Photo],
    classes: Sequence[str],
    last: str = "report",
    empty: Sequence[str] = (),
) -> None:
    """Check that artifacts up to that of `last` hold the images of their split, but for those that
    are `empty`, and are finite.
    """
    written = STEPS[: STEPS.index(last) + 1]
    for name in (name for name in BY_IMAGE if name in written):
        split = "val" if name == "predictions" else "train"
        photos_of = photos if name not in empty else ()
        of_split = {photo.id: photo for photo in photos_of if photo.split == split}
        reader = Reader(data / f"{name}.h5", name)
        assert (reader.names, reader.classes) == (sorted(of_split), tuple(classes))
        for photo in of_split.values():
            _check_record(name, photo, classes, reader[photo.id])
    for name in (name for name in TRAINED if name in written):
        tensors, _ = load_weights(data / f"{name}.safetensors", name)
        assert all(tensor.isfinite().all() for tensor in tensors.values()), name
        assert finite_table(data / "curves" / f"{name}.csv") or "fields" in empty, name


def _check_record(name: str, photo: Photo, classes: Sequence[str], record: Record) -> None:
    """Check that a record is finite, as large as its image, and has no label besides the tags."""
    assert all(np.isfinite(np.asarray(values, np.float64)).all() for values in record.values()), (
        name,
        photo,
    )
    tags = {classes.index(tag) for tag in photo.tags}
    if name == "cams":
        assert {*record["labels"].tolist()} == tags
    elif name == "walk":
        assert {*record["classes"].tolist()} <= tags
        assert record["size"].tolist() == [*photo.size]
    elif name == "fields":
        assert record["boundary"].shape == tuple(-(-side // 4) for side in photo.size)
    else:
        labels = record["semantic" if name in ("labels", "predictions") else name]
        allowed = {0, IGNORE} | {
            tag + 1 for tag in (range(len(classes)) if name == "predictions" else tags)
        }
        assert labels.shape == photo.size
        assert name == "segments" or {*np.unique(labels).tolist()} <= allowed


def check_scores(data: Path) -> dict[str, Mapping[str, float]]:
    """Return the scores in percent by step; check that their tables are finite."""
    found: dict[str, Mapping[str, float]] = {}
    for name in SCORED:
        found |= strict_json(data / "scores" / f"{name}.json")
        for table in (data / "scores" / name).glob("*.csv"):
            finite_table(table)
    assert found.keys() == set(SCORED)
    assert all(0 <= score <= 100 for scores in found.values() for score in scores.values())
    return found


def check_report(data: Path) -> str:
    """Return the page; check that its numbers are finite."""
    strict_json(data / "report" / "report.json")
    page = (data / "report" / "index.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    assert ">nan" not in page
    return page


def finite_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file; check that none holds NaN or infinity."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for column, value in row.items():
            assert column in ("id", "class", "actual", "predicted") or _is_finite(value), (
                path,
                row,
            )
    return rows


def _is_finite(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return True


def strict_json(path: Path) -> dict[str, Mapping[str, float]]:
    """Read a JSON file that holds no NaN."""

    def refuse(constant: str) -> NoReturn:
        """Fail at NaN and Infinity, which Python would read."""
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
