"""Superpixels and prompts without weights: a partition that follows colors, and whole objects from
a few points.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.core.artifacts import LAYOUTS, validate_record
from pipeline.segmenters.prompting import Query
from pipeline.segmenters.superpixels import SuperpixelPrompter, Superpixels, adjacency, mean_colors

SEGMENTER = Superpixels(embeddings=True, side=320, scale=150, sigma=0.8, min_size=60)
PROMPTER = SuperpixelPrompter()
GRASS, COAT, HEAD = (60, 140, 60), (210, 200, 190), (200, 40, 40)


def meadow(
    *animals: tuple[int, int], size: tuple[int, int] = (120, 160)
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A green image with animals at (y, x): a pale body with a dark outline and a red head at its
    left; and their masks.
    """
    image = np.full((*size, 3), GRASS, np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    masks = []
    for top, left in animals:
        body = ((y - top) / 16) ** 2 + ((x - left) / 26) ** 2
        head = ((y - top) / 9) ** 2 + ((x - left + 24) / 9) ** 2
        image[body < 1.15] = (50, 50, 50)
        image[body < 1] = COAT
        image[head < 1] = HEAD
        masks.append((body < 1.15) | (head < 1))
    return image, masks


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def ask(image: np.ndarray, *points_xy: tuple[float, float]) -> tuple[np.ndarray, float]:
    (sure,) = PROMPTER.prompt([Query(SEGMENTER.segment(image), np.array(points_xy, np.float32))])
    mask = sure.numpy() > 0
    (stability,) = np.unique(sure.numpy()[mask])
    return mask, float(stability)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (40, 3), (120, 160), (333, 500)])
def test_segments_are_a_partition_numbered_from_1(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    record = SEGMENTER.segment(image)
    count = int(record["segments"].max())
    assert record["segments"].shape == size
    assert np.unique(record["segments"]).tolist() == list(range(1, count + 1))
    assert record["embeddings"].shape == (3, count, 1)
    for key in ("stability", "iou"):
        assert record[key].shape == (count,)
        assert record[key].min() >= 0
        assert record[key].max() <= 1
    assert set(validate_record("segments", record)) == set(LAYOUTS["segments"].datasets) | {
        "stability",
        "iou",
    }


def test_image_of_one_color_is_one_segment_and_one_object() -> None:
    image = np.full((90, 120, 3), 77, np.uint8)
    record = SEGMENTER.segment(image)
    assert record["segments"].max() == 1
    assert record["stability"].tolist() == [1.0], "no neighbor that it could be one with"
    mask, stability = ask(image, (20, 20))
    assert mask.all()
    assert stability == 1


def test_large_image_is_divided_at_its_longer_side() -> None:
    """As many segments as at the smaller size, so u2 holds them, with the same borders."""
    image, _ = meadow((60, 80))
    large = image.repeat(9, 0).repeat(9, 1)
    segments = SEGMENTER.segment(large)["segments"]
    assert segments.shape == large.shape[:2]
    assert segments.max() < 200
    for color in (GRASS, COAT):
        inside = (large == color).all(2)
        assert np.bincount(segments[inside]).max() / inside.sum() > 0.6


def test_segments_of_a_reduced_image_are_not_shifted() -> None:
    image = np.zeros((500, 500, 3), np.uint8)
    image[150:350, 150:350] = 255
    ids = SEGMENTER.segment(image)["segments"]
    rows = np.flatnonzero(ids[:, 250] == ids[250, 250])
    assert abs((rows[0] + rows[-1]) / 2 - 249.5) <= 0.5


def test_embeddings_are_stored_on_request_alone() -> None:
    record = replace(SEGMENTER, embeddings=False).segment(meadow((60, 80))[0])
    assert record["embeddings"].size == 0


def test_mean_colors_are_those_of_the_pixels() -> None:
    image = np.array([[[255, 255, 255], [0, 0, 0], [0, 0, 0]]], np.uint8)
    colors = mean_colors(image, np.array([[1, 1, 2]]))
    assert colors[:, 0] == pytest.approx([50, 0], abs=0.1)  # lightness of white is 100, of black 0


def test_adjacency_by_hand() -> None:
    regions = adjacency(np.array([[1, 1, 2], [3, 3, 2], [3, 4, 4]]))
    assert regions.pairs.tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    assert regions.areas.tolist() == [2, 2, 3, 2]
    assert regions.border.tolist() == pytest.approx(np.array([3, 3, 3, 3]) / 12)
    colors = np.array([[0.0, 0], [3, 4], [0, 0], [3, 4]])
    assert regions.differences(colors).tolist() == [5, 0, 5, 0, 5]


@pytest.mark.parametrize("point", [(56, 60), (80, 60), (95, 55)], ids=["head", "body", "back"])
def test_point_anywhere_on_an_animal_gives_all_of_it(point: tuple[float, float]) -> None:
    image, (animal,) = meadow((60, 80))
    mask, stability = ask(image, point)
    assert iou(mask, animal) > 0.9
    assert 0 < stability <= 1


def test_point_on_the_background_is_not_an_animal() -> None:
    image, (animal,) = meadow((60, 80))
    mask, _ = ask(image, (10, 10))
    assert mask[10, 10]
    assert iou(mask, animal) < 0.5


def test_two_animals_are_distinguished_and_two_points_select_both() -> None:
    image, (one, other) = meadow((30, 45), (90, 110))
    first, second = ask(image, (45, 30))[0], ask(image, (110, 90))[0]
    assert iou(first, one) > 0.9
    assert iou(second, other) > 0.9
    both, _ = ask(image, (45, 30), (110, 90))
    assert np.array_equal(both, ask(image, (110, 90), (45, 30))[0])
    assert iou(both, one | other) > 0.9


def test_every_point_is_in_its_mask_even_at_the_image_border() -> None:
    image = np.random.default_rng(1).integers(0, 256, (50, 60, 3)).astype(np.uint8)
    record = SEGMENTER.segment(image)
    for point in ((0.0, 0.0), (60.0, 50.0), (59.5, 0.5), (30, 25)):
        (sure,) = PROMPTER.prompt([Query(record, np.array([point], np.float32))])
        assert sure[min(int(point[1]), 49), min(int(point[0]), 59)] > 0


def test_many_queries_are_answered_as_alone_and_in_order() -> None:
    records = [SEGMENTER.segment(meadow(place)[0]) for place in ((60, 80), (40, 60))]
    queries = [
        Query(record, np.array([point], np.float32))
        for point in ((80, 60), (5, 5), (60, 40))
        for record in records
    ]
    for query, answer in zip(queries, PROMPTER.prompt(queries), strict=True):
        assert torch.equal(answer, PROMPTER.prompt([query])[0])
    assert PROMPTER.prompt([]) == []


def test_flipped_image_gives_the_flipped_mask() -> None:
    image, _ = meadow((60, 70))
    mask, _ = ask(image, (46, 60))
    flipped, _ = ask(np.ascontiguousarray(image[:, ::-1]), (160 - 46, 60))
    assert iou(mask, flipped[:, ::-1]) > 0.95


def test_more_than_2048_regions_keep_their_own_colors() -> None:
    """f2 is exact to 2048 only: ids must not go through it."""
    image = np.random.default_rng(0).integers(0, 256, (400, 480, 3)).astype(np.uint8)
    fine = Superpixels(embeddings=True, side=1024, scale=1, sigma=0, min_size=17)
    record = fine.segment(image)
    count = int(record["segments"].max())
    assert count > 2048
    stored = record["embeddings"][:, :, 0].T.astype(np.float64)
    assert np.abs(stored - mean_colors(image, record["segments"])).max() < 0.1
    (sure,) = PROMPTER.prompt([Query(record, np.array([[479.5, 399.5]], np.float32))])
    assert sure[399, 479] > 0


@pytest.mark.parametrize(
    "said", [{"outside_xy": np.array([[56, 60]], np.float32)}, {"box_xyxy": (64, 41, 108, 79)}]
)
def test_a_point_off_the_object_or_a_box_leaves_out_the_head(said: dict[str, Any]) -> None:
    image, (animal,) = meadow((60, 80))
    query = Query(SEGMENTER.segment(image), np.array([[90, 60]], np.float32))
    whole, body = (sure.numpy() > 0 for sure in PROMPTER.prompt([query, query._replace(**said)]))
    assert whole[60, 56]
    assert not body[60, 56]
    assert body[60, 90]
    assert iou(body, animal & (image != HEAD).any(2)) > 0.8
