"""SAM: checkpoints, records and prompted masks, against the package's own predictor."""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry
from torch import nn

from pipeline.core.artifacts import Record, validate_record
from pipeline.segmenters import sam
from pipeline.segmenters.prompting import Query
from pipeline.segmenters.sam import (
    RULES,
    SHA256,
    AutomaticMaskGenerator,
    Sam,
    SamError,
    SamPrompter,
    load_sam,
)
from tests.support.sam_nets import SIDE, sample_image, small_sam, with_box_and_outside

CPU = torch.device("cpu")
EVERY: dict[str, Any] = {"pred_iou": 0.0, "stability": 0.0, "box_nms": 1.0}
"""Filters that let every mask pass."""
SIZES = [(72, 96), (100, 60), (64, 64), (300, 410)]


@pytest.fixture(scope="module")
def net() -> Any:
    return small_sam(gain=2.0)


@pytest.fixture(scope="module")
def records(net: Any) -> list[Record]:
    generator = AutomaticMaskGenerator(Sam(net), points_per_side=2, **EVERY, embeddings=True)
    return [generator.segment(sample_image(*size, seed)) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def queries(records: list[Record]) -> list[Query]:
    """Prompts of one to five points in images of four sizes."""
    rng = np.random.default_rng(0)
    found = []
    for points, number in enumerate([0, 1, 2, 0, 3], start=1):
        height, width = SIZES[number]
        xy = rng.uniform(0, 1, (points, 2)) * (width, height)
        found.append(Query(records[number], xy.astype(np.float32)))
    return found


@pytest.mark.parametrize("size", [(1, 2 * SIDE + 1), (3 * SIDE, 1)])
def test_too_narrow_an_image_is_refused_with_what_to_do(net: Any, size: tuple[int, int]) -> None:
    height, width = size
    message = f"{width} x {height} pixels are too narrow for SAM, .* segments.backend: superpixels"
    with pytest.raises(SamError, match=message):
        Sam(net).encode(np.zeros((*size, 3), np.uint8))


def test_narrowest_possible_image_is_encoded(net: Any) -> None:
    assert Sam(net).encode(np.zeros((1, 2 * SIDE, 3), np.uint8)).isfinite().all()


def test_record_fits_the_layout(records: list[Record]) -> None:
    for record, size in zip(records, SIZES, strict=True):
        arrays = validate_record("segments", record)
        assert arrays["segments"].shape == size
        ids = np.unique(arrays["segments"])
        count = len(arrays["stability"])
        assert count == len(arrays["iou"]) > 1
        assert ids[ids > 0].tolist() == list(range(1, count + 1))
        for values in (arrays["stability"], arrays["iou"]):
            assert ((values >= 0) & (values <= 1)).all()
        assert record["embeddings"].dtype == np.float16
        assert record["embeddings"].shape == (32, 16, 16)


def test_record_without_embeddings_differs_in_nothing_else(net: Any, records: list[Record]) -> None:
    other = AutomaticMaskGenerator(Sam(net), points_per_side=2, **EVERY).segment(
        sample_image(*SIZES[0], 0)
    )
    assert validate_record("segments", other)["embeddings"].shape == (0, 0, 0)
    for key in ("segments", "stability", "iou"):
        assert np.array_equal(other[key], records[0][key])


def test_segments_in_half_precision_are_nearly_the_same(net: Any, records: list[Record]) -> None:
    generator = AutomaticMaskGenerator(Sam(net), points_per_side=2, **EVERY)
    with torch.autocast("cpu", torch.bfloat16):
        found = generator.segment(sample_image(*SIZES[0], 0))
    validate_record("segments", found)
    covered, same = found["segments"] > 0, records[0]["segments"] > 0
    assert (covered != same).mean() < 0.1
    assert not np.array_equal(
        found["iou"], records[0]["iou"]
    )  # it did compute in another precision


def predicted(net: Any, query: Query) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits and low-resolution logits of SamPredictor's three masks of a query, and their
    predicted IoU.
    """
    predictor = SamPredictor(net)
    predictor.set_image(np.zeros((*query.record["segments"].shape, 3), np.uint8))
    predictor.features = torch.from_numpy(query.record["embeddings"]).float()[None]
    height, width = query.record["segments"].shape
    scale = np.array(predictor.input_size)[::-1] / (width, height)
    # the package counts pixels from 0 and adds half a pixel of its input; a query's points are
    # continuous
    points = np.concatenate([query.points_xy, query.outside_xy]) - 0.5 / scale
    box = None if query.box_xyxy is None else query.box_xyxy - np.tile(0.5 / scale, 2)
    logits, iou, low = predictor.predict(
        points,
        np.arange(len(points)) < len(query.points_xy),
        box,
        multimask_output=True,
        return_logits=True,
    )
    return logits, low, iou


@pytest.mark.parametrize("boxes", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_prompter_is_the_packages_predictor(
    net: Any, queries: list[Query], rule: str, boxes: bool
) -> None:
    prompter = SamPrompter(Sam(net), rule)
    if boxes:
        queries = [with_box_and_outside(query) for query in queries]
    chosen = []
    for query, low_resolution, answer in zip(
        queries, prompter.logits(queries), prompter.prompt(queries), strict=True
    ):
        logits, low, iou = predicted(net, query)
        chosen.append(2 if rule == "whole" else iou.argmax())
        np.testing.assert_allclose(low_resolution.numpy(), low[chosen[-1]], atol=1e-4, rtol=1e-4)
        assert answer.shape == query.record["segments"].shape
        np.testing.assert_allclose(answer.numpy(), logits[chosen[-1]], atol=1e-4, rtol=1e-4)
    assert (set(chosen) == {2}) == (rule == "whole")


@pytest.mark.parametrize("together", [1, 2, 5, 8])
def test_answers_do_not_depend_on_the_batch(
    net: Any, queries: list[Query], together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sam.BATCH, "cpu", together)
    prompter = SamPrompter(Sam(net), "best")
    alone = [prompter.prompt([query])[0] for query in queries]
    for one, other in zip(alone, prompter.prompt(queries), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert prompter.prompt([]) == []
    every = prompter.logits(queries)
    for i, query in enumerate(queries):
        torch.testing.assert_close(prompter.logits([query])[0], every[i], atol=1e-4, rtol=1e-4)


def test_masks_can_take_part_in_training(net: Any, queries: list[Query]) -> None:
    """A tensor of inference mode could not be saved for a backward pass."""
    (logits,) = SamPrompter(Sam(net), "whole").prompt(queries[:1])
    scores = torch.ones(logits.shape, requires_grad=True)
    (scores.square() * logits).sum().backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad, 2.0 * logits)


@pytest.fixture
def checkpoint(net: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A checkpoint of a small network, which replaces vit_b."""
    monkeypatch.setitem(sam_model_registry, "vit_b", lambda: small_sam(seed=9))
    path = tmp_path / "sam.pth"
    torch.save(net.state_dict(), path)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_checkpoint_with_a_known_digest_is_loaded(net: Any, checkpoint: Path) -> None:
    loaded = load_sam("vit_b", str(checkpoint), digest(checkpoint).upper(), CPU)
    assert not loaded.net.training
    for name, value in net.state_dict().items():
        assert torch.equal(loaded.net.state_dict()[name], value), name


def test_unofficial_checkpoint_is_refused_until_its_digest_is_set(checkpoint: Path) -> None:
    with pytest.raises(SamError, match=r"segments\.checkpoint") as caught:
        load_sam("vit_b", checkpoint, "", CPU)
    for part in (str(checkpoint), digest(checkpoint), SHA256["vit_b"], "segments.sha256"):
        assert part in str(caught.value)


def test_checkpoint_with_another_digest_is_refused(checkpoint: Path) -> None:
    with pytest.raises(SamError, match=r"segments\.sha256"):
        load_sam("vit_b", checkpoint, "0" * 64, CPU)


def test_missing_checkpoint_says_where_to_download_it(tmp_path: Path) -> None:
    with pytest.raises(SamError, match=r"segments\.checkpoint") as caught:
        load_sam("vit_h", tmp_path / "none.pth", "", CPU)
    address = "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth"
    assert f"curl -L -o {tmp_path / 'none.pth'} {address}" in str(caught.value)


class Code:
    def __reduce__(self) -> Any:
        return print, ("run",)


@pytest.mark.parametrize(
    "content", ["code", "list", "other network", "noise", "cut off", "nothing"]
)
def test_bad_checkpoint_is_named(
    checkpoint: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = checkpoint.read_bytes()
    if content in ("code", "list", "other network"):
        values: dict[str, Any] = {
            "code": Code(),
            "list": [torch.zeros(2)],
            "other network": nn.Linear(2, 2).state_dict(),
        }
        torch.save(values[content], checkpoint)
    else:
        bad = {"noise": b"\x07noise" * 99, "cut off": whole[: len(whole) // 2], "nothing": b""}
        checkpoint.write_bytes(bad[content])
    with pytest.raises(SamError, match=re.escape(f"segments.checkpoint: {checkpoint}")):
        load_sam("vit_b", checkpoint, digest(checkpoint), CPU)
    assert capsys.readouterr().out == ""  # nothing in the file was run
