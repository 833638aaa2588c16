"""IRNet: sizes, what learns, what the mean shift does and where, flips, and what is saved."""

import pytest
import torch
from torch import Tensor

from pipeline.irnet.losses import pair_losses
from pipeline.irnet.network import IRNet, fields_of

FAMILIES = ("resnet18", "tf_efficientnet_lite0", "convnext_atto")
SMALL = "test_resnet"


CANVAS = 128


@pytest.fixture(scope="module", params=[0, CANVAS], ids=["tight", "canvas"])
def network(request: pytest.FixtureRequest) -> IRNet:
    torch.manual_seed(0)
    return IRNet(SMALL, canvas=request.param).eval()


def cells(pixels: int) -> int:
    return (pixels - 1) // 4 + 1


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("height", "width"), [(64, 80), (61, 90), (33, 17)])
def test_fields_have_one_value_a_cell(name: str, height: int, width: int) -> None:
    network = IRNet(name).eval()
    boundary, displacement = fields_of(network, torch.randn(2, 3, height, width), flip=True)
    assert boundary.shape == (2, cells(height), cells(width))
    assert displacement.shape == (2, 2, cells(height), cells(width))
    assert (boundary > 0).all()
    assert (boundary < 1).all()
    logits, field = network(torch.rand(1, 3, height, width) * 255)
    assert logits.shape == (1, 1, cells(height), cells(width))
    assert field.shape == (1, 2, cells(height), cells(width))


def test_resnet_has_the_published_heads() -> None:
    """32 channels per tap for boundaries; 64 + 128 + 256 at stride 4 for displacements."""
    network = IRNet("resnet18")
    widths = [64, 64, 128, 256, 512]
    edge = sum(32 * width + 64 for width in widths) + 160 + 1
    assert sum(p.numel() for p in network.boundary.parameters()) == edge
    taps = zip(widths, (64, 128, 256, 256, 256), strict=True)
    field = sum(w * d + 2 * d for w, d in taps) + 768 * 256 + 512 + 448 * 256 + 512 + 256 * 2
    assert sum(p.numel() for p in network.displacement.parameters()) == field


def test_four_taps_when_nothing_is_finer_than_stride_4() -> None:
    network = IRNet("convnext_atto")
    assert network.backbone.reductions == [4, 8, 16, 16]
    assert len(network.boundary.taps) == len(network.displacement.taps) == 4
    assert network.displacement.fine == 1


def test_of_three_maps_of_stride_4_and_finer_the_finest_is_left_out() -> None:
    network = IRNet("vgg11").eval()
    assert network.backbone.reductions == [1, 2, 4, 8, 16]
    boundary, displacement = fields_of(network, torch.randn(1, 3, 33, 17), flip=False)
    assert (boundary.shape, displacement.shape) == ((1, 9, 5), (1, 2, 9, 5))


@pytest.mark.defect("irn-3")
def test_image_above_512_pixels_is_not_cropped(network: IRNet) -> None:
    boundary, displacement = fields_of(network, torch.randn(1, 3, 480, 640), flip=True)
    assert boundary.shape == (1, 120, 160)
    assert displacement.shape == (1, 2, 120, 160)
    right = boundary[..., 132:]
    assert right.std() > 0
    changed = torch.randn(1, 3, 480, 640)
    assert (fields_of(network, changed, flip=True)[0][..., 132:] != right).any()


def test_fields_do_not_depend_on_what_fills_up_to_16(network: IRNet) -> None:
    """An image of 50x70 gives the same as the same image on its padded canvas, cropped."""
    image = torch.randn(1, 3, 50, 70)
    canvas = torch.nn.functional.pad(image, (0, 10, 0, 14))
    for small, large in zip(network.relations(image), network.relations(canvas), strict=True):
        assert torch.equal(small, large[..., :13, :18])


@pytest.mark.parametrize(
    ("size", "same"),
    [((128, 128), True), ((150, 200), True), ((128, 96), False), ((64, 200), False)],
)
def test_canvas_matters_to_smaller_images_alone(size: tuple[int, int], same: bool) -> None:
    """A side beyond the canvas is padded to a multiple of 16, as without one."""
    torch.manual_seed(0)
    network, image = IRNet(SMALL).eval(), torch.randn(1, 3, *size)
    tight = fields_of(network, image, flip=True)
    network.canvas = CANVAS
    canvas = fields_of(network, image, flip=True)
    assert all(torch.equal(a, b) == same for a, b in zip(tight, canvas, strict=True))
    assert all(a.shape == b.shape for a, b in zip(tight, canvas, strict=True))


def test_canvas_is_the_image_padded_to_it() -> None:
    torch.manual_seed(0)
    network, image = IRNet(SMALL).eval(), torch.randn(1, 3, 90, 101)
    padded = torch.nn.functional.pad(image, (0, 27, 0, 38))
    whole = fields_of(network, padded, flip=False)
    network.canvas = CANVAS
    for part, all_of_it in zip(fields_of(network, image, flip=False), whole, strict=True):
        assert torch.equal(part, all_of_it[..., :23, :26])


@pytest.mark.defect("irn-19")
def test_backbone_stays_in_evaluation_mode_and_gets_no_gradient() -> None:
    network = IRNet(SMALL)
    assert network.train() is network
    assert network.training
    assert network.boundary.training
    assert not any(part.training for part in network.backbone.modules())
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    logits, displacement = network(torch.rand(2, 3, 32, 32) * 255)
    (logits.sum() + displacement.square().sum()).backward()
    assert all(p.grad is None and not p.requires_grad for p in network.backbone.parameters())
    assert all(
        torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items()
    )
    heads = [*network.boundary.parameters(), *network.displacement.parameters()]
    assert all(p.grad is not None for p in heads)
    assert not network.eval().training


def test_heads_are_independent_problems() -> None:
    network = IRNet(SMALL).train()
    labels = torch.zeros(2, 16, 16, dtype=torch.uint8)
    labels[:, 4:12, 4:12] = 1
    logits, displacement = network(torch.rand(2, 3, 64, 64) * 255)
    terms = pair_losses(logits, displacement, labels, 4)
    boundary, field = list(network.boundary.parameters()), list(network.displacement.parameters())

    def reached(loss: Tensor, parameters: list[torch.nn.Parameter]) -> list[bool]:
        grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return [g is not None and bool(g.any()) for g in grads]

    edge, moves = terms["pos"] + terms["neg"], terms["disp_fg"] + terms["disp_bg"]
    assert any(reached(edge, boundary))
    assert not any(reached(edge, field))
    assert any(reached(moves, field))
    assert not any(reached(moves, boundary))


def test_mean_shift_is_subtracted_outside_training_alone() -> None:
    network = IRNet(SMALL).eval()
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        before = network.relations(image)
        network.mean_shift = torch.tensor([1.5, -2.0])
        after = network.relations(image)
        learning = network.train().relations(image)
    assert torch.equal(after[0], before[0])
    assert torch.allclose(
        before[1] - after[1], torch.tensor([1.5, -2.0]).view(1, 2, 1, 1), atol=1e-5
    )
    assert torch.equal(learning[1], before[1])


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 68), (61, 84)])
def test_flipped_image_has_a_flipped_boundary(network: IRNet, height: int, width: int) -> None:
    image = torch.randn(1, 3, height, width)
    straight = fields_of(network, image, flip=True)[0]
    flipped = fields_of(network, image.flip(3), flip=True)[0]
    assert (straight - flipped.flip(2)).abs().max() < 1e-5
    alone = fields_of(network, image, flip=False)[0]
    assert (straight - alone).abs().max() > 1e-3


@pytest.mark.parametrize("width", [64, 70])
def test_boundaries_are_averaged_over_flips_and_displacements_are_not(
    network: IRNet, width: int
) -> None:
    cut = 0 if network.canvas else -width % 4
    image = torch.nn.functional.pad(torch.randn(1, 3, 48, width), (0, cut))
    plain, turned = (network.relations(p)[0][:, 0] for p in (image, image.flip(3)))
    boundary, displacement = fields_of(network, image[..., :width], flip=True)
    assert torch.allclose(boundary, ((plain + turned.flip(2)) / 2).sigmoid(), atol=1e-5)
    assert torch.allclose(
        displacement, fields_of(network, image[..., :width], flip=False)[1], atol=1e-5
    )


def test_batched_equals_single(network: IRNet) -> None:
    images = torch.randn(3, 3, 50, 70)
    together = fields_of(network, images, flip=True)
    for number, image in enumerate(images):
        for joint, alone in zip(together, fields_of(network, image[None], flip=True), strict=True):
            assert torch.equal(joint[number], alone[0])


@pytest.mark.defect("irn-25")
@pytest.mark.parametrize("name", FAMILIES)
def test_checkpoint_has_weights_and_the_shift_and_no_tables(name: str) -> None:
    network = IRNet(name)
    state, parameters = network.state_dict(), {n for n, _ in network.named_parameters()}
    extra = {
        n for n in state if n not in parameters and "running_" not in n and "num_batches" not in n
    }
    assert extra == {"mean_shift"}
    size = sum(value.numel() * value.element_size() for value in state.values())
    assert size < 1.01 * 4 * sum(p.numel() for p in network.parameters()) + 2e5
    assert len({value.data_ptr() for value in state.values() if value.numel()}) == len(
        [value for value in state.values() if value.numel()]
    )
