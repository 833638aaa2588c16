import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.browser.run import FORMATS, Run
from pipeline.core.artifacts import ArtifactError
from pipeline.data.index import Index
from pipeline.errors import UserError
from tests.support.runs import NAMES, PARAMETERS, run_of, write_table


def test_everything_is_found(run: Run) -> None:
    assert list(run.index) == sorted(NAMES)
    assert all(run.reader(format_).names == sorted(NAMES) for format_ in FORMATS)
    assert run.miou("labels") == {
        name: pytest.approx(0.9 - 0.1 * n) for n, name in enumerate(NAMES)
    }
    assert run.reader("labels") is run.reader("labels")
    assert run.problems() == []
    assert run.table("labels", "failures") == {"a one": {"missed": 0}, "f": {"missed": 1}}
    assert run.scores("walk") == {"images": 6, "miou": 0.65}
    assert run.table("cams", "failures") == {}


def test_nothing_but_the_dataset_is_no_problem(folder: Path) -> None:
    for file in folder.glob("*.h5"):
        file.unlink()
    run = run_of(folder)
    assert not any(run.exists(format_) for format_ in FORMATS)
    assert run.problems() == []
    with pytest.raises(ArtifactError, match="no such file; `dvc repro`"):
        run.reader("cams")


def test_the_stamp_follows_parameters(folder: Path) -> None:
    """Layers of a threshold that changed are drawn again; a damaged file is no reason to end."""
    run, parameters = run_of(folder), {**PARAMETERS}
    run = Run("run", run.paths, lambda: parameters)
    before = run.stamp()
    assert run.stamp() == before
    parameters["labels"] = {**PARAMETERS["labels"], "background": 0.9}
    assert run.stamp() != before

    def damaged() -> dict[str, Any]:
        raise UserError("params.yaml: not valid YAML")

    assert Run("run", run.paths, damaged).stamp()


def test_missing_artifact_says_why(folder: Path) -> None:
    run = run_of(folder, missing={"labels": "not in the cache"})
    assert run.problems() == ["not in the cache"]
    with pytest.raises(UserError, match="not in the cache"):
        run.reader("labels")


def test_score_tables_follow_the_file_and_name_what_is_wrong(folder: Path) -> None:
    run = run_of(folder)
    assert run.miou("cams")["f"] == pytest.approx(0.4)
    write_table(folder, "cams", best=0.8)
    assert run.miou("cams")["f"] == pytest.approx(0.3)
    (folder / "scores/cams/images.csv").write_text("id,miou\nf,much\n")
    assert run.miou("cams") == {}
    (problem,) = run.problems()
    assert re.search(r"images.csv.*dvc repro -f scores@cams", problem)


def test_index_that_is_rewritten_is_read_again(folder: Path) -> None:
    run = run_of(folder)
    assert len(run.index) == 6
    whole = run.index
    roots = whole.images_root, whole.masks_root
    Index(whole.classes, list(whole.values())[:2], *roots, whole.mask_values).save(
        folder / "dataset"
    )
    assert len(run.index) == 2
