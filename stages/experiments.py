"""DVC's experiments by its documented commands: queue them, watch them, read what they left behind.

https://dvc.org/doc/command-reference/exp, https://dvc.org/doc/command-reference/queue, and dvc.lock in
https://dvc.org/doc/user-guide/project-structure/dvcyaml-files
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from ruamel.yaml import YAML
from tqdm import tqdm

from pipeline.errors import UserError

PARAMETERS = "params.yaml"
LOCK = "dvc.lock"
LONGEST = 15
"""Seconds between two looks at the queue at most; each takes DVC about half a second of one core."""
LOCKED = 30
"""Times a DVC command is tried again where another one holds the repository's lock."""
SILENT = 6
"""Looks without any worker after which a running experiment is checked for being dead; a busy machine's workers are slow to answer."""
STARTING = 30
"""Seconds that a worker has to come up before another one is started."""


class ExperimentError(UserError):
    """Git or DVC refuses; the message holds its own words."""


@dataclass(frozen=True)
class Task:
    """An entry of DVC's queue: short revision, experiment name, and Queued, Running, Success, Failed (or Lost, see `watch`)."""

    revision: str
    name: str
    status: str


@dataclass(frozen=True)
class Experiment:
    """A finished experiment.

    here: whether it starts from the commit checked out now. lock: the stages of its dvc.lock. metrics: JSON file -> its values.
    """

    name: str
    revision: str
    here: bool
    lock: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]


def check_repository() -> None:
    """Raise ExperimentError unless this folder is a DVC repository in Git with at least one commit."""
    if not Path("dvc.yaml").is_file():
        raise ExperimentError("dvc.yaml: no such file here; run this in the repository's folder")
    try:
        _output("git", "rev-parse", "--verify", "HEAD")
    except ExperimentError as error:
        raise ExperimentError(
            "experiments are kept in Git and need one commit at least: git init && git add -A && git commit -m start"
        ) from error
    if not Path(".dvc").is_dir():
        raise ExperimentError(".dvc: no such folder; `dvc init` makes it")


def uncommitted() -> tuple[list[str], list[str]]:
    """(changed files, which DVC takes along into an experiment; files unknown to Git, which it leaves behind)."""
    lines = _output("git", "status", "--porcelain", "--untracked-files=all").splitlines()
    return [line[3:] for line in lines if line[:2] != "??"], [line[3:] for line in lines if line[:2] == "??"]


def dvc(*arguments: str, work: Path | None = None) -> str:
    """What a DVC command prints; work: folder of unfinished work that experiments started by it share. Raises ExperimentError."""
    binaries = Path(sys.executable).parent  # the workers look `dvc` and `python` up by name
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
    if work is not None:
        environment.setdefault("WEAKMASK_WORK", str(work.resolve()))
    for _ in range(LOCKED):
        try:
            return _output(sys.executable, "-m", "dvc", *arguments, environment=environment)
        except ExperimentError as error:
            if not re.search(r"acquire lock|is busy", str(error)):
                raise
            time.sleep(1)
    return _output(sys.executable, "-m", "dvc", *arguments, environment=environment)


def _output(*command: str, environment: Mapping[str, str] | None = None) -> str:
    """Run to the end, in a process group of its own, where Ctrl-C in the terminal does not reach it.

    The output goes through files: DVC's workers keep the command's own open, so that a pipe would end only with them.
    """
    with (
        TemporaryFile("w+", errors="replace") as out,
        TemporaryFile("w+", errors="replace") as error,
        _deferred_interrupt(),
    ):
        done = subprocess.run(
            command, env=environment, stdout=out, stderr=error, check=False, start_new_session=True
        )
        said, complaint = (_read(file) for file in (out, error))
    if done.returncode:
        shown = " ".join(command[2:] if command[1:2] == ("-m",) else command)
        raise ExperimentError(f"`{shown}` failed: {(complaint or said).strip().removeprefix('ERROR: ')}")
    return said


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


@contextmanager
def _deferred_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back: while DVC queues, it puts the changes of the working tree aside for a second, and must bring them back."""
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught and before is not signal.SIG_IGN:
        raise KeyboardInterrupt


def read_yaml(text: str) -> Any:
    """YAML as DVC reads it (version 1.2)."""
    return YAML(typ="safe", pure=True).load(text)


def tasks() -> tuple[list[Task], int]:
    """The entries of the queue, and the number of workers.

    DVC gathers the running entries first, then the waiting, then the ended ones: an entry that begins to run meanwhile is in none of
    them, until the next look.
    """
    return parse_status(dvc("queue", "status"))


def settled() -> list[Task]:
    """The entries of the queue by two looks, so that none is missing that began between DVC's own (see `tasks`)."""
    first, second = tasks()[0], tasks()[0]
    return list({task.revision: task for task in (*first, *second)}.values())


def parse_status(text: str) -> tuple[list[Task], int]:
    """Read what `dvc queue status` prints: columns Task, Name, Created, Status, then the line of the workers.

    An entry that ended while DVC gathered them is there twice, as running and then by its end, which counts.
    """
    row = re.compile(r"^([0-9a-f]{7,40})\s+(\S+)\s.*\b(Queued|Running|Success|Failed)\s*$", re.MULTILINE)
    workers = re.search(r"Worker status: (\d+) active, (\d+) idle", text)
    entries = {found[0]: Task(*found) for found in row.findall(text)}
    return list(entries.values()), sum(map(int, workers.groups())) if workers else 0


def by_name(entries: Iterable[Task]) -> dict[str, Task]:
    """One task a name: the one that goes on, where older ones of the same name are still listed."""
    order = ("Failed", "Success", "Queued", "Running")
    return {task.name: task for task in sorted(entries, key=lambda task: order.index(task.status))}


def queue(name: str, overrides: Sequence[str], targets: Sequence[str], copies: Sequence[str] = ()) -> None:
    """Put an experiment into the queue; copies: files unknown to Git that it needs."""
    options = [word for value in overrides for word in ("--set-param", value)]
    options += [word for path in copies for word in ("--copy-paths", path)]
    dvc("exp", "run", "--queue", "--name", name, *options, *targets)


def parameters_of(task: Task) -> dict[str, Any]:
    """The parameters that a queued or running experiment was given."""
    return read_yaml(_output("git", "show", f"{task.revision}:./{PARAMETERS}"))


def log(task: Task) -> list[str]:
    """Lines of a task's output, progress bars as their last state; or DVC's reason for having none."""
    try:
        text = dvc("queue", "logs", task.revision)
    except ExperimentError as error:
        return str(error).splitlines()
    lines = (line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n"))
    return [line for line in lines if line]


def stage_of(lines: Iterable[str]) -> str:
    """The stage that a log has come to; empty before the first."""
    found = [
        match[1] for line in lines if (match := re.match(r"(?:Running stage|Stage) '([^']+)'", line.strip()))
    ]
    return found[-1] if found else ""


def watch(names: Collection[str], *, jobs: int, work: Path) -> Iterator[tuple[str, Task | None]]:
    """Run the queue until none of these experiments is queued or running; yields (name, last state) as each ends.

    None: somebody took it out of the queue, so that two looks do not find it. Lost: its process died without a word, as when the
    machine went down.
    """
    waiting, began, started, silent = set(names), time.monotonic(), -math.inf, 0
    absent: set[str] = set()
    with tqdm(total=len(waiting), desc="compare", unit="experiment", disable=None) as bar:
        while waiting:
            entries, workers = tasks()
            now = by_name(task for task in entries if task.name in waiting)
            silent = 0 if workers else silent + 1
            queued = any(task.status == "Queued" for task in now.values())
            if queued and not workers and time.monotonic() - started > STARTING:
                dvc("queue", "start", "--jobs", str(jobs), work=work)
                started = time.monotonic()
            unseen, absent = absent, waiting - now.keys()
            for name in sorted(waiting - (absent - unseen)):
                task = now.get(name)
                if task and task.status == "Running" and silent >= SILENT and not _alive(task):
                    task = _bury(task)
                if task is None or task.status not in ("Queued", "Running"):
                    waiting.discard(name)
                    bar.update()
                    yield name, task
            running = [task for name, task in now.items() if name in waiting and task.status == "Running"]
            if not bar.disable:
                bar.set_postfix_str(
                    ", ".join(f"{task.name} {stage_of(log(task))}".strip() for task in running)
                )
            if waiting:
                time.sleep(min(LONGEST, 2 + (time.monotonic() - began) / 30))


def _alive(task: Task) -> bool:
    """Whether the process of a running task is there: DVC's worker may have died and left it, or died with it."""
    for baseline in json.loads(dvc("exp", "show", "--json", "--all-commits")):
        for entry in baseline.get("experiments") or []:
            local = (entry.get("executor") or {}).get("local") or {}
            if (local.get("task_id") or "").startswith(task.revision) and local.get("pid"):
                with suppress(ProcessLookupError):
                    os.kill(local["pid"], 0)
                    return True
    return False


def _bury(task: Task) -> Task:
    """Let DVC note that the process of a task has died."""
    dvc("queue", "kill", task.revision)
    return replace(task, status="Lost")


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
    head = _output("git", "rev-parse", "HEAD").strip()
    options = [word for commit in commits for word in ("--rev", commit)]
    found: dict[str, list[Experiment]] = {}
    for baseline in json.loads(dvc("exp", "show", "--json", *options)):
        for entry in baseline.get("experiments") or []:
            last = entry["revs"][-1] if entry.get("revs") else {}
            revision = last.get("rev", "")
            if any(revision.startswith(short) for revisions in commits.values() for short in revisions):
                metrics = (last.get("data") or {}).get("metrics") or {}
                experiment = Experiment(
                    name=entry["name"],
                    revision=revision,
                    here=baseline["rev"] == head,
                    lock=_lock(revision),
                    metrics={path: value.get("data") or {} for path, value in metrics.items()},
                )
                found.setdefault(entry["name"], []).append(experiment)
    return {name: sorted(entries, key=lambda entry: not entry.here) for name, entries in found.items()}


def _lock(revision: str) -> Mapping[str, Any]:
    try:
        text = _output("git", "show", f"{revision}:./{LOCK}")
    except ExperimentError:  # no stage ever ran to its end
        return {}
    return (read_yaml(text) or {}).get("stages") or {}


def made_by(lock: Mapping[str, Any], stage: str) -> list[str]:
    """The stages whose work `stage` rests on, itself included; none where it did not run in this experiment.

    An experiment starts from the dvc.lock of its commit, so an entry may be left from another run: its dependencies then are not
    what the stages before it wrote.
    """
    wrote = {
        out["path"]: (name, out.get("md5")) for name, entry in lock.items() for out in entry.get("outs", [])
    }
    if stage not in lock:
        return []
    stages = [stage]
    for dependency in lock[stage].get("deps", []):
        name, content = wrote.get(dependency["path"], (None, None))
        if name is not None:
            before = made_by(lock, name) if content == dependency.get("md5") else []
            if not before:
                return []
            stages += [other for other in before if other not in stages]
    return stages


def parameter_differences(
    lock: Mapping[str, Any], stages: Iterable[str], parameters: Mapping[str, Any]
) -> list[str]:
    """Where the parameters these stages ran with are not those given, as `name 0.55, now 0.4`."""
    found: dict[str, None] = {}
    for stage in stages:
        for key, value in lock[stage].get("params", {}).get(PARAMETERS, {}).items():
            found |= dict.fromkeys(_differences(key, value, _look_up(parameters, key)))
    return list(found)


def whole_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Where two parameter files differ, but for section runtime, on which no artefact depends."""
    sections = dict.fromkeys([*old, *new])
    return [
        text
        for name in sections
        if name != "runtime"
        for text in _differences(name, old.get(name), new.get(name))
    ]


def _look_up(parameters: Mapping[str, Any], key: str) -> Any:
    value: Any = parameters
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _differences(name: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = dict.fromkeys([*old, *new])
        return [text for key in keys for text in _differences(f"{name}.{key}", old.get(key), new.get(key))]
    return [] if old == new else [f"{name} {_shown(old)}, now {_shown(new)}"]


def _shown(value: Any) -> str:
    return "missing" if value is None else json.dumps(value)


def changed_files(experiment: Experiment, stages: Iterable[str]) -> list[str]:
    """The files of Git these stages depend on that are not as they were in the experiment."""
    paths = {dep["path"] for stage in stages for dep in experiment.lock[stage].get("deps", [])}
    inside = sorted(path for path in paths if not Path(path).is_absolute() and not path.startswith(".."))
    if not inside:
        return []
    text = _output("git", "diff", "--name-only", "--relative", experiment.revision, "--", *inside)
    return text.splitlines()


def remove(names: Sequence[str], entries: Sequence[Task]) -> None:
    """Forget experiments of these names, and entries of the queue; what DVC has cached stays."""
    if entries:
        dvc("queue", "remove", *(task.revision for task in entries))
    if names:
        dvc("exp", "remove", *names)


def left_behind(parameters: Mapping[str, Any]) -> list[str]:
    """Files and folders named by parameters that Git ignores and DVC does not track.

    Experiments run in a fresh checkout, into which DVC copies them if told to. Raises ExperimentError for those that Git does not
    ignore: DVC would commit the copies.
    """
    paths = [value for value in _files(parameters) if value and not Path(value).is_absolute()]
    here = [path for path in dict.fromkeys(paths) if Path(path).exists() and not Path(f"{path}.dvc").exists()]
    inside = [path for path in here if Path(path).resolve().is_relative_to(Path.cwd())]
    unknown = [path for path in inside if not _output("git", "ls-files", "--", path)]
    open_ = (
        _output("git", "ls-files", "--others", "--exclude-per-directory=.gitignore", "--", *unknown)
        if unknown
        else ""
    )
    for path in unknown:
        if any(Path(file).is_relative_to(path) for file in open_.splitlines()):
            raise ExperimentError(
                f"{path}: neither Git nor DVC knows it, so it would not be in an experiment's copy of the repository; "
                f"`dvc add {path}`, add it to .gitignore, or give its absolute path"
            )
    return unknown


def _files(parameters: Any) -> Iterator[str]:
    """The values that name files: sources of pictures, and weights."""
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            yield from _files(value)
        elif key in ("source", "weights", "checkpoint") and isinstance(value, str):
            yield value
