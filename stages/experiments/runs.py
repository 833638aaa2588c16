"""Runs to browse: the one in the workspace, and those of Git revisions and DVC experiments."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.browser.run import FORMATS, SCORED, ReloadingFile, Run, RunPaths
from pipeline.errors import UserError
from stages._command import DATA, DATASET, artifact
from stages.experiments.dvc_cache import (
    LOCK,
    PARAMETERS,
    CachedRun,
    LockedStage,
    cached_files,
    outputs,
    parse_lock,
    run_parameters,
)

WORKSPACE, TABLE = "workspace", "images.csv"


def workspace() -> Run:
    """Return the run whose artifacts lie in the working directory, where they may change."""
    paths = RunPaths(
        DATASET,
        {name: artifact(name) for name in FORMATS},
        {step: DATA / "scores" / step / TABLE for step in SCORED},
    )
    return Run(
        WORKSPACE, paths, ReloadingFile((Path(PARAMETERS), Path(LOCK)), _workspace_parameters)
    )


def revision(name: str, scratch: Path) -> Run:
    """Return the run of a Git revision, tag or DVC experiment.

    Stale outputs, and outputs that the cache lacks, are listed as missing with the reason.

    Args:
        name: Revision, tag or experiment.
        scratch: Empty folder, for links into the cache.

    Raises:
        UserError: There is no such revision, no run in it, or its images are not cached.
    """
    run = CachedRun(name)
    artifacts: dict[str, Path] = {}
    tables: dict[str, Path] = {}
    missing: dict[str, str] = {}
    stale: list[str] = []
    outs: list[tuple[str, str, str | None]] = []
    outs += [(key, artifact(key).as_posix(), None) for key in FORMATS]
    outs += [(step, (DATA / "scores" / step).as_posix(), TABLE) for step in SCORED]
    for key, path, inside in outs:
        title = f"scores of {key}" if inside else key
        if path in run.stale:
            stale.append(title)
        elif path in run.outs:
            try:
                (tables if inside else artifacts)[key] = run.file(path, inside)
            except UserError as error:
                missing[title] = str(error)
    reason = f"{name}: hidden, as another run made them: {', '.join(stale)}; run the experiment "
    missing |= dict.fromkeys(stale, f"{reason}without targets to update them")
    paths = RunPaths(_dataset(run, scratch), artifacts, tables, missing)
    return Run(name, paths, lambda: run.parameters)


def _dataset(run: CachedRun, scratch: Path) -> Path:
    """Return the workspace's dataset if it is the run's, else a folder of links into the cache."""
    path = DATASET.as_posix()
    run.file(path)
    here = outputs(_workspace_stages()).get(path)
    if here is not None and here.md5 == run.outs[path].md5 and DATASET.is_dir():
        return DATASET
    for relative, file in (cached_files(run.outs[path]) or {}).items():
        link = scratch / relative
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file if file.is_file() else run.file(path, relative))
    return scratch


def _workspace_parameters() -> dict[str, Any]:
    """Return the parameters of the workspace's run; raise UserError if params.yaml is damaged."""
    return run_parameters(_text(PARAMETERS), _workspace_stages())


def _workspace_stages() -> dict[str, LockedStage]:
    """Return the stages of the workspace's lock file, none where DVC is just writing it."""
    with suppress(UserError):
        return parse_lock(_text(LOCK))
    return {}


def _text(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8")
    return ""
