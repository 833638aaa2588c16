"""From a displacement field to separate objects (IRNet, section 5.1, and the last steps of 5.2).

Every cell follows the field until it rests near the center of its object; cells that rest in one
patch of weak field are one cluster. Class maps cut into clusters are walked each on its own, and
what wins a pixel afterwards names its instance.

Objects that displacements join are parted where the boundary map runs between them (an addition to
IRNet).

Neighbors of one class that touch draw each other's pixels in training, so that their displacements
may lead to one center. The boundary network, which learns from neighbors of other classes, sees the
border all the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from skimage.measure import label as connected_components
from skimage.segmentation import watershed
from torch import Tensor

from pipeline.core.artifacts import Record
from pipeline.core.device import to_device, to_numpy
from pipeline.irnet.walk import groups, random_walk

RESTING_CHECK = 8
"""Steps between looking for cells that rest: looking costs about as much as a step."""


@torch.no_grad()
def centroids(displacements: Sequence[Tensor], iterations: int = 300) -> list[Tensor]:
    """Return for every image the cell (y, x) where every cell rests in the end: int64 [2,h,w],
    rounded half to even.

    displacements: [2,h,w] per image, (y, x) in cells, on one device, computed in float32. From its
    own coordinate c each cell takes `iterations` steps c <- clip(c + D(c)), D read bilinearly at
    the position before the step. A step that does not move a cell never will again, so resting
    cells are dropped without changing the result. ValueError where D is not finite.
    """
    for displacement in displacements:
        if displacement.dim() != 3 or len(displacement) != 2:
            raise ValueError(f"displacement is {tuple(displacement.shape)}: expected [2,h,w]")
    fields = [displacement.float() for displacement in displacements]
    if fields and not torch.stack([torch.isfinite(field).all() for field in fields]).all():
        raise ValueError(
            "the displacement field holds values that are not finite: its network diverged, train it again"
        )
    return [end for group in groups(fields) for end in _rest(fields[group], iterations)]


def centroid_regions(displacement: np.ndarray, weak: float = 2.5) -> np.ndarray:
    """Return the objects' centers, the 4-connected patches where the field is shorter than `weak`
    cells: ids 1..P, else 0.

    displacement [2,h,w] in cells, any type -> int64 [h,w] (IRNet, section 5.1).
    """
    length = torch.from_numpy(np.asarray(displacement, np.float32)).norm(dim=0)
    found: np.ndarray = connected_components((length < weak).numpy(), connectivity=1)
    return found.astype(np.int64)


def clusters(centers: Tensor, ends: Tensor) -> Tensor:
    """Return which cells rest together, int64 [h,w]: the id of the patch where each comes to rest,
    0 outside any.

    centers: ids [h,w] as of `patches`; ends [2,h,w] as of `centroids`.
    """
    return centers[ends[0], ends[1]]


def instance_maps(
    cams: Sequence[Tensor], parts: Sequence[Tensor], numbers: Sequence[int], floor: float = 0.0
) -> list[tuple[Tensor, np.ndarray, np.ndarray]]:
    """Cut every image's class maps [C,h,w] by its clusters [h,w]; keep the pieces whose peak
    exceeds floor.

    parts: clusters int64 [h,w], below numbers[image]. Returns for every image the pieces [M,h,w]
    (zero outside their cluster), their class [M] in 0..C-1 and cluster [M], int64, class by class.
    A walked piece never exceeds its own peak: no piece under `threshold` times the peak of any
    walked one can win a pixel.
    """
    kept = []
    for stack, split_at_boundaries, number in zip(cams, parts, numbers, strict=True):
        where = split_at_boundaries.flatten().expand(len(stack), -1)
        peaks = stack.new_zeros(len(stack), number).scatter_reduce(
            1, where, stack.flatten(1), "amax"
        )
        kept.append(peaks > floor)
    wanted = [np.stack(table.nonzero()) for table in to_numpy(kept)]
    chosen = to_device([ids.T for ids in wanted], np.int64, parts[0].device) if parts else []
    return [
        (stack[ids[:, 0]] * (split_at_boundaries == ids[:, 1, None, None]), classes, owners)
        for stack, split_at_boundaries, ids, (classes, owners) in zip(
            cams, parts, chosen, wanted, strict=True
        )
    ]


class Instances(NamedTuple):
    """One image's objects: ids 1..N or 0 [H,W] uint16, their 0-based class [N] uint8, score [N]
    float32.
    """

    instances: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def extract_instances(
    maps: Iterable[Tensor],
    classes: Sequence[int] | Tensor,
    size: tuple[int, int],
    threshold: float = 0.25,
    min_area: float = 0.01,
) -> Instances:
    """Return the objects that maps compete for: 4-connected pieces of the pixels that one map wins.

    maps: M maps [H,W] of one image at full size, normalized to a joint maximum of 1; a generator
    may make them one by one, as only the best value so far is kept. classes: their 0-based class.
    size: (H,W). A pixel is background unless a map exceeds `threshold` there; the first of equal
    maps wins. Pieces below min_area
    * H * W are dropped; ids follow their first pixel in reading order; the score is the maximum of the map
    inside. ValueError on nan or if the number of classes differs.
    """
    best, owner = _contest(maps, len(classes), size, threshold)
    pieces = connected_components(owner, connectivity=1)
    area = np.bincount(pieces.ravel())
    kept = np.flatnonzero(area >= min_area * owner.size)
    kept = kept[kept > 0]
    if len(kept) > np.iinfo(np.uint16).max:
        raise ValueError(
            f"{len(kept)} instances do not fit in uint16: raise min_area above {min_area}"
        )
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
    """Return each pixel's best value, float32 [H,W], and its owner, int32 [H,W]: map + 1, 0
    background.
    """
    best, owner, seen = torch.full(size, threshold), torch.zeros(size, dtype=torch.int32), 0
    for seen, rival in enumerate(maps, start=1):
        if rival.shape != torch.Size(size):
            raise ValueError(
                f"map {seen - 1} is {tuple(rival.shape)}, but the image's size is {tuple(size)}"
            )
        best, owner = best.to(rival.device), owner.to(rival.device)
        owner.masked_fill_(rival > best, seen)
        torch.maximum(best, rival.float(), out=best)
    if seen != number:
        raise ValueError(
            f"{seen} maps came with {number} classes: give every map the class it belongs to"
        )
    if best.isnan().any():
        raise ValueError(
            "the maps hold nan: a map without a positive value cannot be divided by its maximum"
        )
    return best.cpu().numpy(), owner.cpu().numpy()


def _differences(field: Tensor) -> Tensor:
    """[a, b, c, d], [8,h,w], by which a field [2,h,w] is read between cells as a + y b + x (c + y
    d).
    """
    right = torch.cat([field[..., 1:], field[..., -1:]], -1) - field
    below = torch.cat([field[..., 1:, :], field[..., -1:, :]], -2) - field
    across = torch.cat([right[..., 1:, :], right[..., -1:, :]], -2) - right
    return torch.cat([field, below, right, across])


class _Place(NamedTuple):
    """Whose cells they are: where their image begins in the table [N], how wide it is [N], and its
    last row and column [2,N].
    """

    first: Tensor
    width: Tensor
    limits: Tensor

    def select(self, cells: Tensor) -> "_Place":
        """Some of the cells."""
        return _Place(*(values.index_select(-1, cells) for values in self))


def _step(table: Tensor, points: Tensor, place: _Place) -> Tensor:
    """Return where points [2,N] of the images at `place` are after one step; table [8,N] of all
    images' differences.

    Table and points keep one row per number, so that every operation runs along memory.
    """
    corner = points.floor()
    y, x = points - corner
    cell = place.first + (corner[0] * place.width + corner[1]).long()
    a, b, c, d = table.index_select(1, cell).view(4, 2, -1)
    moved = points + (a + y * b + x * (c + y * d))
    return moved.clamp_(min=0).minimum(place.limits)


def _starts(fields: Sequence[Tensor]) -> tuple[Tensor, _Place]:
    """Return all cells' coordinates, float32 [2,N], and their place."""
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
    place = _Place(torch.cat(firsts), torch.cat(widths), torch.cat(limits, 1))
    return torch.cat(points, 1), place


def _rest(fields: Sequence[Tensor], iterations: int) -> Iterator[Tensor]:
    """Yield where the cells of every field [2,h,w] rest, int64."""
    ends = _follow(fields, iterations).round_().long()
    cuts = ends.split([field[0].numel() for field in fields], 1)
    yield from (end.view(field.shape) for end, field in zip(cuts, fields, strict=True))


def _follow(fields: Sequence[Tensor], iterations: int) -> Tensor:
    """Return the positions [2,N] of all cells after `iterations` steps, stepping only those that
    still move.
    """
    table = torch.cat([_differences(field).flatten(1) for field in fields], 1)
    points, place = _starts(fields)
    ends = points.clone()
    moving = torch.arange(points.shape[1], device=points.device)
    for step in range(iterations):
        moved = _step(table, points, place)
        if step % RESTING_CHECK == RESTING_CHECK - 1:
            ends[:, moving] = moved
            goes_on = (moved != points).any(0).nonzero()[:, 0]
            moved, moving = (values.index_select(-1, goes_on) for values in (moved, moving))
            place = place.select(goes_on)
        points = moved
        if len(moving) == 0:
            break
    ends[:, moving] = points
    return ends


def split_at_boundaries(
    found: Instances, boundary: np.ndarray, strength: float, min_area: float
) -> Instances:
    """Part each object of which several pieces are left without the pixels whose boundary is
    `strength` or more.

    boundary: [H,W] in [0,1]. Pieces below min_area * H * W do not count; those that do grow back
    over the whole object, along the weakest boundaries first (watershed). Parts take class and
    score of their object; ids follow their first pixel in reading order.
    """
    pieces = connected_components(np.where(boundary < strength, found.instances, 0), connectivity=1)
    areas = np.bincount(pieces.ravel())
    owners = np.zeros(len(areas), np.intp)
    owners[pieces] = found.instances
    large = np.flatnonzero(areas >= min_area * pieces.size)
    large = large[owners[large] > 0]
    whole = len(found.classes)
    parts, objects = found.instances.astype(np.int32), np.arange(1 + whole)
    for number in np.flatnonzero(np.bincount(owners[large], minlength=1 + whole) > 1):
        inside, own = found.instances == number, large[owners[large] == number]
        markers = np.where(np.isin(pieces, own), pieces, 0)
        parts[inside] = len(objects) + np.searchsorted(
            own, watershed(boundary, markers, mask=inside)[inside]
        )
        objects = np.append(objects, np.full(len(own), number))
    return _renumbered(parts, objects - 1, found)


def _renumbered(parts: np.ndarray, rows: np.ndarray, found: Instances) -> Instances:
    """Parts [H,W] as ids 1..N in reading order; rows: by part, the place of its object in `found`."""
    values, first = np.unique(parts, return_index=True)
    ordered = values[np.argsort(first)]
    ordered = ordered[ordered > 0]
    ids = np.zeros(len(rows), np.uint16)
    ids[ordered] = np.arange(1, len(ordered) + 1)
    return Instances(ids[parts], found.classes[rows[ordered]], found.scores[rows[ordered]])


class WalkInput(NamedTuple):
    """What the walk of an image starts from: CAMs [K,h,w] with their class ids [K], boundary [h,w],
    displacement [2,h,w], centroid regions int64 [h,w] (ids, 0 for none), image size (H,W).
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
) -> list[Record]:
    """Split the CAMs of each image by centroid cluster and walk those with mass (section 5.2).

    Images of any sizes are walked in one batch. Returns records of walk.h5: maps f2 [M,h,w], the
    class of each [M], the image's size.
    """
    cams = to_device([item.cams for item in batch], np.float32, device)
    boundaries = to_device([item.boundary for item in batch], np.float32, device)
    displacements = to_device([item.displacement for item in batch], np.float32, device)
    centers = to_device([item.centers for item in batch], np.int64, device)
    ends = centroids(displacements, iterations)
    parts = [clusters(own, end) for own, end in zip(centers, ends, strict=True)]
    pieces = instance_maps(cams, parts, [int(item.centers.max()) + 1 for item in batch])
    walked = random_walk(
        boundaries, [maps for maps, _, _ in pieces], radius=radius, beta=beta, steps=steps
    )
    return [
        {"maps": maps.astype(np.float16), "classes": item.labels[classes], "size": item.size}
        for maps, (_, classes, _), item in zip(to_numpy(walked), pieces, batch, strict=True)
    ]
