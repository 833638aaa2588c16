"""Pseudo-labels: linearity, normalization, walls, empty images, small fragments, batches, and two
objects of one class.
"""

import numpy as np
import pytest
import torch

from pipeline.core.artifacts import LAYOUTS, Record
from pipeline.irnet.instances import centroid_regions
from pipeline.irnet.walk import random_walk
from pipeline.labelling.pseudo_labels import Evidence, Walked, pseudo_labels, walk_instances
from pipeline.labelling.seeds import upsample

CPU = torch.device("cpu")
WALK = {"radius": 5, "beta": 10.0, "steps": 64}
CENTROIDS = {"iterations": 60}
WEAK = 2.5


def walked(*evidence: Evidence) -> list[Walked]:
    return walk_instances(evidence, CPU, **WALK, **CENTROIDS)  # type: ignore[arg-type]


def labels(item: Walked, **options: object) -> Record:
    settings = {"background": 0.25, "normalize": "class", "min_area": 0.01, "cut": 1.0} | options
    return pseudo_labels(item, **settings)  # type: ignore[arg-type]


def evidence(
    cams: np.ndarray,
    ids: list[int],
    boundary: np.ndarray | None = None,
    displacement: np.ndarray | None = None,
    size: tuple[int, int] | None = None,
) -> Evidence:
    h, w = cams.shape[1:]
    field = (np.zeros((2, h, w)) if displacement is None else displacement).astype(np.float16)
    return Evidence(
        cams.astype(np.float16),
        np.array(ids, np.uint8),
        (np.full((h, w), 0.1) if boundary is None else boundary).astype(np.float16),
        field,
        centroid_regions(field, WEAK),
        size or (4 * h, 4 * w),
    )


def random_evidence(h: int, w: int, ids: list[int], seed: int = 0) -> Evidence:
    """Smooth class maps, boundaries and displacements that make several clusters."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w] / max(h, w)
    wave = [
        np.sin(x * rng.uniform(5, 9) + y * rng.uniform(5, 9) + rng.uniform(0, 6)) for _ in range(6)
    ]
    cams = np.stack([np.clip(np.roll(wave[0], 3 * k, 1), 0, 1) for k in range(len(ids))])
    return evidence(
        cams,
        ids,
        np.exp(-((wave[1] / 0.2) ** 2)) * 0.9,
        6 * np.stack(wave[2:4]),
        (4 * h - 3, 4 * w - 1),
    )


def test_semantic_labels_are_those_of_walked_class_maps() -> None:
    """The walk is linear: the sum over a class's clusters is the walk of the class map, as
    published.
    """
    item = random_evidence(20, 26, [4, 11])
    (pieces,) = walked(item)
    assert len(pieces.maps) > 2  # else there is no sum to test
    boundary, cams = (torch.tensor(np.asarray(a, np.float32)) for a in (item.boundary, item.cams))
    (direct,) = random_walk([boundary], [cams], **WALK)
    for k, class_id in enumerate((4, 11)):
        summed = pieces.maps[pieces.classes == class_id].sum(0)
        assert np.abs(summed - direct[k].numpy()).max() < 1e-4
    full = upsample(direct.numpy(), item.size)
    scores = full / full.max((1, 2), keepdims=True)
    expected = np.where(scores.max(0) > 0.25, np.array([5, 12])[scores.argmax(0)], 0)
    clear = (np.abs(np.diff(scores, axis=0)[0]) > 1e-3) & (np.abs(scores.max(0) - 0.25) > 1e-3)
    assert clear.mean() > 0.95
    result = labels(pieces)["semantic"]
    assert (result == expected)[clear].all()
    assert set(np.unique(result).tolist()) == {0, 5, 12}


def strong_and_weak() -> Evidence:
    """Two classes apart, the second at a fifth of the first."""
    cams = np.zeros((2, 16, 24))
    cams[0, 3:9, 2:8], cams[1, 6:12, 15:21] = 1.0, 0.2
    wall = np.zeros((16, 24))
    wall[:, 11:13] = 1
    return evidence(cams, [0, 9], wall)


@pytest.mark.defect("irn-17")
def test_a_weak_class_survives_under_its_own_maximum() -> None:
    (pieces,) = walked(strong_and_weak())
    own, joint = (labels(pieces, normalize=kind) for kind in ("class", "image"))
    assert set(np.unique(own["semantic"]).tolist()) == {0, 1, 10}
    assert own["classes"].tolist() == [0, 9]
    assert set(np.unique(joint["semantic"]).tolist()) == {0, 1}
    assert joint["classes"].tolist() == [0]
    assert own["scores"] == pytest.approx([1, 1], abs=1e-5)


def test_the_scale_of_a_class_map_does_not_matter_under_class() -> None:
    (pieces,) = walked(strong_and_weak())
    scaled = Walked(
        pieces.maps * np.where(pieces.classes == 9, 1e-3, 7.0)[:, None, None].astype("f4"),
        pieces.classes,
        pieces.boundary,
        pieces.size,
    )
    for key, value in labels(pieces).items():
        assert np.allclose(labels(scaled)[key], value, atol=1e-5), key


def test_walls_keep_masks_inside() -> None:
    wall = np.full((20, 24), 0.02)
    wall[4:17, [5, 18]] = wall[[4, 16], 5:19] = 1
    cams = np.zeros((1, 20, 24))
    cams[0, 9:11, 10:12] = 1
    (pieces,) = walked(evidence(cams, [3], wall))
    semantic = labels(pieces, background=0.02)["semantic"]
    inside = np.zeros((80, 96), bool)
    inside[4 * 4 : 4 * 17, 4 * 5 : 4 * 19] = True
    assert (semantic[~inside] == 0).all()
    assert (semantic[4 * 6 : 4 * 15, 4 * 7 : 4 * 17] == 4).all()


@pytest.mark.defect("irn-11", "irn-7")
@pytest.mark.parametrize("ids", [[], [2], [2, 7]])
def test_without_any_evidence_all_is_background(ids: list[int]) -> None:
    (pieces,) = walked(evidence(np.zeros((len(ids), 9, 13)), ids, size=(33, 50)))
    for normalize in ("class", "image"):
        record = labels(pieces, normalize=normalize)
        assert record["semantic"].shape == record["instances"].shape == (33, 50)
        assert not record["semantic"].any()
        assert not record["instances"].any()
        assert len(record["classes"]) == len(record["scores"]) == 0
        for name, (_, rank) in (LAYOUTS["labels"].datasets | LAYOUTS["labels"].attributes).items():
            assert record[name].ndim == rank


@pytest.mark.defect("irn-15")
def test_an_empty_class_beside_another_is_left_out() -> None:
    cams = np.zeros((2, 12, 12))
    cams[1, 4:8, 4:8] = 1
    (pieces,) = walked(evidence(cams, [6, 8]))
    record = labels(pieces)
    assert set(np.unique(record["semantic"]).tolist()) <= {0, 9}
    assert record["semantic"].any()
    assert record["classes"].tolist() == [8]


@pytest.mark.defect("irn-22")
def test_fragments_below_the_area_are_dropped_and_not_scored_zero() -> None:
    maps = np.zeros((1, 20, 20), np.float32)
    maps[0, 2:12, 2:12], maps[0, 17, 17] = 1.0, 1.0
    item = Walked(maps, np.array([5], np.uint8), np.zeros((20, 20), np.float16), (80, 80))
    every, large = labels(item, min_area=0.0), labels(item, min_area=0.01)
    assert every["classes"].tolist() == [5, 5]
    assert large["classes"].tolist() == [5]
    assert (every["scores"] > 0).all()
    assert (large["scores"] > 0.25).all()
    assert set(np.unique(large["instances"]).tolist()) == {0, 1}
    assert (large["instances"] > 0).sum() < (every["instances"] > 0).sum()


def test_batched_equals_single_for_unequal_sizes() -> None:
    batch = [
        random_evidence(20, 26, [1, 3], 1),
        evidence(np.zeros((0, 7, 9)), []),
        random_evidence(9, 31, [0], 2),
        random_evidence(33, 12, [0, 1, 2], 3),
    ]
    together = walked(*batch)
    for item, joint in zip(batch, together, strict=True):
        (alone,) = walked(item)
        assert joint.size == alone.size == item.size
        assert (joint.classes == alone.classes).all()
        assert np.abs(joint.maps - alone.maps).max(initial=0) < 1e-5
        for key, value in labels(alone).items():
            assert (labels(joint)[key] == value).mean() > 0.999 if value.size else True, key


def touching_pair() -> tuple[np.ndarray, np.ndarray]:
    """One blob of a class map over two objects, and a field that leads either half to its own
    middle.
    """
    cams = np.zeros((1, 16, 32))
    cams[0, 4:12, 4:28] = 1
    y, x = np.mgrid[:16, :32].astype(float)
    center = np.where(x < 16, 9.5, 21.5)
    return cams, np.stack([7.5 - y, center - x])


def test_two_objects_of_one_class_are_told_apart_by_their_displacement() -> None:
    cams, displacement = touching_pair()
    (one,) = walked(evidence(cams, [2]))
    (two,) = walked(evidence(cams, [2], displacement=displacement))
    assert len(labels(one)["classes"]) == 1
    record = labels(two)
    assert record["classes"].tolist() == [2, 2]
    ids = record["instances"]
    left, right = (np.bincount(ids[:, part][ids[:, part] > 0]) for part in (np.s_[:60], np.s_[68:]))
    assert left.argmax() != right.argmax()
    assert left.max() > 0.9 * left.sum()
    assert right.max() > 0.9 * right.sum()
    assert (labels(one)["semantic"] == record["semantic"]).mean() > 0.99


def two_touching(strength: float) -> Walked:
    """Two objects of class 5 under one map, side by side, with a boundary between them that is
    strong above and weak below.
    """
    maps, boundary = np.zeros((1, 20, 30), np.float32), np.full((20, 30), 0.02, np.float16)
    maps[0, 4:16, 3:27] = 1
    boundary[:, 14:16] = strength
    return Walked(maps, np.array([5], np.uint8), boundary, (80, 120))


def test_objects_are_parted_where_the_boundary_is_strong_enough() -> None:
    whole = labels(two_touching(0.5))
    assert len(whole["classes"]) == 1
    for cut, count in ((0.3, 2), (0.7, 1), (1.0, 1)):
        found = labels(two_touching(0.5), cut=cut)
        assert found["classes"].tolist() == [5] * count
        assert found["scores"].tolist() == [1.0] * count
        assert ((found["instances"] > 0) == (whole["instances"] > 0)).all(), (
            "all of the object stays"
        )
        assert (found["semantic"] == whole["semantic"]).all()
    parted = labels(two_touching(0.5), cut=0.3)["instances"]
    assert set(np.unique(parted[:, :56])) == {0, 1}
    assert set(np.unique(parted[:, 64:])) == {0, 2}
