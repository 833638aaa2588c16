"""The walk on the similarity of features: its matrix, which cells it joins, and where maps lie."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.core.artifacts import Record, validate_record
from pipeline.irnet.similarity import (
    similarity_input,
    similarity_walk,
    transitions,
    walk_by_similarity,
)


def two_regions(rows: int, columns: int, noise: float = 0.0) -> Tensor:
    """Features [8,rows,columns] of two regions, left and right of the middle."""
    generator = torch.Generator().manual_seed(0)
    features = noise * torch.randn(8, rows, columns, generator=generator)
    features[0, :, : columns // 2] += 1
    features[1, :, columns // 2 :] += 1
    return features


def test_transitions_are_the_equation() -> None:
    features = torch.randn(5, 2, 3, dtype=torch.float64)
    cells = features.flatten(1).T.numpy()
    cells = cells - cells.mean(0)
    expected = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            cosine = cells[i] @ cells[j] / np.linalg.norm(cells[i]) / np.linalg.norm(cells[j])
            expected[i, j] = max(0.0, cosine) ** 3
    expected /= expected.sum(0)
    assert np.allclose(transitions(features, beta=3).numpy(), expected)


@pytest.mark.parametrize("steps", [1, 5])
def test_seed_fills_its_region_and_no_other(steps: int) -> None:
    seed = torch.zeros(1, 24, 32)
    seed[:, 8:12, 4:8] = 1
    walked = similarity_walk(seed, two_regions(6, 8), 4, beta=1, steps=steps)
    assert walked[..., :12].std() < 1e-6
    assert walked[..., :12].min() > 0.01
    assert walked[..., 20:].max() == 0


@pytest.mark.parametrize(("ratio", "grid"), [(4, (3, 5)), (2, (6, 9))])
def test_constant_map_stays_constant_of_any_size(ratio: int, grid: tuple[int, int]) -> None:
    """Whose last cells reach beyond the image."""
    features = torch.randn(6, *grid)
    walked = similarity_walk(torch.full((1, 11, 18), 0.7), features, ratio, beta=4, steps=3)
    assert walked.shape == (1, 11, 18)
    assert torch.allclose(walked, torch.tensor(0.7), atol=1e-5)


def test_flipped_image_has_flipped_maps() -> None:
    maps, features = torch.rand(2, 12, 16), two_regions(3, 4, noise=0.3)
    straight = similarity_walk(maps, features, 4, beta=2, steps=3)
    flipped = similarity_walk(maps.flip(2), features.flip(2), 4, beta=2, steps=3)
    assert torch.allclose(straight, flipped.flip(2), atol=1e-5)


def test_cells_without_contrast_keep_their_values() -> None:
    maps = torch.rand(1, 8, 8)
    walked = similarity_walk(maps, torch.ones(4, 2, 2), 4, beta=2, steps=3)
    assert torch.allclose(walked, similarity_walk(maps, torch.ones(4, 2, 2), 4, beta=2, steps=0))


def test_records_of_a_batch_are_those_of_its_images() -> None:
    generator, batch = np.random.default_rng(0), []
    for height, width, classes in ((45, 70, 2), (16, 16, 0), (33, 17, 1)):
        cells, grid = [[-(-side // s) for side in (height, width)] for s in (4, 16)]
        cams: Record = {
            "cams": generator.random((classes, *cells)).astype(np.float16),
            "labels": np.arange(classes, dtype=np.uint8),
            "size": np.array([height, width], np.int32),
        }
        features = generator.normal(size=(6, *grid)).astype(np.float16)
        stored: Record = {"features": features, "stride": np.array([16], np.int32)}
        batch.append(similarity_input(cams, stored))
    cpu = torch.device("cpu")
    together = walk_by_similarity(batch, cpu, beta=2, steps=2, background=3)
    for item, record in zip(batch, together, strict=True):
        (alone,) = walk_by_similarity([item], cpu, beta=2, steps=2, background=3)
        validate_record("walk", record)
        assert all(np.array_equal(record[key], alone[key]) for key in record)
        assert record["maps"].shape == item.cams.shape
        assert record["classes"].tolist() == item.labels.tolist()
