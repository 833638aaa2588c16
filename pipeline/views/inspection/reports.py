"""What a report says, in words."""

from pathlib import Path

from pipeline.views.inspection.words import bytes_of, count, not_there
from pipeline.views.report import percent
from pipeline.views.report_data import FILE, KINDS, TITLES, load


def describe_report(folder: Path) -> list[str]:
    """Lines of text on a report: its ladder, failures, files and versions; raises UserError for an
    older or damaged one.
    """
    summary, page = load(folder / FILE), folder / "index.html"
    sheets = sorted((folder / "sheets").glob("*.png"))
    size = bytes_of(page.stat().st_size) if page.is_file() else "missing"
    lines = [
        f"report: {count(len(summary.ladder), 'scored step')}, page {size}, {count(len(sheets), 'sheet')}"
    ]
    lines += [
        f"{TITLES[row.step].lower()}: mIoU {percent(row.miou)}, {count(row.images, 'image')} {row.split}".rstrip()
        for row in summary.ladder
    ]
    for step, kinds in summary.failures.items():
        found = ", ".join(f"{row['count']} {KINDS[kind][0]}" for kind, row in kinds.items())
        lines.append(f"failures of {TITLES[step].lower()}: {found}")
    lines.append(
        "made by: " + ", ".join(f"{name} {version}" for name, version in summary.versions.items())
    )
    odd = ["odd: no index.html"] if not page.is_file() else []
    odd += [] if summary.ladder else ["odd: no scores, as no image has a pixel mask"]
    return [*lines, *(odd or ["nothing odd"])]


def scores_of(folder: Path, name: str) -> list[str]:
    """Lines of text with an image's score at every step; raises UserError for one that has none."""
    summary = load(folder / FILE)
    found = [
        f"{TITLES[step].lower()}: mIoU {percent(scores[name])}"
        for step, scores in summary.images.items()
        if name in scores
    ]
    if not found:
        raise not_there(
            folder, name, sorted({one for scores in summary.images.values() for one in scores})
        )
    return found
