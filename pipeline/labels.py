"""From CAMs and fields to pseudo-labels: instance CAMs, random walk, semantic and instance masks (specification of IRN, 9 to 11).

The walk is linear, so the semantic result is the sum of the instance results: every map is walked once (the published code walks
class maps and instance maps apart).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.irnet.centroids import centroids, clusters, fragments, instance_maps, patches
from pipeline.irnet.parting import part
from pipeline.irnet.walk import random_walk
from pipeline.seeds import enlarge
from pipeline.store import Record
from pipeline.transfer import fetched, sent

AT_ONCE = 256
"""Pictures that walk together on a GPU: what it is asked to do is nearly the same for one and for hundreds."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one picture: CAMs [K,h,w] with their class ids [K], boundary [h,w], displacement [2,h,w], size (H,W).

    centres: int64 [h,w], ids of the patches of weak displacement, 0 outside any.
    """

    cams: np.ndarray
    labels: np.ndarray
    boundary: np.ndarray
    displacement: np.ndarray
    centres: np.ndarray
    size: tuple[int, int]


def evidence(cams: Record, fields: Record, weak: float) -> Evidence:
    """What records of layouts cams and fields hold of one picture; displacements below `weak` cells are centres of objects."""
    height, width = map(int, cams["size"])
    displacement = fields["displacement"]
    centres = patches(displacement, weak)
    return Evidence(cams["cams"], cams["labels"], fields["boundary"], displacement, centres, (height, width))


@dataclass(frozen=True, slots=True)
class Walked:
    """Walk results [M,h,w] of one picture, each with the class it belongs to [M], its boundary map [h,w], and the picture's size."""

    maps: np.ndarray
    classes: np.ndarray
    boundary: np.ndarray
    size: tuple[int, int]


def walk_instances(
    batch: Sequence[Evidence],
    device: torch.device,
    *,
    radius: int,
    beta: float,
    steps: int,
    iterations: int,
) -> list[Walked]:
    """Split the CAMs of each picture by centroid cluster and walk those with mass, all pictures in one batch of any sizes."""
    cams = sent([item.cams for item in batch], np.float32, device)
    boundaries = sent([item.boundary for item in batch], np.float32, device)
    displacements = sent([item.displacement for item in batch], np.float32, device)
    centres = sent([item.centres for item in batch], np.int64, device)
    ends = centroids(displacements, iterations)
    parts = [clusters(own, end) for own, end in zip(centres, ends, strict=True)]
    pieces = instance_maps(cams, parts, [int(item.centres.max()) + 1 for item in batch])
    walked = random_walk(boundaries, [maps for maps, _, _ in pieces], radius=radius, beta=beta, steps=steps)
    return [
        Walked(maps, item.labels[classes], item.boundary, item.size)
        for maps, (_, classes, _), item in zip(fetched(walked), pieces, batch, strict=True)
    ]


def pseudo_labels(
    walked: Walked, *, background: float, normalise: str, min_area: float, cut: float
) -> Record:
    """Semantic map u1 [H,W], instances u2 [H,W] with classes u1 [N] and scores f4 [N].

    Maps are enlarged, divided by their class's maximum (`class`) or by the picture's (`picture`, as published: a weak class beside
    a strong one can then vanish), and compared with the background score. Instances below min_area * H * W are dropped; those with a
    boundary of `cut` or more inside are parted there, with 1 none (see irnet.parting).
    """
    full = enlarge(walked.maps, walked.size)
    scores, present = _class_scores(full, walked.classes, normalise)
    pieces = torch.from_numpy(_divided(full, walked.classes, normalise))
    instances = fragments(pieces, walked.classes.tolist(), walked.size, background, min_area)
    if cut < 1:
        instances = part(instances, enlarge(walked.boundary[None], walked.size)[0], cut, min_area)
    return {"semantic": _semantic(scores, present, background), **instances._asdict()}


def class_maps(walked: Walked, *, normalise: str) -> Record:
    """What the semantic pseudo-label is drawn from by its background score: `maps` f4 [K,H,W] in [0,1] and their `labels` [K]."""
    maps, labels = _class_scores(enlarge(walked.maps, walked.size), walked.classes, normalise)
    return {"maps": maps, "labels": labels}


def _class_scores(full: np.ndarray, classes: np.ndarray, normalise: str) -> tuple[np.ndarray, np.ndarray]:
    """Maps [M,H,W] summed by class and divided, f4 [K,H,W], and the classes [K]."""
    present = np.unique(classes)
    sums = np.stack([full[classes == c].sum(0) for c in present]) if len(present) else full
    return _divided(sums, present, normalise), present


def _semantic(scores: np.ndarray, classes: np.ndarray, background: float) -> np.ndarray:
    """Argmax over [background, scores] as a label map."""
    if len(scores) == 0:
        return np.zeros(scores.shape[1:], np.uint8)
    return np.where(scores.max(0) > background, classes[scores.argmax(0)] + 1, 0).astype(np.uint8)


def _divided(maps: np.ndarray, classes: np.ndarray, normalise: str) -> np.ndarray:
    """Maps divided by the maximum over their class or over all; maps without mass stay zero."""
    if len(maps) == 0:
        return maps
    peaks = maps.max((1, 2))
    if normalise == "class":
        peaks = np.array([peaks[classes == c].max() for c in classes])
    else:
        peaks = np.full_like(peaks, peaks.max())
    return maps / np.maximum(peaks, np.finfo(np.float32).tiny)[:, None, None]
