"""From a displacement field to separate objects (IRNet, section 5.1, and the last steps of 5.2).

Every cell follows the field until it rests near the centre of its object; cells that rest in one patch of
weak field are one cluster. Class maps cut into clusters are walked each on its own, and what wins a pixel
afterwards names its instance.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from skimage.measure import label as connected_components
from torch import Tensor

RESTING_CHECK = 8
"""Steps between looking for cells that rest: looking costs about as much as a step."""


@torch.no_grad()
def centroids(displacement: Tensor, iterations: int = 300) -> Tensor:
    """Return the cell (y, x) where every cell rests in the end: int64 [...,2,h,w], rounded half to even.

    displacement [2,h,w] or [B,2,h,w], (y, x) in cells, computed in float32. From its own coordinate c each
    cell takes `iterations` steps c <- clip(c + D(c)), D read bilinearly at the position before the step. A
    step that does not move a cell never will again, so resting cells are dropped without changing the result.
    ValueError where D is not finite.
    """
    if displacement.dim() not in (3, 4) or displacement.shape[-3] != 2:
        raise ValueError(f"displacement is {tuple(displacement.shape)}: expected [2,h,w] or [B,2,h,w]")
    *leading, _, height, width = displacement.shape
    field = displacement.float().reshape(-1, 2, height, width)
    if not torch.isfinite(field).all():
        raise ValueError(
            "the displacement field holds values that are not finite: its network diverged, train it again"
        )
    ends = _follow(_Bilinear(field), iterations).round_().long()
    return ends.view(2, -1, height, width).transpose(0, 1).reshape(*leading, 2, height, width)


def clusters(displacement: Tensor, ends: Tensor, weak: float = 2.5) -> Tensor:
    """Return which cells rest together: int64 [h,w], ids 0..K-1 without gaps, on the device of ends.

    displacement [2,h,w] in cells; ends [2,h,w] as of `centroids`. Where the field is shorter than `weak`
    cells, 4-connected patches are the objects' centres. All cells that rest outside any patch share one id,
    the lowest.
    """
    patches = connected_components((displacement.float().norm(dim=0) < weak).cpu().numpy(), connectivity=1)
    y, x = ends.cpu().numpy()
    _, ids = np.unique(patches[y, x], return_inverse=True)
    return torch.from_numpy(ids.reshape(y.shape).astype(np.int64)).to(ends.device)


def instance_maps(cams: Tensor, cluster: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Cut class maps [C,h,w] by clusters [h,w] (int64, 0..K-1); keep the pieces whose peak exceeds floor.

    Returns the pieces [M,h,w] (zero outside their cluster), their class [M] in 0..C-1 and cluster [M], int64,
    class by class. A walked piece never exceeds its own peak: no piece under `threshold` times the peak of
    any walked one can win a pixel.
    """
    number = int(cluster.max()) + 1
    where = cluster.flatten().expand(len(cams), -1)
    peaks = cams.new_zeros(len(cams), number).scatter_reduce(1, where, cams.flatten(1), "amax")
    classes, kept = (peaks > floor).nonzero(as_tuple=True)
    return cams[classes] * (cluster == kept[:, None, None]), classes, kept


class Instances(NamedTuple):
    """One picture's objects: ids 1..N or 0 [H,W] uint16, their 0-based class [N] uint8, score [N] float32."""

    instances: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def fragments(
    maps: Iterable[Tensor],
    classes: Sequence[int] | Tensor,
    size: tuple[int, int],
    threshold: float = 0.25,
    min_area: float = 0.01,
) -> Instances:
    """Return the objects that maps compete for: 4-connected pieces of the pixels that one map wins.

    maps: M maps [H,W] of one picture at full size, normalised to a joint maximum of 1; a generator may make
    them one by one, as only the best value so far is kept. classes: their 0-based class. size: (H,W). A pixel
    is background unless a map exceeds `threshold` there; the first of equal maps wins. Pieces below min_area
    * H * W are dropped; ids follow their first pixel in reading order; the score is the maximum of the map
    inside. ValueError on nan or if the number of classes differs.
    """
    best, owner = _contest(maps, len(classes), size, threshold)
    pieces = connected_components(owner, connectivity=1)
    area = np.bincount(pieces.ravel())
    kept = np.flatnonzero(area >= min_area * owner.size)
    kept = kept[kept > 0]
    if len(kept) > np.iinfo(np.uint16).max:
        raise ValueError(f"{len(kept)} instances do not fit in uint16: raise min_area above {min_area}")
    owners, peaks = np.zeros(len(area), np.intp), torch.zeros(len(area))
    owners[pieces] = owner
    where = torch.from_numpy(pieces.ravel().astype(np.int64))
    peaks.scatter_reduce_(0, where, torch.from_numpy(best.ravel()), "amax")
    ids = np.zeros(len(area), np.uint16)
    ids[kept] = np.arange(1, len(kept) + 1)
    table = np.asarray(classes.cpu() if isinstance(classes, Tensor) else classes, np.uint8)
    return Instances(ids[pieces], table[owners[kept] - 1], peaks.numpy()[kept])


def _contest(
    maps: Iterable[Tensor], number: int, size: tuple[int, int], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's best value, float32 [H,W], and its owner, int32 [H,W]: map + 1, 0 background."""
    best, owner, seen = torch.full(size, threshold), torch.zeros(size, dtype=torch.int32), 0
    for seen, rival in enumerate(maps, start=1):
        if rival.shape != torch.Size(size):
            raise ValueError(
                f"map {seen - 1} is {tuple(rival.shape)}, but the picture's size is {tuple(size)}"
            )
        best, owner = best.to(rival.device), owner.to(rival.device)
        owner.masked_fill_(rival > best, seen)
        torch.maximum(best, rival.float(), out=best)
    if seen != number:
        raise ValueError(f"{seen} maps came with {number} classes: give every map the class it belongs to")
    if best.isnan().any():
        raise ValueError("the maps hold nan: a map without a positive value cannot be divided by its maximum")
    return best.cpu().numpy(), owner.cpu().numpy()


class _Bilinear:
    """A field [B,2,h,w] read between cells as a + y b + x (c + y d), with [a, b, c, d] ready for every cell.

    The table and the points keep one row per number, so that every operation of a step runs along memory.
    """

    def __init__(self, field: Tensor) -> None:
        self.batch, _, self.height, self.width = field.shape
        right = torch.cat([field[..., 1:], field[..., -1:]], -1) - field
        below = torch.cat([field[..., 1:, :], field[..., -1:, :]], -2) - field
        across = torch.cat([right[..., 1:, :], right[..., -1:, :]], -2) - right
        self.table = torch.stack([field, below, right, across]).transpose(1, 2).reshape(8, -1)
        self.limits = field.new_tensor([[self.height - 1], [self.width - 1]])

    def starts(self) -> tuple[Tensor, Tensor]:
        """Return all cells' coordinates, float32 [2, B*h*w], and where their pictures begin in the table."""
        count = self.height * self.width
        cell = torch.arange(self.batch * count, device=self.table.device)
        inside = cell % count
        points = torch.stack([inside // self.width, inside % self.width]).to(self.table.dtype)
        return points, cell - inside

    def step(self, points: Tensor, first: Tensor) -> Tensor:
        """Return where points [2,N] of the pictures that begin at `first` [N] are after one step."""
        corner = points.floor()
        y, x = points - corner
        cell = first + (corner[0] * self.width + corner[1]).long()
        a, b, c, d = self.table.index_select(1, cell).view(4, 2, -1)
        moved = points + (a + y * b + x * (c + y * d))
        return moved.clamp_(min=0).minimum(self.limits)


def _follow(field: _Bilinear, iterations: int) -> Tensor:
    """Return the positions [2, B*h*w] of all cells after `iterations` steps, stepping only those that still move."""
    points, first = field.starts()
    ends = points.clone()
    moving = torch.arange(len(first), device=points.device)
    for step in range(iterations):
        moved = field.step(points, first)
        if step % RESTING_CHECK == RESTING_CHECK - 1:
            ends[:, moving] = moved
            goes_on = (moved != points).any(0).nonzero()[:, 0]
            moved, first, moving = (values.index_select(-1, goes_on) for values in (moved, first, moving))
        points = moved
        if len(moving) == 0:
            break
    ends[:, moving] = points
    return ends
