"""`weakmask report-diff`: what changed from one report to another, as one offline HTML page.

weakmask report-diff ../other/data/report data/report
weakmask report-diff HEAD data/report -o diff.html
weakmask report-diff cam-seed0 seenet-seed0
"""

import json
from contextlib import suppress
from pathlib import Path

import click

from pipeline.errors import UserError
from pipeline.views.difference import ladder, render
from pipeline.views.pages import percent, points
from pipeline.views.summary import FILE, Summary, load, parse
from pipeline.work import write_atomically
from stages.comparison.experiments import listed, read_lock
from stages.comparison.repository import ExperimentError, dvc, git
from stages.comparison.table import aligned
from stages.entry import DATA

REPORT = (DATA / "report").as_posix()


@click.command("report-diff")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B", default=REPORT)
@click.option(
    "-o",
    "--output",
    default="report-diff.html",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Page to write.",
)
def report_diff(first: str, second: str, output: Path) -> None:
    """Write a page of what changed from report A to report B (data/report by default), and print the ladder.

    A and B are report folders, or Git revisions and names of experiments whose report is in DVC's cache.
    """
    reports = read(first), read(second)
    write_atomically(output, render(*reports, (first, second)).encode())
    rows = [["", first, second, "difference"]]
    rows += [
        [change.name, percent(change.first), percent(change.second), points(change.difference)]
        for change in ladder(*reports)
    ]
    click.echo("\n".join(aligned(rows)))
    click.echo(f"wrote {output}")


def read(place: str) -> Summary:
    """The numbers of a report: of a folder if there is one of that name, else of a revision. Raises UserError."""
    folder = Path(place)
    if folder.is_dir():
        return load(folder / FILE)
    if folder.is_file():
        raise UserError(f"{place}: is a file; give the report's folder, such as {REPORT}")
    return parse(_cached(place).read_text(encoding="utf-8"), f"{place}:{REPORT}/{FILE}")


def _cached(name: str) -> Path:
    """report.json of a revision in DVC's cache; raises UserError.

    A folder is cached as a list of its files, <md5>.dir (https://dvc.org/doc/user-guide/project-structure/internal-files).
    """
    again = "run the stage report there, or `dvc fetch` what ran elsewhere"
    outs = read_lock(_revision(name)).get("report", {}).get("outs", [])
    cached = [out["md5"] for out in outs if out["path"] == REPORT]
    if not cached:
        raise UserError(f"{name}: its dvc.lock knows no {REPORT}; {again}")
    cache = Path(dvc("cache", "dir").strip()) / "files" / "md5"
    try:
        entries = json.loads(_object(cache, cached[0]).read_text(encoding="utf-8"))
        files = {entry["relpath"]: _object(cache, entry["md5"]) for entry in entries}
    except FileNotFoundError as error:
        raise UserError(f"{name}: its {REPORT} is not in DVC's cache; {again}") from error
    if FILE not in files:
        raise UserError(f"{name}: its report is an older one, without {FILE}; {again}")
    if not files[FILE].is_file():
        raise UserError(f"{name}: {FILE} of its report is not in DVC's cache; {again}")
    return files[FILE]


def _revision(name: str) -> str:
    """The commit of a Git revision, or of the experiment of this name; raises UserError."""
    with suppress(ExperimentError):
        return git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
    with suppress(ExperimentError):
        for entries in listed().values():
            for revision, experiment in entries:
                if experiment == name:
                    return revision
    raise UserError(f"{name}: neither a report folder nor a Git revision nor an experiment")


def _object(cache: Path, md5: str) -> Path:
    return cache / md5[:2] / md5[2:]
