"""The walk against published results and a dense power, and what holds for any image."""

from math import exp, lgamma, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.irnet import walk
from pipeline.irnet.paths import directions, line_cells
from pipeline.irnet.walk import background_seeds, chebyshev_coefficients, groups, random_walk

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def random_image(height: int, width: int, maps: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(height, width, generator=generator) ** 3, torch.rand(
        maps, height, width, generator=generator
    )


def dense_affinities(boundary: np.ndarray, radius: int) -> np.ndarray:
    height, width = boundary.shape
    matrix = np.eye(height * width)
    for y, x in np.ndindex(height, width):
        for dy, dx in directions(radius):
            if y + dy < height and 0 <= x + dx < width:
                a = 1 - max(boundary[y + v, x + u] for v, u in line_cells(dy, dx))
                i, j = y * width + x, (y + dy) * width + x + dx
                matrix[i, j] = matrix[j, i] = a
    return matrix


def dense_walk(boundary: Tensor, maps: Tensor, radius: int, beta: float, steps: int) -> np.ndarray:
    edge, x = boundary.double().numpy(), maps.double().numpy()
    powers = dense_affinities(edge, radius) ** beta
    transition = np.linalg.matrix_power(powers / powers.sum(0), steps)
    return ((x * (1 - edge)).reshape(len(x), -1) @ transition).reshape(x.shape)


def single(boundary: Tensor, maps: Tensor, **options: Any) -> Tensor:
    (result,) = random_walk([boundary], [maps], **options)
    return result


@pytest.mark.parametrize("size", ["32x32", "64x64", "94x125"])
def test_golden_walks(size: str) -> None:
    golden = np.load(GOLDEN / f"walk_{size}.npz")
    result = single(torch.tensor(golden["edge"]), torch.tensor(golden["x"])).numpy()
    expected = golden["rw"].reshape(result.shape)
    assert np.abs(result - expected).max() < 2e-4 * expected.max()
    assert (result.argmax(0) == expected.argmax(0)).all()


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 7, 64, 129])
@pytest.mark.parametrize(("radius", "beta"), [(2, 10.0), (3, 1.0), (5, 20.0), (6, 4.5)])
def test_any_length_radius_and_beta_against_a_matrix_power(
    steps: int, radius: int, beta: float
) -> None:
    boundary, maps = random_image(9, 7, seed=steps)
    result = single(boundary, maps, radius=radius, beta=beta, steps=steps)
    expected = dense_walk(boundary, maps, radius, beta, steps)
    assert result.dtype == torch.float32
    assert np.abs(result.numpy() - expected).max() < 5e-5 * expected.max()


def test_float64_boundary_is_walked_in_float64() -> None:
    boundary, maps = random_image(8, 9)
    result = single(boundary.double(), maps.double(), tolerance=1e-14)
    np.testing.assert_allclose(result, dense_walk(boundary, maps, 5, 10.0, 256), rtol=1e-11)


@pytest.mark.parametrize("steps", [1, 31, 256])
def test_without_boundaries_a_constant_stays(steps: int) -> None:
    result = single(torch.zeros(20, 17), torch.full((1, 20, 17), 0.5), steps=steps)
    assert torch.equal(result, torch.full_like(result, 0.5))


@pytest.mark.parametrize("steps", [1, 16, 256])
def test_values_stay_within_the_seeds(steps: int) -> None:
    boundary, maps = random_image(30, 22)
    seeds = (maps * (1 - boundary)).flatten(1)
    result = single(boundary, maps, steps=steps).flatten(1)
    assert (result.amax(1) <= seeds.amax(1)).all()
    assert (result.amin(1) >= seeds.amin(1)).all()


def test_nothing_crosses_a_wall_and_walls_keep_themselves() -> None:
    boundary, maps = torch.zeros(12, 20), torch.zeros(1, 12, 20)
    boundary[:, 9] = 1
    maps[:, :, :10] = 1
    result = single(boundary, maps)
    assert not result[..., 9:].any()
    torch.testing.assert_close(result[..., :9], torch.ones(1, 12, 9), rtol=0, atol=1e-5)


def test_all_boundary_is_all_zero_and_never_nan() -> None:
    assert torch.equal(single(torch.ones(6, 7), torch.ones(3, 6, 7)), torch.zeros(3, 6, 7))


@pytest.mark.defect("irn-15")
def test_all_zero_maps_stay_zero() -> None:
    boundary, maps = random_image(8, 8)
    assert torch.equal(single(boundary, torch.zeros_like(maps)), torch.zeros_like(maps))


@pytest.mark.parametrize("at_once", [1, 10**9])
def test_batched_equals_single(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(walk, "VALUES_AT_ONCE", {"cpu": at_once})
    images = [
        random_image(9, 14, 2, 1),
        random_image(21, 5, 0, 2),
        random_image(1, 1, 1, 3),
        random_image(13, 13, 4),
    ]
    boundaries, maps = zip(*images, strict=True)
    results = random_walk(boundaries, maps)
    assert [result.shape for result in results] == [stack.shape for stack in maps]
    for (boundary, stack), result in zip(images, results, strict=True):
        torch.testing.assert_close(result, single(boundary, stack), rtol=1e-6, atol=1e-7)


def test_half_precision_is_walked_in_float32() -> None:
    boundary, maps = (tensor.half() for tensor in random_image(8, 9))
    result = single(boundary, maps)
    assert result.dtype == torch.float32
    assert torch.equal(result, single(boundary.float(), maps.float()))


def test_coefficients_of_the_longest_walk_are_those_of_the_binomial() -> None:
    found = chebyshev_coefficients(65536, 1e-6)
    expected = [0.0 if j % 2 else 2 * exp(log_share(65536, j)) for j in range(len(found))]
    expected[0] /= 2
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    assert sum(found) == pytest.approx(1, abs=1e-9), "constant maps stay as they are"


def log_share(steps: int, degree: int) -> float:
    """Return the logarithm of 2^-steps binom(steps, (steps - degree) / 2)."""
    ways = lgamma(steps + 1) - lgamma((steps - degree) / 2 + 1) - lgamma((steps + degree) / 2 + 1)
    return ways - steps * log(2)


@pytest.mark.parametrize("limit", [0, 2**30])
def test_threads_change_no_bit_and_are_left_as_they_were(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    boundary, maps = torch.rand(120, 150), torch.rand(4, 120, 150)
    before = torch.get_num_threads()
    (expected,) = random_walk([boundary], [maps], steps=16)
    try:
        torch.set_num_threads(3)
        monkeypatch.setattr(walk, "ONE_THREAD", limit)
        (found,) = random_walk([boundary], [maps], steps=16)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([], []),
        ([(1, 50, 50)], [(0, 1)]),
        ([(1, 5, 4), (1, 4, 5), (1, 6, 10)], [(0, 3)]),
        ([(1, 5, 4), (1, 9, 9), (1, 1, 1)], [(0, 1), (1, 3)]),
        ([(1, 5, 4), (4, 5, 4), (1, 5, 4)], [(0, 1), (1, 2), (2, 3)]),
        ([(2, 5, 4), (2, 5, 4), (2, 5, 4)], [(0, 2), (2, 3)]),
        ([(0, 5, 4), (0, 5, 4), (0, 5, 12)], [(0, 3)]),
    ],
)
def test_ranges_take_what_fits_and_at_least_one(
    shapes: list[tuple[int, int, int]],
    expected: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(walk, "VALUES_AT_ONCE", {"cpu": 100})
    found = list(groups([torch.zeros(shape) for shape in shapes]))
    assert [(part.start, part.stop) for part in found] == expected


def test_background_seeds_are_what_the_highest_class_leaves() -> None:
    maps = torch.tensor([[[0.0, 0.5]], [[0.2, 0.1]]])
    torch.testing.assert_close(background_seeds(maps, 2), torch.tensor([[[0.64, 0.25]]]))
    assert (background_seeds(maps[:0], 2) == 1).all()
    assert background_seeds(maps[:0], 2).shape == (1, 1, 2)
