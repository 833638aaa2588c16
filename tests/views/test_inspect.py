"""Everything that `weakmask inspect` describes, draws and looks up; what is damaged or missing."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pipeline.core.artifacts import LAYOUTS, Writer
from pipeline.core.loss_log import LossLog
from pipeline.core.weights import save_weights
from pipeline.errors import UserError
from pipeline.views import inspect
from pipeline.views.gallery import look_up, similar_ids
from tests.support.runs import CLASSES, GRID, HEIGHT, WIDTH, record, write_run
from tests.views.test_report import example_data


def describe(path: Path) -> list[str]:
    return list(inspect.describe(path))


SEEDS = np.zeros((8, 12), np.uint8)
ZERO = np.zeros((HEIGHT, WIDTH), np.uint8)
CONSTANT = np.full(GRID, 0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run."""
    folder = tmp_path_factory.mktemp("inspected")
    write_run(folder)
    return folder


def shard(
    folder: Path, number: int, names: str, seeds: np.ndarray = SEEDS, skipped: str = ""
) -> Path:
    path = folder / f"shard-{number:06d}.h5"
    with Writer(path, "seeds", ["cat"], skipped=list(skipped)) as writer:
        for name in names:
            writer.write(name, {"seeds": seeds})
    return path


def artifact(folder: Path, format_: str, *records: dict[str, np.ndarray]) -> Path:
    """Write sound records of image 0 with these changes, named a, b and so on."""
    with Writer(folder / f"{format_}.h5", format_, CLASSES) as writer:
        for name, changes in zip("abcdefghi", records, strict=False):
            writer.write(name, {**record(format_, 0), **changes})
    return folder / f"{format_}.h5"


@pytest.mark.parametrize("format_", LAYOUTS)
def test_sound_artifact_has_nothing_odd(tmp_path: Path, format_: str) -> None:
    lines = describe(artifact(tmp_path, format_, {}, {}))
    assert lines[0].startswith(f"{format_} of 2 images, 3 classes, ")
    assert lines[-1] == "nothing odd"
    if format_ not in ("fields", "features"):
        assert {"height: 30 to 30", "width: 41 to 41"} <= set(lines)
    if format_ not in ("fields", "features", "segments"):
        assert "images by class: cat 2, dog, or wolf 2" in lines
        assert "classes in no image: 日本" in lines


@pytest.mark.parametrize(
    ("format_", "changes", "oddity"),
    [
        ("cams", {"cams": np.zeros((2, *GRID))}, "a class map that is zero everywhere"),
        ("cams", {"cams": np.zeros((0, *GRID)), "labels": ZERO[0, :0]}, "no class map"),
        ("cams", {"cams": np.full((2, *GRID), 2.0)}, "values outside [0, 1]"),
        ("walk", {"classes": np.array([0, 9])}, "unknown classes"),
        ("seeds", {"seeds": ZERO + np.uint8(255)}, "no seeds at all"),
        ("seeds", {"seeds": ZERO}, "no foreground seeds"),
        ("seeds", {"seeds": ZERO + np.uint8(1)}, "no background seeds"),
        ("seeds", {"seeds": ZERO + np.uint8(77)}, "unknown classes"),
        ("fields", {"displacement": np.zeros((2, *GRID))}, "no displacement anywhere"),
        ("fields", {"boundary": CONSTANT}, "a constant boundary"),
        ("fields", {"boundary": CONSTANT + 1}, "boundary outside [0, 1]"),
        ("segments", {"segments": ZERO}, "segments without pixels"),
        ("features", {"features": np.ones((6, 2, 3))}, "the same features everywhere"),
        ("labels", {"instances": ZERO}, "classes but no instance"),
        ("predictions", {"semantic": ZERO}, "an empty label map"),
    ],
)
def test_oddities_are_found_in_the_right_image(
    tmp_path: Path, format_: str, changes: dict[str, np.ndarray], oddity: str
) -> None:
    assert f"odd: {oddity} in 1 image: b" in describe(artifact(tmp_path, format_, {}, changes))


def test_some_images_are_named_and_all_counted(tmp_path: Path) -> None:
    lines = describe(artifact(tmp_path, "predictions", *[{"semantic": ZERO}] * 9))
    assert "odd: an empty label map in 9 images: a, b, c, d, e, ..." in lines
    assert describe(artifact(tmp_path, "seeds"))[-1] == "odd: no images at all"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Unfinished work of stage seeds: two intact shards, one damaged, one being written."""
    folder = tmp_path / ".work/seeds/0123abcd-2"
    folder.mkdir(parents=True)
    shard(folder, 0, "ab")
    shard(folder, 3, "e", skipped="f")
    (folder / "shard-000002.h5").write_bytes(b"\x89HDF\r\n\x1a\n broken")
    (folder / "shard-000004.h5.part").write_bytes(b"x" * 2048)
    return folder


@pytest.mark.parametrize("up", [0, 1, 2])
def test_shards_show_the_progress_of_a_stage(work: Path, up: int) -> None:
    assert describe([work, *work.parents][up]) == [
        "unfinished work of stage seeds, fingerprint 0123abcd",
        "odd: damaged, will be made again: shard-000002.h5",
        "skipped, as they failed: f",
        "done: 3 images in 2 shards",
        "being written: shard-000004.h5.part, 2.0 kB so far",
    ]


def test_file_being_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cams.h5.part").write_bytes(b"x")
    assert "being written" in describe(tmp_path / "cams.h5.part")[0]
    with pytest.raises(UserError, match="being written"):
        describe(tmp_path / "cams.h5")


def test_checkpoint_shows_step_and_loss(tmp_path: Path) -> None:
    folder = tmp_path / "irnet/0123"
    folder.mkdir(parents=True)
    losses = LossLog("irnet", 10)
    for step, loss in enumerate([*[2.0] * 10, *[0.25] * 10, *[0.1] * 5]):
        losses.add(step, 0.1, ("loss",), torch.tensor([loss]))
    losses.flush()
    state = {"step": 25, "network": {"w": torch.ones(2, 3)}, "curve": losses.state()}
    torch.save(state, folder / "checkpoint.pt")
    assert describe(folder) == [
        "unfinished work of stage irnet, fingerprint 0123",
        "checkpoint: 25 steps done; loss 2 at step 10, 0.25 at step 20",
        "1 tensor, 0.00 million values",
        "nothing odd",
    ]
    torch.save(state | {"network": {"w": torch.full((2, 3), torch.nan)}}, folder / "checkpoint.pt")
    assert describe(folder / "checkpoint.pt")[-1] == "odd: not finite: w"
    torch.save({"step": 1}, folder / "checkpoint.pt")
    with pytest.raises(UserError, match=r"not a checkpoint .*; delete it to start over"):
        describe(folder)
    (folder / "checkpoint.pt").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"checkpoint.pt: .* damaged; delete it to start over"):
        describe(folder)


def test_weights_show_their_header(tmp_path: Path) -> None:
    path, network = tmp_path / "irnet.safetensors", torch.nn.Linear(1, 1)
    torch.nn.init.constant_(network.weight, torch.inf)
    save_weights(path, network, "irnet", backbone="resnet50")
    lines = describe(path)
    assert lines[0].startswith("irnet, 0.")
    assert "2 tensors, 0.00 million values" in lines
    assert "  backbone: resnet50" in lines
    assert lines[-1] == "odd: not finite: weight"
    assert describe(tmp_path)[0].startswith("irnet.safetensors: irnet, 0.")


def test_unreadable_image_is_odd(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(np.uint8)
    path = shard(tmp_path, 0, "ab", noise)
    with h5py.File(path) as file:
        place = file["seeds/b"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + 20] = b"\0" * 20
    path.write_bytes(content)
    assert "odd: data that cannot be read in 1 image: b" in describe(path)


def test_folder_gets_a_line_per_entry(folder: Path, tmp_path: Path) -> None:
    lines = {line.partition(":")[0]: line for line in describe(folder)}
    assert {f"{format_}.h5" for format_ in LAYOUTS} | {"dataset"} == set(lines)
    assert lines["walk.h5"].startswith("walk.h5: walk of 6 images, ")
    assert lines["dataset"] == "dataset: 6 images: 4 train, 2 val"
    (tmp_path / "cams.h5").write_bytes(b"")
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves/irnet.csv").touch()
    cams, curves = describe(tmp_path)
    assert "cams.h5: not a readable HDF5 file" in cams
    assert curves == "curves/: irnet.csv"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no artifacts here; `dvc repro` makes them"):
        describe(tmp_path / "empty")


def test_scores_are_described(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("id,miou,coverage\na,0.5,\nb,0.25,\nb,nan,0.1\n")
    assert look_up(tmp_path, "a", tmp_path) == [f"{tmp_path.name}/images: miou 50.0, coverage -"]
    with pytest.raises(UserError, match="no image 'z'; it has a, b"):
        look_up(tmp_path / "images.csv", "z", tmp_path)
    for scores, words in (('{"miou": 50.1}', "miou 50.1"), ("{}", "none, as no image has")):
        (tmp_path / "cams.json").write_text(f'{{"cams": {scores}}}')
        assert describe(tmp_path / "cams.json")[0].startswith(f"scores: {words}")
    (tmp_path / "old.json").write_text('{"miou": 0.5}')
    with pytest.raises(UserError, match="no scores of this version"):
        describe(tmp_path / "old.json")
    with pytest.raises(UserError, match="omit 'a'"):
        look_up(tmp_path / "cams.json", "a", tmp_path)
    with pytest.raises(UserError, match=r"cams\.h5: no such file"):
        look_up(tmp_path / "cams.h5", "a", tmp_path)
    (tmp_path / "report.json").write_text(example_data().json())
    assert describe(tmp_path / "report.json") == ["report of cams, seeds, labels, predictions"]
    (tmp_path / "images.csv").write_text("id,miou\n")
    with pytest.raises(UserError, match="scores no image"):
        look_up(tmp_path / "images.csv", "a", tmp_path)


def test_scores_of_an_image_at_every_step(folder: Path) -> None:
    lines = look_up(folder / "scores", "f", folder / "dataset")
    steps = ["cams", "seeds", "walk", "labels", "predictions"]
    assert list(dict.fromkeys(line.partition("/")[0] for line in lines)) == steps, (
        "in the pipeline's order"
    )
    assert "walk/images: miou 40.0, foreground_iou 50.0" in lines


@pytest.mark.parametrize("format_", LAYOUTS)
def test_every_artifact_can_be_drawn(folder: Path, format_: str) -> None:
    drawn = look_up(folder / f"{format_}.h5", "b/two", folder / "dataset")
    assert isinstance(drawn, np.ndarray)
    maps = {
        "cams": 2,
        "walk": len(record("walk", 1)["maps"]),
        "segments": 1,
        "seeds": 1,
        "features": 1,
    }
    panels = 1 + maps.get(format_, 2)
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] == (min(panels, 4) if panels != 5 else 3) * 366 + 6
    with pytest.raises(UserError, match="no image 'b/twi'; similar ids: b/two"):
        look_up(folder / f"{format_}.h5", "b/twi", folder / "dataset")


def test_dataset_is_described_and_drawn(folder: Path) -> None:
    lines = describe(folder / "dataset")
    assert lines[1] == "masks: 6 semantic, 6 with instances"
    assert "  日本: 4 images" in lines
    assert lines[-1] == "nothing odd"
    drawn = look_up(folder / "dataset", "f", folder / "dataset")
    assert isinstance(drawn, np.ndarray)
    assert drawn.shape[1] == 3 * 366 + 6


def test_unknown_class_can_be_drawn(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "cams.h5"
    with Writer(path, "cams", CLASSES) as writer:
        writer.write("f", {**record("cams", 0), "labels": np.array([0, 9])})
    assert isinstance(look_up(path, "f", folder / "dataset"), np.ndarray)


def test_similar_ids() -> None:
    names = [f"scene_{n:06d}" for n in range(10_000)]
    assert similar_ids(names, "scene_00001")[0] == "scene_000010"
    assert "scene_000123" in similar_ids(["scene_000123", "other"], "scene_000132")
    assert similar_ids(["abc"], "zzzzzzzz") == []
