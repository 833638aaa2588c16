"""Finished DVC experiments and their scores, read from `dvc exp show --json`.

https://dvc.org/doc/command-reference/exp/show
"""

import json
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
from stages.experiments.table import MEASURES, Scores

METHOD, SEED = "classifier.method", "base.seed"
FILES = {step: (DATA / "scores" / f"{step}.json").as_posix() for step, _ in MEASURES}


@dataclass(frozen=True)
class Experiment:
    """A finished experiment.

    parameters: by dotted name, without section runtime; stale: steps without scores, as another run
    scored them; code: path -> digest of what the scores depend on besides data.
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
        flat({name: section for name, section in run.parameters.items() if name != "runtime"}),
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
