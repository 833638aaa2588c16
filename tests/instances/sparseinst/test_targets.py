"""Targets on the stride-4 grid: what is averaged, what vanishes, what does not count."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.instances.sparseinst.losses import Targets, from_id_maps


def blocks(seed: int = 0, batch: int = 2, side: int = 64, instances: int = 5) -> Tensor:
    """Id maps of odd rectangles."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(batch, side, side, dtype=torch.uint8)
    for image in ids:
        for number in range(1, instances + 1):
            y, x = torch.randint(0, side - 20, (2,), generator=generator).tolist()
            image[y : y + 17, x : x + 13] = number
    return ids


def targets_of(ids: Tensor, resizing: str = "area", slots: int = 5) -> Targets:
    classes = torch.arange(slots, dtype=torch.uint8).expand(len(ids), -1).clone()
    return from_id_maps(ids, classes, torch.linspace(0.1, 1, slots).expand(len(ids), -1), resizing)


@pytest.mark.parametrize("resizing", ["area", "bilinear"])
def test_masks_are_those_that_torch_resizes(resizing: str) -> None:
    ids = blocks()
    targets = targets_of(ids, resizing)
    pairs = [(b, n) for b in range(2) for n in range(1, 6) if (ids[b] == n).any()]
    masks = torch.stack([(ids[b] == n).float() for b, n in pairs])[:, None]
    if resizing == "area":
        expected = F.avg_pool2d(masks, 4)
    else:
        expected = F.interpolate(masks, (16, 16), mode="bilinear", align_corners=False)
    assert torch.equal(targets.masks, expected[:, 0])
    assert targets.counts == [sum(b == image for b, _ in pairs) for image in range(2)]
    assert targets.classes.tolist() == [n - 1 for _, n in pairs]
    assert targets.weights.tolist() == pytest.approx([0.1 + 0.9 * (n - 1) / 4 for _, n in pairs])
    assert (targets.valid == 1).all()


@pytest.mark.defect("sparseinst-4")
@pytest.mark.parametrize(("side", "lost"), [(1, 12), (2, 7), (3, 0)])
def test_small_objects_vanish_only_in_the_published_resizing(side: int, lost: int) -> None:
    """At all 16 places relative to the grid; the spec says 75 %, 44 % and none."""
    ids = torch.zeros(16, 32, 32, dtype=torch.uint8)
    for place in range(16):
        y, x = 8 + place // 4, 8 + place % 4
        ids[place, y : y + side, x : x + side] = 1
    by_area = targets_of(ids, "area", 1)
    assert by_area.counts == [1] * 16
    assert (by_area.masks.sum((1, 2)) == side**2 / 16).all()
    assert sum(targets_of(ids, "bilinear", 1).counts) == 16 - lost


@pytest.mark.parametrize("resizing", ["area", "bilinear"])
def test_pixels_that_do_not_count_are_left_out_of_the_shares(resizing: str) -> None:
    ids = torch.zeros(1, 32, 32, dtype=torch.uint8)
    ids[0, :4, :4] = 1
    ids[0, 1, :4] = 255  # half of the middle, a quarter of the cell
    ids[0, 2, 2:4] = 0
    targets = targets_of(ids, resizing, 1)
    expected = {"area": (10 / 12, 0.75), "bilinear": (0.5, 0.5)}[resizing]
    assert float(targets.masks[0, 0, 0]) == pytest.approx(expected[0])
    assert float(targets.valid[0, 0, 0]) == expected[1]
    assert (targets.valid.flatten()[1:] == 1).all()


def test_padding_does_not_count() -> None:
    targets = targets_of(blocks(side=50))
    assert targets.masks.shape[1:] == targets.valid.shape[1:] == (16, 16)
    assert (targets.valid[:, :12, :12] == 1).all()
    assert (targets.valid[:, 12, :12] == 0.5).all()
    assert (targets.valid[:, 12, 12] == 0.25).all()
    assert (targets.valid[:, 13:] == 0).all()


def test_an_instance_without_pixels_and_an_id_without_class_are_none() -> None:
    ids = blocks(batch=1, instances=3)
    ids[ids == 2] = 255
    assert targets_of(ids).classes.tolist() == [0, 2]
    classes = torch.tensor([[0, 1, 255, 255]], dtype=torch.uint8)
    assert from_id_maps(ids, classes, torch.ones(1, 4)).classes.tolist() == [0]
    nothing = targets_of(torch.zeros(2, 32, 32, dtype=torch.uint8))
    assert nothing.counts == [0, 0]
    assert nothing.masks.shape == (0, 8, 8)
    assert from_id_maps(
        ids, torch.full((1, 4), 255, dtype=torch.uint8), torch.ones(1, 4)
    ).counts == [0]


def test_254_instances_fit() -> None:
    ids = (
        torch.arange(256, dtype=torch.uint8)
        .view(1, 16, 16)
        .repeat_interleave(4, 1)
        .repeat_interleave(4, 2)
    )
    targets = targets_of(ids, slots=254)
    assert targets.counts == [254]
    assert (targets.masks.sum((1, 2)) == 1).all()


def test_an_unknown_resizing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'nearest'.*area, bilinear"):
        targets_of(blocks(), "nearest")
