"""Crops with their instances, and the objective: numbering, ignored pixels, normalizers over ranks,
learning.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import default_collate

from pipeline.core.trainer import LossFn, Ranks, Step
from pipeline.data.augmentation import RandomScale
from pipeline.data.index import ImageEntry, Index
from pipeline.instances.base import InstanceCrops, Instances, number_again
from pipeline.instances.sparseinst.network import Network, Outputs, TrainingOutputs
from pipeline.instances.sparseinst.training import objective

MEAN = (0.5, 0.5, 0.5)
COLORS = np.array([[10, 40, 10], [220, 30, 40], [30, 60, 230], [240, 230, 20]], np.uint8)
LOSS = {"classification": 2.0, "dice": 2.0, "mask": 5.0, "objectness": 1.0, "semantic": 4.0}
TERMS = {"loss", "classification", "dice", "mask", "objectness"}


def instances(ignored: bool = False) -> Instances:
    """Three instances of classes 4, 1 and 4, painted in COLORS; the third is ignored if asked for."""
    ids = np.zeros((72, 96), np.uint16)
    ids[10:40, 8:40], ids[24:64, 56:88], ids[50:60, 10:20] = 1, 2, 3
    where = ids == 3 if ignored else None
    return Instances(
        ids, np.array([4, 1, 4], np.uint8), np.array([1.0, 0.5, 0.25], np.float32), where
    )


def crops(
    folder: Path, given: Instances, crop: int = 64, most: int = 10, scale: float = 1.0
) -> InstanceCrops:
    Image.fromarray(COLORS[given.ids]).save(folder / "p.png")
    image = ImageEntry("p", "p.png", 72, 96, "train", (1, 4), None, None, "")
    index = Index(tuple("abcdef"), [image], folder, folder, {})
    return InstanceCrops(
        index, ["p"], lambda name: given, RandomScale(scale, scale), crop, MEAN, most
    )


def learning(**options: Any) -> LossFn:
    """The objective with the published weights."""
    return objective(**{"loss": LOSS, "targets": "area", "weighted": True, **options})


@pytest.fixture(scope="module")
def step() -> Step:
    return Step(Ranks(Accelerator(cpu=True)), 0.0, 0.0)


@pytest.mark.parametrize("scale", [1.0, 0.7, 1.4])
def test_ids_lie_where_the_colors_do_and_carry_their_classes(tmp_path: Path, scale: float) -> None:
    samples = crops(tmp_path, instances(), scale=scale)
    assert len(samples) == 1
    seen = set()
    for seed in range(10):
        torch.manual_seed(seed)
        image, ids, classes, weights = samples[0]
        assert [
            (type(part), part.dtype, tuple(part.shape)) for part in (image, ids, classes, weights)
        ] == [
            (Tensor, torch.uint8, (3, 64, 64)),
            (Tensor, torch.uint8, (64, 64)),
            (Tensor, torch.uint8, (10,)),
            (Tensor, torch.float32, (10,)),
        ]
        count = int((classes != 255).sum())
        assert sorted(set(ids.unique().tolist()) - {0, 255}) == list(range(1, count + 1))
        assert (classes[count:] == 255).all()
        assert not weights[count:].any()
        palette = torch.from_numpy(np.vstack([COLORS, [[128, 128, 128]]])).long()
        distance = (image.permute(1, 2, 0).long()[:, :, None] - palette).abs().sum(-1)
        clear, nearest = distance.amin(-1) < 30, distance.argmin(-1)
        for number in range(1, count + 1):
            inside = nearest[ids == number]
            original = int(inside.mode().values)
            assert (inside == original).float().mean() > 0.7  # borders are blended by resizing
            assert (int(classes[number - 1]), float(weights[number - 1])) == {
                1: (4, 1.0),
                2: (1, 0.5),
                3: (4, 0.25),
            }[original]
            seen.add(original)
        assert (nearest[ids == 255] == 4).all()
        assert (nearest[(ids == 0) & clear] == 0).float().mean() > 0.97
    assert seen == {1, 2, 3}


def test_ignored_pixels_and_those_outside_do_not_count(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, ids, classes, _ = crops(tmp_path, instances(ignored=True), crop=128)[0]
    assert int((ids == 255).sum()) == 128 * 128 - 72 * 96 + 100
    assert sorted(classes[classes != 255].tolist()) == [1, 4]


def test_of_too_many_the_largest_are_kept_and_the_others_ignored() -> None:
    ids = torch.zeros(40, 40, dtype=torch.int32)
    for number, size in ((300, 3), (7, 9), (41, 5), (12, 4)):
        ids[size, :size] = number
    classes = np.arange(300, dtype=np.int64) % 200
    numbered, kept, weights = number_again(
        ids, Instances(ids.numpy(), classes, np.linspace(0, 1, 300)), 2
    )
    assert kept.tolist() == [6, 40]
    assert weights.tolist() == pytest.approx([6 / 299, 40 / 299])
    assert [int((numbered == value).sum()) for value in (1, 2, 255)] == [9, 5, 7]
    assert not numbered[ids == 0].any()


@pytest.mark.parametrize("value", [0, -1])
def test_a_crop_without_instances(value: int) -> None:
    ids = torch.full((8, 8), value, dtype=torch.int32)
    nothing = Instances(ids.numpy(), np.empty(0, np.uint8), np.empty(0, np.float32))
    numbered, classes, weights = number_again(ids, nothing, 3)
    assert (numbered == (0 if value == 0 else 255)).all()
    assert (classes == 255).all()
    assert not weights.any()


@pytest.mark.parametrize("most", [0, 255])
def test_a_byte_numbers_254_instances(tmp_path: Path, most: int) -> None:
    with pytest.raises(ValueError, match="use 1 to 254"):
        crops(tmp_path, instances(), most=most)


def small(semantic: bool = False) -> Network:
    torch.manual_seed(0)
    options: dict[str, Any] = {"width": 16, "queries": 6, "groups": 2, "kernel": 8, "depth": 1}
    return Network(6, "test_resnet", semantic=semantic, **options).train()


@pytest.mark.parametrize(("crop", "semantic"), [(64, False), (50, False), (50, True)])
def test_the_objective_learns(tmp_path: Path, step: Step, crop: int, semantic: bool) -> None:
    samples = crops(tmp_path, instances(), crop)
    torch.manual_seed(0)
    batch = default_collate([samples[0] for _ in range(3)])
    network = small(semantic)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        terms = learning()(network, batch, step)
        assert set(terms) == (TERMS | {"semantic"} if semantic else TERMS)
        losses.append(float(terms["loss"].detach()))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.defect("sparseinst-9.7")
@pytest.mark.parametrize("value", [0, 255])
def test_a_batch_without_instances_is_finite_and_has_a_gradient(step: Step, value: int) -> None:
    """Where the published code fails (specification, 9.7)."""
    network = small(semantic=True)
    batch = [
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        torch.full((2, 64, 64), value, dtype=torch.uint8),
        torch.full((2, 5), 255, dtype=torch.uint8),
        torch.zeros(2, 5),
    ]
    terms = learning()(network, batch, step)
    terms["loss"].backward()
    assert [float(terms[name].detach()) for name in ("dice", "mask", "objectness")] == [0, 0, 0]
    assert float(terms["loss"].detach()) > 0
    gradients = [p.grad for p in network.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g is not None and g.any() for g in gradients)


class Given(nn.Module):
    """A network that returns given outputs: those of the queries, then logits of the cells."""

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.parts = nn.ParameterList(outputs)

    def forward(self, images: Tensor) -> TrainingOutputs:
        *queries, semantic = self.parts
        return TrainingOutputs(Outputs(*queries), semantic)


class TwoRanks:
    """The mean over two ranks, of which the other holds given values, in the order in which they
    are asked for.
    """

    def __init__(self, *others: float) -> None:
        self.others = iter(others)

    def mean(self, values: Tensor) -> Tensor:
        return (values + next(self.others)) / 2


def random_batch() -> tuple[list[Tensor], list[Tensor]]:
    """What a network returns, and images of 3, 0 and 1 instances."""
    generator = torch.Generator().manual_seed(0)
    shapes = (4, 6), (4, 8, 8), (4,), (7, 4, 4)
    outputs = [torch.randn(3, *shape, generator=generator) for shape in shapes]
    ids = torch.zeros(3, 32, 32, dtype=torch.uint8)
    ids[0, 2:9, 3:20], ids[0, 12:20, 4:9], ids[0, 20:, 20:], ids[2, 5:25, 6:30] = 1, 2, 3, 1
    ids[0, :8] = 255
    classes = torch.full((3, 3), 255, dtype=torch.uint8)
    classes[0], classes[2, 0] = torch.tensor([1, 2, 3]), 5
    return outputs, [torch.zeros(3, 3, 32, 32), ids, classes, torch.rand(3, 3, generator=generator)]


@pytest.mark.defect("sparseinst-9.13")
def test_terms_averaged_over_ranks_are_those_of_the_whole_batch(step: Step) -> None:
    """The published means of two terms over a rank's own pairs are not (specification, 9.13)."""
    outputs, batch = random_batch()
    whole = learning()(Given(outputs), batch, step)
    shares: list[Any] = []
    for cut, *others in ((slice(0, 1), 1.0, 128.0), (slice(1, 3), 3.0, 48.0)):
        part = Given([tensor[cut] for tensor in outputs])
        ranks: Any = TwoRanks(*others)
        now = Step(ranks, 0.0, 0.0)
        shares.append(learning()(part, [tensor[cut] for tensor in batch], now))
    assert "semantic" in whole
    for name, value in whole.items():
        mean = (float(shares[0][name].detach()) + float(shares[1][name].detach())) / 2
        assert mean == pytest.approx(float(value.detach()), rel=1e-5)


def test_the_order_of_images_and_ids_changes_nothing(step: Step) -> None:
    outputs, (images, ids, classes, weights) = random_batch()
    expected = learning()(Given(outputs), [images, ids, classes, weights], step)
    table, order = torch.arange(256, dtype=torch.uint8), torch.tensor([1, 2, 0])
    table[1:4] = torch.tensor([3, 1, 2])
    turned = ids.clone()
    turned[0] = table[ids[0].long()]
    moved = classes.clone(), weights.clone()
    for part, given in zip(moved, (classes, weights), strict=True):
        part[0] = given[0][order]
    batch = [images, *(part.flip(0) for part in (turned, *moved))]
    found = learning()(Given([part.flip(0) for part in outputs]), batch, step)
    for name, value in expected.items():
        assert float(found[name].detach()) == pytest.approx(float(value.detach()), rel=1e-5)


def test_options_reach_the_terms(step: Step) -> None:
    outputs, batch = random_batch()

    def terms(**options: Any) -> dict[str, float]:
        found = learning(**options)(Given(outputs), batch, step)
        return {name: float(value.detach()) for name, value in found.items()}

    usual = terms()
    assert terms(targets="bilinear")["mask"] != usual["mask"]
    assert terms(weighted=False)["dice"] > usual["dice"]
    assert terms(iou_threshold=0.6)["objectness"] != usual["objectness"]
    assert terms(alpha=0.0, beta=1.0)["dice"] != usual["dice"]
    one = {"classification": 0, "dice": 0, "mask": 0, "objectness": 2, "semantic": 0}
    assert terms(loss=one)["loss"] == pytest.approx(2 * usual["objectness"])
    assert terms(loss=one | {"semantic": 3})["loss"] == pytest.approx(
        2 * usual["objectness"] + 3 * usual["semantic"]
    )


def test_under_autocast_the_terms_are_float32(step: Step) -> None:
    outputs, batch = random_batch()
    half = [part.bfloat16() for part in outputs]
    with torch.autocast("cpu", torch.bfloat16):
        terms = learning()(Given(half), batch, step)
        network = learning()(small(), [torch.zeros(3, 3, 32, 32), *batch[1:]], step)
    assert all(value.dtype == torch.float32 for value in (*terms.values(), *network.values()))
    assert all(value.isfinite() for value in network.values())
