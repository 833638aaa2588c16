"""The layers of an image's page: what each is made of, and how it is drawn (see views.overlays)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from pipeline.browser.sample import (
    Sample,
    WalkSettings,
    effective_value,
    live_class_maps,
    live_labels,
)
from pipeline.core.artifacts import IGNORE
from pipeline.irnet.instances import centroid_regions, centroids, clusters
from pipeline.labelling import assign
from pipeline.views import overlays, sheets

Size = tuple[int, int]
Draw = Callable[[np.ndarray], np.ndarray]
SIDES = (640, 1280)
"""Longer side in pixels in which layers are drawn, at least and at most."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: its title, what it shows, what it is made of, and the function that draws it.

    sources: artifacts, or kinds of ground truth, that it needs; draw: (sample, settings, size) -> a
    function that draws over any image uint8 [h,w,3] of that size; settings: names of those that it
    follows; link: where to read more.
    """

    title: str
    about: str
    sources: tuple[str, ...]
    draw: Callable[[Sample, WalkSettings, Size], Draw]
    settings: tuple[str, ...] = ()
    link: str = ""

    def available(self, sample: Sample) -> bool:
        """Whether the image has everything that the layer is made of."""
        return all(sample.has(source) for source in self.sources)


def drawn_size(size: Size) -> Size:
    """Return the (height, width) in which an image of this size and its layers are drawn."""
    return sheets.fitted(size, min(max(max(size), SIDES[0]), SIDES[1]))


def _heat_and_outlines(
    maps: np.ndarray, classes: np.ndarray, threshold: float, chosen: int | None, size: Size
) -> Draw:
    """Draw the map of the chosen class, or the highest of all, and outline what is above the
    threshold.
    """
    labels = assign(maps, classes, threshold)
    if chosen is not None:
        maps, labels = maps[classes == chosen], np.where(labels == chosen + 1, labels, 0)
    heat = overlays.resized(np.asarray(maps.max(0, initial=0), np.float32), size)
    outlined = overlays.resized_ids(labels, size)
    return lambda image: overlays.outlines_over(overlays.heat_over(image, heat), outlined)


def _cams(sample: Sample, settings: WalkSettings, size: Size) -> Draw:
    threshold = effective_value(sample, settings, "threshold")
    return _heat_and_outlines(*sample.cams(), threshold, settings.class_, size)


def _walk(sample: Sample, settings: WalkSettings, size: Size) -> Draw:
    maps, classes = live_class_maps(sample, settings)
    background = effective_value(sample, settings, "background")
    return _heat_and_outlines(maps, classes, background, settings.class_, size)


def _label_map(step: str, sample: Sample, settings: WalkSettings, size: Size) -> Draw:
    labels = overlays.resized_ids(sample.label_map(step), size)
    return lambda image: overlays.labels_over(image, labels)


def _hints(sample: Sample, settings: WalkSettings, size: Size) -> Draw:
    """Draw a model's evidence as heat, what a person said as labels, and outlines of all boxes."""
    record = sample.record("hints")
    said = overlays.resized_ids(record["pixels"], size)
    evidence, classes = record["evidence"], record["classes"]
    heat = _heat_and_outlines(evidence, classes, 0, settings.class_, size)
    boxed = np.zeros(sample.size, np.uint8)
    for c, *_, x0, y0, x1, y1 in np.rint(record["boxes"]).astype(int).clip(0):
        boxed[y0:y1, x0:x1] = c + 1
    outlined = overlays.resized_ids(boxed, size)

    def draw(image: np.ndarray) -> np.ndarray:
        """Draw over an image uint8 [H,W,3]."""
        image = heat(image) if len(classes) else image
        image = overlays.labels_over(image, said) if (said != IGNORE).any() else image
        return overlays.outlines_over(image, outlined)

    return draw


def _live_labels(sample: Sample, settings: WalkSettings, size: Size) -> Draw:
    labels = overlays.resized_ids(live_labels(sample, settings)["semantic"], size)
    return lambda image: overlays.labels_over(image, labels)


def _instances(format_: str, sample: Sample, settings: WalkSettings, size: Size) -> Draw:
    ids = overlays.resized_ids(sample.record(format_)["instances"], size)
    return lambda image: overlays.instances_over(image, ids)


def _true_instances(sample: Sample, settings: WalkSettings, size: Size) -> Draw:
    ids = overlays.resized_ids(sample.true_instances(), size)
    return lambda image: overlays.instances_over(image, ids)


def _segments(sample: Sample, settings: WalkSettings, size: Size) -> Draw:
    ids = overlays.resized_ids(sample.record("segments")["segments"], size)
    return lambda image: overlays.regions_over(image, ids)


def _boundary(sample: Sample, settings: WalkSettings, size: Size) -> Draw:
    boundary = sheets.scaled(sample.record("fields")["boundary"], sample.size, size)
    drawn = overlays.boundary_map(boundary)
    return lambda image: drawn


def _displacement(sample: Sample, settings: WalkSettings, size: Size) -> Draw:
    displacement = sample.record("fields")["displacement"]
    panel = sheets.displacement_panel(displacement, sample.size, size)
    drawn = overlays.arrows_over(panel, displacement)
    return lambda image: drawn


def _centroids(sample: Sample, settings: WalkSettings, size: Size) -> Draw:
    ends, parts = sample.cached("centroids", lambda: _resting_cells(sample))
    full = np.kron(parts + 1, np.ones((4, 4), np.uint16))[: sample.size[0], : sample.size[1]]
    ids = overlays.resized_ids(full, size)
    points = (ends + 0.5) * 4 * np.array(size) / np.array(sample.size)
    return lambda image: overlays.points_over(overlays.regions_over(image, ids, 0.4), points)


def _resting_cells(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells [N,2] (y, x) where displacements end, and the cluster [h,w] of every cell,
    numbered consecutively.
    """
    displacement = np.asarray(sample.record("fields")["displacement"], np.float32)
    iterations, radius = (
        sample.run.value("walk", key) for key in ("iterations", "centroid_radius")
    )
    (ends,) = centroids([torch.from_numpy(displacement)], iterations)
    centers = centroid_regions(displacement, radius)
    found = clusters(torch.from_numpy(centers), ends).numpy()
    parts = np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.uint16)
    return np.unique(ends.flatten(1).numpy(), axis=1).T, parts


WALK = ("beta", "steps", "background")
ARXIV = "https://arxiv.org/abs/"
IRN = f"{ARXIV}1904.05044"
LAYERS: Mapping[str, Layer] = {
    "segments": Layer(
        "segments",
        "Class-agnostic segments of the image, a color each; they know borders but no classes.",
        ("segments",),
        _segments,
        link=f"{ARXIV}2304.02643",
    ),
    "cams": Layer(
        "cams",
        "Evidence of the classifier for each class: the brighter, the more. The outline encloses "
        "what is above the threshold.",
        ("cams",),
        _cams,
        ("class_", "threshold"),
        link=f"{ARXIV}1512.04150",
    ),
    "seeds": Layer(
        "seeds",
        "Confident pixels after a dense CRF; hatched ones are ignored in training.",
        ("seeds",),
        partial(_label_map, "seeds"),
        link=f"{ARXIV}1210.5644",
    ),
    "boundary": Layer(
        "fields: boundary",
        "Boundaries between classes as IRNet sees them: the darker, the more likely.",
        ("fields",),
        _boundary,
        link=IRN,
    ),
    "displacement": Layer(
        "fields: displacement",
        "Displacement from each pixel to the center of its object; hue is the direction.",
        ("fields",),
        _displacement,
        link=IRN,
    ),
    "centroids": Layer(
        "fields: centroids",
        "Where the displacements lead: pixels that end at one centroid are one object.",
        ("fields",),
        _centroids,
        link=IRN,
    ),
    "walk": Layer(
        "walk",
        "The maps after the random walk, which spreads them up to the boundaries; the outline "
        "encloses what is above the background's score.",
        ("walk",),
        _walk,
        ("class_", *WALK),
        IRN,
    ),
    "relabeled": Layer(
        "labels, live",
        "The labels that the sliders of walk and labels would give, computed on the spot.",
        ("walk",),
        _live_labels,
        WALK,
        IRN,
    ),
    "labels": Layer(
        "labels",
        "The pseudo-labels from which the final models learn.",
        ("labels",),
        partial(_label_map, "labels"),
        link=IRN,
    ),
    "instances": Layer(
        "labels: instances",
        "The pseudo-labels by object, numbered.",
        ("labels",),
        partial(_instances, "labels"),
        link=IRN,
    ),
    "predictions": Layer(
        "predictions",
        "Predictions of the final semantic model, on images it was not trained on.",
        ("predictions",),
        partial(_label_map, "predictions"),
        link=f"{ARXIV}1802.02611",
    ),
    "found": Layer(
        "predictions: instances",
        "Predictions of the final instance model, the highest score in front.",
        ("predictions",),
        partial(_instances, "predictions"),
        link=f"{ARXIV}2203.12827",
    ),
    "truth": Layer(
        "ground truth",
        "The mask that a person drew; it is read for scores only.",
        ("truth",),
        partial(_label_map, "truth"),
    ),
    "true-instances": Layer(
        "ground truth: instances",
        "The objects that a person outlined; they are read for scores only.",
        ("true instances",),
        _true_instances,
    ),
    "hints": Layer(
        "hints",
        "Labels by a person (hatched pixels have none), masks by a model, and boxes.",
        ("hints",),
        _hints,
    ),
}
"""All layers, lowest first, in the order of the pipeline except for hints."""
KEYS = dict(zip("1234567890qwert", LAYERS, strict=True))
"""Key of the keyboard -> layer that it shows or hides."""
OPAQUE = ("boundary", "displacement")
"""Layers that hide what is below; of several layers, they go to the bottom."""
