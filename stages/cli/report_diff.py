"""`weakmask report-diff`: what changed from one report to another, as one offline HTML page.

weakmask report-diff ../other/data/report data/report
weakmask report-diff HEAD data/report -o diff.html
weakmask report-diff cam-seed0 seenet-seed0
"""

from pathlib import Path

import click

from pipeline.core.resume import write_atomically
from pipeline.errors import UserError
from pipeline.views.diff import render, step_changes
from pipeline.views.report import percent, points
from pipeline.views.report_data import FILE, ReportData, load, parse
from stages._command import DATA
from stages.experiments.cached import cached, committed, find_commit, folder, lock_of, lost, outs_of
from stages.experiments.lineage import made_with, outdated
from stages.experiments.repository import PARAMETERS
from stages.experiments.table import aligned

REPORT = (DATA / "report").as_posix()
REMAKE = "run the stage report there"


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
    """Compare report A with report B (default: data/report) in a page, and print the scores.

    A and B are report folders, or Git revisions and names of experiments whose report is in DVC's
    cache.
    """
    reports = read(first), read(second)
    write_atomically(output, render(*reports, (first, second)).encode())
    rows = [["", first, second, "difference"]]
    rows += [
        [change.name, percent(change.first), percent(change.second), points(change.difference)]
        for change in step_changes(*reports)
    ]
    click.echo("\n".join(aligned(rows)))
    click.echo(f"wrote {output}")


def read(source: str) -> ReportData:
    """Read a report from a folder if there is one of that name, else from a revision.

    Raises UserError.
    """
    path = Path(source)
    if path.is_dir():
        return load(path / FILE)
    if path.is_file():
        raise UserError(f"{source}: is a file; give the report's folder, such as {REPORT}")
    return parse(_cached(source).read_text(encoding="utf-8"), f"{source}:{REPORT}/{FILE}")


def _cached(name: str) -> Path:
    """Find report.json of a revision in DVC's cache; raises UserError."""
    try:
        commit = find_commit(name)
    except UserError as error:
        raise UserError(f"{error}; nor is it a report folder") from error
    lock = lock_of(name, commit)
    outs = outs_of(lock)
    if REPORT not in outs:
        raise UserError(f"{name}: its dvc.lock has no {REPORT}; {REMAKE}")
    if REPORT in outdated(lock, made_with(committed(commit, PARAMETERS), lock)):
        raise UserError(
            f"{name}: its {REPORT} is left over from another run; "
            "run the experiment without targets, or up to `report`"
        )
    files = folder(outs[REPORT])
    if files is None:
        raise UserError(lost(REPORT, name, cached(outs[REPORT])))
    if FILE not in files:
        raise UserError(f"{name}: its report is an older one, without {FILE}; {REMAKE}")
    if not files[FILE].is_file():
        raise UserError(lost(f"{REPORT}/{FILE}", name, files[FILE]))
    return files[FILE]
