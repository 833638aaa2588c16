"""Mask R-CNN on a timm backbone: its targets, losses and detections."""

from pathlib import Path

import pytest
import torch

from pipeline.core.distributed import DistributedContext
from pipeline.core.trainer import TrainState
from pipeline.core.weights import load_network, save_weights
from pipeline.instances.maskrcnn.detections import detect
from pipeline.instances.maskrcnn.network import Network
from pipeline.instances.maskrcnn.training import objective, target

SMALL = "test_resnet"


def network() -> Network:
    torch.manual_seed(0)
    return Network(3, SMALL, channels=8)


def batch(count: int = 2) -> list[torch.Tensor]:
    """Two crops, a bright square of class 2 in each; `count` of them are known."""
    images = torch.full((2, 3, 64, 64), 40, dtype=torch.uint8)
    images[:, :, 16:48, 8:40] = 220
    ids = torch.zeros(2, 64, 64, dtype=torch.uint8)
    ids[:count, 16:48, 8:40] = 1
    classes = torch.full((2, 4), 255, dtype=torch.uint8)
    classes[:count, 0] = 2
    return [images, ids, classes, torch.ones(2, 4)]


@pytest.fixture(scope="module")
def step() -> TrainState:
    return TrainState(DistributedContext(), 0.0, 0.0)


def test_targets_are_boxes_around_the_pixels() -> None:
    ids = torch.tensor([[0, 2, 2, 255], [0, 2, 0, 0], [1, 0, 0, 0]], dtype=torch.uint8)
    found = target(ids, torch.tensor([4, 0, 7, 255], dtype=torch.uint8))
    assert found["boxes"].tolist() == [[0, 2, 1, 3], [1, 0, 3, 2]]
    assert found["labels"].tolist() == [5, 1]
    assert found["masks"].sum((1, 2)).tolist() == [1, 3]


def test_a_crop_without_instances_has_an_empty_target() -> None:
    found = target(torch.zeros(8, 8, dtype=torch.uint8), torch.full((3,), 255, dtype=torch.uint8))
    assert [tuple(found[key].shape) for key in ("boxes", "labels", "masks")] == [
        (0, 4),
        (0,),
        (0, 8, 8),
    ]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_every_term_is_finite_and_has_a_gradient(step: TrainState, count: int) -> None:
    net = network().train()
    terms = objective()(net, batch(count), step)
    assert set(terms) == {"loss", "classifier", "box_reg", "mask", "objectness", "rpn_box_reg"}
    values = {name: float(value.detach()) for name, value in terms.items()}
    assert values.pop("loss") == pytest.approx(sum(values.values()))
    terms["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert any(p.grad is not None and p.grad.any() for p in net.net.backbone.body.parameters())


def test_the_objective_learns(step: TrainState) -> None:
    net, given = network().train(), batch()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        torch.manual_seed(0)
        loss = objective()(net, given, step)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("sides", [None, (48, 80)])
def test_detections_have_the_size_of_their_image_and_do_not_depend_on_others(
    sides: tuple[int, int] | None,
) -> None:
    net = network().eval()
    net.net.roi_heads.score_thresh = 0.0
    generator = torch.Generator().manual_seed(1)
    images = [
        torch.randint(0, 256, (3, *size), generator=generator) for size in ((40, 64), (70, 33))
    ]
    together = detect(net, images, score=0.0, sides=sides)
    for image, found in zip(images, together, strict=True):
        assert found.masks.shape[1:] == image.shape[1:]
        assert len(found.masks) == len(found.classes) == len(found.scores)
        assert ((found.classes >= 0) & (found.classes < 3)).all()
        (alone,) = detect(net, [image], score=0.0, sides=sides)
        assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))
    assert all(len(found.scores) == 0 for found in detect(net, images, score=1.0, sides=sides))


@pytest.mark.parametrize(
    ("sides", "size"), [(None, (64, 96)), ((128, 400), (128, 192)), ((128, 160), (128, 160))]
)
def test_the_network_sees_a_image_at_the_sides_asked_for(
    sides: tuple[int, int] | None, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padded to multiples of 32."""
    net, seen = network().eval(), list[tuple[int, ...]]()
    forward = net.net.backbone.forward
    monkeypatch.setattr(
        net.net.backbone, "forward", lambda x: (seen.append(tuple(x.shape[2:])), forward(x))[1]
    )
    detect(net, [torch.zeros(3, 64, 96)], score=0.5, sides=sides)
    assert seen == [size]


@pytest.mark.parametrize("proposals", [1, 8])
def test_the_heads_learn_from_as_many_proposals_as_asked_for(
    proposals: int, step: TrainState
) -> None:
    """Of each of the two images; the mask head from at most a quarter of them, those on objects."""
    torch.manual_seed(0)
    net, seen = Network(3, SMALL, channels=8, proposals=proposals).train(), dict[str, int]()
    for head in ("box_head", "mask_head"):
        module = getattr(net.net.roi_heads, head)
        module.register_forward_hook(
            lambda _, args, out, head=head: seen.update({head: len(args[0])})
        )
    objective()(net, batch(), step)
    assert seen["box_head"] == 2 * proposals
    assert seen["mask_head"] <= 2 * proposals // 4


@pytest.mark.parametrize("channels", [8, 16])
def test_channels_shape_pyramid_and_mask_head(channels: int) -> None:
    heads = Network(3, SMALL, channels=channels).net.roi_heads
    convolutions = [m for m in heads.mask_head.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == 4 * [(channels, channels)]
    assert heads.mask_predictor.mask_fcn_logits.out_channels == 4


def test_new_parameters_are_all_but_the_backbone() -> None:
    net = network()
    new = set(net.new_parameters())
    assert not new & set(net.net.backbone.body.parameters())
    assert new | set(net.net.backbone.body.parameters()) == set(net.parameters())


def test_saved_and_restored(tmp_path: Path) -> None:
    net = network()
    save_weights(
        tmp_path / "w.safetensors",
        net,
        "instance",
        classes=["a", "b", "c"],
        options={"channels": 8},
    )
    again = load_network(
        tmp_path / "w.safetensors",
        "instance",
        lambda header: Network(len(header["classes"]), SMALL, **header["options"]),
        torch.device("cpu"),
    )
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
