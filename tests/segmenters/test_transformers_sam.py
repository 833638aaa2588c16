"""SAM, SAM-HQ, SAM 2 and SAM 3's tracker of the package transformers: masks, maps and folders."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.core.artifacts import validate_record
from pipeline.readers.build import build
from pipeline.segmenters.prompting import Query
from pipeline.segmenters.sam import AutomaticMaskGenerator, SamError, SamPrompter
from pipeline.segmenters.transformers import TransformersSam, load_transformers_sam
from stages._command import read_parameters
from stages.classifier import promptable_segments
from stages.segments import segments
from tests.support.runtimes import run_stage, runtime
from tests.support.sam_nets import sample_image, smallest_wins, with_box_and_outside
from tests.support.transformers_nets import KINDS, as_video, small_net

transformers = pytest.importorskip("transformers", reason="extra `transformers` is not installed")

CPU = torch.device("cpu")
SIZES = [(72, 96), (100, 60), (64, 64)]


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest) -> tuple[TransformersSam, Any]:
    """A network as a segmenter, and the package's processor of images and prompts."""
    net, processor = small_net(request.param)
    return TransformersSam(net, processor.image_processor), processor


def prompted(
    sam: TransformersSam, processor: Any, image: np.ndarray, query: Query
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits [3,H,W] and predicted IoU [3] of one prompt by the package's whole path."""
    height, width = image.shape[:2]
    rows, columns = sam.extent((height, width))
    # the package counts pixels from 0 and adds half a pixel of its input
    half = 0.5 * np.array([width / columns, height / rows])
    prompts: dict[str, Any] = {
        "input_points": [[(np.concatenate([query.points_xy, query.outside_xy]) - half).tolist()]],
        "input_labels": [[[1] * len(query.points_xy) + [0] * len(query.outside_xy)]],
    }
    if query.box_xyxy is not None:
        prompts["input_boxes"] = [[(query.box_xyxy - np.tile(half, 2)).tolist()]]
    inputs = processor(images=image, return_tensors="pt", **prompts)
    sizes = [inputs.pop(name, None) for name in ("original_sizes", "reshaped_input_sizes")]
    for name in {"input_points", "input_boxes"} & {*inputs}:
        inputs[name] = inputs[name].float()
    with torch.no_grad():
        found = sam.net(**inputs)
    process = processor.image_processor.post_process_masks
    options: dict[str, Any] = (
        {} if sizes[1] is None else {"reshaped_input_sizes": sizes[1].tolist()}
    )
    if not sam.stretched:
        options["pad_size"] = {"height": sam.size, "width": sam.size}
    masks = process(found.pred_masks, sizes[0].tolist(), binarize=False, **options)
    return masks[0][0].numpy(), found.iou_scores[0, 0].numpy()


@pytest.mark.parametrize("boxes", [False, True])
def test_prompted_masks_are_the_packages(pair: tuple[TransformersSam, Any], boxes: bool) -> None:
    """Prompts of one to three points in images of three sizes, all together."""
    sam, processor = pair
    rng = np.random.default_rng(0)
    images = [sample_image(*size, seed) for seed, size in enumerate(SIZES)]
    queries, numbers = [], [0, 1, 2, 0, 1]
    with torch.no_grad():
        embeddings = [sam.encode(image)[0].numpy() for image in images]
    for points, number in zip([1, 2, 1, 3, 2], numbers, strict=True):
        height, width = SIZES[number]
        record = {"segments": np.zeros((height, width)), "embeddings": embeddings[number]}
        query = Query(record, rng.uniform(0, 1, (points, 2)) * (width, height))
        queries.append(with_box_and_outside(query) if boxes else query)
    for rule in sam.rules:
        answers = SamPrompter(sam, rule).prompt(queries)
        for number, query, answer in zip(numbers, queries, answers, strict=True):
            logits, iou = prompted(sam, processor, images[number], query)
            expected = logits[2 if rule == "whole" else iou.argmax()]
            scale = np.abs(expected).max()
            np.testing.assert_allclose(answer / scale, expected / scale, atol=1e-3)
    assert answers[0].std() > 0


FILTERS: dict[str, Any] = {"pred_iou": 0.0, "stability": 0.0, "box_nms": 1.0}


def generated(sam: TransformersSam, processor: Any, image: np.ndarray) -> list[dict[str, Any]]:
    """Return the masks of the package's own pipeline, as segment_anything's generator has them."""
    generate = transformers.pipeline(
        "mask-generation", model=sam.net, image_processor=processor.image_processor
    )
    output = generate(
        Image.fromarray(image),
        points_per_crop=6,
        points_per_batch=8,
        pred_iou_thresh=FILTERS["pred_iou"],
        stability_score_thresh=FILTERS["stability"],
        crops_nms_thresh=FILTERS["box_nms"],
    )
    masks = [np.asarray(mask) for mask in output["masks"]]
    return [
        {"segmentation": m, "area": m.sum(), "predicted_iou": float(iou), "stability_score": 1.0}
        for m, iou in zip(masks, output["scores"], strict=True)
    ]


def test_the_map_is_that_of_the_packages_pipeline(pair: tuple[TransformersSam, Any]) -> None:
    """Of a square: the grid of the pipeline misses a part of other images that are stretched."""
    sam, processor = pair
    size = (80, 80) if sam.stretched else (72, 96)
    image = sample_image(*size)
    generator = AutomaticMaskGenerator(sam, points_per_side=6, embeddings=True, **FILTERS)
    found = validate_record("segments", generator.segment(image))
    assert found["embeddings"].shape == (sum(n * f**2 for n, f in sam.layout), *sam.grid)
    expected, _, iou = smallest_wins(generated(sam, processor, image), size)
    assert len(iou) > 10
    assert np.array_equal(found["segments"], expected)
    np.testing.assert_allclose(found["iou"], iou, atol=1e-3)


def saved(folder: Path, kind: str = "sam2", *, video: bool = False) -> Path:
    net, processor = small_net(kind)
    (as_video(net) if video else net).save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "video"), [*((kind, False) for kind in KINDS), ("sam2", True)])
def test_a_folder_is_loaded(tmp_path: Path, kind: str, video: bool) -> None:
    loaded = load_transformers_sam(saved(tmp_path, kind, video=video), CPU)
    net, processor = small_net(kind)
    with torch.no_grad():
        expected = TransformersSam(net, processor.image_processor).encode(sample_image())
        assert torch.equal(loaded.encode(sample_image()), expected)


def test_stages_segment_and_prompt_with_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    build("scenes", Path(), Path("data/dataset"), images=3, val=0.34)
    folder = saved(tmp_path / "net")
    values: dict[str, object] = {
        "segments.backend": "transformers",
        "segments.checkpoint": str(folder),
    }
    options = {"points_per_side": 2, "pred_iou": 0, "stability": 0}
    values |= {f"segments.sam.{name}": value for name, value in options.items()}
    done = run_stage(segments, values=values)
    assert done.exit_code == 0, done.output
    Path("data/segments.h5").rename("data/guidance.h5")
    section = read_parameters(Path("params.yaml")).segments
    prompts = promptable_segments(section, runtime(tmp_path))
    assert prompts is not None
    assert set(prompts.prompters) == {"whole", "best"}
    record = prompts.reader[prompts.reader.names[0]]
    (answer,) = prompts.prompters["best"].prompt([Query(record, np.array([[50.0, 40.0]]))])
    assert answer.shape == record["segments"].shape


def test_missing_and_broken_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(SamError, match=r"segments\.checkpoint: .*none is not a folder"):
        load_transformers_sam(tmp_path / "none", CPU)
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path / "sam")
    weights = load_file(folder / "model.safetensors")
    weights.pop("mask_decoder.iou_token.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SamError, match=r"lacks weights, such as mask_decoder\.iou_token\.weight"):
        load_transformers_sam(folder, CPU)
    (folder / "model.safetensors").unlink()
    with pytest.raises(SamError, match="cannot be loaded"):
        load_transformers_sam(folder, CPU)


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SamError, match=r"\[transformers\]"):
        load_transformers_sam(tmp_path, CPU)
