"""Scores of several methods side by side: means over seeds, paired differences, and how far both
can be trusted.
"""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MEASURES = (
    ("cams", "best_miou", "CAM, best"),
    ("cams", "miou", "CAM, fixed"),
    ("labels", "miou", "pseudo-labels"),
    ("labels", "AP50", "instance AP50"),
    ("predictions", "miou", "final model, val"),
    ("predictions", "AP50", "final AP50, val"),
)
"""(step, name of the score under STEP in data/scores/STEP.json, heading)."""
STEPS = tuple(dict.fromkeys(step for step, _, _ in MEASURES))


@dataclass(frozen=True)
class Estimate:
    """Mean of n values and its standard error, which one value does not have."""

    mean: float
    error: float | None
    n: int


@dataclass(frozen=True)
class Score:
    """One number, in 0..1, of one experiment."""

    method: str
    seed: int
    step: str
    score: str
    value: float


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and standard error s/sqrt(n), with s from n-1; None without values."""
    if not values:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(statistics.fmean(values), error, len(values))


def paired(first: Mapping[int, float], other: Mapping[int, float]) -> Estimate | None:
    """`other` minus `first` over the seeds both have, which share images and chance."""
    return estimate([other[seed] - first[seed] for seed in sorted(first.keys() & other.keys())])


def beyond_chance(difference: Estimate) -> bool:
    """Whether a difference is larger than two of its standard errors; never with one pair."""
    return difference.error is not None and abs(difference.mean) > 2 * difference.error


def chance(n: int) -> float:
    """How often the mean of n normal differences around 0 lies beyond two standard errors:
    Student's t, n-1 degrees of freedom.
    """
    from scipy.special import stdtr

    return float(2 * stdtr(n - 1, -2))


def by_seed(scores: Iterable[Score], method: str, step: str, name: str) -> dict[int, float]:
    """The values of one column of one method."""
    key = (method, step, name)
    return {
        score.seed: score.value
        for score in scores
        if (score.method, score.step, score.score) == key
    }


def cell(value: Estimate | None, rows: int, *, sign: str = "", mark: bool = False) -> str:
    """`38.5 ± 1.2 *` in percent; `(2)` follows where fewer than `rows` seeds have it."""
    if value is None:
        return "-  "
    bar = "" if value.error is None else f" ± {200 * value.error:.1f}"
    fewer = "" if value.n == rows else f" ({value.n})"
    return f"{100 * value.mean:{sign}.1f}{bar}{fewer}{' *' if mark else '  '}"


def table(scores: Sequence[Score], methods: Sequence[str], steps: Sequence[str]) -> list[str]:
    """Lines: scores of each method, then differences to the first one, then how to read them."""
    measures = [measure for measure in MEASURES if measure[0] in steps]
    columns = {
        (method, heading): by_seed(scores, method, step, name)
        for method in methods
        for step, name, heading in measures
    }
    headings = [heading for _, _, heading in measures]
    rows = [["", "seeds", *(f"{heading}  " for heading in headings)]]
    for method in methods:
        seeds = len({score.seed for score in scores if score.method == method})
        values = [estimate(list(columns[method, heading].values())) for heading in headings]
        rows.append([method, str(seeds), *(cell(value, seeds) for value in values)])
    first, found = methods[0], []
    for method in methods[1:]:
        differences = [
            paired(columns[first, heading], columns[method, heading]) for heading in headings
        ]
        pairs = max((value.n for value in differences if value), default=0)
        found += [value for value in differences if value]
        cells = [
            cell(value, pairs, sign="+", mark=value is not None and beyond_chance(value))
            for value in differences
        ]
        rows.append([method, str(pairs), *cells])
    lines = aligned(rows)
    if found:
        lines[1 + len(methods) : 1 + len(methods)] = ["", f"minus {first}, on the same seeds:"]
    else:
        lines = lines[: 1 + len(methods)]
    return [*lines, "", *legend(scores, found)]


def legend(scores: Sequence[Score], differences: Sequence[Estimate]) -> list[str]:
    """What the numbers mean, and how far they can be trusted."""
    if not scores:
        return ["no scores"]
    several = any(score.seed != scores[0].seed for score in scores)
    bars = "; mean ± 2 standard errors of the mean over the seeds" if several else ""
    lines = [f"mIoU and AP50 in percent{bars}"]
    pairs = [difference.n for difference in differences if difference.n > 1]
    if pairs:
        low, high = (f"{100 * chance(n):.0f}" for n in (max(pairs), min(pairs)))
        often = f"{low} %" if low == high else f"{low} to {high} %"
        counts = f"{min(pairs)}" if min(pairs) == max(pairs) else f"{min(pairs)} to {max(pairs)}"
        lines.append(
            f"* beyond 2 standard errors; with {counts} pairs chance alone reaches that in {often} of comparisons"
        )
    elif differences:
        lines.append(
            "one pair only: nothing tells these differences from chance; add seeds (--seed 0 --seed 1 ...)"
        )
    return lines


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, the first to the left, the others to the right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    return lines


def as_csv(scores: Iterable[Score]) -> str:
    """Columns method, seed, step, score (its name), value (0..1)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("method", "seed", "step", "score", "value"))
    writer.writerows(
        (score.method, score.seed, score.step, score.score, score.value) for score in scores
    )
    return out.getvalue()
