"""Closed curves as point lists [n,2], x right and y down."""

import numpy as np


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0, count: int = 32) -> np.ndarray:
    """Ellipse around (x, y) with half axes `rx`, `ry`, turned by `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    points = np.stack([rx * np.cos(angle), ry * np.sin(angle)], 1)
    return move(rotate(points, turn), x, y)


def superellipse(rx: float, ry: float, power: float, count: int = 48) -> np.ndarray:
    """Ellipse (`power` 2) to rounded box (`power` above 3) around the origin."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    x = rx * np.sign(cos) * np.abs(cos) ** (2 / power)
    y = ry * np.sign(sin) * np.abs(sin) ** (2 / power)
    return np.stack([x, y], 1)


def capsule(rx: float, ry: float, count: int = 48) -> np.ndarray:
    """Box with half-circle ends around the origin; `rx` is at least `ry`."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    points = ry * np.stack([np.cos(angle), np.sin(angle)], 1)
    points[:, 0] += np.sign(points[:, 0]) * max(0.0, rx - ry)
    return points


def bean(rx: float, ry: float, bend: float, count: int = 48) -> np.ndarray:
    """Capsule whose axis is bent: its ends lie `bend` higher than its middle."""
    points = superellipse(rx, ry, 2.4, count)
    points[:, 1] -= bend * ((points[:, 0] / rx) ** 2 - 0.5)
    return points


def blob(x: float, y: float, radii: np.ndarray) -> np.ndarray:
    """Closed curve around (x, y) with the given radius at equal angles."""
    angle = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.stack([x + radii * np.cos(angle), y + radii * np.sin(angle)], 1)


def scallop(x: float, y: float, radius: float, depth: float, lobes: int, count: int = 80) -> np.ndarray:
    """Circle with `lobes` round bumps of height `depth`."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return blob(x, y, radius + depth * np.abs(np.sin(lobes * angle / 2)))


def ribbon(spine: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Band around the line `spine` [n,2] with full width `widths` [n] at each point."""
    along = np.gradient(spine, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    half = normal * np.asarray(widths)[:, None] / 2
    return np.concatenate([spine + half, (spine - half)[::-1]])


def arc(x: float, y: float, radius: float, start: float, stop: float, count: int = 12) -> np.ndarray:
    """Open arc around (x, y) from angle `start` to `stop` in radians."""
    angle = np.linspace(start, stop, count)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1)


def rounded(points: np.ndarray, rounds: int = 2) -> np.ndarray:
    """Polygon with its corners cut off `rounds` times (Chaikin 1974)."""
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1).reshape(-1, 2)
    return points


def rotate(points: np.ndarray, turn: float) -> np.ndarray:
    """Points turned by `turn` radians around the origin (clockwise, as y points down)."""
    cos, sin = np.cos(turn), np.sin(turn)
    return points @ np.array([[cos, sin], [-sin, cos]])


def move(points: np.ndarray, x: float, y: float) -> np.ndarray:
    """Points shifted by (x, y)."""
    return points + np.array([x, y])


def area(points: np.ndarray) -> float:
    """Area inside a polygon (shoelace formula)."""
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
