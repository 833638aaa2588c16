"""Geometry of the report's charts: numbers in, SVG coordinates out; templates draw and escape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, isfinite, log10
from typing import Any

WIDTH, HEIGHT = 340, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 12, 28

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """A line with a marked point, and points in use."""

    path: str
    mark: tuple[float, float]
    chosen: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over one x axis, in a box of WIDTH x HEIGHT."""

    title: str
    x_title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    note: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A confusion matrix, normalized by row.

    cells: (row, column, share, tooltip) that are not empty; confused: (actual, predicted, share of
    the actual label, share of all errors), largest first.
    """

    names: list[str]
    cells: list[tuple[int, int, float, str]]
    confused: list[tuple[str, str, float, float]] = field(default_factory=list)


def charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return a chart of every column of numbers over the first column, its last point marked;
    the column `loss`, the sum of all others, comes first.

    rows: as read from a CSV file; anything but finite numbers is left out.
    """
    if not rows:
        return []
    x_title, *columns = rows[0]
    made = []
    for column in sorted(columns, key=lambda column: column != "loss"):
        pairs = [(number(row[x_title]), number(row.get(column))) for row in rows]
        points = [(x, y) for x, y in pairs if x is not None and y is not None]
        if points:
            box, last = _Box.around(points), points[-1]
            made.append(
                _chart(column, x_title, [_line(points, box, last)], box, f"last {last[1]:.4g}")
            )
    return made


def curve(
    title: str,
    x_title: str,
    curves: Mapping[str, Points],
    chosen: Mapping[str, float | None],
) -> Chart | None:
    """Return a chart of scores over a threshold, the best of each line marked; None if empty.

    curves: name -> (threshold, percent) pairs; chosen: name -> threshold in use, marked too if the
    line contains it.
    """
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return None
    box = _Box.around([point for points in curves.values() for point in points])
    best = {name: max(points, key=lambda point: point[1]) for name, points in curves.items()}
    lines = [
        _line(points, box, best[name], [p for p in points if p[0] == chosen.get(name)])
        for name, points in curves.items()
    ]
    notes = [f"{name} best {y:.1f} at {x:g}" for name, (x, y) in best.items()]
    return _chart(title, x_title, lines, box, ", ".join(notes))


def number(value: Any) -> float | None:
    """Return the finite number that a value is or spells, else None."""
    try:
        parsed = float(value)
    except (TypeError, ValueError):
        return None
    return parsed if isfinite(parsed) else None


def heat_map(rows: Sequence[Mapping[str, Any]]) -> HeatMap:
    """Return a confusion matrix normalized by row, with its ten largest confusions.

    rows: `actual`, `predicted`, `pixels`, every pair of labels in order (a table of stage scores).
    Labels that occur neither in ground truth nor prediction are left out.
    """
    pixels = {(row["actual"], row["predicted"]): int(row["pixels"]) for row in rows}
    used = {name for pair, count in pixels.items() if count for name in pair}
    names = [name for name in dict.fromkeys(row["actual"] for row in rows) if name in used]
    totals = {name: sum(pixels.get((name, other), 0) for other in names) for name in names}
    wrong = {pair: count for pair, count in pixels.items() if pair[0] != pair[1] and count}
    shares = {pair: count / max(totals[pair[0]], 1) for pair, count in pixels.items() if count}
    place = {name: i for i, name in enumerate(names)}
    cells = [
        (place[a], place[p], share, f"{a if a == p else f'{a} taken for {p}'}: {100 * share:.1f} %")
        for (a, p), share in shares.items()
        if share >= 0.005
    ]
    largest = sorted(wrong, key=lambda pair: (-wrong[pair], pair))[:10]
    total = sum(wrong.values())
    return HeatMap(names, cells, [(a, p, shares[a, p], wrong[a, p] / total) for a, p in largest])


def ticks(low: float, high: float) -> list[float]:
    """Return about four round numbers, 1, 2 or 5 times a power of ten apart, in [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / 4
    power = 10.0 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= 0.7 * raw)
    return [
        round(i * step, 12) for i in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)
    ]


@dataclass(frozen=True, slots=True)
class _Box:
    """The ranges of the axes."""

    left: float
    right: float
    bottom: float
    top: float

    @classmethod
    def around(cls, points: Points) -> "_Box":
        """Return the ranges of points, with a margin above and, if 0 is far away, below."""
        xs, ys = [x for x, _ in points], [y for _, y in points]
        low, high = min(ys), max(ys)
        if 0 <= low < 0.5 * high:
            low = 0.0
        margin = (0.06 * (high - low) or abs(high) or 1.0) if low else 0.0
        return cls(min(xs), max(xs), low - margin, high + (0.06 * (high - low) or margin or 1.0))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return (x, y) in units of the drawing, from its top left."""
        across = (x - self.left) / ((self.right - self.left) or 1)
        down = (self.top - y) / (self.top - self.bottom)
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(TOP + down * (HEIGHT - TOP - BOTTOM), 1),
        )


def _chart(title: str, x_title: str, lines: list[Line], box: _Box, note: str) -> Chart:
    return Chart(
        title,
        x_title,
        lines,
        [(box.at(t, box.bottom)[0], f"{t:g}") for t in ticks(box.left, box.right)],
        [(box.at(box.left, t)[1], f"{t:g}") for t in ticks(box.bottom, box.top)],
        note,
    )


def _line(points: Points, box: _Box, mark: tuple[float, float], chosen: Points = ()) -> Line:
    path = " ".join("{:g},{:g}".format(*box.at(*point)) for point in points)
    return Line(path, box.at(*mark), [box.at(*point) for point in chosen])
