"""A small group-IAM head against numbers of the authors' code: encoding, outputs, matching, losses,
gradients, results.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.instances.sparseinst import detections, network
from pipeline.instances.sparseinst.losses import (
    Targets,
    loss_terms,
    match,
    targets_of,
    total_loss,
)
from pipeline.instances.sparseinst.network import Decoder, Encoder, Outputs
from pipeline.published import REPOSITORIES, translate
from tests.support.sparseinst_cases import PUBLISHED

GOLDEN = {
    name: torch.from_numpy(value)
    for name, value in np.load(
        Path(__file__).resolve().parents[2] / "golden" / "group_iam_tiny.npz"
    ).items()
}
IMAGES, QUERIES, CLASSES, SIDE = 3, 12, 5, 128
INNER, SIZE = (104, 120), (96, 140)
TERMS = {"classification": "ce", "dice": "dice", "mask": "mask", "objectness": "objectness"}


def part(name: str) -> dict[str, Tensor]:
    """Return the golden weights of `encoder` or `decoder` under our names."""
    state = {key: value for key, value in GOLDEN.items() if key.startswith(f"{name}.")}
    own = {"decoder.instances.activation.bias": torch.zeros(1)}
    renamed = translate(state, REPOSITORIES["sparseinst"], own)
    return {key.removeprefix(f"{name}."): value for key, value in renamed.items()}


def bits(name: str, *shape: int) -> Tensor:
    count = int(np.prod(shape))
    return torch.from_numpy(np.unpackbits(GOLDEN[name].numpy(), count=count).reshape(shape)).bool()


def close(found: Tensor, name: str) -> None:
    """Within 1e-5 of the largest value."""
    wanted = GOLDEN[name].view_as(found)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.fixture(scope="module")
def outputs() -> Outputs:
    tensors = [GOLDEN[f"outputs.pred_{name}"].clone() for name in ("logits", "masks", "scores")]
    tensors[2] = tensors[2][..., 0]
    return Outputs(*(tensor.requires_grad_() for tensor in tensors))


@pytest.fixture(scope="module")
def targets() -> Targets:
    """The golden masks do not overlap, so id maps can hold them."""
    ids = torch.zeros(IMAGES, SIDE, SIDE, dtype=torch.uint8)
    classes = torch.full((IMAGES, 6), 255, dtype=torch.uint8)
    for image in range(IMAGES):
        labels = GOLDEN[f"targets.{image}.labels"]
        masks = bits(f"targets.{image}.masks", len(labels), SIDE, SIDE)
        classes[image, : len(labels)] = labels.byte()
        for number, mask in enumerate(masks, 1):
            ids[image][mask] = number
    return targets_of(ids, classes, torch.ones(IMAGES, 6), "bilinear")


@torch.no_grad()
def test_encoder_and_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "KERNEL", 16)
    encoder = Encoder((24, 40, 56), 32)
    encoder.load_state_dict(part("encoder"))
    decoder = Decoder(32, CLASSES, queries=QUERIES, groups=4)
    decoder.load_state_dict(part("decoder"))
    encoded = encoder([GOLDEN[f"features.res{level}"] for level in (3, 4, 5)])
    close(encoded, "encoded")
    logits, masks, objectness = decoder(encoded)
    close(logits, "outputs.pred_logits")
    close(masks, "outputs.pred_masks")
    close(objectness, "outputs.pred_scores")


def test_matching(outputs: Outputs, targets: Targets) -> None:
    assert targets.counts == [3, 4, 0]
    matches = match(outputs, targets)
    for image, start in enumerate((0, 3, 7)):
        mine = matches.image == image
        found = sorted(
            zip(matches.query[mine].tolist(), matches.target[mine].tolist(), strict=True)
        )
        query, target = GOLDEN[f"indices.{image}"]
        assert found == sorted(zip(query.tolist(), (target + start).tolist(), strict=True))


def test_losses_and_gradients(outputs: Outputs, targets: Targets) -> None:
    matches = match(outputs, targets)
    terms = loss_terms(outputs, targets, matches, torch.tensor(7.0))
    total = total_loss(terms, PUBLISHED)
    gradients = torch.autograd.grad(total, list(outputs))
    scaled = {name: PUBLISHED[name] * float(term.detach()) for name, term in terms.items()}
    for name, theirs in TERMS.items():
        assert scaled[name] == pytest.approx(float(GOLDEN[f"losses.loss_{theirs}"]), rel=1e-5)
    for gradient, name in zip(gradients, ("logits", "masks", "scores"), strict=True):
        close(gradient, f"grads.pred_{name}")


@pytest.mark.parametrize("image", range(IMAGES))
def test_results(outputs: Outputs, image: int) -> None:
    one = Outputs(*(tensor[image].detach() for tensor in outputs))
    found = detections(one, INNER, SIZE, score=0.005)
    assert torch.equal(found.classes, GOLDEN[f"post.{image}.labels"])
    close(found.scores, f"post.{image}.scores")
    wanted = bits(f"post.{image}.masks", QUERIES, *SIZE)
    # theirs are interpolated twice, by way of the network's input: edges differ
    assert (found.masks != wanted).float().mean() < 0.02
