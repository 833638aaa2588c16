"""The layers of an image's page: what each needs, and how it is drawn from an image's arrays;
colors are those of views.overlays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.browser.live_walk import Settings, own, relabeled, scores, setting
from pipeline.browser.sample import Sample
from pipeline.irnet.instances import centroid_regions, centroids, clusters
from pipeline.views import overlays, sheets

Size = tuple[int, int]
Draw = Callable[[np.ndarray], np.ndarray]
SIDES = (640, 1280)
"""Pixels of the longer side in which layers are drawn, at least and at most; in between they have
the image's own size.
"""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its title, what it is made of, the settings it follows, and what draws it.

    sources: formats and kinds of truth that it cannot do without; draw: (shown, settings, size) ->
    a function that draws over any image uint8 [h,w,3] of that size.
    """

    title: str
    sources: tuple[str, ...]
    draw: Callable[[Sample, Settings, Size], Draw]
    settings: tuple[str, ...] = ()

    def image(self, shown: Sample, settings: Settings) -> np.ndarray:
        """The layer by itself, uint8 RGBA; raises UserError when something it is made of is
        damaged.
        """
        size = drawn_size(shown.size)
        return overlays.layer(self.draw(shown, settings, size), size)

    def available(self, shown: Sample) -> bool:
        """Whether everything that it is made of is there for this image."""
        return all(shown.has(source) for source in self.sources)


def drawn_size(size: Size) -> Size:
    """(height, width) in which an image of this size and its layers are drawn."""
    return sheets.fitted(size, min(max(max(size), SIDES[0]), SIDES[1]))


def _heat(maps: np.ndarray, classes: np.ndarray, chosen: int | None) -> np.ndarray:
    """The map of the chosen class, or the highest of all, [H,W]."""
    if chosen is not None:
        maps = maps[classes == chosen]
    return np.asarray(maps.max(0, initial=0), np.float32)


def _cams(shown: Sample, settings: Settings, size: Size) -> Draw:
    maps, classes = shown.maps()
    labels = shown.label_map("cams", setting(shown, settings, "threshold"))
    return _heat_and_outlines(_heat(maps, classes, settings.class_), labels, settings.class_, size)


def _walk(shown: Sample, settings: Settings, size: Size) -> Draw:
    maps, classes = scores(shown, settings)
    labels = relabeled(shown, settings)["semantic"]
    return _heat_and_outlines(_heat(maps, classes, settings.class_), labels, settings.class_, size)


def _heat_and_outlines(
    heat: np.ndarray, labels: np.ndarray, chosen: int | None, size: Size
) -> Draw:
    """A map, and the outline of what is above the threshold."""
    if chosen is not None:
        labels = np.where(labels == chosen + 1, labels, 0)
    strength, outlined = sheets.scaled_map(heat, size), overlays.resized_ids(labels, size)
    return lambda image: overlays.outlines_over(overlays.heat_over(image, strength), outlined)


def _label_layer(step: str) -> Callable[[Sample, Settings, Size], Draw]:
    def draw(shown: Sample, settings: Settings, size: Size) -> Draw:
        """A label map as it is stored."""
        return _labels(shown.label_map(step, 0), size)

    return draw


def _relabeled(shown: Sample, settings: Settings, size: Size) -> Draw:
    return _labels(relabeled(shown, settings)["semantic"], size)


def _labels(labels: np.ndarray, size: Size) -> Draw:
    small = overlays.resized_ids(labels, size)
    return lambda image: overlays.labels_over(image, small)


def _instances(format_: str) -> Callable[[Sample, Settings, Size], Draw]:
    def draw(shown: Sample, settings: Settings, size: Size) -> Draw:
        """Instance ids of an artifact, or the true ones."""
        true = format_ == "true instances"
        ids = overlays.resized_ids(
            shown.true_instances() if true else shown.record(format_)["instances"], size
        )
        return lambda image: overlays.instances_over(image, ids)

    return draw


def _segments(shown: Sample, settings: Settings, size: Size) -> Draw:
    ids = overlays.resized_ids(shown.record("segments")["segments"], size)
    return lambda image: overlays.regions_over(image, ids)


def _boundary(shown: Sample, settings: Settings, size: Size) -> Draw:
    drawn = overlays.boundary_map(
        sheets.scaled(shown.record("fields")["boundary"], shown.size, size)
    )
    return lambda image: drawn


def _displacement(shown: Sample, settings: Settings, size: Size) -> Draw:
    displacement = shown.record("fields")["displacement"]
    drawn = overlays.arrows_over(
        sheets.displacement_panel(displacement, shown.size, size), displacement
    )
    return lambda image: drawn


def _centroids(shown: Sample, settings: Settings, size: Size) -> Draw:
    ends, parts = shown.remember("centroids", lambda: _resting(shown))
    ids = overlays.resized_ids(
        np.kron(parts + 1, np.ones((4, 4), np.uint16))[: shown.size[0], : shown.size[1]], size
    )
    points = (ends + 0.5) * 4 * np.array([size[0] / shown.size[0], size[1] / shown.size[1]])
    return lambda image: overlays.points_over(overlays.regions_over(image, ids, 0.4), points)


def _resting(shown: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Cells [N,2] (y, x) in which any other comes to rest, and the cluster [h,w] of every cell,
    numbered without gaps.
    """
    displacement = np.asarray(shown.record("fields")["displacement"], np.float32)
    parameters = shown.run.parameters
    (ends,) = centroids([torch.from_numpy(displacement)], own(parameters, "walk", "iterations"))
    centers = centroid_regions(displacement, own(parameters, "walk", "centroid_radius"))
    found = clusters(torch.from_numpy(centers), ends).numpy()
    parts = np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.uint16)
    return np.unique(ends.flatten(1).numpy(), axis=1).T, parts


WALK = ("beta", "steps", "background")
LAYERS: Mapping[str, Layer] = {
    "segments": Layer("Segments", ("segments",), _segments),
    "cams": Layer("Activation maps", ("cams",), _cams, ("class_", "threshold")),
    "seeds": Layer("Seeds", ("seeds",), _label_layer("seeds")),
    "boundary": Layer("Class boundaries", ("fields",), _boundary),
    "displacement": Layer("Displacements", ("fields",), _displacement),
    "centroids": Layer("Centroids", ("fields",), _centroids),
    "walk": Layer("Walk result", ("cams", "fields"), _walk, ("class_", *WALK)),
    "relabeled": Layer("Live labels", ("cams", "fields"), _relabeled, WALK),
    "labels": Layer("Pseudo-labels", ("labels",), _label_layer("labels")),
    "instances": Layer("Pseudo-instances", ("labels",), _instances("labels")),
    "predictions": Layer("Predictions", ("predictions",), _label_layer("predictions")),
    "found": Layer("Predicted instances", ("predictions",), _instances("predictions")),
    "truth": Layer("Truth", ("truth",), _label_layer("truth")),
    "true-instances": Layer("True instances", ("true instances",), _instances("true instances")),
}
"""All layers, lowest first, in the order of the pipeline."""
OPAQUE = ("boundary", "displacement")
"""Layers that hide what lies below: of several shown, they go to the bottom."""
