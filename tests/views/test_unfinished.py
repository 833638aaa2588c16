"""Half-finished work and whole folders, described while nothing of it is complete; and what is
damaged, older or not there.
"""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pipeline.core.artifacts import Writer
from pipeline.errors import UserError
from pipeline.views.inspection import inspect, look_up

SEEDS = np.zeros((8, 12), np.uint8)


def shard(
    folder: Path, number: int, names: str, seeds: np.ndarray = SEEDS, skipped: str = ""
) -> Path:
    path = folder / f"shard-{number:06d}.h5"
    with Writer(path, "seeds", ["cat"], skipped=list(skipped)) as writer:
        for name in names:
            writer.write(name, {"seeds": seeds})
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Stage seeds on its way: two whole shards of three, one damaged, one being written."""
    folder = tmp_path / ".work/seeds/0123abcd-2"
    folder.mkdir(parents=True)
    mixed = SEEDS.copy()
    mixed[:4] = 1
    shard(folder, 0, "ab", mixed)
    shard(folder, 3, "e", np.full_like(SEEDS, 255), skipped="f")
    (folder / "shard-000002.h5").write_bytes(b"\x89HDF\r\n\x1a\n broken")
    (folder / "shard-000004.h5.part").write_bytes(b"x" * 2048)
    return folder


def checkpoint(folder: Path, value: float = 0.5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"step": 10, "lr": 0.1, "loss": 2.0}, {"step": 20, "lr": 0.1, "loss": 0.25}]
    state = {
        "step": 25,
        "network": {"w": torch.full((2, 3), value)},
        "optimizer": {},
        "curve": {"rows": rows},
    }
    torch.save(state, folder / "checkpoint.pt")
    return folder


@pytest.mark.parametrize("up", [0, 1, 2])
def test_shards_tell_how_far_a_stage_is_and_what_is_odd(work: Path, up: int) -> None:
    lines = inspect([work, *work.parents][up])
    assert lines[:5] == [
        "unfinished work of stage seeds, fingerprint 0123abcd",
        "done: 3 images in 2 shards of at most 2",
        "left out, as they failed: f",
        "shards before the last that are still to be made: 1",
        "odd: damaged, will be made again: shard-000002.h5",
    ]
    assert "seeds: 3 images, 1 class" in lines
    assert "odd: no seeds at all in 1 image: e" in lines
    assert lines[-1] == "being written: shard-000004.h5.part, 2.0 kB so far"


def test_nothing_but_a_part_is_work_too(tmp_path: Path) -> None:
    folder = tmp_path / "cams/0123"
    folder.mkdir(parents=True)
    (folder / "shard-000000.h5.part").write_bytes(b"x")
    assert inspect(folder)[-1].startswith("being written: shard-000000")
    assert "being written" in inspect(folder / "shard-000000.h5.part")[0]
    with pytest.raises(UserError, match="being written"):
        inspect(folder / "shard-000000.h5")
    with pytest.raises(UserError, match="no shard is whole yet"):
        look_up(folder, "a", tmp_path)


def test_a_checkpoint_tells_step_and_loss(tmp_path: Path) -> None:
    lines = inspect(checkpoint(tmp_path / "irnet/0123"))
    assert lines == [
        "unfinished work of stage irnet, fingerprint 0123",
        "checkpoint: 25 steps done, 1 tensors, 0.00 million values",
        "loss: 2 at step 10, 0.25 at step 20",
        "nothing odd",
    ]
    assert "odd: not finite: w" in inspect(
        checkpoint(tmp_path / "irnet/0123", float("nan")) / "checkpoint.pt"
    )
    (tmp_path / "irnet/0123/checkpoint.pt").write_bytes(b"no zip")
    with pytest.raises(
        UserError,
        match=r"checkpoint.pt: holds more than weights, or is damaged; delete it to begin again",
    ):
        inspect(tmp_path / "irnet/0123")


def older(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 0


def headless(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file.attrs["classes"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (older, "version 0, this program reads 1"),
        (headless, "damaged, or of another version"),
        (Path.unlink, "no such"),
    ],
)
def test_older_damaged_and_missing_artifacts_get_one_line(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    path = shard(tmp_path, 0, "ab")
    spoil(path)
    for look in (inspect, lambda path: look_up(path, "a", tmp_path)):
        with pytest.raises(UserError, match=words) as caught:
            look(path)
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)


def test_a_image_that_cannot_be_read_is_odd(tmp_path: Path) -> None:
    path = shard(
        tmp_path, 0, "ab", np.random.default_rng(0).integers(0, 2, (64, 64)).astype(np.uint8)
    )
    with h5py.File(path) as file:
        place = file["seeds/b"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + 20] = b"\0" * 20
    path.write_bytes(content)
    assert "odd: damaged data that cannot be read in 1 image: b" in inspect(path)


def test_ids_that_are_not_there_are_answered_with_some_that_are(work: Path) -> None:
    with pytest.raises(UserError, match="no image 'zebra'; it has a, b, e"):
        look_up(work, "zebra", work)


def test_a_folder_of_artifacts_gets_a_line_each(tmp_path: Path) -> None:
    shard(tmp_path, 0, "ab").rename(tmp_path / "seeds.h5")
    (tmp_path / "cams.h5").write_bytes(b"")
    (tmp_path / "scores/seeds").mkdir(parents=True)
    (tmp_path / "scores/seeds.json").write_text(json.dumps({"seeds": {"miou": 0.5}}))
    (tmp_path / ".gitkeep").touch()
    cams, scores, seeds = inspect(tmp_path)
    assert "cams.h5: not a readable HDF5 file" in cams
    assert scores == "scores/: seeds.json"
    assert seeds.startswith("seeds.h5: seeds of 2 images, ")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no artifacts here; `dvc repro` makes them"):
        inspect(tmp_path / "empty")


def test_tables_curves_and_scores_are_described(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("id,miou,coverage\na,0.5,\nb,0.25,\nb,nan,0.1\n")
    lines = inspect(tmp_path / "images.csv")
    assert lines[:3] == [
        "images: 3 rows, columns id, miou, coverage",
        "miou: 0.25 to 0.5",
        "coverage: 0.1 to 0.1, 2 empty",
    ]
    assert "odd: miou is no finite number in 1 row" in lines
    assert "odd: ids that come twice: b" in lines
    (tmp_path / "irnet.csv").write_text("step,lr,loss\n1,0.1,2\n2,0.1,0.5\n")
    assert "loss: 0.5 to 2, from 2 to 0.5" in inspect(tmp_path / "irnet.csv")
    assert look_up(tmp_path / "images.csv", "a", tmp_path) == [
        f"{tmp_path.name}/images: miou 0.5, coverage -"
    ]
    with pytest.raises(UserError, match="it has a, b"):
        look_up(tmp_path / "images.csv", "z", tmp_path)
    (tmp_path / "cams.json").write_text('{"cams": {"miou": 1.5}}')
    assert inspect(tmp_path / "cams.json") == [
        "scores of cams: miou 1.5",
        "odd: outside [0, 1]: miou",
    ]
    (tmp_path / "old.json").write_text('{"miou": 0.5}')
    with pytest.raises(UserError, match="no scores of this version"):
        inspect(tmp_path / "old.json")
    with pytest.raises(UserError, match="leave out 'a'"):
        look_up(tmp_path / "cams.json", "a", tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a,b\n1\n", b""])
def test_damaged_tables_get_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images.csv"
    path.write_bytes(content)
    if content:
        with pytest.raises(UserError, match=r"images.csv"):
            inspect(path)
    else:
        assert inspect(path) == ["images: no rows", "odd: nothing in it"]


def test_reports_are_described_and_looked_into(tmp_path: Path) -> None:
    from tests.views.test_report import summary

    (tmp_path / "sheets").mkdir()
    (tmp_path / "index.html").write_text("page")
    with pytest.raises(UserError, match="an older one"):
        inspect(tmp_path)
    (tmp_path / "report.json").write_text(summary().json())
    lines = inspect(tmp_path)
    assert lines[0] == "report: 4 scored steps, page 0.0 kB, 0 sheets"
    assert "pseudo-labels: mIoU 70.0, 3 images train" in lines
    assert "failures of pseudo-labels: 2 missed objects" in lines
    assert look_up(tmp_path, "a", tmp_path) == ["pseudo-labels: mIoU 50.0"]
    with pytest.raises(UserError, match="no image 'zebra'; it has a"):
        look_up(tmp_path, "zebra", tmp_path)
