"""Centroids, clusters, instance maps and fragments against slow loops and hand-made images."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.irnet import instances as room
from pipeline.irnet import walk
from pipeline.irnet.instances import (
    centroid_regions,
    centroids,
    clusters,
    extract_instances,
    instance_maps,
)


def ends_of(field: Tensor, iterations: int = 300) -> Tensor:
    (ends,) = centroids([field], iterations)
    return ends


def clusters_of(field: Tensor, ends: Tensor) -> Tensor:
    return clusters(torch.from_numpy(centroid_regions(field.numpy())), ends)


def random_field(height: int, width: int, seed: int, strength: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = strength * torch.randn(1, 2, 4, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0]


def field_to(centers: list[tuple[float, float]], height: int, width: int) -> Tensor:
    """A field by which every cell of an image points straight at the nearest of the centers."""
    grid = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ).float()
    ways = torch.tensor(centers)[:, :, None, None] - grid
    nearest = ways.square().sum(1).argmin(0)
    return ways.gather(0, nearest.expand(1, 2, -1, -1))[0]


def slow_centroids(field: Tensor, iterations: int, dtype: type) -> np.ndarray:
    """One cell, one step, one component at a time."""
    d = field.numpy().astype(dtype)
    _, height, width = d.shape
    ends = np.zeros((2, height, width), dtype)
    for start in np.ndindex(height, width):
        y, x = (dtype(value) for value in start)
        for _ in range(iterations):
            y0, x0 = int(y), int(x)
            y1, x1, v, u = (
                min(y0 + 1, height - 1),
                min(x0 + 1, width - 1),
                y - dtype(y0),
                x - dtype(x0),
            )
            step = []
            for c in (0, 1):
                corner, right, below = (
                    d[c, y0, x0],
                    d[c, y0, x1] - d[c, y0, x0],
                    d[c, y1, x0] - d[c, y0, x0],
                )
                across = (d[c, y1, x1] - d[c, y1, x0]) - right
                step.append(corner + v * below + u * (right + v * across))
            y = min(max(y + step[0], dtype(0)), dtype(height - 1))
            x = min(max(x + step[1], dtype(0)), dtype(width - 1))
        ends[:, start[0], start[1]] = y, x
    return np.rint(ends).astype(np.int64)


def slow_pieces(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """4-connected pieces in reading order of their first cell, by flooding."""
    left, pieces = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        front = [min(left)]
        left.remove(front[0])
        for y, x in front:
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left:
                    left.remove(near)
                    front.append(near)
        pieces.append(front)
    return pieces


@pytest.mark.parametrize(("iterations", "seed"), [(0, 0), (1, 1), (7, 2), (60, 3), (60, 4)])
def test_centroids_match_a_loop_over_cells(iterations: int, seed: int) -> None:
    field = random_field(11, 14, seed)
    assert (
        ends_of(field, iterations).numpy() == slow_centroids(field, iterations, np.float32)
    ).all()


def test_float32_steps_end_where_float64_steps_end() -> None:
    field = 0.3 * field_to([(4.2, 3.1), (6.7, 11.2)], 12, 16) + random_field(12, 16, 5, 0.2)
    assert (ends_of(field, 100).numpy() == slow_centroids(field, 100, np.float64)).mean() > 0.99


@pytest.mark.parametrize("check", [1, 3, 10**6])
def test_dropping_resting_cells_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, check: int
) -> None:
    field = 0.4 * field_to([(5.0, 6.0), (20.0, 30.0)], 25, 37)
    field[:, 12:16] = random_field(4, 37, 6)
    expected = ends_of(field)
    monkeypatch.setattr(room, "RESTING_CHECK", check)
    assert torch.equal(ends_of(field), expected)


@pytest.mark.parametrize("at_once", [1, 300, 10**9])
def test_images_of_any_sizes_together_are_each_alone(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(walk, "VALUES_AT_ONCE", {"cpu": at_once})
    sizes = [(9, 13), (17, 8), (1, 1), (9, 13), (6, 21)]
    fields = [random_field(*size, seed, 4) for seed, size in enumerate(sizes)]
    found = centroids(fields)
    assert [end.shape for end in found] == [field.shape for field in fields]
    for end, field in zip(found, fields, strict=True):
        assert torch.equal(end, ends_of(field))


def test_no_images_no_centroids() -> None:
    assert centroids([]) == []


def test_still_field_stays_and_steady_field_ends_at_the_border() -> None:
    grid = torch.stack(torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij"))
    assert torch.equal(ends_of(torch.zeros(2, 6, 8)), grid)
    steady = torch.stack([torch.full((6, 8), 0.5), torch.full((6, 8), -0.25)])
    ends = ends_of(steady)
    assert (ends[0] == 5).all()
    assert (ends[1] == 0).all()


def test_both_components_use_the_position_before_the_step() -> None:
    field = torch.zeros(2, 3, 3)
    field[0, 0, 0] = 1
    field[1, 0, 0] = 1
    field[1, 1, 0] = -1
    assert ends_of(field, 1)[:, 0, 0].tolist() == [1, 1]


@pytest.mark.defect("irn-10")
def test_nan_in_the_field_is_refused() -> None:
    field = torch.zeros(2, 4, 4)
    field[1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match="displacement field holds values that are not finite"):
        ends_of(field)
    with pytest.raises(ValueError, match=r"expected \[2,h,w\]"):
        centroids([torch.zeros(3, 4, 4)])


def test_two_objects_are_two_clusters() -> None:
    field = field_to([(8.0, 7.0), (9.0, 30.0)], 18, 40)
    found = clusters_of(field, ends_of(0.5 * field))
    assert found.unique().tolist() == [1, 2]
    assert (found[:, :18] == 1).all()
    assert (found[:, 20:] == 2).all()


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_the_patches_where_cells_rest(seed: int) -> None:
    field = random_field(16, 21, seed, strength=4)
    ends = ends_of(field, 20)
    patch = np.zeros((16, 21), int)
    for number, piece in enumerate(slow_pieces(np.hypot(*field.numpy()) < 2.5), start=1):
        patch[tuple(np.transpose(piece))] = number
    assert np.array_equal(clusters_of(field, ends).numpy(), patch[ends[0], ends[1]])
    assert patch.max() > 1


def test_instance_maps_are_the_pieces_with_mass() -> None:
    cluster = torch.tensor([[0, 0, 1], [2, 2, 1]])
    cams = torch.tensor([[[0.0, 0.4, 0.0], [0.2, 0.1, 0.0]], [[0.0, 0.0, 0.9], [0.0, 0.0, 0.3]]])
    ((maps, classes, kept),) = instance_maps([cams], [cluster], [3])
    assert list(zip(classes.tolist(), kept.tolist(), strict=True)) == [(0, 0), (0, 2), (1, 1)]
    assert torch.equal(maps[0] + maps[1], cams[0])
    assert torch.equal(maps[2], cams[1])
    assert torch.equal(maps * (cluster == torch.from_numpy(kept)[:, None, None]), maps)
    ((_, classes, _),) = instance_maps([cams], [cluster], [5], floor=0.3)
    assert classes.tolist() == [0, 1]


def test_maps_without_mass_give_no_instance_maps() -> None:
    ((maps, classes, kept),) = instance_maps(
        [torch.zeros(2, 4, 5)], [torch.zeros(4, 5, dtype=torch.int64)], [1]
    )
    assert maps.shape == (0, 4, 5)
    assert classes.tolist() == kept.tolist() == []


@pytest.mark.parametrize("seed", range(4))
def test_fragments_match_a_loop_over_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = np.kron(rng.random((4, 6, 7)), np.ones((1, 3, 3))).astype(np.float32)
    classes = [7, 3, 3, 0]
    found = extract_instances(
        torch.from_numpy(maps), classes, maps.shape[1:], threshold=0.6, min_area=0.03
    )
    winner = np.concatenate([np.full((1, *maps.shape[1:]), 0.6, np.float32), maps]).argmax(0)
    expected = [
        (piece, classes[m], maps[m][tuple(np.transpose(piece))].max())
        for m in range(4)
        for piece in slow_pieces(winner == m + 1)
        if len(piece) >= 0.03 * winner.size
    ]
    expected.sort(key=lambda item: min(item[0]))
    assert len(expected) > 3
    assert found.instances.dtype == np.uint16
    assert found.classes.dtype == np.uint8
    assert found.scores.dtype == np.float32
    assert found.classes.tolist() == [cls for _, cls, _ in expected]
    assert found.scores.tolist() == [score for *_, score in expected]
    canvas = np.zeros_like(found.instances)
    for number, (piece, *_) in enumerate(expected, start=1):
        canvas[tuple(np.transpose(piece))] = number
    assert (found.instances == canvas).all()


@pytest.mark.defect("irn-22")
def test_small_fragments_are_dropped_not_kept_without_score() -> None:
    maps = torch.zeros(1, 20, 20)
    maps[0, 2:8, 2:8] = 1.0
    maps[0, 15, 15:18] = 0.9
    found = extract_instances(maps, [2], (20, 20))
    assert found.scores.tolist() == [1.0]
    assert (found.instances > 0).sum() == 36
    assert len(extract_instances(maps, [2], (20, 20), min_area=0).scores) == 2


@pytest.mark.defect("irn-11")
@pytest.mark.parametrize("maps", [torch.zeros(0, 6, 7), torch.zeros(2, 6, 7)])
def test_nothing_above_the_background_is_no_instance(maps: Tensor) -> None:
    found = extract_instances(maps, [1] * len(maps), (6, 7))
    assert found.instances.shape == (6, 7)
    assert not found.instances.any()
    assert len(found.classes) == len(found.scores) == 0


def test_maps_may_come_one_by_one_and_classes_go_up_to_253() -> None:
    maps = torch.rand(3, 12, 13, generator=torch.Generator().manual_seed(0))
    whole = extract_instances(maps, torch.tensor([253, 0, 21]), (12, 13), min_area=0)
    piecewise = extract_instances((m for m in maps), [253, 0, 21], (12, 13), min_area=0)
    assert set(whole.classes.tolist()) == {253, 0, 21}
    for ours, theirs in zip(whole, piecewise, strict=True):
        assert (ours == theirs).all()


def test_background_wins_at_the_threshold_and_the_first_of_equal_maps_wins() -> None:
    maps = torch.full((2, 4, 4), 0.25)
    assert not extract_instances(maps, [5, 6], (4, 4), threshold=0.25).instances.any()
    assert extract_instances(maps, [5, 6], (4, 4), threshold=0.2).classes.tolist() == [5]


def test_bad_maps_are_refused() -> None:
    maps = torch.ones(2, 4, 4)
    with pytest.raises(ValueError, match="2 maps came with 1 classes"):
        extract_instances(maps, [0], (4, 4))
    with pytest.raises(ValueError, match="map 0 is"):
        extract_instances(maps, [0, 1], (8, 8))
    with pytest.raises(ValueError, match="hold nan"):
        extract_instances(maps / torch.zeros(4, 4) * 0, [0, 1], (4, 4))
