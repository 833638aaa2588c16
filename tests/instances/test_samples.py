import numpy as np

from pipeline.instances.base import select_instances

IDS = np.array([[0, 1, 2], [0, 0, 2]], np.uint16)
SEMANTIC = np.array([[0, 3, 1], [255, 1, 1]], np.uint8)
CLASSES, WEIGHTS = np.array([2, 0], np.uint8), np.array([0.9, 0.2], np.float32)


def test_void_and_objects_that_are_no_instance_do_not_count() -> None:
    found = select_instances(IDS, CLASSES, WEIGHTS, SEMANTIC, np.array([True, True]))
    assert found.ignored is not None
    assert found.ignored.tolist() == [[False, False, False], [True, True, False]]


def test_instances_left_out_do_not_count_as_background_either() -> None:
    found = select_instances(IDS, CLASSES, WEIGHTS, SEMANTIC, np.array([True, False]))
    assert found.ignored is not None
    assert found.ignored.tolist() == [[False, False, True], [True, True, True]]


def test_no_instances() -> None:
    nothing = np.zeros(0)
    found = select_instances(np.zeros_like(IDS), nothing, nothing, SEMANTIC, np.zeros(0, bool))
    assert found.ignored is not None
    assert found.ignored.tolist() == (SEMANTIC > 0).tolist()
