"""`weakmask predict`: the same results as stage predictions from a weights file alone, and what it
refuses.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.core.artifacts import Reader
from pipeline.core.weights import load_weights, restore, save_weights
from pipeline.data.instance_masks import masks_of
from pipeline.predict import semantic_network
from pipeline.readers.build import build
from stages.cli.main import main
from stages.predictions import predictions
from tests.support.sources import noise, save

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ with two images, in a working directory that holds nothing else."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a", "sub/b")):
        save(tmp_path / f"photos/{name}.png", noise(number, (40, 53)))
    return tmp_path / "photos"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["predict", "--device", "cpu", *map(str, arguments)])


def test_results_are_those_of_stage_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, semantic_model: Path, instance_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    parameters["runtime"] |= {"workers": 1, "device": "cpu"}
    parameters["predictions"] |= {
        "scales": [0.5, 1.0],
        "flip": True,
        "instances": {"sides": [96, 160], "score": 0.2},
    }
    Path("params.yaml").write_text(yaml.safe_dump(parameters))
    build("scenes", Path(), Path("data/dataset"), images=6, val=0.5)
    for model in (semantic_model, instance_model):
        shutil.copy(model, Path("data", model.name))
    done = CliRunner().invoke(predictions, [], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    artifact = Reader("data/predictions.h5", "predictions")
    (tmp_path / "elsewhere/out").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("out/mine.txt").touch()
    samples = [f"../data/dataset/images/{name}.png" for name in artifact.names]
    for model, *options in (
        (semantic_model, "--scales", "0.5,1", "--flip"),
        (instance_model, "--sides", "96,160", "--score", "0.2"),
    ):
        done = run(model, *samples, "-o", "out", "--force", *options)
        assert done.exit_code == 0, done.output
    from faster_coco_eval import COCO

    coco = COCO(json.loads(Path("out/instances.json").read_bytes()))
    images = {row["file_name"]: row["id"] for row in coco.imgs.values()}
    count = 0
    for name in artifact.names:
        record = artifact[name]
        with Image.open(f"out/masks/{name}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), record["semantic"])
        found = coco.loadAnns(coco.getAnnIds(imgIds=[images[f"{name}.png"]]))
        assert [row["category_id"] - 1 for row in found] == record["classes"].tolist()
        np.testing.assert_allclose([row["score"] for row in found], record["scores"], atol=1e-6)
        for row, mask in zip(found, masks_of(record), strict=True):
            np.testing.assert_array_equal(coco.annToMask(row), mask)
        count += len(found)
    assert count > 0
    assert Path("out/mine.txt").exists()
    assert len({tuple(np.unique(artifact[name]["semantic"])) for name in artifact.names}) > 1


def test_weights_file_is_enough_and_sub_folders_are_preserved(
    photos: Path, semantic_model: Path
) -> None:
    result = run(semantic_model, "photos", "-o", "out", "--no-crf")
    assert result.exit_code == 0, result.output
    assert "wrote the results of 2 images" in result.output
    files = sorted(str(path) for path in Path("out").rglob("*.*"))
    assert files == [
        "out/labelmap.csv",
        "out/masks/a.png",
        "out/masks/sub/b.png",
        "out/overlays/a.jpg",
        "out/overlays/sub/b.jpg",
    ]
    assert sorted(os.listdir()) == ["out", "photos"]


def test_bad_images_are_listed_at_the_end_with_status_1(photos: Path, instance_model: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"no image")
    (photos / "phone.jpg").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(64))
    (photos / "c.heic").touch()
    result = run(instance_model, "photos/**/*", "-o", "out", "--no-overlays")
    assert result.exit_code == 1
    assert "2 of 4 images failed:\n  photos/bad.jpg: is damaged" in result.output
    assert "save it again or leave it out\n  photos/phone.jpg: is a HEIC or AVIF" in result.output
    assert "only JPEG, PNG and WebP are supported: 1 file, such as photos/c.heic" in result.output
    assert len(json.loads(Path("out/instances.json").read_bytes())["images"]) == 2
    assert not Path("out/overlays").exists()


def test_instances_are_detected_at_the_trained_sides(
    photos: Path, instance_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(instance_model, "photos", "-o", "default", "--score", "0")
    run(instance_model, "photos", "-o", "given", "--score", "0", "--sides", "64,128")
    run(instance_model, "photos", "-o", "other", "--score", "0", "--sides", "32,40")
    default, given, other = (
        Path(folder, "instances.json").read_bytes() for folder in ("default", "given", "other")
    )
    assert default == given != other


def test_large_images_are_resized_or_tiled(photos: Path, semantic_model: Path) -> None:
    """The model says at which sizes it was trained; --tile keeps an image's own."""
    tensors, header = load_weights(semantic_model, "semantic")
    own = {key: value for key, value in header.items() if key not in ("kind", "version")}
    network = semantic_network(header)
    restore(network, tensors, semantic_model)
    save_weights(Path("small.safetensors"), network, "semantic", **own | {"longest": [60, 90]})
    large = Image.fromarray(noise()).resize((400, 300))
    for folder, size in (("large", (400, 300)), ("shown", (90, 68))):
        Path(folder).mkdir()
        large.resize(size, Image.Resampling.BOX).save(f"{folder}/a.png")
    messages = []
    for folder, *options in (("large",), ("shown",), ("large", "--tile", "128", "--overlap", "64")):
        done = run(
            "small.safetensors",
            folder,
            *("-o", f"out-{folder}{len(options)}", "--no-crf", "--workers", "1"),
            *options,
        )
        assert done.exit_code == 0, done.output
        messages.append(done.output)
    whole, shown, tiled = (
        np.asarray(Image.open(f"out-{name}/masks/a.png")) for name in ("large0", "shown0", "large4")
    )
    assert whole.shape == tiled.shape == (300, 400)
    enlarged = np.asarray(Image.fromarray(shown).resize((400, 300), Image.Resampling.NEAREST))
    assert (whole == enlarged).mean() > 0.9 > (tiled == enlarged).mean()
    assert (
        "1 image resized for the model, whose training images had longest sides of 60 to 90"
        in (messages[0])
    )
    assert "resized" not in messages[1] + messages[2]
    assert "/24 [" in messages[2], "progress within an image"


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("semantic", "nowhere -o out", "nowhere: no such file or folder"),
        ("semantic", "photos -o photos/out", "-o photos/out: lies in photos"),
        ("semantic", "photos -o .", ".: is not empty; name a new folder, or add --force"),
        ("instance", "photos -o .", ".: is not empty; name a new folder, or add --force"),
        ("semantic", "photos -o out --score 0.5", "--score: applies to instance models only"),
        ("instance", "photos -o out --no-crf", "--crf: applies to semantic models only"),
        ("instance", "photos -o out --sides 640", "'--sides': '640': not two sides"),
        ("instance", "photos -o out --sides 9,8", "'9,8': not two sides, the shorter first"),
        ("semantic", "photos -o out --scales 1,x", "'1,x': not scales above 0 and at most 8"),
        ("semantic", "photos -o out --scales 0", "'0': not scales above 0"),
        ("semantic", "photos -o out --scales nan", "'nan': not scales above 0"),
        ("semantic", "photos -o out --device gpu", "--device: 'gpu' is not a torch device"),
        ("best.safetensors", "photos -o out", "best.safetensors: no such file; pass the"),
        ("photos/a.png", "photos -o out", "a.png: not a weights file; pass the semantic."),
        ("semantic", "photos -o out --overlap 9", "--overlap: needs --tile"),
        ("semantic", "photos -o out --tile 256 --overlap 129", "129 is more than half of --tile"),
        ("instance", "photos -o out --tile 256", "--tile: applies to semantic models only"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    photos: Path,
    semantic_model: Path,
    instance_model: Path,
    kind: str,
    arguments: str,
    message: str,
) -> None:
    models = {"semantic": semantic_model, "instance": instance_model}
    result = run(models.get(kind, kind), *arguments.split())
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output
    assert os.listdir() == ["photos"]
