"""Every dataset of the corpus gets its message from check and build; nothing else changes."""

import logging
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.data.images import DatasetError, Problem
from pipeline.data.index import Index
from pipeline.readers.build import build
from pipeline.readers.validation import check
from stages.cli.main import main
from tests.support.corpus import CASES, Case
from tests.support.sources import own_folder

pytestmark = pytest.mark.timeout(30)


def listing(folder: Path) -> dict[Path, tuple[int, int]]:
    """Mode and time of change of everything in a folder."""
    return {
        path: (path.lstat().st_mode, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if not path.is_relative_to(folder / "out")
    }


def matching(case: Case, problems: list[Problem]) -> list[Problem]:
    """The problems with all parts of the case's message."""
    return [
        problem
        for problem in problems
        if problem.level == case.level and all(part in str(problem) for part in case.message)
    ]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_check_reports_the_problem_and_build_stops_at_errors(
    tmp_path: Path, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    """Check writes nothing, build its own folder alone."""
    case.make(tmp_path / "source")
    before = listing(tmp_path)
    if not case.options:
        problems = list(check(case.format, tmp_path / "source").problems)
        assert listing(tmp_path) == before
        lines = [str(problem) for problem in problems]
        assert all(line.isprintable() for line in lines)
        found = [line for line in lines if "has one image" not in line]  # the sources are tiny
        assert matching(case, problems) if case.level else found == [], lines
    format_ = "folder" if case.format == "auto" else case.format
    if case.level == "error":
        with pytest.raises(DatasetError) as caught:
            build(format_, tmp_path / "source", tmp_path / "out", **case.options)
        assert case.format == "auto" or matching(case, caught.value.problems)
        assert not (tmp_path / "out/index.json").exists()
    else:
        with caplog.at_level(logging.WARNING):
            index = build(format_, tmp_path / "source", tmp_path / "out", **case.options)
        assert Index.load(tmp_path / "out") == index
        assert any(case.message[0] in line for line in caplog.messages) if case.message else True
    assert listing(tmp_path) == before


def test_check_reports_every_problem_at_once(tmp_path: Path) -> None:
    source = own_folder(tmp_path / "source")
    cases = [
        CASES[name]
        for name in (
            "id_leaving_the_folder", "id_absolute", "id_listed_twice", "image_missing",
            "image_unsupported", "image_without_row", "images_of_equal_id",
            "mask_with_unknown_value",
        )
    ]  # fmt: skip
    for edit in (edit for case in cases for edit in case.edits):
        edit(source)
    problems = list(check("auto", source).problems)
    assert [case.message for case in cases if not matching(case, problems)] == []


def test_the_command_takes_a_format(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(own_folder(tmp_path)), "--format", "voc"])
    assert (result.exit_code, result.output.count("has no folder JPEGImages")) == (1, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", [".", "images", "images/a.png", "labels.csv"])
def test_an_unreadable_file_is_named(tmp_path: Path, closed: str) -> None:
    source = own_folder(tmp_path / "source")
    mode = (source / closed).stat().st_mode
    (source / closed).chmod(0)
    try:
        lines = [str(problem) for problem in check("folder", source).problems]
    finally:
        (source / closed).chmod(mode)
    start = str(source / closed)
    assert any(line.startswith(start) and "Permission denied" in line for line in lines), lines
