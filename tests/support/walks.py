"""Inputs of the random walk, for the tests of irnet and labelling."""

import numpy as np
import torch

from pipeline.core.artifacts import Record
from pipeline.irnet.instances import WalkInput, walk_input, walk_instances

WALK = {"radius": 5, "beta": 10.0, "steps": 64, "iterations": 60, "background": 3.0}


def walked(*batch: WalkInput) -> list[Record]:
    """Return the records of walk.h5 of images walked together."""
    return walk_instances(batch, torch.device("cpu"), **WALK)  # type: ignore[arg-type]


def item(
    cams: np.ndarray,
    ids: list[int],
    boundary: np.ndarray | None = None,
    displacement: np.ndarray | None = None,
    size: tuple[int, int] | None = None,
) -> WalkInput:
    """Return an image's walk input of CAMs [K,h,w] of classes `ids`, as the artifacts hold it; a
    weak boundary everywhere, no displacement and a size of whole cells by default.
    """
    h, w = cams.shape[1:]
    boundary = np.full((h, w), 0.1) if boundary is None else boundary
    field = np.zeros((2, h, w)) if displacement is None else displacement
    return walk_input(
        {
            "cams": cams.astype(np.float16),
            "labels": np.array(ids, np.uint8),
            "size": np.array(size or (4 * h, 4 * w), np.int32),
        },
        {"boundary": boundary.astype(np.float16), "displacement": field.astype(np.float16)},
        2.5,
    )


def random_item(h: int, w: int, ids: list[int], seed: int = 0) -> WalkInput:
    """Return smooth class maps, boundaries and displacements that make several clusters."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w] / max(h, w)
    wave = [
        np.sin(x * rng.uniform(5, 9) + y * rng.uniform(5, 9) + rng.uniform(0, 6)) for _ in range(6)
    ]
    cams = np.stack([np.clip(np.roll(wave[0], 3 * k, 1), 0, 1) for k in range(len(ids))])
    boundary = np.exp(-((wave[1] / 0.2) ** 2)) * 0.9
    return item(cams, ids, boundary, 6 * np.stack(wave[2:4]), (4 * h - 3, 4 * w - 1))
