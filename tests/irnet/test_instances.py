"""Instance-wise CAMs: centroids, clusters and their walk, against slow loops and drawn images."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from pipeline.irnet import instances, walk
from pipeline.irnet.instances import centroid_regions, centroids, clusters, instance_maps
from pipeline.irnet.walk import random_walk
from tests.support.walks import WALK, item, random_item, walked


def ends_of(field: Tensor, iterations: int = 300) -> Tensor:
    (ends,) = centroids([field], iterations)
    return ends


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


def slow_centroids(field: Tensor, iterations: int) -> np.ndarray:
    """One cell, one step, one component at a time."""
    d = field.numpy()
    _, height, width = d.shape
    ends: np.ndarray = np.zeros((2, height, width), np.float32)
    for start in np.ndindex(height, width):
        y, x = (np.float32(value) for value in start)
        for _ in range(iterations):
            y0, x0 = int(y), int(x)
            y1, x1, v, u = (
                min(y0 + 1, height - 1),
                min(x0 + 1, width - 1),
                y - np.float32(y0),
                x - np.float32(x0),
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
            y = min(max(y + step[0], np.float32(0)), np.float32(height - 1))
            x = min(max(x + step[1], np.float32(0)), np.float32(width - 1))
        ends[:, start[0], start[1]] = y, x
    return np.rint(ends).astype(np.int64)


@pytest.mark.parametrize(("iterations", "seed"), [(0, 0), (1, 1), (7, 2), (60, 3), (60, 4)])
def test_centroids_match_a_loop_over_cells(iterations: int, seed: int) -> None:
    field = random_field(11, 14, seed)
    assert (ends_of(field, iterations).numpy() == slow_centroids(field, iterations)).all()


@pytest.mark.parametrize("check", [1, 3, 10**6])
def test_dropping_resting_cells_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, check: int
) -> None:
    field = 0.4 * field_to([(5.0, 6.0), (20.0, 30.0)], 25, 37)
    field[:, 12:16] = random_field(4, 37, 6)
    expected = ends_of(field)
    monkeypatch.setattr(instances, "RESTING_CHECK", check)
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


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_the_regions_where_cells_rest(seed: int) -> None:
    field = random_field(16, 21, seed, strength=4)
    ends = ends_of(field, 20)
    region, count = ndimage.label(np.hypot(*field.numpy()) < 2.5)
    found = clusters(torch.from_numpy(centroid_regions(field.numpy())), ends)
    assert np.array_equal(found, region[ends[0], ends[1]])
    assert count > 1


def test_instance_maps_are_the_pieces_with_mass() -> None:
    cluster = torch.tensor([[0, 0, 1], [2, 2, 1]])
    cams = torch.tensor([[[0.0, 0.4, 0.0], [0.2, 0.1, 0.0]], [[0.0, 0.0, 0.9], [0.0, 0.0, 0.3]]])
    ((maps, classes),) = instance_maps([cams], [cluster], [3])
    assert classes.tolist() == [0, 0, 1]
    assert torch.equal(maps, cams[classes] * (cluster == torch.tensor([0, 2, 1])[:, None, None]))


def test_walked_pieces_of_a_class_sum_to_its_walked_map() -> None:
    """The walk is linear; the published code walks class maps and instance maps separately."""
    given = random_item(20, 26, [4, 11])
    (record,) = walked(given)
    assert len(record["maps"]) > 2  # else there is no sum to test
    boundary, cams = (torch.tensor(np.asarray(a, np.float32)) for a in (given.boundary, given.cams))
    options = {name: WALK[name] for name in ("radius", "beta", "steps")}
    (direct,) = random_walk([boundary], [cams], **options)  # type: ignore[arg-type]
    for k, class_id in enumerate((4, 11)):
        summed = record["maps"][record["classes"] == class_id].astype(np.float32).sum(0)
        assert np.abs(summed - direct[k].numpy()).max() < 1e-3


def test_batched_equals_single_for_unequal_sizes() -> None:
    batch = [
        random_item(20, 26, [1, 3], 1),
        item(np.zeros((0, 7, 9)), []),
        random_item(9, 31, [0], 2),
        random_item(33, 12, [0, 1, 2], 3),
    ]
    for given, joint in zip(batch, walked(*batch), strict=True):
        (alone,) = walked(given)
        assert (joint["size"] == given.size).all()
        assert (joint["classes"] == alone["classes"]).all()
        assert joint["maps"].dtype == np.float16
        difference = joint["maps"].astype(np.float32) - alone["maps"]
        assert np.abs(difference).max(initial=0) < 1e-3
