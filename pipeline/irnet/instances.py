"""Instance-wise CAMs: split by the displacement field, then walked (IRNet, sections 5.1 and 5.2).

Every cell follows the field until it rests near the center of its object. The centers are the
regions where the field is weak, and the cells that rest in one of them form a cluster. Each class's
CAM is cut into clusters, and the random walk spreads every piece on its own; which piece wins a
pixel afterwards names the pixel's instance (labelling.pseudo_labels).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from skimage.measure import label as connected_components
from torch import Tensor

from pipeline.core.artifacts import Record
from pipeline.core.device import to_device, to_numpy
from pipeline.irnet.walk import background_seeds, groups, random_walk, walked_record

RESTING_CHECK = 8
"""Steps between checks for resting cells: a check costs about as much as a step."""


class WalkInput(NamedTuple):
    """What the walk of an image starts from.

    cams: [K,h,w]; labels: their class ids [K]; boundary: [h,w]; displacement: [2,h,w]; centers:
    centroid regions int64 [h,w], ids or 0 for none; size: of the image (H,W).
    """

    cams: np.ndarray
    labels: np.ndarray
    boundary: np.ndarray
    displacement: np.ndarray
    centers: np.ndarray
    size: np.ndarray


def walk_input(cams: Record, fields: Record, centroid_radius: float) -> WalkInput:
    """Collect the walk's input from an image's records of cams.h5 and fields.h5.

    Displacements shorter than `centroid_radius` cells mark centroid regions.
    """
    displacement = fields["displacement"]
    centers = centroid_regions(displacement, centroid_radius)
    return WalkInput(
        cams["cams"], cams["labels"], fields["boundary"], displacement, centers, cams["size"]
    )


def walk_instances(
    batch: Sequence[WalkInput],
    device: torch.device,
    *,
    radius: int,
    beta: float,
    steps: int,
    iterations: int,
    background: float,
) -> list[Record]:
    """Split the CAMs of each image by centroid cluster and walk those with mass (section 5.2), and
    the background.

    Args:
        batch: images of any sizes, walked together.
        device: computes the walk.
        radius, beta, steps: see `random_walk`.
        iterations: steps along the displacement field, see `centroids`.
        background: exponent, see `background_seeds`.

    Returns:
        Records of walk.h5: maps f2 [M,h,w], the class of each [M], the background's map f2 [h,w],
        the image's size.
    """
    cams = to_device([item.cams for item in batch], np.float32, device)
    boundaries = to_device([item.boundary for item in batch], np.float32, device)
    displacements = to_device([item.displacement for item in batch], np.float32, device)
    centers = to_device([item.centers for item in batch], np.int64, device)
    ends = centroids(displacements, iterations)
    parts = [clusters(own, end) for own, end in zip(centers, ends, strict=True)]
    pieces = instance_maps(cams, parts, [int(item.centers.max()) + 1 for item in batch])
    seeds = [
        torch.cat([maps, background_seeds(own, background)])
        for (maps, _), own in zip(pieces, cams, strict=True)
    ]
    walked = random_walk(boundaries, seeds, radius=radius, beta=beta, steps=steps)
    return [
        walked_record(maps, item.labels[classes], item.size)
        for maps, (_, classes), item in zip(to_numpy(walked), pieces, batch, strict=True)
    ]


def centroid_regions(displacement: np.ndarray, radius: float = 2.5) -> np.ndarray:
    """Return the centers of objects: 4-connected regions where the field is shorter than `radius`
    cells (section 5.1).

    displacement: [2,h,w] in cells. Returns int64 [h,w]: ids 1..P, 0 elsewhere.
    """
    length = torch.from_numpy(np.asarray(displacement, np.float32)).norm(dim=0)
    regions: np.ndarray = connected_components((length < radius).numpy(), connectivity=1)
    return regions.astype(np.int64)


def clusters(centers: Tensor, ends: Tensor) -> Tensor:
    """Return which cells rest together, int64 [h,w]: the id of the centroid region in which each
    comes to rest, 0 outside of any.

    centers: ids [h,w] of `centroid_regions`; ends: [2,h,w] of `centroids`.
    """
    return centers[ends[0], ends[1]]


def instance_maps(
    cams: Sequence[Tensor], parts: Sequence[Tensor], numbers: Sequence[int]
) -> list[tuple[Tensor, np.ndarray]]:
    """Cut the class maps of each image by its clusters; keep the pieces with mass.

    Args:
        cams: [C,h,w] per image.
        parts: clusters int64 [h,w] per image.
        numbers: number of clusters per image; ids are below it.

    Returns:
        For each image the pieces [M,h,w], zero outside their cluster, and their class int64 [M] in
        0..C-1, ordered by class, then by cluster.
    """
    kept = []
    for maps, part, number in zip(cams, parts, numbers, strict=True):
        where = part.flatten().expand(len(maps), -1)
        peaks = maps.new_zeros(len(maps), number).scatter_reduce(1, where, maps.flatten(1), "amax")
        kept.append(peaks > 0)
    wanted = [np.stack(table.nonzero()) for table in to_numpy(kept)]
    chosen = to_device([ids.T for ids in wanted], np.int64, parts[0].device) if parts else []
    return [
        (maps[ids[:, 0]] * (part == ids[:, 1, None, None]), classes)
        for maps, part, ids, (classes, _) in zip(cams, parts, chosen, wanted, strict=True)
    ]


@torch.no_grad()
def centroids(displacements: Sequence[Tensor], iterations: int = 300) -> list[Tensor]:
    """Return the cell (y, x) where each cell of each image finally rests: int64 [2,h,w], rounded
    half to even.

    From its own coordinate c each cell takes steps c <- clip(c + D(c)), with D read bilinearly at
    the position before the step. A step that does not move a cell never will again, so resting
    cells are dropped without changing the result.

    Args:
        displacements: D [2,h,w] per image, (y, x) in cells, finite, as artifacts are; on one
            device, computed in float32.
        iterations: number of steps.
    """
    fields = [displacement.float() for displacement in displacements]
    return [end for group in groups(fields) for end in _rest(fields[group], iterations)]


def _rest(fields: Sequence[Tensor], iterations: int) -> Iterator[Tensor]:
    """Yield where the cells of each field [2,h,w] rest, int64."""
    ends = _follow(fields, iterations).round_().long()
    cuts = ends.split([field[0].numel() for field in fields], 1)
    yield from (end.view(field.shape) for end, field in zip(cuts, fields, strict=True))


def _follow(fields: Sequence[Tensor], iterations: int) -> Tensor:
    """Return the positions [2,N] of all cells after `iterations` steps, stepping only those that
    still move.
    """
    table = torch.cat([_differences(field).flatten(1) for field in fields], 1)
    points, origin = _starts(fields)
    ends = points.clone()
    moving = torch.arange(points.shape[1], device=points.device)
    for step in range(iterations):
        moved = _step(table, points, origin)
        if step % RESTING_CHECK == RESTING_CHECK - 1:
            ends[:, moving] = moved
            still = (moved != points).any(0).nonzero()[:, 0]
            moved, moving = (values.index_select(-1, still) for values in (moved, moving))
            origin = origin.select(still)
        points = moved
        if len(moving) == 0:
            break
    ends[:, moving] = points
    return ends


class _Origin(NamedTuple):
    """The images of cells: where each cell's image begins in the table [N], its width [N], and its
    last row and column [2,N].
    """

    first: Tensor
    width: Tensor
    limits: Tensor

    def select(self, cells: Tensor) -> "_Origin":
        """Return the origins of some of the cells."""
        return _Origin(*(values.index_select(-1, cells) for values in self))


def _step(table: Tensor, points: Tensor, origin: _Origin) -> Tensor:
    """Return points [2,N] after one step; table [8,N] holds all images' differences.

    Table and points keep one row per number, so that every operation runs along memory.
    """
    corner = points.floor()
    y, x = points - corner
    cell = origin.first + (corner[0] * origin.width + corner[1]).long()
    a, b, c, d = table.index_select(1, cell).view(4, 2, -1)
    moved = points + (a + y * b + x * (c + y * d))
    return moved.clamp_(min=0).minimum(origin.limits)


def _differences(field: Tensor) -> Tensor:
    """Return [a, b, c, d], [8,h,w], with which a field [2,h,w] is a + y b + x (c + y d) between
    cells.
    """
    right = torch.cat([field[..., 1:], field[..., -1:]], -1) - field
    below = torch.cat([field[..., 1:, :], field[..., -1:, :]], -2) - field
    across = torch.cat([right[..., 1:, :], right[..., -1:, :]], -2) - right
    return torch.cat([field, below, right, across])


def _starts(fields: Sequence[Tensor]) -> tuple[Tensor, _Origin]:
    """Return the coordinates of all cells, float32 [2,N], and their origins."""
    points, firsts, widths, limits, begin = [], [], [], [], 0
    for field in fields:
        _, height, width = field.shape
        rows, columns = (
            torch.arange(side, dtype=field.dtype, device=field.device) for side in (height, width)
        )
        points.append(torch.stack(torch.meshgrid(rows, columns, indexing="ij")).flatten(1))
        count = height * width
        firsts.append(torch.full((count,), begin, device=field.device))
        widths.append(field.new_full((count,), width))
        limits.append(torch.stack([field.new_full((count,), side - 1) for side in (height, width)]))
        begin += count
    origin = _Origin(torch.cat(firsts), torch.cat(widths), torch.cat(limits, 1))
    return torch.cat(points, 1), origin
