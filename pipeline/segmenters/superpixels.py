"""Segments without any weights, and masks of whole objects prompted from them.

Superpixels divides an image by graph-based segmentation (Felzenszwalb and Huttenlocher, IJCV 2004;
scikit-image). SuperpixelPrompter takes the regions nearer to the points than to the background:

    near(i) = least sum of steps from the regions under the points to region i
    far(i)  = least sum of steps from the image's border, and from what a prompt says is outside
    mask    = connected regions with REACH near(i) < min(far(i), LIKE like(i) + UNLIKE)

where a step between two regions that touch is their difference in color + 1, and like(i) is the
difference in color to the border region most like i. That objects rarely lie along the border, and
that paths to the background cross an object's outline, are the priors of geodesic saliency (Wei et
al., ECCV 2012); near against far is geodesic segmentation (Bai and Sapiro, ICCV 2007). So a point
on a head selects the body too, as long as the background is further from both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from skimage.segmentation import felzenszwalb

from pipeline.core.artifacts import Record
from pipeline.segmenters.prompting import Query

if TYPE_CHECKING:  # stage segments divides images without torch
    from torch import Tensor

SOFT = 10.0
"""Difference in CIELAB at which a segment is half as stable as one that nothing resembles."""
REACH = 0.4
"""Larger takes less of an object of several colors. REACH, LIKE, UNLIKE and BORDER were set on the
built-in scenes, prompted at peaks of class maps.
"""
LIKE, UNLIKE = 3.0, 5.0
"""Bound of the distance to the background: a region like it belongs to it wherever it lies, and one
unlike all of it is never nearer than UNLIKE steps.
"""
BORDER = 0.02
"""Share of the image's border above which a region is background, unless a point lies in it."""
MARGIN = 1.25
"""Stability compares the masks at REACH multiplied and divided by this."""


class Regions(NamedTuple):
    """Regions 0..S-1 of an image: areas [S] in pixels, border [S], the share of the image's border
    in each, and pairs [E,2] that touch.
    """

    areas: np.ndarray
    border: np.ndarray
    pairs: np.ndarray

    def differences(self, colors: np.ndarray) -> np.ndarray:
        """Return the Euclidean distance [E] of the colors [S,3] of each pair."""
        return np.linalg.norm(colors[self.pairs[:, 0]] - colors[self.pairs[:, 1]], axis=1)


def adjacency(segments: np.ndarray) -> Regions:
    """Return the regions of segments 1..S [H,W]; pairs share an edge of a pixel, each once,
    sorted.
    """
    ids = segments.astype(np.int64) - 1
    count = int(ids.max()) + 1
    keys = []
    for one, other in ((ids[:, :-1], ids[:, 1:]), (ids[:-1], ids[1:])):
        touch = one != other
        low, high = np.minimum(one[touch], other[touch]), np.maximum(one[touch], other[touch])
        keys.append(low * count + high)
    pairs = np.stack(np.divmod(np.unique(np.concatenate(keys)), count), 1)
    edges = np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]])
    border = np.bincount(edges, minlength=count) / len(edges)
    return Regions(np.bincount(ids.ravel(), minlength=count), border, pairs)


def mean_colors(image: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Return mean CIELAB colors f8 [S,3] of the segments 1..S [H,W] of an image uint8 [H,W,3]."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    ids = segments.ravel()
    sums = np.stack([np.bincount(ids, channel)[1:] for channel in lab.T], 1)
    return sums / np.bincount(ids)[1:, None]


@dataclass(frozen=True, slots=True)
class Superpixels:
    """Divides images into regions of even color.

    Args:
        embeddings: Whether to store the regions' colors, from which prompts are answered.
        side: Longer side in pixels to which larger images are reduced first.
        scale: Larger gives larger regions.
        sigma: Standard deviation of the smoothing in pixels.
        min_size: Least area in pixels.
    """

    embeddings: bool
    side: int
    scale: float
    sigma: float
    min_size: int

    def segment(self, image: np.ndarray) -> Record:
        """Return the record, layout `segments`, of an image uint8 [H,W,3].

        segments: u2 [H,W] from 1 on, without gaps; stability: f4 [S], d / (d + SOFT) with d the
        difference in color to the neighbor most like it; iou: f4 [S], 1, as nothing predicts it;
        embeddings: f2 [3,S,1], mean CIELAB colors, or empty.
        """
        segments = self._divide(image)
        colors = mean_colors(image, segments)
        near = nearest(adjacency(segments), colors)
        kept = colors.T[:, :, None] if self.embeddings else np.zeros((0, 0, 0))
        return {
            "segments": segments,
            "stability": (1 - SOFT / (near + SOFT)).astype(np.float32),
            "iou": np.ones(len(near), np.float32),
            "embeddings": kept.astype(np.float16),
        }

    def _divide(self, image: np.ndarray) -> np.ndarray:
        """Return ids u2 [H,W], computed at `side` and enlarged."""
        height, width = image.shape[:2]
        factor = min(1.0, self.side / max(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        small = image if factor == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        ids = felzenszwalb(small, scale=self.scale, sigma=self.sigma, min_size=self.min_size) + 1
        # INTER_NEAREST would shift the regions by half a pixel
        exact = cv2.INTER_NEAREST_EXACT
        return cv2.resize(ids.astype(np.uint16), (width, height), interpolation=exact)


def nearest(regions: Regions, colors: np.ndarray) -> np.ndarray:
    """Return the least difference in color of each region to a neighbor, f8 [S]; infinite for a
    region without any.
    """
    differences = regions.differences(colors)
    smallest = np.full(len(colors), np.inf)
    for side in (0, 1):
        np.minimum.at(smallest, regions.pairs[:, side], differences)
    return smallest


class RegionGraph(NamedTuple):
    """An image's regions: ids [H,W] from 0 on, steps between those that touch, areas, border shares
    and colors.
    """

    ids: np.ndarray
    steps: csr_array
    areas: np.ndarray
    border: np.ndarray
    colors: np.ndarray


class SuperpixelPrompter:
    """Answers prompts from superpixels and their colors."""

    def prompt(self, queries: Sequence[Query]) -> "list[Tensor]":
        """Return one mask per query: the object, or objects, that its points lie on.

        Each of its pixels is as sure as the mask is stable: the IoU of the masks at a larger and at
        a smaller reach, f4 [H,W], 0 off the mask.
        """
        graphs: dict[int, RegionGraph] = {}
        for query in queries:
            if id(query.record) not in graphs:
                graphs[id(query.record)] = region_graph(query.record)
        return [_answer(graphs[id(query.record)], query) for query in queries]


def region_graph(record: Record) -> RegionGraph:
    """Return the region graph of a record of Superpixels that holds embeddings."""
    colors = record["embeddings"][:, :, 0].astype(np.float64).T
    areas, border, pairs = regions = adjacency(record["segments"])
    steps = coo_array((regions.differences(colors) + 1, pairs.T), shape=(len(colors),) * 2)
    ids = record["segments"].astype(np.int64) - 1
    return RegionGraph(ids, steps.tocsr(), areas, border, colors)


def _answer(graph: RegionGraph, query: Query) -> "Tensor":
    hit = _under(graph, query.points_xy)
    near = dijkstra(graph.steps, directed=False, indices=hit, min_only=True)
    far = _far(graph, hit, _outside(graph, query))
    kept, wide, narrow = (
        _connected(graph, near * reach < far, hit)
        for reach in (REACH, REACH / MARGIN, REACH * MARGIN)
    )
    import torch

    stability = graph.areas[narrow].sum() / graph.areas[wide].sum()
    return torch.from_numpy((kept * stability).astype(np.float32)[graph.ids])


def _under(graph: RegionGraph, points_xy: np.ndarray) -> np.ndarray:
    """Return the regions under points [P,2]."""
    sides = np.array(graph.ids.shape[::-1])
    x, y = np.clip(np.floor(points_xy).astype(np.int64), 0, sides - 1).T
    return np.unique(graph.ids[y, x])


def _outside(graph: RegionGraph, query: Query) -> np.ndarray:
    """Return the regions under points off the object, and those that lie mostly outside its box."""
    regions = _under(graph, query.outside_xy)
    if query.box_xyxy is None:
        return regions
    x0, y0, x1, y1 = np.rint(query.box_xyxy).astype(int).clip(0)
    inside = np.bincount(graph.ids[y0:y1, x0:x1].ravel(), minlength=len(graph.areas))
    return np.union1d(regions, np.flatnonzero(2 * inside < graph.areas))


def _far(graph: RegionGraph, hit: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Return the distance [S] of each region from the background, with the regions that a prompt
    says are outside; infinite where all background was hit.
    """
    border = np.flatnonzero(graph.border > BORDER)
    background = np.setdiff1d(np.union1d(border, outside), hit)
    if not len(background):
        background = np.setdiff1d(np.flatnonzero(graph.border), hit)
    if not len(background):
        return np.full(len(graph.areas), np.inf)
    path = dijkstra(graph.steps, directed=False, indices=background, min_only=True)
    like = np.linalg.norm(graph.colors[:, None] - graph.colors[None, background], axis=2).min(1)
    return np.minimum(path, LIKE * like + UNLIKE)


def _connected(graph: RegionGraph, chosen: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Return those of the chosen regions (bool [S]) that are connected with one that was hit, and
    the ones that were.
    """
    chosen = chosen.copy()
    chosen[hit] = True
    places = np.flatnonzero(chosen)
    _, parts = connected_components(graph.steps[places][:, places], directed=False)
    kept = np.zeros_like(chosen)
    kept[places[np.isin(parts, parts[np.isin(places, hit)])]] = True
    return kept
