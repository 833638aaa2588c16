"""Segments vote on labels: who follows, who does not, and what becomes of instances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.core.artifacts import Record
from pipeline.labelling.pseudo_labels import vote, vote_record

U1, U2 = np.uint8, np.uint16


@given(
    arrays(U1, (5, 7), elements=st.integers(0, 4)),
    arrays(U2, (5, 7), elements=st.integers(0, 6)),
    st.floats(0.5, 1),
)
def test_equals_counting_segment_by_segment(
    labels: np.ndarray, segments: np.ndarray, agreement: float
) -> None:
    expected = labels.copy()
    for number in range(1, int(segments.max()) + 1):
        inside = segments == number
        if inside.any():
            counts = np.bincount(labels[inside])
            if counts.max() >= agreement * inside.sum():
                expected[inside] = counts.argmax()
    assert np.array_equal(vote(labels, segments, agreement), expected)
    once = vote(labels, segments, agreement)
    assert np.array_equal(vote(once, segments, agreement), once)
    assert once.dtype == labels.dtype


def test_instances_without_pixels_are_dropped_and_the_rest_renumbered() -> None:
    record: Record = {
        "semantic": np.array([[1, 1, 1, 2], [0, 3, 3, 3]], U1),
        "instances": np.array([[2, 2, 2, 1], [0, 3, 3, 3]], U2),
        "classes": np.array([1, 0, 2], U1),
        "scores": np.array([0.1, 0.2, 0.3], np.float32),
    }
    voted = vote_record(record, np.array([[1, 1, 1, 1], [0, 2, 2, 2]], U2), 0.7)
    assert voted["semantic"].tolist() == [[1, 1, 1, 1], [0, 3, 3, 3]]
    assert voted["instances"].tolist() == [[1, 1, 1, 1], [0, 2, 2, 2]]
    assert voted["classes"].tolist() == [0, 2]
    assert voted["scores"].tolist() == pytest.approx([0.2, 0.3])


def test_no_instances_and_no_segments() -> None:
    record: Record = {
        "semantic": np.zeros((3, 4), U1),
        "instances": np.zeros((3, 4), U2),
        "classes": np.zeros(0, U1),
        "scores": np.zeros(0, np.float32),
    }
    voted = vote_record(record, np.ones((3, 4), U2), 0.9)
    assert {key: value.shape for key, value in voted.items()} == {
        k: v.shape for k, v in record.items()
    }
