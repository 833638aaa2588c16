import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.segmenters.sam_decoder import Decoder, stability
from tests.support.sam_nets import SIDE, small_sam

pytest.importorskip("segment_anything", reason="extra `sam` is not installed")


@pytest.fixture(scope="module")
def net():
    return small_sam()


def images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 32, 16, 16, generator=torch.Generator().manual_seed(seed))


def prompts(count: int, points: int, seed: int = 2) -> tuple[Tensor, Tensor]:
    xy = torch.rand(
        count, points, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return xy * SIDE, torch.ones(count, points, dtype=torch.int)


def published(net, embeddings: Tensor, xy: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Low-resolution logits [B,3,64,64] and predicted IoU [B,3] of the package, image by image."""
    found = []
    for i in range(len(xy)):
        sparse, dense = net.prompt_encoder(
            points=(xy[i : i + 1], labels[i : i + 1]), boxes=None, masks=None
        )
        found.append(
            net.mask_decoder(
                image_embeddings=embeddings[i if len(embeddings) > 1 else 0][None],
                image_pe=net.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )
        )
    logits, iou = zip(*found, strict=True)
    return torch.cat(logits), torch.cat(iou)


def everyone(attended) -> Tensor:
    return torch.ones_like(attended.iou, dtype=torch.bool)


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("points", [1, 4])
def test_decoder_is_the_packages(net, count, points):
    decoder, embeddings, (xy, labels) = Decoder(net), images(count), prompts(6, points)
    logits, iou = published(net, embeddings, xy, labels)
    attended = decoder.attend(embeddings, xy, labels)
    torch.testing.assert_close(attended.iou, iou, atol=1e-4, rtol=1e-4)
    ours = decoder.logits(attended, everyone(attended)).unflatten(0, (6, 3))
    torch.testing.assert_close(ours, logits, atol=1e-4, rtol=1e-4)
    assert logits.std(0).mean() > 0.1  # the prompts matter, so the comparison says something


def test_every_weight_of_the_decoder_counts(net):
    """No projection or bias may be dropped by the reordering but the biases of keys that softmax
    cannot see.
    """
    decoder, embeddings, (xy, labels) = Decoder(net), images(2), prompts(2, 3)
    with torch.enable_grad():
        weights = {
            name: value
            for name, value in net.mask_decoder.named_parameters()
            if "mlps.0" not in name
        }
        for value in weights.values():
            value.requires_grad_(True)
        attended = decoder.attend(embeddings, xy, labels)
        result = (
            decoder.logits(attended, everyone(attended)).square().sum()
            + attended.iou.square().sum()
        )
        grads = torch.autograd.grad(result, list(weights.values()), allow_unused=True)
        for value in weights.values():
            value.requires_grad_(False)
    unseen = [
        name for name, grad in zip(weights, grads, strict=True) if grad is None or not grad.any()
    ]
    assert all("token_to_image.k_proj.bias" in name for name in unseen)


def test_only_the_chosen_masks_come_in_their_order(net):
    decoder, (xy, labels) = Decoder(net), prompts(5, 1)
    attended = decoder.attend(images(1), xy, labels)
    chosen = torch.tensor([[0, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]], dtype=torch.bool)
    every = decoder.logits(attended, everyone(attended)).unflatten(0, (5, 3))
    torch.testing.assert_close(
        decoder.logits(attended, chosen), every[chosen], atol=1e-4, rtol=1e-4
    )
    assert decoder.logits(attended, torch.zeros_like(chosen)).shape == (0, 64, 64)


def test_masks_are_upscaled_in_parts_without_a_seam(net, monkeypatch):
    decoder, (xy, labels) = Decoder(net), prompts(5, 1)
    attended = decoder.attend(images(1), xy, labels)
    whole = decoder.logits(attended, everyone(attended))
    monkeypatch.setattr("pipeline.segmenters.sam_decoder.FLOATS_AT_ONCE", 1)
    torch.testing.assert_close(
        decoder.logits(attended, everyone(attended)), whole, atol=1e-4, rtol=1e-4
    )


def test_padding_leaves_no_trace(net):
    decoder, embeddings, (xy, labels) = Decoder(net), images(3), prompts(3, 4)
    padding = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 1, 1]], dtype=torch.bool)
    together = decoder.attend(embeddings, xy, labels, padding)
    for i, points in enumerate([4, 1, 2]):
        alone = decoder.attend(
            embeddings[i : i + 1], xy[i : i + 1, :points], labels[i : i + 1, :points]
        )
        torch.testing.assert_close(together.iou[i : i + 1], alone.iou, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.tokens[i : i + 1], alone.tokens, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.image[i : i + 1], alone.image, atol=1e-4, rtol=1e-4)


def test_padding_by_label_alone_would_change_the_answer(net):
    """Why attend takes `padding`: the package attends to its points of label -1."""
    xy, labels = prompts(1, 3)
    labels[:, 1:] = -1
    _, padded = published(net, images(1), xy, labels)
    _, alone = published(net, images(1), xy[:, :1], labels[:, :1])
    assert (padded - alone).abs().max() > 1e-2


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 4))
def test_resizing_is_the_packages_bit_for_bit(net, height, width, masks):
    logits = torch.randn(masks, 64, 64, generator=torch.Generator().manual_seed(height * width))
    decoder = Decoder(net)
    theirs = net.postprocess_masks(logits[None], decoder.extent((height, width)), (height, width))[
        0
    ]
    assert torch.equal(decoder.resize(logits, (height, width)), theirs)


def test_memory_of_resizing_is_bounded_for_any_image(net):
    decoder = Decoder(net)
    for size in [(10, 10), (3000, 4000), (20000, 20000)]:
        at_once = decoder.resize_at_once(size)
        assert at_once == 1 or at_once * max(SIDE**2, np.prod(size)) <= 2**24


@pytest.mark.parametrize("offset", [0.1, 1.0])
def test_stability_is_the_packages(offset):
    from segment_anything.utils.amg import calculate_stability_score

    logits = torch.randn(7, 30, 40, generator=torch.Generator().manual_seed(0)) * 2
    logits[3] = -9
    theirs = calculate_stability_score(logits, 0.0, offset)
    torch.testing.assert_close(stability(logits, offset), theirs, atol=0, rtol=0, equal_nan=True)
    assert theirs[3].isnan()
