"""Masks of whole objects from points, without any weights: what is nearer to the points than to the background.

    near(i) = least sum of steps from the regions under the points to region i      (step between two regions that touch:
    far(i)  = least sum of steps from the picture's border to region i               their difference in colour + 1)
    mask    = connected regions with REACH near(i) < min(far(i), LIKE like(i) + 5)

with like(i) the difference in colour to the border region most like i. That objects rarely lie along the border, and that paths to the
background cross an object's outline, are the priors of geodesic saliency (Wei et al., ECCV 2012); near against far is geodesic
segmentation (Bai and Sapiro, ICCV 2007). A point on a head so brings the body too, as long as the background is further from both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from pipeline.errors import UserError
from pipeline.segmenters.prompting import Answer, Query
from pipeline.segmenters.regions import adjacency
from pipeline.store import Record

REACH = 0.4
"""Larger takes less of an object that is not of one colour. 0.4, LIKE, NEVER and BORDER were set on the built-in scenes, prompted at
peaks of class maps."""
LIKE, NEVER = 3.0, 5.0
"""A region as unlike all background as this many steps is never nearer to it than that; like it, it is background wherever it lies."""
BORDER = 0.02
"""Share of the picture's border above which a region belongs to the background, unless a point lies in it."""
MARGIN = 1.25
"""Stability compares the masks at REACH times and divided by this."""


class Scene(NamedTuple):
    """What the queries on one picture share: region ids [H,W] from 0 on, steps between regions, areas, border shares and colours."""

    ids: np.ndarray
    steps: csr_array
    areas: np.ndarray
    border: np.ndarray
    colours: np.ndarray


@dataclass(frozen=True, slots=True)
class GrowingPrompter:
    """Answers prompts from superpixels and their colours."""

    def prompt(self, queries: Sequence[Query]) -> list[Answer]:
        """One mask a query: the object, or objects, that its points lie on.

        Stability is the IoU of the masks at a larger and at a smaller reach. Raises UserError without embeddings.
        """
        scenes: dict[int, Scene] = {}
        for record, _ in queries:
            if id(record) not in scenes:
                scenes[id(record)] = scene(record)
        return [_answer(scenes[id(record)], points) for record, points in queries]


def scene(record: Record) -> Scene:
    """The region graph of a picture's superpixels."""
    if not record["embeddings"].size:
        raise UserError("segments.embeddings: false, so prompts cannot be answered; set it to true")
    colours = record["embeddings"][:, :, 0].astype(np.float64).T
    regions = adjacency(record["segments"])
    steps = coo_array((regions.differences(colours) + 1, regions.pairs.T), shape=(len(colours),) * 2)
    return Scene(
        record["segments"].astype(np.int64) - 1, steps.tocsr(), regions.areas, regions.border, colours
    )


def _answer(scene: Scene, points_xy: np.ndarray) -> Answer:
    sides = np.array(scene.ids.shape[::-1])
    x, y = np.clip(np.floor(points_xy).astype(np.int64), 0, sides - 1).T
    hit = np.unique(scene.ids[y, x])
    near = dijkstra(scene.steps, directed=False, indices=hit, min_only=True)
    far = _far(scene, hit)
    kept, wide, narrow = (
        _connected(scene, near * reach < far, hit) for reach in (REACH, REACH / MARGIN, REACH * MARGIN)
    )
    return Answer(
        torch.from_numpy(kept[scene.ids]), float(scene.areas[narrow].sum() / scene.areas[wide].sum())
    )


def _far(scene: Scene, hit: np.ndarray) -> np.ndarray:
    """How far each region is from the background; infinite where there is none but what was hit."""
    behind = np.setdiff1d(np.flatnonzero(scene.border > BORDER), hit)
    if not len(behind):
        behind = np.setdiff1d(np.flatnonzero(scene.border), hit)
    if not len(behind):
        return np.full(len(scene.areas), np.inf)
    path = dijkstra(scene.steps, directed=False, indices=behind, min_only=True)
    like = np.linalg.norm(scene.colours[:, None] - scene.colours[None, behind], axis=2).min(1)
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
