"""The plain classifier: its loss, what learns, and crops that carry their image's tags."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from pipeline.classifiers.base import TrainingData
from pipeline.classifiers.cam.network import Network
from pipeline.classifiers.cam.training import objective, samples
from pipeline.core.trainer import Ranks, Step
from pipeline.data.index import ImageEntry, Index
from pipeline.nets.backbones import fix_batch_norm

SMALL = "test_resnet"
MATERIAL = TrainingData(Index((), [], Path(), Path(), {}), [], (1, 1), 32, (0.5, 0.5, 0.5))


@pytest.fixture
def step() -> Step:
    return Step(Ranks(Accelerator(cpu=True)), 0.0, 0.0)


@pytest.mark.defect("irn-12")
@pytest.mark.parametrize("classes", [1, 2, 7, 254])
def test_any_number_of_classes(classes: int) -> None:
    network = Network(classes, SMALL).eval()
    images = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    maps = network.maps(network.backbone.normalize(images), torch.ones(2, classes))
    assert maps.shape == (2, classes, 2, 3)
    assert torch.allclose(network(images), maps.mean((2, 3)))


def test_logits_are_the_mean_of_the_maps_so_the_maps_locate_the_classes() -> None:
    """With one weight in the head, the map is that feature and nothing else."""
    network = Network(3, SMALL).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.weight[1, 5] = 2.0
    normalized = torch.randn(1, 3, 32, 32)
    maps, features = network.maps(normalized, torch.ones(1, 3)), network.backbone(normalized)[-1]
    assert torch.allclose(maps[:, 1], 2 * features[:, 5], atol=1e-6)
    assert maps[:, [0, 2]].abs().max() == 0


def test_loss_is_the_multi_label_soft_margin(step: Step) -> None:
    logits = torch.tensor([[1.5, -0.5, 0.0], [-2.0, 3.0, 0.25]], dtype=torch.float64)
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    terms = objective(MATERIAL)(nn.Identity(), (logits, targets), step)
    by_hand = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        for x, y in zip(row, target, strict=True):
            by_hand -= np.log(1 / (1 + np.exp(-x))) if y else np.log(1 / (1 + np.exp(x)))
    assert float(terms["loss"]) == pytest.approx(by_hand / 6, rel=1e-6)


def test_gradients_reach_the_head_and_the_stages_that_are_not_frozen(step: Step) -> None:
    network = Network(3, SMALL).train()
    network.backbone.freeze(2)
    fix_batch_norm(network)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    objective(MATERIAL)(network, (images, torch.tensor([[1.0, 0, 1], [0, 1, 0]])), step)[
        "loss"
    ].backward()
    assert network.head.weight.grad is not None
    assert network.head.weight.grad.abs().sum() > 0
    got = {name: p.grad is not None for name, p in network.backbone.body.named_parameters()}
    assert {n.split(".")[0] for n, has in got.items() if not has} == {"conv1", "bn1", "layer1"}
    assert {n.split(".")[0] for n, has in got.items() if has} == {"layer2", "layer3", "layer4"}


def test_learning_steps_lower_the_loss_and_leave_frozen_stages_and_statistics_alone(
    step: Step,
) -> None:
    torch.manual_seed(0)
    network = Network(2, SMALL).train()
    network.backbone.freeze(2)
    fix_batch_norm(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    batch = (images, torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0]]))
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-3)
    losses = []
    for _ in range(8):
        loss = objective(MATERIAL)(network, batch, step)["loss"]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    changed = {n for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
    assert "head.weight" in changed
    still = ("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1")
    assert not [n for n in changed if n.startswith(still) or "running" in n or "tracked" in n]


def test_crops_carry_the_tags_of_their_image(tmp_path: Path) -> None:
    images = []
    for name, tags, level in (("a", (), 10), ("b", (2,), 100), ("c/d", (0, 1), 200)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), level, np.uint8)).save(tmp_path / f"{name}.png")
        images.append(ImageEntry(name, f"{name}.png", 20, 30, "train", tags, None, None, ""))
    index = Index(("x", "y", "z"), images, tmp_path, tmp_path, {})
    crops = samples(TrainingData(index, ["b", "c/d", "a"], (40, 60), 32, (0.5, 0.5, 0.5)))
    torch.manual_seed(0)
    assert len(crops) == 3
    for number, (tags, level) in enumerate([([0, 0, 1], 100), ([1, 1, 0], 200), ([0, 0, 0], 10)]):
        image, target = crops[number]
        assert (tuple(image.shape), image.dtype, target.tolist()) == (
            (3, 32, 32),
            torch.uint8,
            tags,
        )
        assert set(image.unique().tolist()) <= {level, 128}
        assert (image == level).float().mean() > 0.5
