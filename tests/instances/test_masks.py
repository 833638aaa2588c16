import numpy as np
import pytest

from pipeline.instances.base import exclusive, masks_of, pack, unpack


@pytest.mark.parametrize("size", [(0, 3, 9), (1, 1, 1), (3, 5, 8), (2, 4, 17)])
def test_bits_give_the_masks_back(size: tuple[int, int, int]) -> None:
    masks = np.random.default_rng(0).random(size) < 0.5
    bits = pack(masks)
    assert bits.shape == (*size[:2], -(-size[2] // 8))
    np.testing.assert_array_equal(unpack(bits, size[2]), masks)


def test_both_layouts_give_the_same_masks() -> None:
    ids = np.array([[0, 1, 1], [2, 2, 0]], np.uint16)
    classes, semantic = np.array([4, 1], np.uint8), np.zeros((2, 3), np.uint8)
    masks = masks_of({"instances": ids, "classes": classes, "semantic": semantic})
    np.testing.assert_array_equal(masks, np.stack([ids == 1, ids == 2]))
    again = masks_of({"instances": pack(masks), "classes": classes, "semantic": semantic})
    np.testing.assert_array_equal(again, masks)


def test_an_instance_without_pixels_keeps_its_place() -> None:
    ids = np.array([[0, 2]], np.uint16)
    masks = masks_of({"instances": ids, "classes": np.array([0, 0], np.uint8), "semantic": ids})
    assert masks.sum((1, 2)).tolist() == [0, 1]


def test_no_instances() -> None:
    nothing = {"classes": np.zeros(0, np.uint8), "semantic": np.zeros((4, 5), np.uint8)}
    assert masks_of({"instances": np.zeros((4, 5), np.uint16), **nothing}).shape == (0, 4, 5)
    assert masks_of({"instances": pack(np.zeros((0, 4, 5), bool)), **nothing}).shape == (0, 4, 5)
    assert not exclusive(np.zeros((0, 4, 5), bool), np.zeros(0)).any()


def test_the_higher_score_is_in_front() -> None:
    masks = np.array([[[1, 1, 0, 1]], [[0, 1, 1, 0]], [[0, 0, 0, 1]]], bool)
    assert exclusive(masks, np.array([0.2, 0.9, 0.2])).tolist() == [[1, 2, 2, 1]]
