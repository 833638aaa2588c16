"""The stage seeds, from its start to its end, with a worker for each core against one worker: the
dense CRF is all its work.

The images are the built-in scenes; their CAMs are the true masks, blurred.
"""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.measure import Benchmark
from pipeline.classifiers.extraction import cam_records
from pipeline.core.artifacts import Record, Writer
from pipeline.data.index import Index
from pipeline.data.masks import read_semantic
from tests.support.repository import copy_code, run, set_parameters

IMAGES = 1000
BLUR = 12.0
"""Standard deviation in pixels."""


def with_workers(number: int) -> Callable[[], object]:
    folder = _folder()
    set_parameters(folder, {"runtime.workers": number})
    return lambda: run(folder, sys.executable, "-m", "stages.seeds")


def _folder() -> Path:
    """A copy of this repository with scenes and CAMs, which goes with this process."""
    parent = Path(tempfile.mkdtemp(prefix="weakmask-bench-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    folder = parent / "copy"
    copy_code(folder)
    set_parameters(folder, {"dataset.scenes.images": IMAGES, "dataset.val": 0.0})
    run(folder, sys.executable, "-m", "stages.dataset")
    index = Index.load(folder / "data/dataset")
    with Writer(folder / "data/cams.h5", "cams", index.classes) as writer:
        for name in index:
            writer.write(name, _cams(index, name))
    return folder


def _cams(index: Index, name: str) -> Record:
    truth = read_semantic(index, name)
    masks = [(truth == label + 1).astype(np.float32) for label in range(len(index.classes))]
    maps = np.stack([cv2.GaussianBlur(mask, (0, 0), BLUR)[::4, ::4] for mask in masks])
    (record,) = cam_records(torch.from_numpy(maps)[None], [index[name].tags], truth.shape[:2])
    return record


CORES = os.cpu_count() or 1
BENCHMARKS = (
    Benchmark(
        f"stage seeds, {CORES} workers",
        f"{IMAGES} scenes of 320x240",
        lambda: with_workers(CORES),
        lambda: with_workers(1),
        "one worker, same run",
        runs=1,
    ),
)
