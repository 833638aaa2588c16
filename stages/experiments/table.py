"""Scores of several variants side by side: means over seeds, and differences paired by seed."""

import math
import statistics
from collections.abc import Mapping, Sequence

Scores = Mapping[tuple[str, str], float]
"""(step, score) -> value in 0..1 of one experiment; see MEASURES."""

MEASURES = {
    ("cams", "best_miou"): "cams, best",
    ("cams", "miou"): "cams",
    ("labels", "miou"): "labels",
    ("labels", "AP50"): "labels, AP50",
    ("predictions", "miou"): "predictions",
    ("predictions", "AP50"): "predictions, AP50",
}
"""(step, name of the score under the step's key in data/scores/STEP.json) -> heading."""


def table(variants: Mapping[str, Mapping[int, Scores]]) -> list[str]:
    """Return the lines of a table: the means of each variant, then differences to the first one.

    A cell is the mean in percent ± the standard deviation (of n - 1) over the seeds, followed by
    (n) where fewer seeds have the score than the row has. `*` marks differences with p < 0.05 in a
    paired t-test. variants: name -> seed -> scores.
    """
    runs = [scores for seeds in variants.values() for scores in seeds.values()]
    keys = [key for key in MEASURES if any(key in scores for scores in runs)]
    if not keys:
        return ["no scores"]
    rows = [["", "seeds", *(f"{MEASURES[key]}  " for key in keys)]]
    for name, seeds in variants.items():
        columns = [[scores[key] for scores in seeds.values() if key in scores] for key in keys]
        rows.append([name, str(len(seeds)), *(cell(column, len(seeds)) for column in columns)])
    first, *others = variants
    differences = []
    for name in others:
        pairs = [paired(variants[first], variants[name], key) for key in keys]
        differences += pairs
        count = max(map(len, pairs))
        cells = [cell(pair, count, sign="+", star=significant(pair)) for pair in pairs]
        rows.append([name, str(count), *cells])
    lines = aligned(rows)
    if others:
        lines[1 + len(variants) : 1 + len(variants)] = ["", f"minus {first}, on the same seeds:"]
    bars = "; mean ± standard deviation over the seeds" if "±" in "".join(lines) else ""
    lines += ["", f"mIoU and AP50 in percent{bars}"]
    if any(len(pair) > 1 for pair in differences):
        lines.append("* p < 0.05 in a paired t-test over the seeds")
    elif any(differences):
        lines.append("one seed cannot tell a difference from chance; add -S base.seed=0,1,2")
    return lines


def paired(
    first: Mapping[int, Scores], other: Mapping[int, Scores], key: tuple[str, str]
) -> list[float]:
    """Return a score of `other` minus that of `first`, for the seeds with both."""
    seeds = [seed for seed in sorted(first) if key in first[seed] and key in other.get(seed, {})]
    return [other[seed][key] - first[seed][key] for seed in seeds]


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
