"""`weakmask report-diff`: what changed from one report to another, as one offline HTML page.

weakmask report-diff ../other/data/report data/report
weakmask report-diff HEAD data/report -o diff.html
weakmask report-diff cam-seed0 seenet-seed0
"""

from pathlib import Path

import click

from pipeline.core.resume import write_atomically
from pipeline.errors import UserError
from pipeline.views.report import percent, points, render_diff
from pipeline.views.report_data import (
    FILE,
    TITLES,
    ReportData,
    collect,
    load,
    parse,
    read_rows,
    step_changes,
)
from stages._command import DATA
from stages.experiments.dvc_cache import CachedRun
from stages.experiments.finished import aligned

REPORT = (DATA / "report").as_posix()


@click.command("report-diff")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B", default=REPORT)
@click.option(
    "-o",
    "--output",
    default=DATA / "report-diff.html",
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
    write_atomically(output, render_diff(*reports, (first, second)).encode())
    rows = [["", first, second, "difference"]]
    rows += [
        [change.name, percent(change.first), percent(change.second), points(change.difference)]
        for change in step_changes(*reports)
    ]
    click.echo("\n".join(aligned(rows)))
    click.echo(f"wrote {output}")


def read(source: str) -> ReportData:
    """Read a report from a folder if there is one of that name, else from a revision: its report
    or, where another run made that, what scores are its own.

    Raises UserError.
    """
    folder = Path(source)
    if folder.is_dir():
        return load(folder / FILE)
    if folder.is_file():
        raise UserError(f"{source}: is a file; give the report's folder, such as {REPORT}")
    run = CachedRun(source)
    if REPORT not in run.stale:
        file = run.file(f"{REPORT}/{FILE}")
        return parse(file.read_text(encoding="utf-8"), f"{source}:{REPORT}/{FILE}")
    # an experiment with targets: its report is another run's, but some of its scores are its own
    folders = {step: (DATA / "scores" / step).as_posix() for step in TITLES}
    own = {step: out for step, out in folders.items() if out in run.outs and out not in run.stale}
    if not own:
        raise UserError(f"{source}: another run made its report and scores; run it without targets")
    missing = ", ".join(step for step in TITLES if step not in own)
    click.echo(
        f"{source}: no report and no scores of {missing}, as another run made them", err=True
    )
    tables = {
        step: {Path(name).stem: read_rows(run.file(name)) for name in run.files(out)}
        for step, out in own.items()
    }
    return collect(tables, run.parameters, {})
