"""CAM: its loss, and maps that locate the classes."""

import torch
from torch.nn import functional as F

from pipeline.classifiers.base import TrainingData, classification_loss
from pipeline.classifiers.cam import Cam
from pipeline.nets.backbones import Backbone
from tests.classifiers.base import SMALL, ClassifierTester, random_images


class TestCam(ClassifierTester):
    method = "cam"


def test_logits_are_the_means_of_the_maps() -> None:
    """With one weight in the head, the map is that feature and nothing else."""
    network = Cam(3, Backbone(SMALL)).eval()
    images = random_images(2, 32, 48)
    normalized = network.backbone.normalize(images)
    maps = network.maps(normalized, torch.ones(2, 3))
    assert torch.allclose(network(images), maps.mean((2, 3)))
    weight = network.head.get_parameter("weight")
    with torch.no_grad():
        weight.zero_()
        weight[1, 5] = 2.0
    maps, features = network.maps(normalized, torch.ones(2, 3)), network.features(normalized)
    assert torch.allclose(maps[:, 1], 2 * features[:, 5], atol=1e-6)
    assert maps[:, [0, 2]].abs().max() == 0


def test_crops_show_their_image_filled_up_with_the_mean_color(data: TrainingData) -> None:
    """Image `b` is gray with a red object; the fill is (102, 102, 102)."""
    samples = Cam.dataset(data)
    for seed in range(10):
        torch.manual_seed(seed)
        red, green, blue = samples[1][0].int()
        assert (red > 200).float().mean() < 0.5
        assert green.max() < 130
        assert (green - blue).abs().max() < 40
    seen = {samples[1][0].sum().item() for _ in range(5)}
    assert len(seen) == 5  # augmented at each access


def test_loss_with_unknown_classes_in_closed_form() -> None:
    logits = torch.randn(3, 4, generator=torch.manual_seed(0))
    tags = torch.tensor([[1.0, 0, -1, 0], [-1, -1, -1, -1], [0, 1, 1, -1]])
    sign = tags.clamp(min=0) * 2 - 1
    terms = torch.log1p(torch.exp(-sign * logits)) * (tags >= 0)
    torch.testing.assert_close(classification_loss(logits, tags), terms.sum() / tags.numel())
    known = tags.abs()
    plain = F.multilabel_soft_margin_loss(logits, known)
    assert torch.equal(classification_loss(logits, known), plain), "the same bits"
