"""Outlines of masks as closed polygons, one per 4-connected part, whose holes are cut open by a
passage of no width.

Two kinds of coordinates belong to every corner of an outline. The edges between pixels (pixel x
covers x to x + 1) are what COCO's rasterizer takes: it toggles at every crossing, so the passages
cancel and the filled polygons equal the mask. The pixels inside the edges are what OpenCV's
fillPoly takes, with which most other readers fill: it also draws the polygon's line, and a passage
runs along pixels of the mask, so the filled polygon equals the part as well.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import Delaunay

EDGES, PIXELS = slice(0, 2), slice(2, 4)


def edge_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons int [n,2] (x, y) along the pixel edges of a mask bool [H,W], in 0..W and 0..H; their
    union is the mask (COCO).
    """
    return [corners[:, EDGES] for corners in _outlines(mask)]


def pixel_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons int [n,2] (column, row), n >= 3, along the outermost pixels of a mask bool [H,W];
    their union is the mask (fillPoly).
    """
    return [_at_least_three(_without_steps(corners[:, PIXELS])) for corners in _outlines(mask)]


def join(polygons: list[np.ndarray]) -> np.ndarray:
    """One polygon int [n,2] of several, joined by lines there and back between corners, all of them
    together as short as can be.
    """
    if len(polygons) == 1:
        return polygons[0]
    points = np.concatenate(polygons)
    owners = np.repeat(np.arange(len(polygons)), [len(polygon) for polygon in polygons])
    ends = np.cumsum([len(polygon) for polygon in polygons])
    successors = np.arange(1, len(points) + 1)
    successors[ends - 1] = np.r_[0, ends[:-1]]
    following: list[int] = successors.tolist()
    corners = list(range(len(points)))
    for here, there in _lines(points, owners):
        # here, a copy of there, round its polygon, there, a copy of here, on where here led
        copy = len(following)
        following += [following[there], following[here]]
        following[here], following[there] = copy, copy + 1
        corners += [there, here]
    return points[[corners[corner] for corner in _walk(following, 0)]]


def _lines(points: np.ndarray, owners: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of points that join all owners with the shortest lines: a minimum spanning tree,
    which lies in the triangulation.
    """
    pairs = _neighbors(points)
    pairs = pairs[owners[pairs[:, 0]] != owners[pairs[:, 1]]]
    lengths = ((points[pairs[:, 0]] - points[pairs[:, 1]]) ** 2).sum(1)
    joined = np.sort(owners[pairs], 1)
    order = np.lexsort((lengths, joined[:, 1], joined[:, 0]))
    _, shortest = np.unique(joined[order], axis=0, return_index=True)
    pairs, lengths, joined = (values[order[shortest]] for values in (pairs, lengths, joined))
    count = int(owners[-1]) + 1
    graph = coo_array((lengths, (joined[:, 0], joined[:, 1])), (count, count))
    found = minimum_spanning_tree(graph).tocoo()
    rows = np.searchsorted(
        joined @ (count, 1), np.sort(found.row.astype(np.int64) * count + found.col)
    )
    return [(int(here), int(there)) for here, there in pairs[rows]]


def _neighbors(points: np.ndarray) -> np.ndarray:
    """Pairs int [m,2] of points that are neighbors in Delaunay's triangulation, or along the line
    that holds them all.
    """
    if np.linalg.matrix_rank(points - points[0]) < 2:
        order = np.lexsort(points.T)
        return np.stack([order[:-1], order[1:]], 1)
    triangles = Delaunay(points).simplices
    return np.concatenate([triangles[:, :2], triangles[:, 1:], triangles[:, ::2]])


@dataclass(frozen=True, slots=True)
class _Corners:
    """The corners of all outlines of a mask, in reading order.

    points: int [n,4], x and y on the grid of pixel edges, column and row of the pixel of the mask
    inside; across, along: the corner at the other end of the horizontal and of the vertical edge;
    outer: whether the pixel below on the right belongs to the mask, which tells at the first corner
    of a ring whether it goes round a part or round a hole.
    """

    points: np.ndarray
    across: np.ndarray
    along: np.ndarray
    outer: np.ndarray


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Corners int [n,4] (see _Corners) of every part with its holes cut open; the mask lies on the
    right of the way round.
    """
    if not mask.any():
        return []
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    corners = _find_corners(mask[top : rows[-1] + 1, left : columns[-1] + 1])
    following, starts = _rings(corners)
    points, following = _cut_open(corners, following, [s for s in starts if not corners.outer[s]])
    outlines = [_walk(following, start) for start in starts if corners.outer[start]]
    return [points[outline] + (left, top, left, top) for outline in outlines]


def _find_corners(mask: np.ndarray) -> _Corners:
    """Where an odd number of the four pixels around a point belong to the mask is a corner, where
    two opposite ones do are two.

    On every grid line edges begin and end in turn, so corners that follow one another are the two
    ends of an edge.
    """
    padded = np.pad(mask, 1)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    single, double = a ^ b ^ c ^ d, (a == d) & (b == c) & (a != b)
    counts = (single + 2 * double).ravel()
    where = np.flatnonzero(counts)
    where = np.repeat(where, counts[where])
    y, x = np.divmod(where, mask.shape[1] + 1)
    numbers = np.arange(len(where))
    rightwards = numbers % 2 == 0
    # Of two corners at one point the first ends the edge from the left. It goes on upwards if the
    # pixel between belongs to the mask.
    order = np.lexsort((np.where(b.ravel()[where], -numbers, numbers), y, x))
    along, downwards = np.empty_like(order), np.empty(len(order), bool)
    along[order] = order.reshape(-1, 2)[:, ::-1].ravel()
    downwards[order] = rightwards
    beside = np.where(downwards, d.ravel()[where], b.ravel()[where])
    below = np.where(rightwards, d.ravel()[where], c.ravel()[where])
    points = np.stack([x, y, np.where(beside, x, x - 1), np.where(below, y, y - 1)], 1)
    return _Corners(points, numbers ^ 1, along, d.ravel()[where])


def _rings(corners: _Corners) -> tuple[list[int], list[int]]:
    """The corner after each, and the first corners of the rings in reading order; parts go
    clockwise, holes the other way.
    """
    across, along, outer = corners.across.tolist(), corners.along.tolist(), corners.outer.tolist()
    following = [-1] * len(across)
    starts = []
    for start in range(len(following)):
        if following[start] >= 0:
            continue
        starts.append(start)
        first, second = (across, along) if outer[start] else (along, across)
        corner = start
        while following[corner] < 0:
            following[corner] = first[corner]
            corner = following[corner]
            following[corner] = second[corner]
            corner = following[corner]
    return following, starts


def _cut_open(
    corners: _Corners, following: list[int], holes: list[int]
) -> tuple[np.ndarray, list[int]]:
    """Join each hole to the ring on its left by a passage along the row of pixels above its first
    corner.

    That ring begins in a row further up, so it has been joined already. The new corners are
    appended.
    """
    upper = np.flatnonzero(corners.points[corners.along, 1] > corners.points[:, 1])
    lower = corners.along[upper]
    x, tops, bottoms = corners.points[upper, 0], corners.points[upper, 1], corners.points[lower, 1]
    added: list[tuple[int, ...]] = []
    for hole in holes:
        column, row, *pixel = corners.points[hole].tolist()
        reached = np.flatnonzero((tops < row) & (row <= bottoms) & (x < column))
        edge = int(reached[np.argmax(x[reached])])
        wall, door = int(lower[edge]), len(following)
        at = int(x[edge])
        added += [(at, row, at, row - 1), (column, row, *pixel), (at, row, at, row - 1)]
        # wall, door, a copy of the hole's first corner, round the hole to that corner, door again,
        # on where the wall led
        following += [door + 1, following[hole], following[wall]]
        following[hole] = door + 2
        following[wall] = door
    points = (
        np.concatenate([corners.points, np.array(added).reshape(-1, 4)])
        if added
        else corners.points
    )
    return points, following


def _walk(following: list[int], start: int) -> list[int]:
    """The corners of a ring from `start` on."""
    ring = [start]
    while (corner := following[ring[-1]]) != start:
        ring.append(corner)
    return ring


def _without_steps(polygon: np.ndarray) -> np.ndarray:
    """Leave out the inner corners of stairs of single pixels, which a slanting line between the
    outer ones covers.
    """
    into, out = polygon - np.roll(polygon, 1, 0), np.roll(polygon, -1, 0) - polygon
    turn = into[:, 0] * out[:, 1] - into[:, 1] * out[:, 0]
    single = (np.abs(into).sum(1) == 1) & (np.abs(out).sum(1) == 1)
    return polygon[~((turn < 0) & single & (np.roll(turn, 1) > 0) & (np.roll(turn, -1) > 0))]


def _at_least_three(polygon: np.ndarray) -> np.ndarray:
    """Polygons are written with three points or more, also those of a pixel or a line."""
    return np.concatenate([polygon, np.repeat(polygon[-1:], max(0, 3 - len(polygon)), 0)])
