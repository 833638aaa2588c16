import numpy as np
import pytest

from pipeline.metrics.instance import InstanceScores

CLASSES = ("cat", "dog")
U1, F4 = np.uint8, np.float32


def boxes(*corners: tuple[int, int, int, int], size: tuple[int, int] = (40, 50)) -> np.ndarray:
    """Id map of rectangles (y0, x0, y1, x1)."""
    ids = np.zeros(size, np.uint16)
    for number, (y0, x0, y1, x1) in enumerate(corners, start=1):
        ids[y0:y1, x0:x1] = number
    return ids


TWO = boxes((2, 3, 12, 13), (20, 25, 30, 35))
BOTH = np.array([0, 1], U1)
KEYS = ("AP", "AP50", "AP75", "voc_AP50", "voc_AP70")


def split(ids: np.ndarray, count: int) -> np.ndarray:
    """Masks of the ids 1..count of a map."""
    return ids == np.arange(1, count + 1)[:, None, None]


def score(truth: tuple, predicted: tuple, void: np.ndarray | None = None) -> dict:
    scores, (ids, classes, ranks) = InstanceScores(CLASSES), predicted
    scores.add("a", (*truth, void), (split(ids, len(classes)), classes, ranks))
    return scores.compute()


def test_one_of_two_found() -> None:
    one = np.where(TWO == 1, TWO, 0)
    result = score((TWO, np.array([0, 0], U1)), (one, np.array([0], U1), np.array([0.9], F4)))
    # Recall 0.5 with precision 1: 51 of COCO's 101 recall points, half of the area.
    assert result["AP"] == pytest.approx(51 / 101)
    assert result["voc_AP50"] == 0.5
    assert (result["instances"], result["detections"]) == (2, 1)
    assert result["per_class"]["dog"]["AP50"] is None


def test_wrong_class_is_zero_and_lowers_both_classes() -> None:
    result = score((TWO, BOTH), (TWO, BOTH[::-1], np.ones(2, F4)))
    assert result["AP"] == result["AP50"] == result["voc_AP50"] == 0


def test_each_class_has_its_own_scores() -> None:
    found = np.where(TWO == 1, TWO, 0)
    result = score((TWO, BOTH), (found, BOTH[:1], np.ones(1, F4)))
    assert [result[key] for key in KEYS] == pytest.approx([0.5] * 5)
    for name, own in (("cat", 1), ("dog", 0)):
        assert [result["per_class"][name][key] for key in KEYS] == pytest.approx([own] * 5)


@pytest.mark.parametrize(("width", "passed"), [(6, 3), (7, 5), (8, 7)])
def test_an_overlap_counts_up_to_its_iou(width: int, passed: int) -> None:
    truth, predicted = boxes((0, 0, 10, 10)), boxes((0, 0, 10, width))
    result = score((truth, np.zeros(1, U1)), (predicted, np.zeros(1, U1), np.ones(1, F4)))
    assert result["AP50"] == pytest.approx(1)
    assert result["voc_AP50"] == 1
    assert result["AP75"] == pytest.approx(float(width >= 8))
    assert result["voc_AP70"] == (width >= 7)
    assert result["AP"] == pytest.approx(passed / 10)  # of the thresholds 0.50, 0.55, ..., 0.95
    assert result["per_class"]["dog"]["voc_AP50"] is None


def test_better_ranked_miss_costs_precision() -> None:
    truth = boxes((0, 0, 10, 10))
    predicted = boxes((0, 0, 10, 10), (20, 20, 25, 25))
    one = np.zeros(1, U1)
    worse = score((truth, one), (predicted, np.zeros(2, U1), np.array([0.5, 0.9], F4)))
    better = score((truth, one), (predicted, np.zeros(2, U1), np.array([0.9, 0.5], F4)))
    assert (worse["AP50"], worse["voc_AP50"]) == (pytest.approx(0.5), 0.5)
    assert (better["AP50"], better["voc_AP50"]) == (pytest.approx(1), 1)


def test_void_pixels_of_a_prediction_do_not_count() -> None:
    truth, predicted = boxes((0, 0, 10, 10)), boxes((0, 0, 10, 20), (30, 30, 35, 35))
    void = boxes((0, 10, 10, 20), (30, 30, 35, 35)) > 0
    arrays = (truth, np.zeros(1, U1)), (predicted, np.zeros(2, U1), np.array([0.5, 0.9], F4))
    assert score(*arrays)["AP75"] == 0
    result = score(*arrays, void)
    assert result["AP"] == pytest.approx(1)
    assert result["detections"] == 1


def test_second_half_of_an_instance_is_a_duplicate() -> None:
    # Both halves reach IoU 0.5, but only the better ranked may claim the instance; the rest ranks
    # before the second instance and costs precision there: area 1/2 * 1 + 1/2 * 2/3.
    truth = boxes((0, 0, 10, 20), (20, 0, 30, 10))
    predicted = boxes((0, 0, 10, 10), (0, 10, 10, 20), (20, 0, 30, 10))
    result = score(
        (truth, np.zeros(2, U1)), (predicted, np.zeros(3, U1), np.array([0.9, 0.8, 0.7], F4))
    )
    assert result["voc_AP50"] == pytest.approx(5 / 6)
    assert result["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_nothing_found_and_nothing_to_find() -> None:
    nothing = np.zeros((40, 50), np.uint16), np.zeros(0, U1), np.zeros(0, F4)
    missed = score((TWO, np.zeros(2, U1)), nothing)
    assert missed["AP"] == missed["AP50"] == missed["voc_AP50"] == 0
    assert missed["per_class"]["dog"]["AP"] is None
    empty = score((nothing[0], nothing[1]), (TWO, BOTH, np.ones(2, F4)))
    assert empty["AP"] is empty["voc_AP50"] is None


def random_ids(seed: int, size: tuple[int, int], count: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, count + 1, (size[0] // 4 + 1, size[1] // 4 + 1)).astype(
        np.uint16
    )
    return np.kron(coarse, np.ones((4, 4), np.uint16))[: size[0], : size[1]]


def many(names: list[str]) -> InstanceScores:
    scores = InstanceScores(CLASSES)
    for name in names:
        seed = int(name)
        generator = np.random.default_rng(seed)
        truth = random_ids(seed, (24, 31), 4)
        predicted = np.where(generator.random(truth.shape) < 0.9, truth, 0).astype(np.uint16)
        classes = generator.integers(0, 2, 4).astype(U1)
        guess = np.where(generator.random(4) < 0.7, classes, 1 - classes).astype(U1)
        ranks = generator.choice(np.array([0.2, 0.5, 0.9], F4), 4)  # ties between images
        scores.add(name, (truth, classes, None), (split(predicted, 4), guess, ranks))
    return scores


def test_order_of_images_does_not_matter() -> None:
    names = [str(i) for i in range(8)]
    whole = many(names).compute()
    assert 0 < whole["AP50"] < 1
    assert many(names[::-1]).compute() == whole


def test_overlapping_masks_each_count() -> None:
    truth = boxes((0, 0, 10, 10), (0, 10, 10, 20))
    whole, half = np.zeros((2, 40, 50), bool)
    whole[:10, :16], half[:10, 9:20] = True, True
    scores = InstanceScores(CLASSES)
    scores.add(
        "a",
        (truth, np.zeros(2, U1), None),
        (np.stack([whole, half]), np.zeros(2, U1), np.ones(2, F4)),
    )
    assert scores.compute()["voc_AP70"] == pytest.approx(
        0.25
    )  # the better one ranks second: half the recall at precision 1/2


def test_scores_by_size_see_their_own_instances_alone() -> None:
    truth = boxes((0, 0, 10, 10), (100, 100, 150, 150), size=(200, 200))
    found = truth * (truth == 2)
    result = score((truth, np.zeros(2, U1)), (found, np.zeros(2, U1), np.ones(2, F4)))
    assert (result["AP_small"], result["AP_medium"], result["AP_large"]) == (
        0,
        pytest.approx(1),
        None,
    )
    nothing = score((truth, np.zeros(2, U1)), (found, np.zeros(0, U1), np.zeros(0, F4)))
    assert (nothing["AP_small"], nothing["AP_medium"], nothing["AP_large"]) == (0, 0, None)
