"""Finished experiments: what DVC lists, and whether their code differs from what is here now.

https://dvc.org/doc/command-reference/exp, and dvc.lock in
https://dvc.org/doc/user-guide/project-structure/dvcyaml-files
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.experiments.cached import committed, stages_of
from stages.experiments.repository import LOCK, dvc, git


@dataclass(frozen=True)
class Experiment:
    """A finished experiment.

    here: whether it starts from the commit checked out now. lock: the stages of its dvc.lock.
    metrics: JSON file -> its values.
    """

    name: str
    revision: str
    here: bool
    lock: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]


def listed() -> dict[str, list[tuple[str, str]]]:
    """The finished experiments of all commits: commit -> (short revision, name)."""
    return parse_list(dvc("exp", "list", "--all-commits"))


def parse_list(text: str) -> dict[str, list[tuple[str, str]]]:
    """Read what `dvc exp list` prints: a commit and a colon, then indented lines `revision [name]`."""
    commits: dict[str, list[tuple[str, str]]] = {}
    for line in text.splitlines():
        if match := re.match(r"\s+([0-9a-f]{7,40}) \[(.+)\]$", line):
            commits[next(reversed(commits))].append((match[1], match[2]))
        elif line.rstrip().endswith(":"):
            commits[line.strip()[:-1]] = []
    return commits


def find(names: Collection[str]) -> dict[str, list[Experiment]]:
    """The finished experiments of each name, those of the commit checked out now first."""
    commits = {
        commit: {revision for revision, name in entries if name in names}
        for commit, entries in listed().items()
    }
    commits = {commit: revisions for commit, revisions in commits.items() if revisions}
    if not commits:
        return {}
    head = git("rev-parse", "HEAD").strip()
    options = [word for commit in commits for word in ("--rev", commit)]
    found: dict[str, list[Experiment]] = {}
    for baseline in json.loads(dvc("exp", "show", "--json", *options)):
        for entry in baseline.get("experiments") or []:
            last = entry["revs"][-1] if entry.get("revs") else {}
            revision = last.get("rev", "")
            if any(
                revision.startswith(short) for revisions in commits.values() for short in revisions
            ):
                metrics = (last.get("data") or {}).get("metrics") or {}
                experiment = Experiment(
                    name=entry["name"],
                    revision=revision,
                    here=baseline["rev"] == head,
                    lock=stages_of(committed(revision, LOCK)),
                    metrics={path: value.get("data") or {} for path, value in metrics.items()},
                )
                found.setdefault(entry["name"], []).append(experiment)
    return {
        name: sorted(entries, key=lambda entry: not entry.here) for name, entries in found.items()
    }


def changed_files(experiment: Experiment, stages: Iterable[str]) -> list[str]:
    """The files of Git these stages depend on that are not as they were in the experiment."""
    paths = {dep["path"] for stage in stages for dep in experiment.lock[stage].get("deps", [])}
    inside = sorted(
        path for path in paths if not Path(path).is_absolute() and not path.startswith("..")
    )
    if not inside:
        return []
    text = git("diff", "--name-only", "--relative", experiment.revision, "--", *inside)
    return text.splitlines()


def remove(names: Sequence[str]) -> None:
    """Forget experiments of these names; what DVC has cached stays."""
    if names:
        dvc("exp", "remove", *names)
