"""Every dataset of the corpus gets its message from check, from build and on the command line, and
nothing else happens.
"""

import logging
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.data.index import Index
from pipeline.data.problems import DatasetError, Problem
from pipeline.readers.build import build
from pipeline.readers.validation import check
from stages.cli.main import main
from tests.support.corpus import CASES, Case
from tests.support.sources import own_folder

pytestmark = pytest.mark.timeout(30)
BAD = [case for case in CASES.values() if case.level is not None]


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Kind and time of change of everything in a folder."""
    found = sorted(folder.rglob("*"))
    return {str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in found}


def told(case: Case, problems: list[Problem]) -> list[Problem]:
    """The problems that hold all parts of the case's message."""
    return [
        p
        for p in problems
        if p.level == case.level and all(part in str(p) for part in case.message)
    ]


def test_the_corpus_is_large() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_check_says_what_is_wrong_and_writes_nothing(tmp_path: Path, case: Case) -> None:
    case.make(tmp_path / "source")
    before = listing(tmp_path)
    problems = check(case.format, tmp_path / "source", **case.options)
    assert listing(tmp_path) == before
    lines = [str(problem) for problem in problems]
    assert all(line.isprintable() for line in lines)
    if case.level is None:
        assert lines == []
    else:
        assert told(case, problems), lines


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_build_stops_at_errors_alone_and_writes_into_its_folder_alone(
    tmp_path: Path, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    case.make(tmp_path / "source")
    before = listing(tmp_path)
    format_ = "folder" if case.format == "auto" else case.format
    if case.level == "error":
        with pytest.raises(DatasetError) as caught:
            build(format_, tmp_path / "source", tmp_path / "out", **case.options)
        if case.format != "auto":
            assert told(case, caught.value.problems)
        assert not (tmp_path / "out/index.json").exists()
    else:
        with caplog.at_level(logging.WARNING):
            index = build(format_, tmp_path / "source", tmp_path / "out", **case.options)
        assert Index.load(tmp_path / "out") == index
        assert (
            any(all(part in line for part in case.message) for line in caplog.messages)
            or not case.message
        )
    after = {
        path: state
        for path, state in listing(tmp_path).items()
        if not Path(path).is_relative_to(tmp_path / "out")
    }
    assert after == before


@pytest.mark.parametrize(
    "case", [case for case in BAD if not case.options], ids=lambda case: case.name
)
def test_the_command_tells_it_in_a_line_without_a_traceback(tmp_path: Path, case: Case) -> None:
    case.make(tmp_path / "source")
    arguments = ["check", str(tmp_path / "source"), "--format", case.format]
    result = CliRunner().invoke(main, arguments)
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == (case.level == "error")
    lines = result.output.splitlines()
    assert any(all(part in line for part in case.message) for line in lines), result.output
    assert " errors, " in lines[-1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", [".", "images", "images/a.png", "labels.csv"])
def test_what_may_not_be_read_is_named(tmp_path: Path, closed: str) -> None:
    source = own_folder(tmp_path / "source")
    mode = (source / closed).stat().st_mode
    (source / closed).chmod(0)
    try:
        lines = [str(problem) for problem in check("folder", source)]
    finally:
        (source / closed).chmod(mode)
    assert any(
        line.startswith(str(source / closed)) and "Permission denied" in line for line in lines
    ), lines
