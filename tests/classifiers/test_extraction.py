"""Class activation maps: where they lie, flips, scales, batches, empty and odd images."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.classifiers.base import Classifier, normalize
from pipeline.classifiers.cam import Cam
from pipeline.classifiers.extraction import activation_maps as tagged_maps
from pipeline.classifiers.extraction import cam_records
from pipeline.core.artifacts import validate_record
from pipeline.nets.backbones import Backbone

SCALES = (1.0, 0.5, 1.5, 2.0)


@pytest.fixture(scope="module")
def network() -> Cam:
    torch.manual_seed(0)
    return Cam(3, Backbone("test_resnet")).eval()


def activation_maps(
    network: Classifier, normalized: Tensor, scales: Sequence[float], flip: bool
) -> Tensor:
    """Maps of a method that does not depend on the tags."""
    return tagged_maps(network, normalized, torch.ones(len(normalized), 3), scales, flip)


class Pooling(Cam):
    """A network whose maps are the means of the blocks of a cell: the true values at its center."""

    def __init__(self, stride: int = 16) -> None:
        super().__init__(3, Backbone("test_resnet", output_stride=stride))

    def maps(self, normalized: Tensor, tags: Tensor) -> Tensor:
        return F.avg_pool2d(normalized, self.backbone.stride)


def ramp(height: int, width: int) -> Tensor:
    """Channels y, x (pixel centers) and 1."""
    y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    return torch.stack(
        [y[:, None].expand(height, width), x.expand(height, width), torch.ones(height, width)]
    )[None]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 90), (75, 100), (33, 47)])
def test_maps_lie_on_the_stride_4_grid(network: Cam, height: int, width: int) -> None:
    maps = activation_maps(network, torch.randn(1, 3, height, width), (1.0, 0.5), True)
    assert maps.shape == (1, 3, (height - 1) // 4 + 1, (width - 1) // 4 + 1)


@pytest.mark.defect("irn-18")
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "stride"), [(128, 160, 16), (150, 187, 16), (150, 187, 8)]
)
def test_no_scale_and_no_flip_is_shifted(
    height: int, width: int, stride: int, flip: bool, scale: float
) -> None:
    """A ramp of coordinates comes out as the coordinates of the cells' centers, whatever the scale
    and the padding.
    """
    network, both = Pooling(stride), 2 if flip else 1
    maps = activation_maps(network, ramp(height, width), [scale], flip)[0] / both
    y = torch.arange(maps.shape[1]) * 4 + 2.0
    x = torch.arange(maps.shape[2]) * 4 + 2.0
    margin = int(24 / scale / 4) + 1  # cells whose values the border or the padding touches
    inner = (slice(margin, -margin), slice(margin, -margin))
    assert (maps[0] - y[:, None])[inner].abs().max() < 0.3
    assert (maps[1] - x)[inner].abs().max() < 0.3
    assert (maps[2] - 1)[inner].abs().max() < 1e-4


@pytest.mark.parametrize(("height", "width"), [(64, 96), (64, 84), (50, 68)])
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5, 1.5)])
def test_a_flipped_image_has_flipped_maps(
    network: Cam, height: int, width: int, scales: tuple[float, ...]
) -> None:
    image = torch.randn(1, 3, height, width)
    straight = activation_maps(network, image, scales, True)
    flipped = activation_maps(network, image.flip(3), scales, True)
    assert (straight - flipped.flip(3)).abs().max() < 1e-4 * straight.max()
    one_sided = activation_maps(network, image, scales, False)
    assert (one_sided - straight / 2).abs().max() > 1e-2 * straight.max() / 2


def test_batched_equals_single(network: Cam) -> None:
    images = torch.randn(3, 3, 50, 70)
    batched = activation_maps(network, images, SCALES, True)
    single = torch.cat([activation_maps(network, image[None], SCALES, True) for image in images])
    assert torch.equal(batched, single)


def test_scales_add_up(network: Cam) -> None:
    image = torch.randn(1, 3, 50, 70)
    each = torch.stack([activation_maps(network, image, [scale], True) for scale in SCALES])
    assert torch.allclose(activation_maps(network, image, SCALES, True), each.sum(0), atol=1e-4)


def test_maps_are_rectified_before_they_are_added() -> None:
    class Negative(Pooling):
        def maps(self, normalized: Tensor, tags: Tensor) -> Tensor:
            return -torch.ones(
                len(normalized), 2, normalized.shape[2] // 16, normalized.shape[3] // 16
            )

    assert activation_maps(Negative(), torch.zeros(1, 3, 32, 32), (1.0,), True).abs().max() == 0


def test_images_and_flipped_images_come_with_their_own_tags() -> None:
    class Tagged(Pooling):
        def maps(self, normalized: Tensor, tags: Tensor) -> Tensor:
            return tags[:, :, None, None].expand(-1, -1, 2, 2)

    tags = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    maps = tagged_maps(Tagged(), torch.zeros(2, 3, 32, 32), tags, (1.0, 0.5), True)
    assert torch.equal(maps.amax((2, 3)), 4 * tags)


def test_image_of_few_pixels(network: Cam) -> None:
    maps = activation_maps(network, torch.randn(1, 3, 3, 1), SCALES, True)
    assert maps.shape == (1, 3, 1, 1)
    assert torch.isfinite(maps).all()


def test_every_class_is_divided_by_its_own_maximum() -> None:
    maps = torch.rand(3, 8, 9) * torch.tensor([1e-2, 1.0, 1e3]).view(3, 1, 1)
    scaled = normalize(maps)
    assert (scaled >= 0).all()
    assert (scaled <= 1).all()
    assert torch.allclose(scaled.amax((1, 2)), torch.ones(3), atol=2e-3)
    assert torch.allclose(
        scaled / scaled.amax((1, 2), keepdim=True), maps / maps.amax((1, 2), keepdim=True)
    )


@pytest.mark.defect("irn-15")
def test_empty_map_stays_empty_and_is_never_nan() -> None:
    (record,) = cam_records(torch.zeros(1, 4, 5, 6), [(1, 3)], (20, 24))
    assert record["cams"].shape == (2, 5, 6)
    assert not record["cams"].any()


def test_record_holds_the_tags_in_order_and_fits_its_layout() -> None:
    maps = torch.arange(1, 6).view(5, 1, 1) * torch.rand(5, 4, 7)
    (record,) = cam_records(maps[None], [(0, 4)], (13, 26))
    assert record["labels"].tolist() == [0, 4]
    assert record["size"].tolist() == [13, 26]
    assert torch.equal(torch.from_numpy(record["cams"]), normalize(maps)[[0, 4]])
    assert set(validate_record("cams", record)) == {"cams", "labels", "size"}


@pytest.mark.defect("irn-7")
def test_image_without_tags_has_no_maps() -> None:
    (record,) = cam_records(torch.rand(1, 5, 4, 7), [()], (13, 26))
    assert record["cams"].shape == (0, 4, 7)
    assert record["labels"].shape == (0,)


def test_records_of_a_batch_are_those_of_its_images() -> None:
    maps, tags = torch.rand(4, 5, 3, 7), [(2,), (), (0, 3, 4), (1, 2)]
    singles = [
        cam_records(own[None], [tag], (11, 26))[0] for own, tag in zip(maps, tags, strict=True)
    ]
    together = cam_records(maps, tags, (11, 26))
    for one, other in zip(singles, together, strict=True):
        assert all(np.array_equal(one[key], other[key]) for key in one)
