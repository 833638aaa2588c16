"""S2C: its network, crops that know where they come from, and the whole training step."""

import pickle
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.classifiers.base import TrainingData
from pipeline.classifiers.s2c import S2C, SegmentsError
from pipeline.classifiers.s2c.losses import segment_contrast
from pipeline.core.artifacts import Reader, Writer
from pipeline.core.trainer import LossFn
from pipeline.nets.backbones import Backbone
from pipeline.segmenters.prompting import PromptableSegments
from tests.classifiers.base import SMALL, ClassifierTester, batch_of, random_images, step
from tests.classifiers.oracle import ColorMaps, Oracle, color_maps, prompter, reader


class TestS2C(ClassifierTester):
    method = "s2c"
    options = {
        "features": 16,
        "ssc_weight": 0.5,
        "temperature": 0.5,
        "prototypes": "learned",
        "stride": 4,
        "mask": "whole",
        "cpm_weight": 2.0,
        "warmup": 2.0,
        "scales": [1.0],
        "peak": 0.5,
        "distance": 20,
    }
    falling = ("cls", "ssc")  # the targets of `cpm` move

    def batch_network(self) -> nn.Module:
        return ColorMaps()  # whose peaks do not depend on rounding


def s2c_loss(data: TrainingData, **changes: Any) -> LossFn:
    return TestS2C().loss_fn(data, **changes)


def test_maps_are_made_from_features_that_are_not_negative() -> None:
    network = S2C(3, Backbone(SMALL), features=24).eval()
    images = random_images(2, 32, 48)
    maps, features = network(images)
    assert (maps.shape, features.shape) == ((2, 3, 2, 3), (2, 24, 2, 3))
    assert features.min() >= 0
    assert (features > 0).any()
    normalized = network.backbone.normalize(images)
    assert torch.equal(maps, network.maps(normalized, torch.ones(2, 3)))
    assert torch.equal(maps, F.conv2d(features, network.head.get_parameter("weight")))


def test_new_layers_are_between_backbone_and_maps_and_have_no_bias() -> None:
    network = S2C(3, Backbone(SMALL), features=24)
    shapes = [tuple(parameter.shape) for parameter in network.new_parameters()]
    assert shapes == [(3, 24, 1, 1), (24, network.backbone.channels[-1], 1, 1)]


def test_origins_lead_from_each_pixel_of_a_crop_to_its_own_in_the_image(data: TrainingData) -> None:
    """Flipped, enlarged, shrunk, padded, cropped: colors and segments agree with the image's."""
    seen = {"flipped": 0, "padded": 0, "cropped": 0}
    image = data.index.image("a")
    ids = reader(data)["a"]["segments"].astype(np.int32)
    for seed in range(40):
        torch.manual_seed(seed)
        crop, tags, segments, origins, number = S2C.dataset(data)[0]
        assert (tags.tolist(), number) == ([1, 1], 0)
        assert (crop.dtype, segments.dtype) == (torch.uint8, torch.int32)
        assert (crop.shape, segments.shape, origins.shape) == ((3, 96, 96), (96, 96), (2, 96, 96))
        assert type(segments) is type(origins) is Tensor
        inside = (origins[0] >= 0).numpy()
        assert (inside == (origins[1] >= 0).numpy()).all()
        y, x = origins.numpy()
        assert (segments.numpy()[inside] == ids[y[inside], x[inside]]).all()
        assert not segments.numpy()[~inside].any()
        assert (crop.numpy()[:, ~inside] == 102).all()
        off = np.abs(crop.numpy()[:, inside].astype(int) - image[y[inside], x[inside]].T).max(0)
        assert (off > 60).mean() < 0.08  # along the outlines, where colors mix
        row = x[np.flatnonzero(inside.any(1))[0]]
        seen["flipped"] += int(row[row >= 0][0] > row[row >= 0][-1])
        seen["padded"] += int((~inside).any())
        seen["cropped"] += int(inside.all())
    assert min(seen.values()) > 5


def test_skipped_image_has_no_segments_and_no_prompt(data: TrainingData, tmp_path: Path) -> None:
    with Writer(tmp_path / "fewer.h5", "segments", ("red", "green"), skipped=["a"]) as writer:
        for name in ("b", "c", "d"):
            writer.copy(reader(data), name)
    oracle = Oracle()
    data = replace(
        data, segments=PromptableSegments(Reader(tmp_path / "fewer.h5"), {"whole": oracle})
    )
    samples = batch_of("s2c", data)
    assert [int(ids.max()) for ids in samples[2]] == [0, 300, 300, 300]
    assert torch.isfinite(s2c_loss(data)(ColorMaps(), samples, step())["loss"])
    assert len(oracle.calls[0]) == 2


def test_loader_processes_get_no_prompter(data: TrainingData) -> None:
    """It may hold a network on a GPU, which cannot be sent."""
    prompter(data).lock = threading.Lock()  # type: ignore[attr-defined]
    copy = pickle.loads(pickle.dumps(S2C.dataset(data)))
    torch.manual_seed(0)
    first = copy[1]
    torch.manual_seed(0)
    second = S2C.dataset(data)[1]
    assert all(torch.equal(a, b) for a, b in zip(first[:4], second[:4], strict=True))


def test_missing_segments_name_the_parameter_before_training(data: TrainingData) -> None:
    bare = replace(data, segments=None)
    for build in (S2C.dataset, s2c_loss):
        with pytest.raises(SegmentsError, match=r"segments\.backend to superpixels or sam"):
            build(bare)


def test_missing_embeddings_name_the_parameter_before_training(data: TrainingData) -> None:
    bare = replace(data, segments=PromptableSegments(reader(data), {}))
    message = r"set segments.embeddings to true, or classifier.s2c.cpm to false"
    with pytest.raises(SegmentsError, match=message):
        s2c_loss(bare)
    terms = s2c_loss(bare, cpm=False)(ColorMaps(), batch_of("s2c", bare), step())
    assert set(terms) == {"loss", "cls", "ssc"}


def test_a_rule_that_the_segmenter_lacks_is_refused_before_training(data: TrainingData) -> None:
    message = r"classifier\.s2c\.mask: the segmenter has no rule 'best'.*s2c\.mask to whole, or "
    with pytest.raises(SegmentsError, match=message):
        s2c_loss(data, mask="best")
    terms = s2c_loss(data, mask="best", cpm=False)(ColorMaps(), batch_of("s2c", data), step())
    assert "cpm" not in terms


@pytest.mark.parametrize("prototypes", ["learned", "detached"])
def test_loss_is_the_weighted_sum_of_its_terms(data: TrainingData, prototypes: str) -> None:
    samples = batch_of("s2c", data)
    terms = s2c_loss(data, prototypes=prototypes)(ColorMaps(), samples, step())
    assert list(terms) == ["loss", "cls", "ssc", "cpm"]
    assert min(float(term.detach()) for term in terms.values()) > 0
    expected = terms["cls"] + 0.5 * terms["ssc"] + 2 * terms["cpm"]
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    maps, detached = color_maps(samples[0]), prototypes == "detached"
    ssc = segment_contrast(maps.relu(), samples[2], 0.5, 4, detached=detached).item()
    assert terms["ssc"].item() == pytest.approx(ssc, rel=1e-6)
    logits = maps.mean((2, 3))
    cls = F.multilabel_soft_margin_loss(logits, samples[1]).item()
    assert terms["cls"].item() == pytest.approx(cls, rel=1e-6)


def test_without_ssc_and_cpm_it_is_cam(data: TrainingData) -> None:
    terms = s2c_loss(data, ssc=False, cpm=False)(ColorMaps(), batch_of("s2c", data), step())
    assert list(terms) == ["loss", "cls"]
    assert terms["loss"] is terms["cls"]


def test_no_prompts_and_no_loss_of_theirs_during_warmup(data: TrainingData) -> None:
    samples, network, loss_fn = batch_of("s2c", data), ColorMaps(), s2c_loss(data)
    for epoch in (0.0, 1.0, 1.99):
        terms = loss_fn(network, samples, step(epoch=epoch))
        assert (float(terms["cpm"]), terms["cpm"].requires_grad) == (0, False)
        assert prompter(data).calls == []
    assert loss_fn(network, samples, step(epoch=2.0))["cpm"] > 0
    assert len(prompter(data).calls) == 1


@pytest.mark.defect("s2c-1")
def test_one_forward_pass_a_step_and_no_image_is_encoded_again(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published code encodes every crop; here every stored record is read once a step."""
    reads: list[str] = []
    read = Reader.__getitem__

    def recorded(self: Reader, name: str) -> Any:
        reads.append(name)
        return read(self, name)

    monkeypatch.setattr(Reader, "__getitem__", recorded)
    samples, network = batch_of("s2c", data), ColorMaps()
    s2c_loss(data)(network, samples, step())
    assert len(network.calls) == 1
    assert sorted(reads) == ["a", "b", "c", "d"]
    (queries,) = prompter(data).calls
    keys = frozenset({"segments", "stability", "iou", "embeddings"})
    assert {frozenset(query.record) for query in queries} == {keys}
