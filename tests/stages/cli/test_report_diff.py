"""`weakmask report-diff`: reports out of folders and out of revisions, and what is refused."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.views.report_data import ReportData, StepScores
from stages.cli.main import main
from tests.support.repository import commit, run

GRAPH = """
stages:
  scores:
    cmd: mkdir -p data && cp made.json data/scores.json
    deps: [made.json]
    outs: [data/scores.json]
  report:
    cmd: mkdir -p data/report && cp data/scores.json data/report/report.json
    deps: [data/scores.json]
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


def invoke(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["report-diff", *arguments])
    assert "Traceback" not in done.output
    return done.exit_code, done.output


def test_two_folders_are_compared(folder: Path) -> None:
    write(folder / "a", made(0.5, 0.25))
    write(folder / "b", made(0.6, 0.4))
    code, text = invoke("a", "b", "-o", "diff.html")
    assert code == 0, text
    assert text.splitlines()[1].split() == ["Pseudo-labels", "50.0", "60.0", "+10.0"]
    page = (folder / "diff.html").read_text()
    assert "labels.background" in page
    assert "http" not in page


def test_what_is_no_report_is_refused_in_one_line(folder: Path) -> None:
    write(folder / "a", made(0.5, 0.25))
    (folder / "old").mkdir()
    (folder / "old/index.html").touch()
    for arguments, words in (
        (("a",), "data/report: no Git revision, tag or DVC experiment of this name"),
        (("a", "old"), "an older one"),
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
    (folder / "made.json").write_text(made(0.5, 0.25).json())
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    commit(folder)
    code, text = invoke("HEAD", "HEAD")
    assert code == 1
    assert "has no dvc.lock" in text
    run(folder, "dvc", "repro")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "first")
    (folder / "made.json").write_text(made(0.6, 0.4).json())
    run(folder, "dvc", "exp", "run", "-n", "half", "scores")
    run(folder, "dvc", "exp", "run", "-n", "higher")
    (folder / "made.json").write_text(made(0.7, 0.4).json())
    run(folder, "dvc", "repro")
    for first, second, words in (
        ("HEAD", "data/report", ["50.0", "70.0", "+20.0"]),
        ("HEAD", "higher", ["50.0", "60.0", "+10.0"]),
        ("higher", "main", ["60.0", "50.0", "−10.0"]),
    ):
        code, text = invoke(first, second)
        assert code == 0, text
        assert text.splitlines()[1].split()[1:] == words
    code, text = invoke("HEAD", "half")
    assert code == 1
    assert "half: its data/report comes from another run" in text
    code, text = invoke("nobody")
    assert code == 1
    assert "experiments are half, higher" in text
    for path in (folder / ".dvc/cache/files/md5").rglob("*.dir"):
        path.unlink()
    code, text = invoke("HEAD", "data/report")
    assert code == 1
    assert "is not in DVC's cache" in text
