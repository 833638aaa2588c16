"""How often neighbors of one class that touch are told apart, in pseudo-labels or predictions of
images with instance masks.

python -m benchmarks.neighbors data/labels.h5 data/predictions.h5
"""

import sys
from pathlib import Path

import numpy as np

from pipeline.core.artifacts import Reader, Record
from pipeline.data.index import Index
from pipeline.data.masks import read_instances
from pipeline.instances.base import masks_of
from pipeline.metrics.instance import mask_ious

SCORE = 0.3
"""Score from which an instance counts as found."""
IOU = 0.5
"""IoU from which it counts as the one meant, as in AP50."""


def touching(ids: np.ndarray, classes: np.ndarray) -> set[tuple[int, int]]:
    """Return pairs of rows of `classes` [N] whose instances have one class and share a border in
    ids [H,W] (0 none, 1..N).
    """
    pairs: set[tuple[int, int]] = set()
    for one, other in ((ids[:, 1:], ids[:, :-1]), (ids[1:], ids[:-1])):
        border = (one != other) & (one > 0) & (other > 0)
        found = np.stack([one[border], other[border]]).astype(int) - 1
        pairs |= set(map(tuple, np.unique(np.sort(found, axis=0), axis=1).T.tolist()))
    return {(a, b) for a, b in pairs if classes[a] == classes[b] >= 0}


def apart(record: Record, ids: np.ndarray, classes: np.ndarray, pair: tuple[int, int]) -> bool:
    """Return whether two instances of the record are those of the pair (rows of `classes`), by
    class, score and IoU.
    """
    kept = (record["scores"] >= SCORE) & (record["classes"] == classes[pair[0]])
    hits = mask_ious(masks_of(record)[kept], ids, len(classes))[:, list(pair)] >= IOU
    return bool(hits.any(0).all())  # no mask has half of both


def main(paths: list[str]) -> None:
    """Print a table, a row a file."""
    index = Index.load(Path("data/dataset"))
    print(
        "| file | images with touching neighbors of one class | all told apart | pairs | told apart |"
    )
    print("|---|---|---|---|---|")
    for path in paths:
        reader, images = Reader(Path(path)), []
        for name in filter(index.has_instances, reader.names):
            ids, classes = read_instances(index, name)
            if pairs := touching(ids, classes):
                record = reader[name]
                images.append([apart(record, ids, classes, pair) for pair in sorted(pairs)])
        told, pairs_told = sum(map(all, images)), sum(map(sum, images))
        print(f"| {path} | {len(images)} | {told} | {sum(map(len, images))} | {pairs_told} |")


if __name__ == "__main__":
    main(sys.argv[1:])
