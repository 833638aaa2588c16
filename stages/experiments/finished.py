"""Finished DVC experiments and their scores, read from `dvc exp show --json`, side by side: means
over seeds, and differences paired by seed.

https://dvc.org/doc/command-reference/exp/show
"""

import json
import math
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.views.report_data import flat
from stages._command import DATA
from stages.experiments.dvc_cache import CachedRun, is_in

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
METHOD, SEED = "classifier.method", "base.seed"
FILES = {step: (DATA / "scores" / f"{step}.json").as_posix() for step, _ in MEASURES}


@dataclass(frozen=True)
class Experiment:
    """A finished experiment.

    parameters: by dotted name; stale: steps without scores, as another run scored them; code: path
    -> digest of what the scores depend on besides data.
    """

    name: str
    parameters: Mapping[str, Any]
    scores: Scores
    stale: Sequence[str]
    code: Mapping[str, str | None]


def finished_experiments(revisions: Iterable[str]) -> list[Experiment]:
    """Return the finished experiments that started from HEAD or `revisions`, oldest first."""
    command = [sys.executable, "-m", "dvc"]
    command += ["exp", "show", "--json", "--hide-workspace", "--hide-queued", "--hide-failed"]
    command += [word for name in revisions for word in ("--rev", name)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise UserError(f"`dvc exp show`: {done.stderr.strip().removeprefix('ERROR: ')}")
    rows = []
    for start in json.loads(done.stdout):
        for entry in start["experiments"] or []:
            tip, executor = entry["revs"][0], entry["executor"]  # null if not from the queue
            if tip["data"] and (executor is None or executor["state"] == "success"):
                rows.append((tip["data"]["timestamp"], entry["name"], tip))
    rows.sort(key=lambda row: row[:2])
    return [_experiment(name, tip["rev"], tip["data"]["metrics"]) for _, name, tip in rows]


def _experiment(name: str, commit: str, metrics: Mapping[str, Any]) -> Experiment:
    """Return the experiment of a commit; metrics: file -> {"data": content}, as DVC shows them."""
    run = CachedRun(commit)
    scores = {}
    for step, score in MEASURES:
        content = (metrics.get(FILES[step]) or {}).get("data") or {}
        value = (content.get(step) or {}).get(score)
        if value is not None and FILES[step] not in run.stale:
            scores[step, score] = float(value) / 100  # DVC lists percent
    fresh = [stage for stage in run.stages.values() if stage["outs"][0]["path"] not in run.stale]
    deps = [dep for stage in fresh for dep in stage.get("deps", ())]
    return Experiment(
        name,
        flat(run.parameters),
        scores,
        [step for step, file in FILES.items() if file in run.stale],
        {dep["path"]: dep.get("md5") for dep in deps if not is_in(dep["path"], {DATA.name})},
    )


def variants(experiments: Sequence[Experiment]) -> dict[str, dict[int, Experiment]]:
    """Return the experiments by variant and seed, sorted; the newest of equal ones.

    A variant is a method, with the other parameters in which the experiments differ, such as
    `cam labels.background=0.4`.
    """
    keys = dict.fromkeys(key for one in experiments for key in one.parameters)
    texts = [{key: json.dumps(one.parameters.get(key)) for key in keys} for one in experiments]
    differing = [
        key for key in keys if key not in (METHOD, SEED) and len({text[key] for text in texts}) > 1
    ]
    found: dict[str, dict[int, Experiment]] = {}
    for one, text in zip(experiments, texts, strict=True):
        words = [str(one.parameters.get(METHOD)), *(f"{key}={text[key]}" for key in differing)]
        found.setdefault(" ".join(words), {})[one.parameters.get(SEED, 0)] = one
    return {name: dict(sorted(seeds.items())) for name, seeds in sorted(found.items())}


def differing_code(experiments: Sequence[Experiment]) -> list[str]:
    """Return the files and folders that were not the same in all of the experiments."""
    versions = {item for one in experiments for item in one.code.items()}
    return sorted(path for path, n in Counter(path for path, _ in versions).items() if n > 1)


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
