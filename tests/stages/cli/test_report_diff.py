"""`weakmask report-diff`: reports out of folders and out of revisions, and what is refused."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.views.report_data import ReportData, StepScores
from stages.cli.main import main
from tests.support.repository import commit, run

GRAPH = """
stages:
  scores:
    cmd: mkdir -p data/scores && cp -r made data/scores/labels
    deps: [made]
    outs: [data/scores/labels]
  report:
    cmd: mkdir -p data/report && cp made.json data/report/report.json
    deps: [made.json, data/scores/labels]
    outs: [data/report]
"""


def made(miou: float, background: float) -> ReportData:
    return ReportData(
        [StepScores("labels", "train", 3, {"miou": miou})],
        parameters={"labels": {"background": background}},
    )


def write(folder: Path, data: ReportData) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(data.json())
    return folder


def score(folder: Path, miou: float) -> None:
    """Write what the graph copies: the table of a step, and the report of the same score."""
    (folder / "made").mkdir(exist_ok=True)
    for name, header in (("classes", "class,iou"), ("images", "id,miou")):
        (folder / f"made/{name}.csv").write_text(f"{header}\na,{miou}\n")
    (folder / "made/summary.csv").write_text(f"score,value\nimages,3\nmiou,{miou}\n")
    (folder / "made.json").write_text(made(miou, 0.25).json())


def invoke(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["report-diff", *arguments])
    assert "Traceback" not in done.output
    return done.exit_code, done.output


def test_two_folders_are_compared(folder: Path) -> None:
    write(folder / "a", made(0.5, 0.25))
    write(folder / "b", made(0.6, 0.4))
    code, text = invoke("a", "b", "-o", "diff.html")
    assert code == 0, text
    assert text.splitlines()[1].split() == ["labels", "50.0", "60.0", "+10.0"]
    page = (folder / "diff.html").read_text()
    assert "labels.background" in page
    assert "http" not in page


def test_what_is_no_report_is_refused_in_one_line(folder: Path) -> None:
    write(folder / "a", made(0.5, 0.25))
    (folder / "none").mkdir()
    for arguments, words in (
        (("a",), "name a Git revision, a tag or an experiment of `dvc exp list`"),
        (("a", "none"), "none/report.json: no such file; make it again with `dvc repro"),
        (("a", "params.yaml"), "is a file"),
    ):
        code, text = invoke(*arguments)
        assert code == 1
        assert words in text
    assert not list(folder.glob("*.html"))


@pytest.mark.slow
def test_revisions_and_experiments_are_read_from_the_cache(folder: Path) -> None:
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / ".gitignore").write_text("/data/\n*.html\n")
    score(folder, 0.5)
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    commit(folder)
    code, text = invoke("HEAD", "HEAD")
    assert code == 1
    assert "has no dvc.lock" in text
    run(folder, "dvc", "repro")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "first")
    score(folder, 0.6)
    run(folder, "dvc", "exp", "run", "-n", "half", "scores")
    run(folder, "dvc", "exp", "run", "-n", "higher")
    score(folder, 0.7)
    run(folder, "dvc", "repro")
    for first, second, words in (
        ("HEAD", "data/report", ["50.0", "70.0", "+20.0"]),
        ("HEAD", "higher", ["50.0", "60.0", "+10.0"]),
        ("higher", "main", ["60.0", "50.0", "−10.0"]),
        ("HEAD", "half", ["50.0", "60.0", "+10.0"]),  # its scores are its own, its report is not
    ):
        code, text = invoke(first, second)
        assert code == 0, text
        lines = [line.split()[1:] for line in text.splitlines() if line.startswith("labels ")]
        assert lines == [words]
    assert "half: no report and no scores of cams, seeds, walk, predictions, as another" in text
    code, text = invoke("nobody")
    assert code == 1
    assert "experiment of `dvc exp list`" in text
    shutil.rmtree(folder / ".dvc/cache/files")
    code, text = invoke("HEAD", "data/report")
    assert code == 1
    assert "is not in DVC's cache" in text
