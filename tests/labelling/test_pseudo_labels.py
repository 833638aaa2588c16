"""Pseudo-labels of walked maps: normalization, precision, empty images, touching objects."""

from typing import get_args

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from pipeline.core.artifacts import Record, validate_record
from pipeline.irnet.instances import WalkInput
from pipeline.irnet.walk import random_walk
from pipeline.labelling import upsample
from pipeline.labelling.pseudo_labels import Normalize, class_maps, pseudo_labels
from pipeline.metrics.semantic import Confusion
from tests.support.walks import WALK, item, random_item, walked

NORMALIZE: tuple[Normalize, ...] = get_args(Normalize)
MAPS = ("maps", "background")


def labels(walk: Record, boundary: np.ndarray | None = None, **options: object) -> Record:
    """Return the pseudo-labels of a record of walk.h5."""
    settings = {
        "background": 0.25,
        "normalize": "class",
        "min_area": 0.01,
        "boundary_threshold": 1.0,
    } | options
    boundary = np.zeros(walk["maps"].shape[1:]) if boundary is None else boundary
    return pseudo_labels(walk, boundary, **settings)  # type: ignore[arg-type]


def walk_record(maps: np.ndarray, classes: list[int]) -> Record:
    """Return a record of walk.h5 of an image of whole cells."""
    size = np.array([4 * side for side in maps.shape[1:]], np.int32)
    rest = np.zeros(maps.shape[1:], "f2")
    return {
        "maps": maps.astype("f2"),
        "background": rest,
        "classes": np.array(classes, "u1"),
        "size": size,
    }


def miou(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the mIoU of a label map against another."""
    confusion = Confusion([str(number) for number in range(20)])
    confusion.add(expected, found)
    return confusion.miou


def test_semantic_labels_are_those_of_walked_class_maps() -> None:
    """As published, though the maps are stored by instance and in half precision."""
    given = random_item(20, 26, [4, 11])
    (record,) = walked(given)
    boundary, cams = (torch.tensor(np.asarray(a, np.float32)) for a in (given.boundary, given.cams))
    options = {name: WALK[name] for name in ("radius", "beta", "steps")}
    (direct,) = random_walk([boundary], [cams], **options)  # type: ignore[arg-type]
    whole = {**record, "maps": direct.numpy(), "classes": given.labels}
    for normalize in NORMALIZE:
        found, expected = (labels(r, normalize=normalize) for r in (record, whole))
        bound = 0.999 if normalize == "class" else 0.998
        assert miou(found["semantic"], expected["semantic"]) > bound


def three_objects(seed: int) -> tuple[WalkInput, np.ndarray]:
    """Return the walk's input of three drawn objects, with noise, and their label map."""
    rng, cells = np.random.default_rng(seed), np.zeros((40, 50), np.uint8)
    cells[4:20, 3:18], cells[22:36, 8:30], cells[6:30, 32:46] = 1, 8, 4
    inside = [cells == label for label in (1, 8, 4)]
    cams = np.stack([gaussian_filter(mask * rng.random(mask.shape), 2) for mask in inside])
    edges = np.hypot(*np.gradient((cells > 0).astype(float))) > 0
    boundary = np.clip(edges * 0.8 + 0.15 * rng.random(cells.shape), 0, 1)
    truth = cells.repeat(4, 0).repeat(4, 1)
    return item(cams / cams.max(), [0, 7, 3], boundary), truth


@pytest.mark.parametrize("seed", range(4))
def test_half_precision_costs_less_than_a_tenth_of_a_point_of_miou(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps in walk.h5 are f2; compared with the labels of maps that are not rounded."""
    given, truth = three_objects(seed)
    (rounded,) = walked(given)
    monkeypatch.setattr(np, "float16", np.float32)
    (exact,) = walked(given)
    assert (rounded["maps"].dtype, exact["maps"].dtype) == ("f2", "f4")
    for normalize in NORMALIZE:
        found, expected = (labels(r, normalize=normalize) for r in (rounded, exact))
        score = miou(found["semantic"], truth)
        assert 0.3 < score < 1
        assert abs(score - miou(expected["semantic"], truth)) < 0.001
        assert found["classes"].tolist() == expected["classes"].tolist()


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_class_maps_are_what_is_thresholded(normalize: Normalize) -> None:
    (record,) = walked(random_item(20, 26, [4, 11]))
    maps, classes = class_maps(record, normalize)
    assert classes.tolist() == [4, 11]
    assert maps.shape == (2, 77, 103)
    assert maps.min() >= 0
    table = np.array([0, 5, 12], np.uint8)
    stacked = np.concatenate([np.full((1, *maps.shape[1:]), 0.25, np.float32), maps])
    assert (labels(record, normalize=normalize)["semantic"] == table[stacked.argmax(0)]).all()


def test_scale_of_a_class_map_does_not_matter_under_class() -> None:
    (record,) = walked(strong_and_weak())
    factors = np.where(record["classes"] == 9, 2.0**-6, 4.0)[:, None, None]
    scaled = {**record, "maps": (record["maps"] * factors).astype("f2")}
    for key, value in labels(record).items():
        assert np.allclose(labels(scaled)[key], value, atol=1e-3), key


def two_touching(strength: float) -> tuple[Record, np.ndarray]:
    """Return one map over two objects of class 5, side by side, and a boundary between them."""
    maps, boundary = np.zeros((1, 20, 30)), np.full((20, 30), 0.02, np.float16)
    maps[0, 4:16, 3:27] = 1
    boundary[:, 14:16] = strength
    return walk_record(maps, [5]), boundary


def strong_and_weak() -> WalkInput:
    """Two classes apart, the second at a fifth of the first."""
    cams = np.zeros((2, 16, 24))
    cams[0, 3:9, 2:8], cams[1, 6:12, 15:21] = 1.0, 0.2
    wall = np.zeros((16, 24))
    wall[:, 11:13] = 1
    return item(cams, [0, 9], wall)


@pytest.mark.defect("irn-17")
def test_weak_class_survives_under_its_own_maximum() -> None:
    (pieces,) = walked(strong_and_weak())
    own, joint = (labels(pieces, normalize=kind) for kind in ("class", "image"))
    assert set(np.unique(own["semantic"]).tolist()) == {0, 1, 10}
    assert own["classes"].tolist() == [0, 9]
    assert set(np.unique(joint["semantic"]).tolist()) == {0, 1}
    assert joint["classes"].tolist() == [0]
    assert own["scores"] == pytest.approx([0.975, 0.975], abs=1e-3)


def test_a_region_wins_where_its_seeds_outweigh_the_background() -> None:
    """Behind walls, the walk averages seeds: a half-covered body under a covered head is the
    object's when compared with the background's average, but below half of the class's maximum.
    """
    wall, cams = np.full((24, 24), 0.02), np.zeros((1, 24, 24))
    wall[[3, 8, 19], 4:20] = wall[3:20, [4, 19]] = 1
    cams[0, 4:8, 5:19], cams[0, 9:19, 5:19] = 0.9, 0.4
    (pieces,) = walked(item(cams, [2], wall))
    compared = labels(pieces, normalize="background", background=0.5)["semantic"]
    cut = labels(pieces, background=0.5)["semantic"]
    head, body, rest = np.s_[20:30, 24:72], np.s_[40:72, 24:72], np.s_[84:, :]
    assert (compared[head] == 3).all()
    assert (compared[body] == 3).all()
    assert (compared[rest] == 0).all()
    assert (cut[head] == 3).all()
    assert (cut[body] == 0).all()


def test_half_is_the_argmax_over_classes_and_background() -> None:
    (record,) = walked(random_item(20, 26, [4]))
    maps, rest = (upsample(record[key].reshape(-1, 20, 26), (77, 103)) for key in MAPS)
    total = maps.sum(0) / maps.sum(0).max()
    found = labels(record, normalize="background", background=0.5)["semantic"]
    assert 0.1 < (found > 0).mean() < 0.9
    assert np.array_equal(found > 0, total > rest[0])


@pytest.mark.defect("irn-11", "irn-7")
@pytest.mark.parametrize("ids", [[], [2], [2, 7]])
def test_without_maps_all_is_background(ids: list[int]) -> None:
    (pieces,) = walked(item(np.zeros((len(ids), 9, 13)), ids, size=(33, 50)))
    for normalize in NORMALIZE:
        record = labels(pieces, normalize=normalize)
        assert record["semantic"].shape == record["instances"].shape == (33, 50)
        assert not record["semantic"].any()
        assert not record["instances"].any()
        assert len(record["classes"]) == len(record["scores"]) == 0
        validate_record("labels", record)


def touching_pair() -> tuple[np.ndarray, np.ndarray]:
    """One blob of a class map over two objects, and a field that leads either half to its own
    middle.
    """
    cams = np.zeros((1, 16, 32))
    cams[0, 4:12, 4:28] = 1
    y, x = np.mgrid[:16, :32].astype(float)
    center = np.where(x < 16, 9.5, 21.5)
    return cams, np.stack([7.5 - y, center - x])


def test_displacements_separate_two_objects_of_one_class() -> None:
    cams, displacement = touching_pair()
    (one,) = walked(item(cams, [2]))
    (two,) = walked(item(cams, [2], displacement=displacement))
    assert len(labels(one)["classes"]) == 1
    record = labels(two)
    assert record["classes"].tolist() == [2, 2]
    ids = record["instances"]
    left, right = (np.bincount(ids[:, part][ids[:, part] > 0]) for part in (np.s_[:60], np.s_[68:]))
    assert left.argmax() != right.argmax()
    assert left.max() > 0.9 * left.sum()
    assert right.max() > 0.9 * right.sum()
    assert (labels(one)["semantic"] == record["semantic"]).mean() > 0.99


def test_instances_are_split_where_the_boundary_is_strong_enough() -> None:
    whole, parted = (labels(*two_touching(0.5), boundary_threshold=cut) for cut in (0.7, 0.3))
    assert (whole["classes"].tolist(), parted["classes"].tolist()) == ([5], [5, 5])
    assert ((parted["instances"] > 0) == (whole["instances"] > 0)).all(), "all of it stays"
    assert (parted["semantic"] == whole["semantic"]).all()
    assert set(np.unique(parted["instances"][:, :56])) == {0, 1}
    assert set(np.unique(parted["instances"][:, 64:])) == {0, 2}
