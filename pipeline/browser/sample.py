"""One image of one run: its arrays, loaded on demand, the label map of every step, and the random
walk, recomputed with any exponent, length and background.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from pipeline.browser.run import Run
from pipeline.core.artifacts import IGNORE, ArtifactError, Record
from pipeline.data.instance_masks import exclusive_record
from pipeline.data.masks import read_instances, read_semantic
from pipeline.errors import UserError
from pipeline.irnet.instances import walk_input, walk_instances
from pipeline.irnet.similarity import similarity_input, walk_by_similarity
from pipeline.labelling import assign, upsample
from pipeline.labelling.pseudo_labels import class_maps, pseudo_labels, vote_record
from pipeline.metrics.semantic import Confusion

Value = TypeVar("Value")
LABEL_MAPS = ("seeds", "labels", "predictions", "truth")
"""Steps whose label maps are stored; layers have the same names."""
SPATIAL = ("segments", "pixels", "seeds", "boundary", "semantic")
"""Arrays whose shape is the image's, or its stride-4 grid's."""


class Sample:
    """An image `name` of a run; everything is computed once."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name, self.index = run, name, run.index
        self.entry = self.index[name]
        self.size = (self.entry.height, self.entry.width)
        self._cache: dict[Hashable, Any] = {}

    def cached(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return what `make` returned for this key."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def image(self) -> np.ndarray:
        """Return the image uint8 [H,W,3]; raises DatasetError."""
        return self.cached("image", lambda: self.index.image(self.name))

    def has(self, source: str) -> bool:
        """Whether a readable artifact has the image, or it has `truth` or `true instances`."""
        if source == "truth":
            return self.index.has_masks(self.name)
        if source == "true instances":
            return self.index.has_instances(self.name)
        return self.run.holds(source, self.name)

    def record(self, format_: str) -> Record:
        """Return the arrays of an artifact, instances as an id map.

        Raises ArtifactError, also for arrays whose size is not the image's.
        """
        return self.cached(format_, lambda: self._record(format_))

    def _record(self, format_: str) -> Record:
        reader = self.run.reader(format_)
        try:
            # embeddings of segments are large, and nothing here needs them
            record: Record = (
                {"segments": reader.array(self.name, "segments")}
                if format_ == "segments"
                else exclusive_record(reader[self.name])
            )
        except KeyError as error:
            raise ArtifactError(f"{reader.path}: has no image {self.name!r}") from error
        height, width = self.size
        grid = (height - 1) // 4 + 1, (width - 1) // 4 + 1
        spatial = next((record[key].shape for key in SPATIAL if key in record), ())
        found = tuple(map(int, record["size"])) if "size" in record else spatial
        if found and found not in (self.size, grid):
            raise ArtifactError(
                f"{reader.path}: {self.name!r} is {found[0]} x {found[1]}, but its image is "
                f"{height} x {width} pixels; it was made from other images: `dvc repro {format_}`"
            )
        return record

    def ground_truth(self) -> np.ndarray:
        """Return the ground-truth label map uint8 [H,W]; raises DatasetError."""
        return self.cached("truth", lambda: read_semantic(self.index, self.name))

    def true_instances(self) -> np.ndarray:
        """Return the ground-truth instance ids [H,W]; raises DatasetError."""
        return self.cached("true instances", lambda: read_instances(self.index, self.name)[0])

    def cams(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the activation maps f4 [K,H,W] and their class ids [K]."""
        record = self.record("cams")
        return self.cached("maps", lambda: upsample(record["cams"], self.size)), record["labels"]

    def label_map(self, step: str, threshold: float | None = None) -> np.ndarray:
        """Return the label map uint8 [H,W] of `cams` or a step of LABEL_MAPS.

        threshold: background score in [0,1] for activation maps; None for the run's own. Raises
        ArtifactError, for `truth` DatasetError.
        """
        if step == "truth":
            return self.ground_truth()
        if step == "cams":
            chosen = self.run.value("scores", "background") if threshold is None else threshold
            return assign(*self.cams(), chosen)
        return self.record(step)["seeds" if step == "seeds" else "semantic"]

    def miou(self, labels: np.ndarray) -> float | None:
        """Return the mIoU of a label map on this image in [0,1]; None without a mask."""
        if not self.has("truth"):
            return None
        confusion = Confusion(self.index.classes)
        confusion.add(self.ground_truth(), labels)
        return None if np.isnan(confusion.miou) else confusion.miou


@dataclass(frozen=True, slots=True)
class WalkSettings:
    """What the sliders change; None stands for the run's own parameter.

    class_: id of the class whose map is drawn, None for the highest of all; threshold: background
    score for activation maps; beta, steps: see section `walk`; background: see section `labels`.
    """

    class_: int | None = None
    threshold: float | None = None
    beta: float | None = None
    steps: int | None = None
    background: float | None = None


class Slider(NamedTuple):
    """A slider: section and name of the run's own parameter; lower end, upper end, step."""

    section: str
    parameter: str
    ends: tuple[float, float]
    step: float


SLIDERS: Mapping[str, Slider] = {
    "threshold": Slider("scores", "background", (0, 1), 0.01),
    "beta": Slider("walk", "beta", (0.5, 40), 0.5),
    "steps": Slider("walk", "steps", (0, 512), 8),
    "background": Slider("labels", "background", (0, 1), 0.01),
}
"""Setting -> its slider."""


def read_settings(query: Mapping[str, str]) -> WalkSettings:
    """Return the settings in a URL's query; values out of range are dropped."""
    chosen: dict[str, Any] = {}
    for name, slider in SLIDERS.items():
        try:
            value = float(query.get(name, "nan"))
        except ValueError:
            continue
        if slider.ends[0] <= value <= slider.ends[1]:
            chosen[name] = round(value) if name == "steps" else value
    if query.get("class_", "").isdecimal():
        chosen["class_"] = int(query["class_"])
    return WalkSettings(**chosen)


def effective_value(sample: Sample, settings: WalkSettings, name: str) -> Any:
    """Return a setting if it is set, else the run's own value."""
    chosen = getattr(settings, name)
    return own_value(sample.run, name) if chosen is None else chosen


def own_value(run: Run, name: str) -> Any:
    """Return a run's own value of a setting, of the walk that it took; UserError if it lacks it."""
    section, parameter, *_ = SLIDERS[name]
    inner = ("features",) if section == "walk" and _walks_on_features(run) else ()
    return run.value(section, *inner, parameter)


def _walks_on_features(run: Run) -> bool:
    with suppress(UserError):  # of an earlier version, which had no such walk
        return run.value("walk", "affinity") == "features"
    return False


def walk_record(sample: Sample, settings: WalkSettings) -> Record:
    """Return the walked maps: from walk.h5 at the run's own settings, else computed."""
    beta, steps = (effective_value(sample, settings, name) for name in ("beta", "steps"))
    if (beta, steps) == (own_value(sample.run, "beta"), own_value(sample.run, "steps")):
        return sample.record("walk")
    return sample.cached(("walk", beta, steps), lambda: _walk(sample, beta, steps))


def _walk(sample: Sample, beta: float, steps: int) -> Record:
    cpu, background = torch.device("cpu"), sample.run.value("walk", "background")
    if _walks_on_features(sample.run):
        near = similarity_input(sample.record("cams"), sample.record("features"))
        return walk_by_similarity([near], cpu, beta=beta, steps=steps, background=background)[0]
    walk = {key: sample.run.value("walk", key) for key in ("radius", "iterations")}
    radius = sample.run.value("walk", "centroid_radius")
    start = walk_input(sample.record("cams"), sample.record("fields"), radius)
    options = {**walk, "beta": beta, "steps": steps, "background": background}
    return walk_instances([start], cpu, **options)[0]


def live_class_maps(sample: Sample, settings: WalkSettings) -> tuple[np.ndarray, np.ndarray]:
    """Return the normalized class maps f4 [K,H,W] in [0,1] after the walk, and class ids [K]."""
    return class_maps(walk_record(sample, settings), sample.run.value("labels", "normalize"))


def live_labels(sample: Sample, settings: WalkSettings) -> Record:
    """Return the pseudo-labels of these settings, before hints and prompts."""
    run, walked = sample.run, walk_record(sample, settings)
    flat = np.zeros(walked["maps"].shape[1:], np.float16)  # of a walk without boundaries
    record = pseudo_labels(
        walked,
        sample.record("fields")["boundary"] if sample.has("fields") else flat,
        background=effective_value(sample, settings, "background"),
        normalize=run.value("labels", "normalize"),
        min_area=run.value("labels", "min_area"),
        boundary_threshold=run.value("labels", "boundary_threshold"),
    )
    if run.value("labels", "vote") != "segments":
        return record
    segments = sample.record("segments")["segments"]
    return vote_record(record, segments, run.value("labels", "agreement"))


def values_at(sample: Sample, y: int, x: int) -> list[tuple[str, str]]:
    """Return (title, value) of every artifact at the pixel (y, x)."""
    classes = sample.index.classes
    found = []
    if sample.has("cams"):
        for cam, c in zip(*sample.cams(), strict=True):
            found.append((f"cams, {_label_name(int(c) + 1, classes)}", f"{cam[y, x]:.2f}"))
    if sample.has("fields"):
        record = sample.record("fields")
        dy, dx = record["displacement"][:, y // 4, x // 4].astype(float)
        found.append(("fields, boundary", f"{record['boundary'][y // 4, x // 4]:.2f}"))
        found.append(("fields, displacement", f"{dx:+.1f} right, {dy:+.1f} down, cells"))
    if sample.has("segments"):
        segment = sample.record("segments")["segments"][y, x]
        found.append(("segments", str(segment or "none")))
    for step in LABEL_MAPS:
        if sample.has(step):
            label = int(sample.label_map(step)[y, x])
            found.append((step, _label_name(label, classes)))
    return found


def _label_name(label: int, classes: Sequence[str]) -> str:
    if label in (0, IGNORE):
        return "ignored" if label else "background"
    return classes[label - 1] if label <= len(classes) else f"unknown label {label}"
