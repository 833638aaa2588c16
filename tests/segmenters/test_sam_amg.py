"""SAM's decoder and map of all segments, against the package's decoder and generator."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything import SamAutomaticMaskGenerator
from torch import Tensor
from torch.nn import functional as F

from pipeline.segmenters.sam import Sam
from pipeline.segmenters.sam_amg import (
    MASKS,
    Attended,
    Decoder,
    Filters,
    Prompts,
    SegmentMap,
    segment_everything,
)
from tests.support.sam_nets import SIDE, LocalMaskDecoder, sample_image, small_sam, smallest_wins


@pytest.fixture(scope="module")
def net() -> Any:
    return small_sam()


def images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 32, 16, 16, generator=torch.Generator().manual_seed(seed))


def prompts(count: int, points: int, seed: int = 2) -> tuple[Tensor, Tensor]:
    xy = torch.rand(
        count, points, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return xy * SIDE, torch.ones(count, points, dtype=torch.int)


def published(net: Any, embeddings: Tensor, xy: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
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


def everyone(attended: Attended) -> Tensor:
    return torch.ones_like(attended.iou, dtype=torch.bool)


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("points", [1, 4])
def test_decoder_is_the_packages(net: Any, count: int, points: int) -> None:
    decoder, embeddings, (xy, labels) = Decoder(net), images(count), prompts(6, points)
    logits, iou = published(net, embeddings, xy, labels)
    attended = decoder.attend(embeddings, Prompts(xy, labels))
    torch.testing.assert_close(attended.iou, iou, atol=1e-4, rtol=1e-4)
    ours = decoder.logits(attended, everyone(attended)).unflatten(0, (6, 3))
    torch.testing.assert_close(ours, logits, atol=1e-4, rtol=1e-4)
    assert logits.std(0).mean() > 0.1  # the prompts matter, so the comparison says something


def test_only_chosen_masks_are_returned_in_their_order(net: Any) -> None:
    decoder, (xy, labels) = Decoder(net), prompts(5, 1)
    attended = decoder.attend(images(1), Prompts(xy, labels))
    chosen = torch.tensor([[0, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]], dtype=torch.bool)
    every = decoder.logits(attended, everyone(attended)).unflatten(0, (5, 3))
    torch.testing.assert_close(
        decoder.logits(attended, chosen), every[chosen], atol=1e-4, rtol=1e-4
    )
    assert decoder.logits(attended, torch.zeros_like(chosen)).shape == (0, 64, 64)


def test_masks_are_upscaled_in_parts_without_a_seam(
    net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, (xy, labels) = Decoder(net), prompts(5, 1)
    attended = decoder.attend(images(1), Prompts(xy, labels))
    whole = decoder.logits(attended, everyone(attended))
    monkeypatch.setattr("pipeline.segmenters.sam_amg.FLOATS_AT_ONCE", 1)
    torch.testing.assert_close(
        decoder.logits(attended, everyone(attended)), whole, atol=1e-4, rtol=1e-4
    )


def test_padding_leaves_no_trace(net: Any) -> None:
    decoder, embeddings, (xy, labels) = Decoder(net), images(3), prompts(3, 4)
    padding = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 1, 1]], dtype=torch.bool)
    together = decoder.attend(embeddings, Prompts(xy, labels, padding))
    for i, points in enumerate([4, 1, 2]):
        alone = decoder.attend(
            embeddings[i : i + 1], Prompts(xy[i : i + 1, :points], labels[i : i + 1, :points])
        )
        torch.testing.assert_close(together.iou[i : i + 1], alone.iou, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.tokens[i : i + 1], alone.tokens, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.image[i : i + 1], alone.image, atol=1e-4, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 4))
def test_resizing_is_the_packages_bit_for_bit(
    net: Any, height: int, width: int, masks: int
) -> None:
    logits = torch.randn(masks, 64, 64, generator=torch.Generator().manual_seed(height * width))
    decoder = Decoder(net)
    size = (height, width)
    theirs = net.postprocess_masks(logits[None], decoder.extent(size), size)[0]
    assert torch.equal(decoder.resize(logits, size), theirs)


class PackageDecoder(Decoder):
    """Decodes by the package's own mask decoder, so that all that follows can be compared bit for
    bit.
    """

    def attend(self, embeddings: Tensor, prompts: Prompts) -> Attended:
        sparse, dense = self.prompt_encoder(points=prompts[:2], boxes=None, masks=None)
        logits, iou = self.mask_decoder(
            image_embeddings=embeddings,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return Attended(iou, logits, logits)

    def logits(self, attended: Attended, chosen: Tensor) -> Tensor:
        return attended.tokens[chosen]


def local_sam(seed: int = 0) -> Any:
    net = small_sam(seed)
    net.mask_decoder = LocalMaskDecoder(net)
    return net


def generated(
    net: Any, image: np.ndarray, points_per_side: int, points_per_batch: int, filters: Filters
) -> list[Any]:
    """The masks of the package's generator."""
    generator = SamAutomaticMaskGenerator(
        net,
        points_per_side=points_per_side,
        points_per_batch=points_per_batch,
        pred_iou_thresh=filters.pred_iou,
        stability_score_thresh=filters.stability,
        stability_score_offset=filters.stability_offset,
        box_nms_thresh=filters.box_nms,
    )
    return generator.generate(image)


def ours(
    decoder: Decoder,
    net: Any,
    image: np.ndarray,
    filters: Filters,
    points_per_side: int = 8,
    points_per_batch: int = 10,
) -> SegmentMap:
    with torch.inference_mode():
        return segment_everything(
            decoder,
            Sam(net).encode(image),
            image.shape[:2],
            points_per_side=points_per_side,
            points_per_batch=points_per_batch,
            filters=filters,
        )


LOOSE = Filters(pred_iou=0.0, stability=0.0, box_nms=0.95)
FILTERED = Filters(pred_iou=0.5, stability=0.36, box_nms=0.7)
CASES = {
    "all": (LOOSE, (72, 96)),
    "filtered": (FILTERED, (72, 96)),
    "portrait": (FILTERED, (100, 60)),
    "larger than the input": (FILTERED, (200, 280)),
    "suppressed": (Filters(0.0, 0.0, box_nms=0.3), (72, 96)),
    "another offset": (Filters(0.0, 0.7, stability_offset=0.2, box_nms=0.9), (72, 96)),
}


@pytest.mark.defect("s2c-3")
@pytest.mark.parametrize("case", CASES)
def test_map_is_the_packages_pixel_for_pixel(case: str) -> None:
    filters, size = CASES[case]
    net, image = local_sam(3), sample_image(*size)
    masks = generated(net, image, 8, 10, filters)
    segments, stability, iou = smallest_wins(masks, size)
    found = ours(PackageDecoder(net), net, image, filters)
    assert np.array_equal(found.segments, segments)
    assert np.array_equal(found.stability, np.array(stability, np.float32))
    assert np.array_equal(found.iou, np.array(iou, np.float32))
    assert 10 < len(iou) < MASKS * 8 * 8


@pytest.mark.parametrize("filters", [Filters(pred_iou=2.0), Filters(pred_iou=0.0, stability=2.0)])
def test_image_without_any_mask_has_an_empty_map(filters: Filters) -> None:
    net, image = local_sam(), sample_image()
    found = ours(PackageDecoder(net), net, image, filters)
    assert found.segments.shape == (72, 96)
    assert not found.segments.any()
    assert len(found.stability) == len(found.iou) == 0


def test_points_per_batch_change_nothing() -> None:
    net, image = local_sam(3), sample_image()
    one, *others = (
        ours(PackageDecoder(net), net, image, FILTERED, points_per_batch=count)
        for count in (10, 1, 7, 1000)
    )
    for other in others:
        assert (one.segments != other.segments).float().mean() < 1e-3
        torch.testing.assert_close(one.iou, other.iou, atol=1e-4, rtol=1e-4)


class FixedMasks(Decoder):
    """A decoder that answers the prompts of a grid with these masks [N,H,W], three a prompt, and
    their predicted IoU.
    """

    def __init__(self, masks: Tensor, iou: Tensor, points_per_side: int) -> None:
        rest = MASKS * points_per_side**2 - len(masks)
        self.masks = F.pad(masks, (0, 0, 0, 0, 0, rest))
        self.iou = F.pad(iou, (0, rest), value=-1.0)
        self.side = points_per_side

    def attend(self, embeddings: Tensor, prompts: Prompts) -> Attended:
        column, row = (
            (prompts.points_xy[:, 0] / torch.tensor(self.extent((0, 0))[::-1]) * self.side).long().T
        )
        prompt = row * self.side + column
        masks = torch.stack([MASKS * prompt + i for i in range(MASKS)], 1)
        return Attended(self.iou[masks], masks, masks)

    def logits(self, attended: Attended, chosen: Tensor) -> Tensor:
        return self.masks[attended.tokens[chosen]] * 20.0 - 10.0

    def resize(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        return logits

    def resize_at_once(self, size: tuple[int, int]) -> int:
        return 5

    def extent(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.masks.shape[1], self.masks.shape[2]


KEEP_ALL = Filters(pred_iou=-1.0, box_nms=1.0)


def map_of(
    masks: Tensor, iou: Tensor | None = None, filters: Filters = KEEP_ALL, points_per_batch: int = 4
) -> SegmentMap:
    iou = torch.linspace(0.9, 1.0, len(masks)) if iou is None else iou
    side = int(np.ceil(np.sqrt(len(masks) / MASKS)))
    return segment_everything(
        FixedMasks(masks, iou, side),
        torch.zeros(1, 1, 1, 1),
        (masks.shape[1], masks.shape[2]),
        points_per_side=side,
        points_per_batch=points_per_batch,
        filters=filters,
    )


def test_of_equal_areas_the_higher_predicted_iou_owns_the_pixel() -> None:
    left, right = torch.zeros(2, 6, 9, dtype=torch.bool)
    left[:, :6] = True
    right[:, 3:] = True
    both = left & right
    for first, second in ((0.6, 0.7), (0.7, 0.6)):
        found = map_of(torch.stack([left, right]), torch.tensor([first, second]))
        owner = found.iou[found.segments[both].long() - 1]
        assert (owner == torch.tensor(0.7)).all()


@pytest.mark.defect("s2c-segments")
def test_more_segments_than_a_byte_can_number_leave_no_gap() -> None:
    cells = torch.arange(40 * 48).view(40, 48)
    number = cells // 48 // 2 * 24 + cells % 48 // 2  # 480 squares of 2 x 2
    masks = torch.stack([number == i for i in range(480)])
    found = map_of(masks)
    assert len(found.iou) == len(found.stability) == 480
    assert torch.equal(found.segments.unique(), torch.arange(1, 481))
    assert torch.equal(
        torch.stack([(found.segments == i).sum() for i in range(1, 481)]), torch.full((480,), 4)
    )


def test_segments_without_a_pixel_are_dropped_and_ids_contiguous() -> None:
    masks = torch.zeros(4, 4, 8, dtype=torch.bool)
    masks[0] = True
    masks[1, :, :4], masks[2, :, 4:] = True, True  # these hide the first
    masks[3, 1, 1] = True
    found = map_of(masks, torch.tensor([0.9, 0.8, 0.7, 0.6]))
    assert found.segments.unique().tolist() == [1, 2, 3]
    # largest first; equal areas by predicted IoU
    torch.testing.assert_close(found.iou, torch.tensor([0.7, 0.8, 0.6]))
    assert (found.stability == 1).all()


def test_predicted_iou_above_one_is_stored_as_one() -> None:
    found = map_of(torch.ones(1, 3, 3, dtype=torch.bool), torch.tensor([1.2]))
    assert found.iou.tolist() == [1.0]
