"""Stages segments and guidance: what is stored, which method receives it, and the message where
segments are missing.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.artifacts import Reader, Writer
from pipeline.core.weights import load_weights
from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.params import presets
from stages.classifier import classifier
from stages.features import features
from stages.guidance import guidance
from stages.labels import labels
from stages.segments import segments
from tests.support.runtimes import run_stage
from tests.support.transformers_nets import small_net


@pytest.mark.parametrize("embeddings", [False, True])
def test_every_training_image_is_divided(workspace: Path, embeddings: bool) -> None:
    values = {"segments.backend": "superpixels", "segments.embeddings": embeddings}
    assert run_stage(segments, values=values).exit_code == 0
    index, reader = Index.load(Path("data/dataset")), Reader("data/segments.h5", "segments")
    assert reader.names == index.select("train")
    for name, record in reader.items():
        assert record["segments"].shape == index.image(name).shape[:2]
        count = int(record["segments"].max())
        assert np.unique(record["segments"]).tolist() == list(range(1, count + 1))
        assert record["stability"].shape == record["iou"].shape == (count,)
        assert bool(record["embeddings"].size) == embeddings
        assert np.array_equal(reader.array(name, "segments"), record["segments"])


def test_without_a_backend_the_file_is_empty_and_still_one(workspace: Path) -> None:
    assert run_stage(segments, values={"segments.backend": "none"}).exit_code == 0
    reader = Reader("data/segments.h5", "segments")
    assert (len(reader), reader.classes) == (0, Index.load(Path("data/dataset")).classes)


def test_a_missing_checkpoint_is_named_with_its_address(workspace: Path) -> None:
    done = run_stage(
        segments,
        values={
            "segments.backend": "sam",
            "segments.sam.model": "vit_b",
            "segments.checkpoint": "no/such.pth",
        },
    )
    assert done.exit_code == 1
    for word in ("segments.checkpoint", "no/such.pth", "sam_vit_b_01ec64.pth", "https://"):
        assert word in done.output


@pytest.mark.parametrize("method", ["cam", "seenet", "puzzlecam"])
def test_other_methods_get_an_empty_file(workspace: Path, method: str) -> None:
    contents = set()
    for fill in (1, 2):
        write_segments(fill)
        assert run_stage(guidance, values={"classifier.method": method}).exit_code == 0
        contents.add(Path("data/guidance.h5").read_bytes())
        assert len(Reader("data/guidance.h5", "segments")) == 0
    assert len(contents) == 1


def test_s2c_gets_the_segments_without_a_copy(workspace: Path) -> None:
    write_segments(1)
    run_stage(guidance, values={"classifier.method": "cam"})
    assert run_stage(guidance, values={"classifier.method": "s2c"}).exit_code == 0
    assert Path("data/guidance.h5").samefile("data/segments.h5")
    run_stage(guidance, values={"classifier.method": "cam"})
    assert len(Reader("data/segments.h5", "segments")) == 1, (
        "the segments themselves are left alone"
    )


def test_a_file_system_without_hard_links_gets_a_copy(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Any) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr("os.link", refuse)
    write_segments(1)
    assert run_stage(guidance, values={"classifier.method": "s2c"}).exit_code == 0
    assert Path("data/guidance.h5").read_bytes() == Path("data/segments.h5").read_bytes()


@pytest.mark.parametrize(
    ("backend", "embeddings", "words"),
    [
        ("none", False, ("classifier.method", "s2c", "segments.backend")),
        ("superpixels", False, ("segments.embeddings", "classifier.s2c.cpm")),
    ],
)
def test_s2c_says_which_parameter_to_set(
    workspace: Path, backend: str, embeddings: bool, words: tuple[str, ...]
) -> None:
    settings = {
        "segments.backend": backend,
        "segments.embeddings": embeddings,
        "classifier.method": "s2c",
    }
    for stage in (segments, guidance, features):
        assert run_stage(stage, values=settings).exit_code == 0
    done = run_stage(classifier, values=settings)
    assert done.exit_code == 1
    for word in words:
        assert word in done.output


def test_s2c_trains_with_the_settings_of_its_code(workspace: Path) -> None:
    published = presets.load("voc12-s2c")["classifier"]
    settings = {f"classifier.{name}": published[name] for name in ("method", "batch_norm", "color")}
    settings |= {f"classifier.s2c.{name}": value for name, value in published["s2c"].items()}
    settings |= {
        "classifier.backbone": {"name": "test_resnet", "weights": "none"},
        "classifier.frozen_stages": 0,
        "classifier.s2c.warmup": 0,
        "classifier.epochs": 1,
        "classifier.batch": 2,
        "classifier.crop": 64,
        "classifier.resize": [64, 96],
    }
    for stage in (segments, guidance, features, classifier):
        done = run_stage(stage, values=settings)
        assert done.exit_code == 0, done.output
    tensors, _ = load_weights(Path("data/classifier.safetensors"), "classifier")
    biases = [value for name, value in tensors.items() if name.endswith("bias")]
    assert biases
    assert not any(value.any() for value in biases), "those of batch norm, frozen at their first 0"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"segments.backend": "none", "labels.vote": "segments"}, "labels.vote|segments.backend"),
        (
            {"segments.backend": "none", "labels.refine": "prompts"},
            "labels.refine|segments.backend",
        ),
        (
            {"segments.embeddings": False, "labels.refine": "prompts"},
            "labels.refine|segments.embeddings",
        ),
    ],
)
def test_labels_without_what_they_need_of_segments_say_which_parameter_to_set(
    workspace: Path, values: dict[str, object], words: str
) -> None:
    run_stage(segments, values=values)
    for name in ("walk", "fields", "hints"):
        with Writer(Path(f"data/{name}.h5"), name, ["x"]):
            pass
    done = run_stage(labels, values=values)
    assert done.exit_code == 1
    assert all(word in done.output for word in words.split("|"))


@pytest.mark.parametrize("backend", ["superpixels", "transformers"])
def test_labels_take_the_masks_that_they_prompt(workspace: Path, backend: str) -> None:
    values: dict[str, object] = {"segments.backend": backend, "labels.agreement": 0.5}
    if backend == "transformers":
        pytest.importorskip("transformers", reason="extra `transformers` is not installed")
        net, processor = small_net("sam2")
        for part in (net, processor.image_processor):
            part.save_pretrained(workspace / "net")
        values |= {"segments.checkpoint": str(workspace / "net"), "segments.sam.points_per_side": 2}
    assert run_stage(segments, values=values).exit_code == 0
    index = Index.load(Path("data/dataset"))
    with Writer(Path("data/walk.h5"), "walk", index.classes) as writer:
        for name in index.select("train"):
            ids, classes = read_instances(index, name)
            masks = ids[::4, ::4] == np.arange(1, len(classes) + 1)[:, None, None]
            rest, size = np.zeros(masks.shape[1:]), np.array(ids.shape)
            writer.write(
                name, {"maps": masks, "background": rest, "classes": classes, "size": size}
            )
    for name in ("fields", "hints"):
        with Writer(Path(f"data/{name}.h5"), name, index.classes):
            pass
    found = []
    for refine in ("none", "prompts"):
        done = run_stage(labels, values={**values, "labels.refine": refine})
        assert done.exit_code == 0, done.output
        found.append(Reader(Path("data/labels.h5"), "labels"))
        Path("data/labels.h5").rename(f"data/{refine}.h5")
    coarse, refined = ([reader[name] for name in reader.names] for reader in found)
    assert all((a["classes"] == b["classes"]).all() for a, b in zip(coarse, refined, strict=True))
    if backend == "superpixels":  # a network of random weights agrees with nothing
        gains = [
            (b["semantic"] == truth).mean() - (a["semantic"] == truth).mean()
            for a, b, name in zip(coarse, refined, found[0].names, strict=True)
            for truth in [read_semantic(index, name)]
        ]
        assert np.mean(gains) > 0


def write_segments(fill: int) -> None:
    record = {
        "embeddings": np.zeros((0, 0, 0)),
        "segments": np.full((4, 5), fill),
        "stability": np.ones(fill),
        "iou": np.ones(fill),
    }
    with Writer(Path("data/segments.h5"), "segments", ["x"]) as writer:
        writer.write("a", record)
