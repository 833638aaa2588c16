"""Scores of several variants side by side: means over seeds, and differences paired by seed."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MEASURES = (
    ("cams", "best_miou", "CAM, best"),
    ("cams", "miou", "CAM, fixed"),
    ("labels", "miou", "pseudo-labels"),
    ("labels", "AP50", "instance AP50"),
    ("predictions", "miou", "final model, val"),
    ("predictions", "AP50", "final AP50, val"),
)
"""(step, name of the score under the step's key in data/scores/STEP.json, heading)."""


class Score(NamedTuple):
    """One number in 0..1: what `variant` with `seed` scored at `step`."""

    variant: str
    seed: int
    step: str
    score: str
    value: float


def table(scores: Sequence[Score]) -> list[str]:
    """Return the lines of a table: the means of each variant, then differences to the first one.

    A cell is the mean in percent ± the standard deviation (of n - 1) over the seeds, followed by
    (n) where fewer seeds have the score than the row has. `*` marks differences with p < 0.05 in a
    paired t-test.
    """
    columns: dict[str, dict[str, dict[int, float]]] = {}
    for step, name, heading in MEASURES:
        for score in scores:
            if (score.step, score.score) == (step, name):
                seeds = columns.setdefault(heading, {}).setdefault(score.variant, {})
                seeds[score.seed] = score.value
    if not columns:
        return ["no scores"]
    first, *others = dict.fromkeys(score.variant for score in scores)
    rows, differences = [["", "seeds", *(f"{heading}  " for heading in columns)]], []
    for variant in (first, *others):
        count = len({score.seed for score in scores if score.variant == variant})
        cells = [cell([*column.get(variant, {}).values()], count) for column in columns.values()]
        rows.append([variant, str(count), *cells])
    for variant in others:
        pairs = [
            paired(column.get(first, {}), column.get(variant, {})) for column in columns.values()
        ]
        differences += pairs
        count = max(map(len, pairs))
        cells = [cell(pair, count, sign="+", star=significant(pair)) for pair in pairs]
        rows.append([variant, str(count), *cells])
    lines = aligned(rows)
    if others:
        lines[2 + len(others) : 2 + len(others)] = ["", f"minus {first}, on the same seeds:"]
    most = max(len(seeds) for column in columns.values() for seeds in column.values())
    bars = "; mean ± standard deviation over the seeds" if most > 1 else ""
    lines += ["", f"mIoU and AP50 in percent{bars}"]
    if any(len(pair) > 1 for pair in differences):
        lines.append("* p < 0.05 in a paired t-test over the seeds")
    elif any(differences):
        lines.append("one seed cannot tell a difference from chance; add -S base.seed=0,1,2")
    return lines


def paired(first: dict[int, float], other: dict[int, float]) -> list[float]:
    """Return `other` minus `first` for the seeds that both have."""
    return [other[seed] - first[seed] for seed in sorted(first.keys() & other.keys())]


def significant(differences: Sequence[float]) -> bool:
    """Return whether p < 0.05 in a two-sided t-test of mean 0; False for a single difference."""
    from scipy.special import stdtrit  # takes a while to import

    n = len(differences)
    if n < 2:
        return False
    error = statistics.stdev(differences) / math.sqrt(n)
    return abs(statistics.fmean(differences)) > float(stdtrit(n - 1, 0.975)) * error


def cell(values: Sequence[float], seeds: int, *, sign: str = "", star: bool = False) -> str:
    """Return `38.5 ± 1.2 *`; `(2)` follows where there are fewer values than seeds."""
    if not values:
        return "-  "
    bar = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    fewer = "" if len(values) == seeds else f" ({len(values)})"
    return f"{100 * statistics.fmean(values):{sign}.1f}{bar}{fewer}{' *' if star else '  '}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of columns of equal width, the first aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        padded = [text.rjust(width) for text, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    return lines


def as_csv(scores: Iterable[Score]) -> str:
    """Return the scores as CSV, a row each, values in 0..1."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Score._fields)
    writer.writerows(scores)
    return out.getvalue()
