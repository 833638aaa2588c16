import copy
import hashlib
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pipeline.segmenters
from pipeline.core.artifacts import validate_record
from pipeline.errors import UserError
from pipeline.segmenters.prompting import Query
from pipeline.segmenters.sam import (
    CHECKPOINTS,
    AutomaticMaskGenerator,
    SamError,
    SamPrompter,
    autocast,
    load_sam,
)
from pipeline.segmenters.sam_encoder import encode
from tests.support.fake_cuda import fake_cuda
from tests.support.sam_nets import SIDE, sample_image, small_sam

CPU = torch.device("cpu")
EVERY = {"pred_iou": 0.0, "stability": 0.0, "box_nms": 1.0}
"""Filters that let every mask pass."""
SIZES = [(72, 96), (100, 60), (64, 64), (300, 410)]


@pytest.fixture(scope="module")
def net():
    pytest.importorskip("segment_anything", reason="extra `sam` is not installed")
    return small_sam(gain=2.0)


@pytest.fixture(scope="module")
def records(net):
    everything = AutomaticMaskGenerator(net, points_per_side=2, **EVERY, embeddings=True)
    return [everything.segment(sample_image(*size, seed)) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def queries(records):
    """Prompts of one to five points in images of four sizes."""
    rng = np.random.default_rng(0)
    found = []
    for points, number in enumerate([0, 1, 2, 0, 3], start=1):
        height, width = SIZES[number]
        xy = rng.uniform(0, 1, (points, 2)) * (width, height)
        found.append(Query(records[number], xy.astype(np.float32)))
    return found


@pytest.mark.parametrize("size", SIZES)
def test_embeddings_are_the_packages(net, size):
    from segment_anything import SamPredictor

    predictor, image = SamPredictor(net), sample_image(*size)
    predictor.set_image(image)
    with torch.no_grad():
        found = encode(net, image)
    assert found.shape == (1, 32, SIDE // 16, SIDE // 16)
    torch.testing.assert_close(found, predictor.features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 2 * SIDE + 1), (3 * SIDE, 1)])
def test_a_image_of_which_no_line_is_left_is_refused_with_the_way_out(net, size):
    height, width = size
    message = f"{width} x {height} pixels are too narrow for SAM, .* segments.backend: superpixels"
    with pytest.raises(SamError, match=message):
        encode(net, np.zeros((*size, 3), np.uint8))


def test_the_narrowest_image_that_leaves_a_line_is_taken(net):
    assert encode(net, np.zeros((1, 2 * SIDE, 3), np.uint8)).isfinite().all()


def test_record_fits_the_layout(records):
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


def test_record_without_embeddings_differs_in_nothing_else(net, records):
    other = AutomaticMaskGenerator(net, points_per_side=2, **EVERY).segment(
        sample_image(*SIZES[0], 0)
    )
    assert validate_record("segments", other)["embeddings"].shape == (0, 0, 0)
    for key in ("segments", "stability", "iou"):
        assert np.array_equal(other[key], records[0][key])


def test_segments_in_half_precision_are_nearly_the_same(net, records):
    half = AutomaticMaskGenerator(net, points_per_side=2, **EVERY, precision=torch.bfloat16)
    found = half.segment(sample_image(*SIZES[0], 0))
    validate_record("segments", found)
    covered, same = found["segments"] > 0, records[0]["segments"] > 0
    assert (covered != same).mean() < 0.1
    assert not np.array_equal(
        found["iou"], records[0]["iou"]
    )  # it did compute in another precision


def test_a_gpu_gives_the_same_segments_and_answers(net, records, queries):
    """On one that is played on the CPU, where no tensors of two devices may meet."""
    expected = SamPrompter(net).prompt(queries)
    with fake_cuda() as device:
        there = copy.deepcopy(net).to(device)
        found = AutomaticMaskGenerator(there, points_per_side=2, **EVERY, embeddings=True).segment(
            sample_image(*SIZES[0], 0)
        )
        answers = SamPrompter(there).prompt(queries)
        assert all(answer.mask.is_cuda for answer in answers)
        masks = [answer.mask.cpu() for answer in answers]
    for key, values in found.items():
        np.testing.assert_allclose(values, records[0][key], atol=1e-3)
    for answer, mask, known in zip(answers, masks, expected, strict=True):
        assert torch.equal(mask, known.mask)
        assert answer.stability == pytest.approx(known.stability)


def test_too_fine_a_grid_is_refused(net):
    AutomaticMaskGenerator(net, points_per_side=147)
    with pytest.raises(SamError, match="points_per_side: 148"):
        AutomaticMaskGenerator(net, points_per_side=148)


def predicted(net, query):
    """What SamPredictor gives for a query alone: the mask of the highest predicted IoU, and all its
    logits at the image's size.
    """
    from segment_anything import SamPredictor

    predictor = SamPredictor(net)
    predictor.set_image(np.zeros((*query.record["segments"].shape, 3), np.uint8))
    predictor.features = torch.from_numpy(query.record["embeddings"]).float()[None]
    height, width = query.record["segments"].shape
    scale = np.array(predictor.input_size)[::-1] / (width, height)
    # the package counts pixels from 0 and adds half a pixel of its input; a query's points are
    # continuous
    points = query.points_xy - 0.5 / scale
    logits, iou, low = predictor.predict(
        points, np.ones(len(points)), multimask_output=True, return_logits=True
    )
    return logits[iou.argmax()], low[iou.argmax()], iou


def test_prompter_is_the_packages_predictor(net, queries):
    from segment_anything.utils.amg import calculate_stability_score

    prompter = SamPrompter(net, stability_offset=0.2)
    best = []
    for query, low_resolution, answer in zip(
        queries, prompter.logits(queries), prompter.prompt(queries), strict=True
    ):
        logits, low, iou = predicted(net, query)
        best.append(iou.argmax())
        np.testing.assert_allclose(low_resolution.numpy(), low, atol=1e-4, rtol=1e-4)
        assert answer.mask.shape == query.record["segments"].shape
        assert answer.mask.dtype == torch.bool
        sure = np.abs(logits) > 1e-3
        assert sure.mean() > 0.9
        assert np.array_equal(answer.mask.numpy()[sure], (logits > 0)[sure])
        score = calculate_stability_score(torch.from_numpy(logits)[None], 0.0, 0.2).item()
        assert answer.stability == pytest.approx(score, abs=2e-3)
        assert 0 < answer.stability < 1
    assert set(best) - {
        2
    }  # always taking the third mask, as S2C's published code does, would fail here


@pytest.mark.parametrize("together", [1, 2, 5, 0])
def test_answers_do_not_depend_on_the_batch(net, queries, together):
    prompter = SamPrompter(net, prompts_per_batch=together)
    alone = [prompter.prompt([query])[0] for query in queries]
    for one, other in zip(alone, prompter.prompt(queries), strict=True):
        assert (one.mask != other.mask).float().mean() < 1e-3
        assert one.stability == pytest.approx(other.stability, abs=1e-3)
    every = prompter.logits(queries)
    for i, query in enumerate(queries):
        torch.testing.assert_close(prompter.logits([query])[0], every[i], atol=1e-4, rtol=1e-4)


def test_prompts_are_answered_in_their_order(net, queries):
    prompter = SamPrompter(net)
    forward, backward = prompter.prompt(queries), prompter.prompt(queries[::-1])
    for one, other in zip(forward, backward[::-1], strict=True):
        assert one.mask.shape == other.mask.shape
        assert (one.mask != other.mask).float().mean() < 1e-3
    assert prompter.prompt([]) == []


def test_prompter_asks_for_no_image_and_calls_the_network_once(net, queries, monkeypatch):
    prompter = SamPrompter(net)
    assert not any(value is net.image_encoder for value in vars(prompter.decoder).values())
    calls = []
    attend = prompter.decoder.attend
    monkeypatch.setattr(
        prompter.decoder, "attend", lambda *given: calls.append(given) or attend(*given)
    )
    prompter.prompt(queries)
    assert len(calls) == 1


def test_masks_can_take_part_in_training(net, queries):
    """A tensor of inference mode could not be saved for a backward pass."""
    mask = SamPrompter(net).prompt(queries[:1])[0].mask
    scores = torch.ones(mask.shape, requires_grad=True)
    (scores.square() * mask).sum().backward()
    assert torch.equal(scores.grad, 2.0 * mask)


@pytest.mark.parametrize("shape", [(0, 0, 0), (64, 16, 16), (32, 8, 16)])
def test_record_without_fitting_embeddings_is_refused(net, queries, shape):
    record = {**queries[0].record, "embeddings": np.zeros(shape, np.float16)}
    with pytest.raises(SamError, match=r"segments\.embeddings: .* stored, \(32, 16, 16\) needed"):
        SamPrompter(net).prompt([Query(record, queries[0].points_xy)])


@pytest.fixture
def checkpoint(net, monkeypatch, tmp_path):
    """A checkpoint of a small network, which takes vit_b's place."""
    import segment_anything

    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", lambda: small_sam(seed=9))
    path = tmp_path / "sam.pth"
    torch.save(net.state_dict(), path)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_checkpoint_with_a_known_digest_is_loaded(net, checkpoint):
    loaded = load_sam("vit_b", str(checkpoint), digest(checkpoint).upper(), CPU)
    assert not loaded.training
    for name, value in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_checkpoint_that_is_not_official_is_refused_until_it_is_named(checkpoint):
    with pytest.raises(SamError, match=r"segments\.checkpoint") as caught:
        load_sam("vit_b", checkpoint, "", CPU)
    for part in (
        str(checkpoint),
        digest(checkpoint),
        CHECKPOINTS["vit_b"].sha256,
        "segments.sha256",
    ):
        assert part in str(caught.value)


def test_a_checkpoint_with_another_digest_than_named_is_refused(checkpoint):
    with pytest.raises(SamError, match=r"segments\.sha256"):
        load_sam("vit_b", checkpoint, "0" * 64, CPU)


def test_a_missing_checkpoint_says_where_it_is_to_be_had(net, tmp_path):
    with pytest.raises(SamError, match=r"segments\.checkpoint") as caught:
        load_sam("vit_h", tmp_path / "none.pth", "", CPU)
    address = "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth"
    assert f"curl -L -o {tmp_path / 'none.pth'} {address}" in str(caught.value)


def test_an_unknown_model_lists_the_known_ones(tmp_path):
    with pytest.raises(SamError, match=r"segments\.sam\.model.*vit_h, vit_l, vit_b"):
        load_sam("vit_x", tmp_path, "", CPU)


class Code:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    "content", ["code", "list", "other network", "noise", "cut off", "nothing"]
)
def test_a_bad_checkpoint_is_named(checkpoint, content, capsys):
    whole = checkpoint.read_bytes()
    if content in ("code", "list", "other network"):
        values = {
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


def test_without_the_package_all_imports_and_loading_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "segment_anything"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("pipeline.segmenters.sam")]:
        monkeypatch.setattr(
            pipeline.segmenters, name.split(".")[-1], sys.modules[name]
        )  # comes back afterwards
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    sam = importlib.import_module("pipeline.segmenters.sam")
    with pytest.raises(UserError, match="pip install segment-anything"):
        sam.load_sam("vit_h", "sam.pth", "", CPU)


def test_official_checkpoints_are_whole_digests():
    for official in CHECKPOINTS.values():
        assert len(bytes.fromhex(official.sha256)) == 32
    assert len({official.sha256 for official in CHECKPOINTS.values()}) == 3


def test_single_precision_needs_no_autocast():
    for precision in (None, torch.float32):
        with autocast(CPU, precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with autocast(CPU, torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
