"""S2C: its network, crops that know where they come from, prompts, and the whole training step."""

import pickle
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.classifiers.base import TrainingData
from pipeline.classifiers.s2c.consistency import map_loss
from pipeline.classifiers.s2c.network import Network
from pipeline.classifiers.s2c.prompts import Found, Prompting, into_crop, paint
from pipeline.classifiers.s2c.training import GuidanceError, objective, samples
from pipeline.core.artifacts import IGNORE, Reader, Writer
from pipeline.core.device import Runtime
from pipeline.core.trainer import Ranks, Step, TrainConfig, train
from pipeline.data.index import ImageEntry, Index
from pipeline.nets.backbones import fix_batch_norm
from pipeline.segmenters.prompting import Answer, Guidance, Query

SMALL = "test_resnet"
OPTIONS: dict[str, Any] = {
    "ssc": True,
    "ssc_weight": 0.5,
    "temperature": 0.5,
    "stride": 4,
    "cpm": True,
    "cpm_weight": 2.0,
    "warmup": 2.0,
    "scales": [1.0],
    "peak": 0.5,
    "distance": 20,
}
RED, GREEN = 1, 2
"""Segments of the two objects; 3 and 300 are background."""


class Oracle:
    """Knows the image's segments: answers with the one that the points lie on, if it is one."""

    def __init__(self, stability: float = 0.9) -> None:
        self.stability = stability
        self.calls: list[Sequence[Query]] = []

    def prompt(self, queries: Sequence[Query]) -> list[Answer]:
        self.calls.append(queries)
        answers = []
        for segments, points in ((query.record["segments"], query.points_xy) for query in queries):
            x, y = points[0].astype(int)
            answers.append(Answer(torch.from_numpy(segments == segments[y, x]), self.stability))
        return answers


@pytest.fixture
def material(tmp_path: Path) -> TrainingData:
    """Four images: a red and a green object on gray, each object alone, and nothing."""
    generator = np.random.default_rng(0)
    images, records = [], {}
    for name, tags in (("a", (0, 1)), ("b", (0,)), ("c", (1,)), ("d", ())):
        segments = np.full((90, 120), 3, np.uint16)
        segments[:, 60:] = 300
        segments[:4] = 0
        image = generator.integers(90, 110, (90, 120, 3)).astype(np.uint8)
        for tag, (rows, columns) in enumerate(
            ((slice(10, 40), slice(8, 50)), (slice(45, 85), slice(70, 112)))
        ):
            if tag in tags:
                segments[rows, columns] = (RED, GREEN)[tag]
                image[rows, columns] = ((250, 0, 0), (0, 250, 0))[tag]
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        images.append(ImageEntry(name, f"{name}.png", 90, 120, "train", tags, None, None, ""))
        ids = int(segments.max())
        records[name] = {
            "segments": segments,
            "stability": np.ones(ids, np.float32),
            "iou": np.ones(ids, np.float32),
            "embeddings": np.ones((2, 3, 3), np.float16),
        }
    with Writer(tmp_path / "segments.h5", "segments", ("red", "green")) as writer:
        for name, record in records.items():
            writer.write(name, record)
    guidance = Guidance(Reader(tmp_path / "segments.h5", "segments"), Oracle())
    index = Index(("red", "green"), images, tmp_path, tmp_path, {})
    return TrainingData(index, ["a", "b", "c", "d"], (64, 192), 96, (0.4, 0.4, 0.4), guidance)


def step(epoch: float = 5.0) -> Step:
    return Step(Ranks(Accelerator(cpu=True)), 0.5, epoch)


def batch(material: TrainingData, seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    made = samples(material)
    return torch.utils.data.default_collate([made[number] for number in range(len(made))])


def prompter(material: TrainingData) -> Oracle:
    assert material.guidance is not None
    assert isinstance(material.guidance.prompter, Oracle)
    return material.guidance.prompter


def redness(images: Tensor) -> Tensor:
    """Class maps [B,2,S/16,S/16] that see red and green as they are."""
    colors = images[:, :2].float() - 100
    return F.avg_pool2d(colors, 16) / 50


class Seeing(nn.Module):
    """A network whose maps find the objects; it counts how often it is asked, and how."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.asked: list[tuple[torch.Size, bool]] = []

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append((images.shape, self.training))
        maps = redness(images) * self.weight
        return maps, maps.relu()


# the network


@pytest.mark.parametrize("classes", [1, 2, 254])
def test_logits_are_the_means_of_maps_made_from_features_that_are_not_negative(
    classes: int,
) -> None:
    network = Network(classes, SMALL, features=24).eval()
    images = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    maps, features = network(images)
    assert (maps.shape, features.shape) == ((2, classes, 2, 3), (2, 24, 2, 3))
    assert features.min() >= 0
    assert (features > 0).any()
    assert torch.equal(
        maps, network.maps(network.backbone.normalize(images), torch.ones(2, classes))
    )
    assert torch.equal(maps, F.conv2d(features, network.head.weight))


def test_the_new_layers_are_those_between_backbone_and_maps_and_have_no_bias() -> None:
    network = Network(3, SMALL, features=24)
    new = network.new_parameters()
    assert [tuple(p.shape) for p in new] == [
        (3, 24, 1, 1),
        (24, network.backbone.channels[-1], 1, 1),
    ]


# the crops


def test_origins_lead_from_every_pixel_of_a_crop_to_its_own_in_the_image(
    material: TrainingData,
) -> None:
    """Flipped, enlarged, shrunk, padded, cut: colors and segments agree with the sample's at the
    origin.
    """
    assert material.guidance is not None
    seen = {"flipped": 0, "padded": 0, "cut": 0}
    sample = material.index.image("a")
    kinds = material.guidance.segments["a"]["segments"].astype(np.int32)
    for seed in range(40):
        torch.manual_seed(seed)
        image, tags, segments, origins, number = samples(material)[0]
        assert (tags.tolist(), number, image.dtype, segments.dtype) == (
            [1, 1],
            0,
            torch.uint8,
            torch.int32,
        )
        assert (image.shape, segments.shape, origins.shape) == ((3, 96, 96), (96, 96), (2, 96, 96))
        assert not any(
            isinstance(part, torch.Tensor) and type(part) is not Tensor
            for part in (segments, origins)
        )
        inside = (origins[0] >= 0).numpy()
        assert (inside == (origins[1] >= 0).numpy()).all()
        y, x = origins.numpy()
        assert (segments.numpy()[inside] == kinds[y[inside], x[inside]]).all()
        assert not segments.numpy()[~inside].any()
        assert (image.numpy()[:, ~inside] == 102).all()
        off = np.abs(image.numpy()[:, inside].astype(int) - sample[y[inside], x[inside]].T).max(0)
        assert (off > 60).mean() < 0.08  # along the outlines, where colors mix
        row = x[np.flatnonzero(inside.any(1))[0]]
        seen["flipped"] += row[row >= 0][0] > row[row >= 0][-1]
        seen["padded"] += (~inside).any()
        seen["cut"] += inside.all()
    assert min(seen.values()) > 5


def test_a_image_that_the_segmenter_left_out_has_no_segments_and_no_prompt(
    material: TrainingData, tmp_path: Path
) -> None:
    assert material.guidance is not None
    source = material.guidance.segments
    with Writer(tmp_path / "fewer.h5", "segments", ("red", "green"), skipped=["a"]) as writer:
        for name in ("b", "c", "d"):
            writer.copy(source, name)
    oracle = Oracle()
    fewer = Guidance(Reader(tmp_path / "fewer.h5"), oracle)
    material = TrainingData(
        material.index, material.names, material.resize, material.crop, material.mean, fewer
    )
    made = batch(material)
    assert [int(ids.max()) for ids in made[2]] == [0, 300, 300, 300]
    terms = objective(material, **OPTIONS)(Seeing(), made, step())
    assert torch.isfinite(terms["loss"])
    assert len(oracle.calls[0]) == 2


def test_loader_processes_get_no_prompter(material: TrainingData) -> None:
    """It may hold a network on a GPU, which cannot be sent."""
    assert material.guidance is not None
    material.guidance.prompter.lock = threading.Lock()  # type: ignore[union-attr]
    made = pickle.loads(pickle.dumps(samples(material)))
    torch.manual_seed(0)
    first = made[1]
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(first[:4], samples(material)[1][:4], strict=True))


def test_segments_of_another_size_are_refused(material: TrainingData, tmp_path: Path) -> None:
    assert material.guidance is not None
    record = {**material.guidance.segments["a"], "segments": np.ones((9, 12), np.uint16)}
    with Writer(tmp_path / "other.h5", "segments", ("red", "green")) as writer:
        writer.write("a", record)
    other = Guidance(Reader(tmp_path / "other.h5"), Oracle())
    material = TrainingData(
        material.index, ["a"], material.resize, material.crop, material.mean, other
    )
    with pytest.raises(
        GuidanceError, match=r"other.h5: 'a' has \(9, 12\) pixels.*dvc repro segments"
    ):
        samples(material)[0]


# what is missing


def test_without_segments_the_parameter_is_named_before_training(material: TrainingData) -> None:
    bare = TrainingData(
        material.index, material.names, material.resize, material.crop, material.mean
    )
    with pytest.raises(GuidanceError, match=r"segments\.backend to superpixels or sam"):
        samples(bare)
    with pytest.raises(GuidanceError, match=r"segments\.backend to superpixels or sam"):
        objective(bare, **OPTIONS)


@pytest.mark.parametrize("lacking", ["prompter", "embeddings"])
def test_without_embeddings_the_parameter_is_named_before_training(
    material: TrainingData, tmp_path: Path, lacking: str
) -> None:
    assert material.guidance is not None
    segments, oracle = material.guidance.segments, Oracle()
    if lacking == "embeddings":
        with Writer(tmp_path / "bare.h5", "segments", ("red", "green")) as writer:
            for name, record in segments.items():
                writer.write(name, {**record, "embeddings": np.zeros((0, 0, 0), np.float16)})
        segments = Reader(tmp_path / "bare.h5")
    guidance = Guidance(segments, None if lacking == "prompter" else oracle)
    bare = TrainingData(
        material.index, material.names, material.resize, material.crop, material.mean, guidance
    )
    with pytest.raises(
        GuidanceError, match=r"set segments.embeddings to true, or classifier.s2c.cpm to false"
    ):
        objective(bare, **OPTIONS)
    terms = objective(bare, **{**OPTIONS, "cpm": False})(Seeing(), batch(bare), step())
    assert set(terms) == {"loss", "cls", "ssc"}


# prompts


def labels_of(
    material: TrainingData,
    made: list[Tensor],
    oracle: Oracle,
    network: nn.Module | None = None,
    **changes: Any,
) -> Tensor:
    images, tags, _, origins, numbers = made
    assert material.guidance is not None
    settings = {"scales": [1.0], "peak": 0.5, "distance": 20} | changes
    records = [material.guidance.segments[material.names[number]] for number in numbers.tolist()]
    return Prompting(oracle, **settings).labels(
        network or Seeing(), images, redness(images), tags, origins, records
    )


@pytest.mark.parametrize("seed", range(12))
def test_masks_come_back_where_the_objects_are_in_flipped_padded_and_cut_crops(
    material: TrainingData, seed: int
) -> None:
    made = batch(material, seed)
    images, _, segments, origins, _ = made
    labels = labels_of(material, made, Oracle())
    inside = origins[:, 0] >= 0
    assert labels.dtype == torch.uint8
    assert (labels[~inside] == IGNORE).all()
    for sample, (image, label) in enumerate(zip(images.int(), labels, strict=True)):
        visible = [
            bool((redness(image[None].float())[0, c] > 0).any())
            for c in material.index["abcd"[sample]].tags
        ]
        objects = (segments[sample] == RED) * 1 + (segments[sample] == GREEN) * 2
        if all(visible):
            assert torch.equal(label[inside[sample]].int(), objects[inside[sample]].int())


def test_points_are_the_centers_of_the_pixels_that_the_peaks_come_from(
    material: TrainingData,
) -> None:
    for seed in range(12):
        made, oracle = batch(material, seed), Oracle()
        labels_of(material, made, oracle)
        (queries,) = oracle.calls
        for query in queries:
            x, y = query.points_xy.T
            assert query.points_xy.dtype == np.float32
            assert ((query.points_xy % 1) == 0.5).all()
            assert x.min() > 0
            assert x.max() < 120
            assert y.min() > 0
            assert y.max() < 90
            kinds = query.record["segments"][y.astype(int), x.astype(int)]
            assert set(kinds.tolist()) in ({RED}, {GREEN})


def test_no_point_lies_in_padding_however_strong_the_map_is_there(material: TrainingData) -> None:
    made, oracle = batch(material), Oracle()
    images, tags, _, origins, _ = made
    origins = origins.clone()
    origins[:, :, :, :64] = -1
    maps = torch.zeros(4, 2, 6, 6)
    maps[:, :, :, 0] = 10
    maps[:, :, 3, 5] = 1
    assert material.guidance is not None
    records = [material.guidance.segments[name] for name in material.names]
    labels = Prompting(oracle, [1.0], 0.5, 20).labels(
        Seeing(), images, maps, tags, origins, records
    )
    assert (labels[:, :, :64] == IGNORE).all()
    for query in (query for call in oracle.calls for query in call):
        (x, y) = query.points_xy[0] - 0.5
        image = next(i for i, r in enumerate(records) if r is query.record)
        assert ((origins[image, 0] == y) & (origins[image, 1] == x))[:, 64:].any()


def test_all_peaks_of_a_class_are_one_prompt_and_all_prompts_of_a_batch_one_call(
    material: TrainingData,
) -> None:
    made, oracle = batch(material), Oracle()
    images, tags, _, _, _ = made
    maps = torch.full((4, 2, 6, 6), -1.0)
    maps[:, :, 1, 1], maps[:, :, 4, 4] = 2, 1.5
    everywhere = torch.from_numpy(
        np.indices((96, 96), np.int32) * np.array([90 / 96, 1])[:, None, None]
    ).int()
    assert material.guidance is not None
    records = [material.guidance.segments[name] for name in material.names]
    Prompting(oracle, [1.0], 0.5, 20).labels(
        Seeing(), images, maps, tags, everywhere.expand(4, -1, -1, -1), records
    )
    (queries,) = oracle.calls
    assert [id(query.record) for query in queries] == [id(records[i]) for i in (0, 0, 1, 2)]
    assert [len(query.points_xy) for query in queries] == [2] * 4


def test_absent_classes_and_empty_maps_prompt_nothing(material: TrainingData) -> None:
    """The published code prompts an empty map at the point (0, 0)."""
    made, oracle = batch(material), Oracle()
    images, tags, _, origins, _ = made
    labels = Prompting(oracle, [1.0], 0.5, 20).labels(
        Seeing(), images, -torch.ones(4, 2, 6, 6), tags, origins, [{}] * 4
    )
    assert oracle.calls == []
    assert (
        labels[:3] == IGNORE
    ).all()  # nobody knows where the tagged objects are: nothing is learned
    assert (labels[3][origins[3, 0] >= 0] == 0).all()  # without tags all is background


def test_background_is_unknown_where_a_present_class_got_no_mask(material: TrainingData) -> None:
    made, oracle = batch(material), Oracle()
    images, tags, segments, origins, _ = made
    maps = redness(images)
    maps[:, 1] = -1  # green is never found
    assert material.guidance is not None
    records = [material.guidance.segments[name] for name in material.names]
    labels = Prompting(oracle, [1.0], 0.5, 20).labels(
        Seeing(), images, maps, tags, origins, records
    )
    assert set(labels[0].unique().tolist()) == {1, IGNORE}
    assert torch.equal(labels[0] == 1, segments[0] == RED)
    assert set(labels[1][origins[1, 0] >= 0].unique().tolist()) == {0, 1}


@pytest.mark.defect("s2c-4")
def test_confidence_is_stability_times_the_mean_activation_over_the_mask(
    material: TrainingData,
) -> None:
    """Where masks overlap the surer class wins; the published code takes the mask's logits for its
    stability.
    """

    class Halves:
        """Masks that overlap in the middle, answered in the order asked."""

        def __init__(self, *stabilities: float) -> None:
            self.stabilities = stabilities

        def prompt(self, queries: Sequence[Query]) -> list[Answer]:
            left, right = torch.zeros(2, 96, 96, dtype=torch.bool)
            left[:, :64], right[:, 32:] = True, True
            return [
                Answer(mask, s) for mask, s in zip((left, right), self.stabilities, strict=True)
            ]

    origins = torch.from_numpy(np.indices((96, 96), np.int32))[None]
    maps = torch.ones(1, 2, 6, 6)
    maps[0, 1, :, :4] = 0.5  # class 1 is at 1 on a third of the image, which is half of its mask

    def middle(first: float, second: float) -> int:
        prompting = Prompting(Halves(first, second), [1.0], 0.5, 20)
        labels = prompting.labels(
            Seeing(), torch.zeros(1, 3, 96, 96), maps, torch.ones(1, 2), origins, [{}]
        )
        assert labels[0, 0, 0] == 1
        assert labels[0, 0, 95] == 2
        return int(labels[0, 50, 48])

    fine = F.interpolate(maps, (96, 96), mode="bilinear")[0, 1, :, 32:].mean().item()
    assert 0.7 < fine < 0.8
    assert middle(0.5, 0.5) == 1
    assert middle(0.5, 0.5 / fine + 0.01) == 2
    assert middle(0.5, 0.5 / fine - 0.01) == 1
    assert middle(0.0, 0.0) == 1


def test_the_surest_mask_wins_and_a_single_mask_wins_its_pixels() -> None:
    inside = torch.ones(4, 4, dtype=torch.bool)
    inside[:, 3] = False
    first, second = torch.zeros(2, 4, 4, dtype=torch.bool)
    first[:2], second[1:3] = True, True
    labels = paint([Found(0.9, 5, first), Found(0.4, 2, second)], known=True, inside=inside)
    assert labels[:, 0].tolist() == [5, 5, 2, 0]
    assert (labels[:, 3] == IGNORE).all()
    tied = paint([Found(0.4, 5, first), Found(0.4, 2, second)], known=True, inside=inside)
    assert tied[:, 0].tolist() == [5, 2, 2, 0]
    assert paint([Found(0.0, 5, first)], known=True, inside=inside)[:, 0].tolist() == [5, 5, 0, 0]
    assert paint([Found(0.1, 5, first)], known=False, inside=inside)[:, 0].tolist() == [
        5,
        5,
        IGNORE,
        IGNORE,
    ]


def test_a_mask_outside_the_crop_is_no_mask() -> None:
    mask = torch.zeros(10, 12, dtype=torch.bool)
    mask[0, 0] = True  # where padding's origin -1 must not lead
    origins = torch.full((2, 3, 3), -1, dtype=torch.int32)
    assert not into_crop(mask, origins).any()
    origins[:, 1, 2] = 0
    assert into_crop(mask, origins).nonzero().tolist() == [[1, 2]]


def test_scale_1_alone_costs_no_pass_and_others_one_each_without_learning(
    material: TrainingData,
) -> None:
    made, network = batch(material), Seeing()
    labels_of(material, made, Oracle(), network)
    assert network.asked == []
    labels = labels_of(material, made, Oracle(), network, scales=[0.5, 1.0, 2.0])
    assert network.asked == [((4, 3, 48, 48), False), ((4, 3, 192, 192), False)]
    assert network.training
    assert torch.equal(labels[1] == 1, made[2][1] == RED)


def test_other_scales_leave_batch_statistics_and_every_mode_as_they_were(
    material: TrainingData,
) -> None:
    network = Network(2, SMALL, features=8).train()
    fix_batch_norm(network.backbone.body.get_submodule("layer1"))
    modes = [part.training for part in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    wrapped = nn.Module()
    wrapped.module = network
    labels_of(material, batch(material), Oracle(), wrapped, scales=[0.5, 2.0])
    assert [part.training for part in network.modules()] == modes
    assert len(set(modes)) == 2
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# the step


def test_the_loss_is_the_weighted_sum_of_its_terms(material: TrainingData) -> None:
    made = batch(material)
    terms = objective(material, **OPTIONS)(Seeing(), made, step())
    assert list(terms) == ["loss", "cls", "ssc", "cpm"]
    assert min(float(term.detach()) for term in terms.values()) > 0
    expected = terms["cls"] + 0.5 * terms["ssc"] + 2 * terms["cpm"]
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    maps = redness(made[0])
    assert terms["cls"].item() == pytest.approx(
        float(F.multilabel_soft_margin_loss(maps.mean((2, 3)), made[1])), rel=1e-6
    )


def test_without_ssc_and_cpm_it_is_the_plain_classifier(material: TrainingData) -> None:
    terms = objective(material, **{**OPTIONS, "ssc": False, "cpm": False})(
        Seeing(), batch(material), step()
    )
    assert list(terms) == ["loss", "cls"]
    assert terms["loss"] is terms["cls"]


def test_no_prompts_and_no_loss_of_theirs_before_the_warm_up_is_over(
    material: TrainingData,
) -> None:
    made, network = batch(material), Seeing()
    losses = objective(material, **OPTIONS)
    for epoch in (0.0, 1.0, 1.99):
        terms = losses(network, made, step(epoch))
        assert (float(terms["cpm"]), terms["cpm"].requires_grad) == (0, False)
        assert prompter(material).calls == []
    assert losses(network, made, step(2.0))["cpm"] > 0
    assert len(prompter(material).calls) == 1


@pytest.mark.defect("s2c-1")
def test_one_pass_through_the_network_a_step_and_no_image_is_encoded_again(
    material: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published code runs the segmenter's encoder on every crop; here every stored record is
    read once a step.
    """
    reads: list[str] = []
    read = Reader.__getitem__
    monkeypatch.setattr(
        Reader, "__getitem__", lambda self, name: reads.append(name) or read(self, name)
    )
    made, network = batch(material), Seeing()
    objective(material, **OPTIONS)(network, made, step())
    assert len(network.asked) == 1
    assert sorted(reads) == ["a", "b", "c", "d"]
    (queries,) = prompter(material).calls
    assert {frozenset(query.record) for query in queries} == {
        frozenset({"segments", "stability", "iou", "embeddings"})
    }


def test_maps_that_see_one_spot_of_an_object_come_to_see_all_of_it(material: TrainingData) -> None:
    """Descending on the prompted masks' loss alone; what is not the object loses what response it
    had.
    """
    images, tags, segments, origins, _ = batch(material, 3)
    inside = origins[:, 0] >= 0
    objects = F.avg_pool2d(torch.stack([segments == RED, segments == GREEN], 1).float(), 16)
    spots = objects * (objects == objects.amax((2, 3), keepdim=True))
    maps = (0.4 + 2 * spots).requires_grad_()
    assert material.guidance is not None
    records = [material.guidance.segments[name] for name in material.names]
    prompting, optimizer = Prompting(Oracle(), [1.0], 0.5, 20), torch.optim.Adam([maps], 0.05)
    for _ in range(60):
        labels = prompting.labels(Seeing(), images, maps, tags, origins, records)
        loss = map_loss(maps, tags, labels, inside)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one, object_, tag in zip(
        maps.detach().flatten(0, 1), objects.flatten(0, 1), tags.flatten(), strict=True
    ):
        if tag and (object_ > 0.9).any():
            scores = one.relu() / one.max()
            assert scores[object_ > 0.9].min() > 0.7
            assert scores[object_ == 0].mean() < 0.2


@pytest.mark.parametrize("normalization", ["fixed", "learned"])
def test_steps_reach_every_layer_and_lower_the_losses_whose_targets_stand_still(
    material: TrainingData, normalization: str
) -> None:
    torch.manual_seed(0)
    network = Network(2, SMALL, features=16).train()
    if normalization == "fixed":
        fix_batch_norm(network)
    made, losses = batch(material), objective(material, **OPTIONS)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    values = []
    for _ in range(6):
        terms = losses(network, made, step())
        values.append((terms["cls"] + terms["ssc"]).item())
        optimizer.zero_grad()
        terms["loss"].backward()
        assert all(
            p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters()
        )
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.new_parameters())
        optimizer.step()
    assert values[-1] < values[0]


def test_the_training_loop_runs_it_with_loader_processes(
    material: TrainingData, tmp_path: Path
) -> None:
    """Two epochs, the second with prompts; the curve holds every term."""
    network = Seeing()
    runtime = Runtime(
        torch.device("cpu"), torch.float32, 2, 1, 1, 600.0, False, tmp_path / "work", 0, 1
    )
    plan = TrainConfig(2, 2, "adamw", 1e-4, 1, 0.0, 0.0, 0.9, 0.0, 0)
    train(
        network,
        samples(material),
        objective(material, **{**OPTIONS, "warmup": 1}),
        plan,
        new=network.parameters(),
        stage="classifier",
        fingerprint="s2c",
        runtime=runtime,
        curve=tmp_path / "curve.csv",
        prepare=fix_batch_norm,
    )
    rows = (tmp_path / "curve.csv").read_text().splitlines()
    assert rows[0] == "step,lr,loss,cls,ssc,cpm"
    cpm = [float(row.split(",")[-1]) for row in rows[1:]]
    assert cpm[:2] == [0, 0]
    assert min(cpm[2:]) > 0
    assert len(prompter(material).calls) == 2


class HalfPrecision(nn.Module):
    """The network in bfloat16, as accelerate runs it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.module = network

    def forward(self, images: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.module(images)


def test_bfloat16_stays_finite_and_near_float32(material: TrainingData) -> None:
    torch.manual_seed(0)
    network, made = Network(2, SMALL, features=16).eval(), batch(material)
    losses = objective(material, **{**OPTIONS, "scales": [0.5, 1.0]})
    exact, half = losses(network, made, step()), losses(HalfPrecision(network), made, step())
    half["loss"].backward()
    assert all(term.dtype == torch.float32 for term in half.values())
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all() for p in network.new_parameters()
    )
    for name in ("cls", "ssc"):
        assert half[name].item() == pytest.approx(exact[name].item(), rel=0.05)


def test_a_batch_is_the_mean_of_its_images(material: TrainingData) -> None:
    made, losses = batch(material), objective(material, **OPTIONS)
    whole = losses(Seeing(), made, step())
    single = [losses(Seeing(), [part[i : i + 1] for part in made], step()) for i in range(4)]
    for name in whole:
        assert whole[name].item() == pytest.approx(
            sum(terms[name].item() for terms in single) / 4, rel=1e-5
        )
