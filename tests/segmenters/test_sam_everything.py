from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.segmenters.sam_decoder import MASKS, Attended, Decoder
from pipeline.segmenters.sam_encoder import encode
from pipeline.segmenters.sam_everything import (
    Filters,
    SegmentMap,
    box_xyxy_of,
    mended,
    point_grid,
    segment_everything,
)
from tests.support.sam_nets import LocalMaskDecoder, localised, sample_image, small_sam

pytest.importorskip("segment_anything", reason="extra `sam` is not installed")


class PackageDecoder(Decoder):
    """Decodes by the package's own mask decoder, so that all that follows can be compared bit for
    bit.
    """

    def attend(
        self, embeddings: Tensor, points_xy: Tensor, labels: Tensor, padding: Tensor | None = None
    ) -> Attended:
        sparse, dense = self.prompt_encoder(points=(points_xy, labels), boxes=None, masks=None)
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


class LocalDecoder(Decoder):
    """Our decoder, its masks drawn about their prompts as LocalMaskDecoder does with the package's."""

    def __init__(self, net: Any) -> None:
        super().__init__(net)
        self.net, self.mask_decoder = net, net.mask_decoder.inner

    def attend(
        self, embeddings: Tensor, points_xy: Tensor, labels: Tensor, padding: Tensor | None = None
    ) -> Attended:
        attended = super().attend(embeddings, points_xy, labels, padding)
        every = torch.ones_like(attended.iou, dtype=torch.bool)
        logits = super().logits(attended, every).unflatten(0, every.shape)
        sparse, _ = self.prompt_encoder(points=(points_xy, labels), boxes=None, masks=None)
        logits, iou = localised(self.net, sparse, logits, attended.iou)
        return Attended(iou, logits, logits)

    def logits(self, attended: Attended, chosen: Tensor) -> Tensor:
        return attended.tokens[chosen]


def local_sam(seed: int = 0) -> Any:
    net = small_sam(seed)
    net.mask_decoder = LocalMaskDecoder(net)
    return net


def published(
    net: Any, image: np.ndarray, points_per_side: int, points_per_batch: int, filters: Filters
) -> list[Any]:
    """The masks of the package's generator."""
    from segment_anything import SamAutomaticMaskGenerator

    generator = SamAutomaticMaskGenerator(
        net,
        points_per_side=points_per_side,
        points_per_batch=points_per_batch,
        pred_iou_thresh=filters.pred_iou,
        stability_score_thresh=filters.stability,
        stability_score_offset=filters.stability_offset,
        box_nms_thresh=filters.box_nms,
        crop_nms_thresh=filters.box_nms,  # the package suppresses mended masks at the greater of the two
        min_mask_region_area=filters.min_area,
    )
    return generator.generate(image)


def smallest_wins(
    masks: list[Any], size: tuple[int, int]
) -> tuple[np.ndarray, list[float], list[float]]:
    """The label map, stability and predicted IoU of the package's masks."""
    owner = np.full(size, -1)
    order = sorted(range(len(masks)), key=lambda i: (-masks[i]["area"], masks[i]["predicted_iou"]))
    for i in order:
        owner[masks[i]["segmentation"]] = i
    kept = [i for i in order if (owner == i).any()]
    segments = np.zeros(size, int)
    for number, i in enumerate(kept, start=1):
        segments[owner == i] = number
    return (
        segments,
        [masks[i]["stability_score"] for i in kept],
        [np.clip(masks[i]["predicted_iou"], 0, 1) for i in kept],
    )


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
            encode(net, image),
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
    "larger than the input": (FILTERED, (300, 410)),
    "suppressed": (Filters(0.0, 0.0, box_nms=0.3), (72, 96)),
    "another offset": (Filters(0.0, 0.7, stability_offset=0.2, box_nms=0.9), (72, 96)),
    "mended": (Filters(0.0, 0.0, box_nms=0.9, min_area=40), (72, 96)),
    "mended, suppressed again": (Filters(0.3, 0.3, box_nms=0.4, min_area=12), (100, 60)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [1, 3])
def test_map_is_the_packages_pixel_for_pixel(case, seed):
    filters, size = CASES[case]
    net, image = local_sam(seed), sample_image(*size)
    masks = published(net, image, 8, 10, filters)
    segments, stability, iou = smallest_wins(masks, size)
    found = ours(PackageDecoder(net), net, image, filters)
    assert np.array_equal(found.segments, segments)
    assert np.array_equal(found.stability, np.float32(stability))
    assert np.array_equal(found.iou, np.float32(iou))
    assert 10 < len(iou) < MASKS * 8 * 8


@pytest.mark.parametrize("mend", [0, 9])
@pytest.mark.parametrize("filters", [Filters(pred_iou=2.0), Filters(pred_iou=0.0, stability=2.0)])
def test_image_without_any_mask_has_an_empty_map(filters, mend):
    net, image = local_sam(), sample_image()
    found = ours(PackageDecoder(net), net, image, replace(filters, min_area=mend))
    assert found.segments.shape == (72, 96)
    assert not found.segments.any()
    assert len(found.stability) == len(found.iou) == 0


@pytest.mark.parametrize("case", ["all", "filtered", "mended"])
@pytest.mark.parametrize("seed", [1, 3])
def test_map_with_our_decoder_is_the_packages(case, seed):
    """A pixel may differ where rounding turns the sign of a logit."""
    filters, size = CASES[case]
    net, image = local_sam(seed), sample_image(*size, seed)
    segments, stability, _ = smallest_wins(published(net, image, 8, 10, filters), size)
    found = ours(LocalDecoder(net), net, image, filters)
    assert len(found.stability) == len(stability)
    assert (found.segments.numpy() != segments).mean() < 1e-3


@pytest.mark.parametrize("points_per_batch", [1, 7, 64, 1000])
def test_number_of_points_decoded_together_changes_nothing(points_per_batch):
    net, image = local_sam(3), sample_image()
    one = ours(LocalDecoder(net), net, image, FILTERED, points_per_batch=10)
    other = ours(LocalDecoder(net), net, image, FILTERED, points_per_batch=points_per_batch)
    assert (one.segments != other.segments).float().mean() < 1e-3
    torch.testing.assert_close(one.iou, other.iou, atol=1e-4, rtol=1e-4)


class Given:
    """A decoder that answers the prompts of a grid with given masks [N,H,W], three a prompt, and
    given predicted IoU.
    """

    def __init__(self, masks: Tensor, iou: Tensor, points_per_side: int) -> None:
        self.masks = torch.nn.functional.pad(
            masks, (0, 0, 0, 0, 0, MASKS * points_per_side**2 - len(masks))
        )
        self.iou = torch.nn.functional.pad(
            iou, (0, MASKS * points_per_side**2 - len(iou)), value=-1.0
        )
        self.side = points_per_side

    def attend(self, embeddings: Tensor, points_xy: Tensor, labels: Tensor) -> Attended:
        column, row = (
            (points_xy[:, 0] / torch.tensor(self.extent((0, 0))[::-1]) * self.side).long().T
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
        Given(masks, iou, side),
        torch.zeros(1, 1, 1, 1),
        (masks.shape[1], masks.shape[2]),
        points_per_side=side,
        points_per_batch=points_per_batch,
        filters=filters,
    )


def rectangles(rng: np.random.Generator, count: int, height: int, width: int) -> Tensor:
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for mask in masks:
        (top, bottom), (left, right) = (
            np.sort(rng.choice(side + 1, 2, replace=False)) for side in (height, width)
        )
        mask[top:bottom, left:right] = True
    return masks


@pytest.mark.defect("s2c-3")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_smallest_segment_owns_a_pixel_in_any_order(seed, count):
    rng = np.random.default_rng(seed)
    masks = rectangles(rng, count, 12, 15)
    masks = masks[np.unique(masks.sum((1, 2)), return_index=True)[1]]  # no two of equal area
    areas = masks.sum((1, 2))[:, None, None].expand_as(masks).clone()
    areas[~masks] = 10**6
    smallest = torch.where(masks.any(0), areas.argmin(0), -1)
    for _ in range(3):
        order = torch.from_numpy(rng.permutation(len(masks)))
        segments = map_of(
            masks[order], torch.from_numpy(rng.uniform(0.5, 1, len(masks))).float()
        ).segments
        for i in range(-1, len(masks)):
            assert len(segments[smallest == i].unique()) == min(1, int((smallest == i).sum()))
        assert torch.equal(segments == 0, smallest == -1)
        assert len(segments.unique()) == len(smallest.unique())


def test_nested_segments_keep_what_is_inside():
    outer, inner = torch.zeros(2, 10, 10, dtype=torch.bool)
    outer[1:9, 1:9] = True
    inner[3:6, 3:6] = True
    for masks, iou in (
        [(outer, inner), (0.9, 0.5)],
        [(inner, outer), (0.5, 0.9)],
        [(inner, outer), (0.9, 0.5)],
    ):
        found = map_of(torch.stack(masks), torch.tensor(iou))
        assert (found.segments[inner] == 2).all()
        assert (found.segments[outer & ~inner] == 1).all()
        assert found.iou[1] == torch.tensor(iou)[0 if masks[0] is inner else 1]


def test_of_equal_areas_the_higher_predicted_iou_owns_the_pixel():
    left, right = torch.zeros(2, 6, 9, dtype=torch.bool)
    left[:, :6] = True
    right[:, 3:] = True
    both = left & right
    for first, second in ((0.6, 0.7), (0.7, 0.6)):
        found = map_of(torch.stack([left, right]), torch.tensor([first, second]))
        owner = found.iou[found.segments[both].long() - 1]
        assert (owner == torch.tensor(0.7)).all()


@pytest.mark.defect("s2c-segments")
def test_more_segments_than_a_byte_can_number_survive_and_leave_no_gap():
    cells = torch.arange(40 * 48).view(40, 48)
    number = cells // 48 // 2 * 24 + cells % 48 // 2  # 480 squares of 2 x 2
    masks = torch.stack([number == i for i in range(480)])
    found = map_of(masks)
    assert len(found.iou) == len(found.stability) == 480
    assert torch.equal(found.segments.unique(), torch.arange(1, 481))
    assert torch.equal(
        torch.stack([(found.segments == i).sum() for i in range(1, 481)]), torch.full((480,), 4)
    )


@pytest.mark.defect("s2c-segments")
def test_covered_image_loses_no_segment():
    halves = torch.zeros(2, 8, 8, dtype=torch.bool)
    halves[0, :, :5], halves[1, :, 5:] = True, True
    found = map_of(halves)
    assert found.segments.unique().tolist() == [1, 2]


def test_segments_without_a_pixel_are_dropped_and_ids_stay_contiguous():
    masks = torch.zeros(4, 4, 8, dtype=torch.bool)
    masks[0] = True
    masks[1, :, :4], masks[2, :, 4:] = True, True  # these hide the first
    masks[3, 1, 1] = True
    found = map_of(masks, torch.tensor([0.9, 0.8, 0.7, 0.6]))
    assert found.segments.unique().tolist() == [1, 2, 3]
    torch.testing.assert_close(
        found.iou, torch.tensor([0.7, 0.8, 0.6])
    )  # largest first; equal areas by predicted IoU
    assert (found.stability == 1).all()


def test_predicted_iou_above_one_is_recorded_as_one():
    found = map_of(torch.ones(1, 3, 3, dtype=torch.bool), torch.tensor([1.2]))
    assert found.iou.tolist() == [1.0]


def test_of_nearly_equal_boxes_the_higher_predicted_iou_stays():
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, :19], masks[1] = True, True
    assert map_of(
        masks, torch.tensor([0.8, 0.9]), Filters(0.5, box_nms=0.7)
    ).iou.tolist() == pytest.approx([0.9])
    assert len(map_of(masks, torch.tensor([0.8, 0.9]), Filters(0.5, box_nms=0.99)).iou) == 2


def test_of_masks_that_mending_makes_alike_the_one_that_needed_none_stays():
    masks = torch.zeros(2, 30, 30, dtype=torch.bool)
    masks[0, :20, :20], masks[1, :20, :19] = True, True
    masks[0, 28, 28] = True  # an island: the boxes differ until it is gone
    found = map_of(masks, torch.tensor([0.9, 0.8]), Filters(0.5, box_nms=0.7, min_area=4))
    assert found.iou.tolist() == pytest.approx([0.8])
    assert int((found.segments == 1).sum()) == 20 * 19


masks_of_dots = st.tuples(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(1, 12))


@settings(max_examples=150, deadline=None)
@given(masks_of_dots)
def test_mending_is_the_packages(drawn):
    from segment_anything.utils.amg import remove_small_regions

    seed, density, min_area = drawn
    mask = np.random.default_rng(seed).random((13, 17)) < density
    filled, holes = remove_small_regions(mask, min_area, mode="holes")
    whole, islands = remove_small_regions(filled, min_area, mode="islands")
    found, changed = mended(mask, min_area)
    assert np.array_equal(found, whole)
    assert changed == (holes or islands)


@settings(max_examples=50, deadline=None)
@given(masks_of_dots)
def test_boxes_are_the_packages(drawn):
    from segment_anything.utils.amg import batched_mask_to_box

    seed, density, count = drawn
    masks = torch.from_numpy(np.random.default_rng(seed).random((count, 13, 17)) < density**4)
    assert torch.equal(box_xyxy_of(masks), batched_mask_to_box(masks))


@pytest.mark.parametrize("points_per_side", [1, 2, 8, 32])
def test_grid_is_the_packages(points_per_side):
    from segment_anything.utils.amg import build_point_grid

    theirs = torch.from_numpy(build_point_grid(points_per_side)) * torch.tensor([256.0, 192.0])
    torch.testing.assert_close(
        point_grid(points_per_side, (192, 256)), theirs.double(), atol=1e-10, rtol=0
    )
