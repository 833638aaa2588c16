"""Segments without any weights: graph-based superpixels (Felzenszwalb and Huttenlocher, IJCV 2004),
as scikit-image has them.

Which regions of an image touch each other, and the border of the image.

Masks of whole objects from points, without any weights: what is nearer to the points than to the
background.

    near(i) = least sum of steps from the regions under the points to region i      (step between two regions that touch:
    far(i)  = least sum of steps from the image's border to region i               their difference in color + 1)
    mask    = connected regions with REACH near(i) < min(far(i), LIKE like(i) + 5)

with like(i) the difference in color to the border region most like i. That objects rarely lie along
the border, and that paths to the background cross an object's outline, are the priors of geodesic
saliency (Wei et al., ECCV 2012); near against far is geodesic segmentation (Bai and Sapiro, ICCV
2007). A point on a head so brings the body too, as long as the background is further from both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from skimage.segmentation import felzenszwalb

from pipeline.core.artifacts import Record
from pipeline.errors import UserError
from pipeline.segmenters.prompting import Answer, Query


class Regions(NamedTuple):
    """Regions 0..S-1 of an image: areas [S] in pixels, shares [S] of the image's border in each,
    and pairs [E,2] that touch.
    """

    areas: np.ndarray
    border: np.ndarray
    pairs: np.ndarray

    def differences(self, colors: np.ndarray) -> np.ndarray:
        """Euclidean distance [E] of the colors [S,3] of each pair."""
        return np.linalg.norm(colors[self.pairs[:, 0]] - colors[self.pairs[:, 1]], axis=1)


def adjacency(segments: np.ndarray) -> Regions:
    """The regions of segments 1..S [H,W]; pairs that share an edge of a pixel, each once, sorted."""
    ids = segments.astype(np.int64) - 1
    count = int(ids.max()) + 1
    keys = []
    for one, other in ((ids[:, :-1], ids[:, 1:]), (ids[:-1], ids[1:])):
        touch = one != other
        low, high = np.minimum(one[touch], other[touch]), np.maximum(one[touch], other[touch])
        keys.append(low * count + high)
    pairs = np.stack(np.divmod(np.unique(np.concatenate(keys)), count), 1)
    edges = np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]])
    return Regions(
        np.bincount(ids.ravel(), minlength=count),
        np.bincount(edges, minlength=count) / len(edges),
        pairs,
    )


SOFT = 10.0
"""Difference in CIELAB at which a segment counts as half as stable as one that nothing resembles.
"""


@dataclass(frozen=True, slots=True)
class Superpixels:
    """Divides images into regions of even color.

    embeddings: whether to store the regions' colors, from which prompts are answered; side: larger
    images are divided at this longer side in pixels; scale: larger gives larger regions; sigma:
    standard deviation of the smoothing in pixels; min_size: least area in pixels.
    """

    embeddings: bool
    side: int
    scale: float
    sigma: float
    min_size: int

    def segment(self, image: np.ndarray) -> Record:
        """The segments of an image uint8 [H,W,3]: ids u2 [H,W] from 1 on, no pixel without;
        stability, iou f4 [S]; embeddings.

        stability: d / (d + 10) with d the difference in color to the neighbor most like it: how far
        a segment is from being one with another. iou: 1, as nothing here predicts it. embeddings:
        f2 [3,S,1], mean CIELAB colors, or empty.
        """
        segments = self._divide(image)
        colors = mean_colors(image, segments)
        near = nearest(adjacency(segments), colors)
        return {
            "segments": segments,
            "stability": (1 - SOFT / (near + SOFT)).astype(np.float32),
            "iou": np.ones(len(near), np.float32),
            "embeddings": colors.T[:, :, None].astype(np.float16)
            if self.embeddings
            else np.zeros((0, 0, 0), np.float16),
        }

    def _divide(self, image: np.ndarray) -> np.ndarray:
        """Ids u2 [H,W], found on the image at `side` and enlarged."""
        height, width = image.shape[:2]
        factor = min(1.0, self.side / max(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        small = image if factor == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        ids = felzenszwalb(small, scale=self.scale, sigma=self.sigma, min_size=self.min_size) + 1
        return cv2.resize(ids.astype(np.uint16), (width, height), interpolation=cv2.INTER_NEAREST)


def mean_colors(image: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Mean CIELAB colors f8 [S,3] of the segments 1..S [H,W] of an image uint8 [H,W,3]."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    ids = segments.ravel()
    sums = np.stack([np.bincount(ids, channel)[1:] for channel in lab.T], 1)
    return sums / np.bincount(ids)[1:, None]


def nearest(regions: Regions, colors: np.ndarray) -> np.ndarray:
    """The smallest difference in color of each region to a neighbor, f8 [S]; infinite for a region
    without any.
    """
    differences = regions.differences(colors)
    smallest = np.full(len(colors), np.inf)
    for side in (0, 1):
        np.minimum.at(smallest, regions.pairs[:, side], differences)
    return smallest


REACH = 0.4
"""Larger takes less of an object that is not of one color. 0.4, LIKE, NEVER and BORDER were set on
the built-in scenes, prompted at peaks of class maps.
"""
LIKE, NEVER = 3.0, 5.0
"""A region as unlike all background as this many steps is never nearer to it than that; like it, it
is background wherever it lies.
"""
BORDER = 0.02
"""Share of the image's border above which a region belongs to the background, unless a point lies
in it.
"""
MARGIN = 1.25
"""Stability compares the masks at REACH times and divided by this."""


class Scene(NamedTuple):
    """What the queries on one image share: region ids [H,W] from 0 on, steps between regions,
    areas, border shares and colors.
    """

    ids: np.ndarray
    steps: csr_array
    areas: np.ndarray
    border: np.ndarray
    colors: np.ndarray


@dataclass(frozen=True, slots=True)
class GrowingPrompter:
    """Answers prompts from superpixels and their colors."""

    def prompt(self, queries: Sequence[Query]) -> list[Answer]:
        """One mask a query: the object, or objects, that its points lie on.

        Stability is the IoU of the masks at a larger and at a smaller reach. Raises UserError
        without embeddings.
        """
        scenes: dict[int, Scene] = {}
        for record, _ in queries:
            if id(record) not in scenes:
                scenes[id(record)] = scene(record)
        return [_answer(scenes[id(record)], points) for record, points in queries]


def scene(record: Record) -> Scene:
    """The region graph of an image's superpixels."""
    if not record["embeddings"].size:
        raise UserError("segments.embeddings: false, so prompts cannot be answered; set it to true")
    colors = record["embeddings"][:, :, 0].astype(np.float64).T
    regions = adjacency(record["segments"])
    steps = coo_array((regions.differences(colors) + 1, regions.pairs.T), shape=(len(colors),) * 2)
    return Scene(
        record["segments"].astype(np.int64) - 1,
        steps.tocsr(),
        regions.areas,
        regions.border,
        colors,
    )


def _answer(scene: Scene, points_xy: np.ndarray) -> Answer:
    sides = np.array(scene.ids.shape[::-1])
    x, y = np.clip(np.floor(points_xy).astype(np.int64), 0, sides - 1).T
    hit = np.unique(scene.ids[y, x])
    near = dijkstra(scene.steps, directed=False, indices=hit, min_only=True)
    far = _far(scene, hit)
    kept, wide, narrow = (
        _connected(scene, near * reach < far, hit)
        for reach in (REACH, REACH / MARGIN, REACH * MARGIN)
    )
    return Answer(
        torch.from_numpy(kept[scene.ids]),
        float(scene.areas[narrow].sum() / scene.areas[wide].sum()),
    )


def _far(scene: Scene, hit: np.ndarray) -> np.ndarray:
    """How far each region is from the background; infinite where there is none but what was hit."""
    behind = np.setdiff1d(np.flatnonzero(scene.border > BORDER), hit)
    if not len(behind):
        behind = np.setdiff1d(np.flatnonzero(scene.border), hit)
    if not len(behind):
        return np.full(len(scene.areas), np.inf)
    path = dijkstra(scene.steps, directed=False, indices=behind, min_only=True)
    like = np.linalg.norm(scene.colors[:, None] - scene.colors[None, behind], axis=2).min(1)
    return np.minimum(path, LIKE * like + NEVER)


def _connected(scene: Scene, chosen: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Those of the chosen regions [S] (bool) that hang together with one that was hit, and these."""
    chosen = chosen.copy()
    chosen[hit] = True
    places = np.flatnonzero(chosen)
    _, parts = connected_components(scene.steps[places][:, places], directed=False)
    kept = np.zeros_like(chosen)
    kept[places[np.isin(parts, parts[np.isin(places, hit)])]] = True
    return kept
