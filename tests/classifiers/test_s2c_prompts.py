"""Peaks of class maps (maxima, plateaus, borders, distances), and the label maps prompted there."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.classifiers.base import TrainingData
from pipeline.classifiers.s2c import S2C
from pipeline.classifiers.s2c.prompts import Prompting, PromptMask, map_to_crop, paint, peaks
from pipeline.core.artifacts import IGNORE
from pipeline.nets.backbones import Backbone, fix_batch_norm
from pipeline.segmenters.prompting import Query
from tests.classifiers.base import SMALL, batch_of
from tests.classifiers.oracle import GREEN, RED, ColorMaps, Oracle, color_maps, reader


def prompted(
    data: TrainingData,
    batch: list[Tensor],
    oracle: Oracle,
    network: nn.Module | None = None,
    maps: Tensor | None = None,
    scales: Sequence[float] = (1.0,),
) -> Tensor:
    """Label maps of a batch, from these maps or those of ColorMaps."""
    images, tags, _, origins, numbers = batch
    records = [reader(data)[data.names[number]] for number in numbers.tolist()]
    maps = color_maps(images) if maps is None else maps
    prompting = Prompting(oracle, scales, 0.5, 20)
    return prompting.labels(network or ColorMaps(), images, maps, tags, origins, records)


@pytest.mark.parametrize("seed", range(12))
def test_masks_return_to_the_objects_of_flipped_and_padded_crops(
    data: TrainingData, seed: int
) -> None:
    batch = batch_of("s2c", data, seed)
    images, _, segments, origins, _ = batch
    labels = prompted(data, batch, Oracle())
    inside = origins[:, 0] >= 0
    assert labels.dtype == torch.uint8
    assert (labels[~inside] == IGNORE).all()
    for sample, (image, label) in enumerate(zip(images.int(), labels, strict=True)):
        visible = [
            bool((color_maps(image[None].float())[0, c] > 0).any())
            for c in data.index["abcd"[sample]].tags
        ]
        objects = (segments[sample] == RED) * 1 + (segments[sample] == GREEN) * 2
        if all(visible):
            assert torch.equal(label[inside[sample]].int(), objects[inside[sample]].int())


def test_no_point_lies_in_padding_however_strong_the_map_is_there(data: TrainingData) -> None:
    batch, oracle = batch_of("s2c", data), Oracle()
    batch[3] = origins = batch[3].clone()
    origins[:, :, :, :64] = -1
    maps = torch.zeros(4, 2, 6, 6)
    maps[:, :, :, 0] = 10
    maps[:, :, 3, 5] = 1
    labels = prompted(data, batch, oracle, maps=maps)
    assert (labels[:, :, :64] == IGNORE).all()
    (queries,) = oracle.calls
    for image, query in zip((0, 0, 1, 2), queries, strict=True):
        (x, y) = query.points_xy[0] - 0.5
        assert ((origins[image, 0] == y) & (origins[image, 1] == x))[:, 64:].any()


def test_peaks_of_a_class_are_one_prompt_and_prompts_of_a_batch_one_call(
    data: TrainingData,
) -> None:
    batch, oracle = batch_of("s2c", data), Oracle()
    maps = torch.full((4, 2, 6, 6), -1.0)
    maps[:, :, 1, 1], maps[:, :, 4, 4] = 2, 1.5
    everywhere = np.indices((96, 96), np.int32) * np.array([90 / 96, 1])[:, None, None]
    batch[3] = torch.from_numpy(everywhere).int().expand(4, -1, -1, -1)
    prompted(data, batch, oracle, maps=maps)
    (queries,) = oracle.calls
    records = [query.record for query in queries]
    assert records[0] is records[1]
    assert len({id(record) for record in records}) == 3
    assert [len(query.points_xy) for query in queries] == [2] * 4


def test_absent_classes_and_empty_maps_prompt_nothing(data: TrainingData) -> None:
    """The published code prompts an empty map at the point (0, 0)."""
    batch, oracle = batch_of("s2c", data), Oracle()
    labels = prompted(data, batch, oracle, maps=-torch.ones(4, 2, 6, 6))
    assert oracle.calls == []
    assert (labels[:3] == IGNORE).all()  # unknown where the objects are: nothing is learned
    assert (labels[3][batch[3][3, 0] >= 0] == 0).all()  # without tags all is background


def test_background_is_unknown_where_a_present_class_got_no_mask(data: TrainingData) -> None:
    batch, oracle = batch_of("s2c", data), Oracle()
    images, _, segments, origins, _ = batch
    maps = color_maps(images)
    maps[:, 1] = -1  # green is never found
    labels = prompted(data, batch, oracle, maps=maps)
    assert set(labels[0].unique().tolist()) == {1, IGNORE}
    assert torch.equal(labels[0] == 1, segments[0] == RED)
    assert set(labels[1][origins[1, 0] >= 0].unique().tolist()) == {0, 1}


def test_confidence_is_the_segmenters_times_the_mean_activation() -> None:
    """Where masks overlap, the more confident one wins, pixel by pixel."""

    class Halves:
        """Masks that overlap in the middle, in the order of the prompts; the first is twice as sure
        in its upper half.
        """

        def __init__(self, first: float, second: float) -> None:
            self.first, self.second = first, second

        def prompt(self, queries: Sequence[Query]) -> list[Tensor]:
            left, right = torch.full((2, 96, 96), -3.0)
            left[:, :64], right[:, 32:] = self.first, self.second
            left[:48, :64] *= 2
            return [left, right]

    origins = torch.from_numpy(np.indices((96, 96), np.int32))[None]
    maps = torch.ones(1, 2, 6, 6)
    maps[0, 1, :, :4] = 0.5  # class 1 is at 1 on a third of the image, which is half of its mask

    def middle(first: float, second: float) -> list[int]:
        prompting = Prompting(Halves(first, second), [1.0], 0.5, 20)
        labels = prompting.labels(
            ColorMaps(), torch.zeros(1, 3, 96, 96), maps, torch.ones(1, 2), origins, [{}]
        )
        assert labels[0, 0, 0] == 1
        assert labels[0, 0, 95] == 2
        return [int(labels[0, y, 48]) for y in (47, 48)]

    fine = F.interpolate(maps, (96, 96), mode="bilinear")[0, 1, :, 32:].mean().item()
    assert 0.7 < fine < 0.8
    assert middle(5, 5) == [1, 1]
    assert middle(5, 5 / fine + 0.1) == [1, 2]
    assert middle(5, 5 / fine - 0.1) == [1, 1]
    assert middle(5, 10 / fine + 0.1) == [2, 2]


def test_most_confident_mask_wins_and_a_single_one_wins_its_pixels() -> None:
    def covering(label: int, rows: slice, confidence: float) -> PromptMask:
        values = torch.full((4, 4), -torch.inf)
        values[rows] = confidence
        return PromptMask(label, values)

    inside = torch.ones(4, 4, dtype=torch.bool)
    inside[:, 3] = False
    upper, lower = slice(0, 2), slice(1, 3)
    masks = [covering(5, upper, 0.9), covering(2, lower, 0.4), covering(7, lower, 0.6)]
    labels = paint(masks, known=True, inside=inside)
    assert labels[:, 0].tolist() == [5, 5, 7, 0]
    assert (labels[:, 3] == IGNORE).all()
    tied = [covering(2, lower, 0.4), covering(5, upper, 0.4)]
    assert paint(tied, known=True, inside=inside)[:, 0].tolist() == [5, 2, 2, 0]
    for confidence, known, rest in ((0.0, True, 0), (0.1, False, IGNORE)):
        alone = paint([covering(5, upper, confidence)], known=known, inside=inside)
        assert alone[:, 0].tolist() == [5, 5, rest, rest]


def test_a_mask_outside_the_crop_is_no_mask() -> None:
    sure = torch.zeros(10, 12)
    sure[0, 0] = 7  # where padding's origin -1 must not lead
    origins = torch.full((2, 3, 3), -1, dtype=torch.int32)
    assert not map_to_crop(sure, origins).any()
    origins[:, 1, 2] = 0
    assert map_to_crop(sure, origins).nonzero().tolist() == [[1, 2]]


def test_scale_1_costs_no_forward_pass_and_others_one_each(data: TrainingData) -> None:
    batch, network = batch_of("s2c", data), ColorMaps()
    prompted(data, batch, Oracle(), network)
    assert network.calls == []
    labels = prompted(data, batch, Oracle(), network, scales=[0.5, 1.0, 2.0])
    assert network.calls == [((4, 3, 48, 48), False), ((4, 3, 192, 192), False)]
    assert network.training
    assert torch.equal(labels[1] == 1, batch[2][1] == RED)


def test_other_scales_leave_batch_statistics_and_modes_alone(data: TrainingData) -> None:
    network = S2C(2, Backbone(SMALL), features=8).train()
    fix_batch_norm(network.backbone.body.get_submodule("layer1"))
    modes = [part.training for part in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    wrapped = nn.Module()
    wrapped.module = network
    prompted(data, batch_of("s2c", data), Oracle(), wrapped, scales=[0.5, 2.0])
    assert [part.training for part in network.modules()] == modes
    assert len(set(modes)) == 2
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def bumps(*places: tuple[int, int, float], side: int = 96, width: float = 6.0) -> np.ndarray:
    """Gaussian bumps at (y, x) with heights, over nothing."""
    y, x = np.mgrid[:side, :side]
    heights = [h * np.exp(-((y - r) ** 2 + (x - c) ** 2) / (2 * width**2)) for r, c, h in places]
    return np.max(heights, 0)


def test_maxima_must_exceed_the_threshold() -> None:
    scores = bumps((20, 20, 0.5), (70, 70, 1.0))
    assert peaks(scores, 0.5, 20).tolist() == [[70, 70]]
    assert peaks(scores, 0.49, 20).tolist() == [[70, 70], [20, 20]]


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_global_maximum_always_prompts(threshold: float) -> None:
    assert peaks(bumps((33, 44, 1.0), (80, 80, 0.9)), threshold, 20).tolist()[0] == [33, 44]


@pytest.mark.parametrize(("distance", "expected"), [(20, 2), (20.1, 1), (1, 2)])
def test_peaks_keep_their_distance_from_stronger_ones(distance: float, expected: int) -> None:
    found = peaks(bumps((40, 40, 1.0), (52, 56, 0.9), width=3), 0.5, distance)
    assert found.tolist() == [[40, 40], [52, 56]][:expected]


def test_a_weak_peak_that_is_dropped_takes_no_other_with_it() -> None:
    """Distances count from the peaks kept alone: C is near B, B near A, C far from A."""
    found = peaks(bumps((40, 20, 1.0), (40, 35, 0.9), (40, 50, 0.8), width=3), 0.5, 20).tolist()
    assert found == [[40, 20], [40, 50]]


@pytest.mark.defect("s2c-peaks")
@pytest.mark.parametrize("place", [(0, 0), (0, 47), (95, 95), (47, 0), (3, 93)])
def test_peaks_on_the_border_count(place: tuple[int, int]) -> None:
    """The published code drops the strongest inner peak when the maximum lies within 20 pixels of
    the border.
    """
    assert peaks(bumps((*place, 1.0), (50, 50, 0.9)), 0.5, 20).tolist() == [list(place), [50, 50]]


def test_an_empty_map_prompts_nothing() -> None:
    assert peaks(np.zeros((32, 32), np.float32), 0.5, 20).shape == (0, 2)


def test_a_plateau_is_one_point_in_its_middle() -> None:
    scores = np.zeros((64, 64), np.float32)
    scores[10:51, 5:26] = 1
    assert peaks(scores, 0.5, 5).tolist() == [[30, 15]]
    assert peaks(np.ones((64, 64), np.float32), 0.5, 5).shape == (1, 2)


def test_a_hollow_plateau_is_a_point_on_it() -> None:
    scores = np.zeros((64, 64), np.float32)
    scores[8:40, 8:40] = 1
    scores[12:36, 12:36] = 0
    (y, x) = peaks(scores, 0.5, 5)[0]
    assert scores[y, x] == 1


def test_a_shoulder_is_no_peak() -> None:
    """Values that do not rise within 3x3 pixels, but on the plateau's far side, as at the border of
    every enlarged map.
    """
    scores = np.zeros((64, 64), np.float32)
    scores[20:30, 20:30] = 0.8
    scores[20:30, 30:34] = 1
    assert peaks(scores, 0.5, 2).tolist() == [[24, 31]]


def test_every_point_is_a_local_maximum_and_no_point_could_be_added() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        coarse = torch.from_numpy(rng.random((1, 1, 8, 8), np.float32))
        scores = F.interpolate(coarse, (128, 128), mode="bilinear")[0, 0].numpy()
        scores /= scores.max()
        found = peaks(scores, 0.5, 20)
        values = scores[tuple(found.T)]
        around = F.max_pool2d(torch.from_numpy(scores)[None], 3, 1, 1)[0].numpy()
        assert values[0] == 1
        assert (np.diff(values) <= 0).all()
        assert (values == around[tuple(found.T)]).all()
        assert (
            len(found) == 1
            or min(np.hypot(*(a - b)) for a in found for b in found if (a != b).any()) >= 20
        )
        # what is higher than its eight neighbors and was left out lies near a stronger point
        equal = (
            F.unfold(torch.from_numpy(scores)[None, None], 3, padding=1).view(9, 128, 128).numpy()
            == around
        )
        for place in np.argwhere((scores == around) & (equal.sum(0) == 1) & (scores > 0.5)):
            near = np.hypot(*(found - place).T) < 20
            assert (values[near] >= scores[tuple(place)]).any()
