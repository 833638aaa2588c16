"""Which regions of a picture touch each other, and the border of the picture."""

from typing import NamedTuple

import numpy as np


class Regions(NamedTuple):
    """Regions 0..S-1 of a picture: areas [S] in pixels, shares [S] of the picture's border in each, and pairs [E,2] that touch."""

    areas: np.ndarray
    border: np.ndarray
    pairs: np.ndarray

    def differences(self, colours: np.ndarray) -> np.ndarray:
        """Euclidean distance [E] of the colours [S,3] of each pair."""
        return np.linalg.norm(colours[self.pairs[:, 0]] - colours[self.pairs[:, 1]], axis=1)


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
