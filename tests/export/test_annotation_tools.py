"""Label Studio and LabelMe: masks come back exactly, and corrections as the tools write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.data.images import DatasetError
from pipeline.export import labelme, labelstudio
from tests.support.harm import HARD
from tests.support.sources import SIZE, mask, write

LABELS = {"cat": 1, "dog": 2}
masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: arrays.arrays(bool, size)
)


@HARD
@given(drawn=masks)
def test_masks_come_back_exactly(drawn: np.ndarray) -> None:
    packed = labelstudio.pack(drawn)
    np.testing.assert_array_equal(labelstudio.unpack(packed, drawn.shape), drawn)
    outlined = json.loads(json.dumps([(h, p.tolist()) for h, p in labelme.polygons(drawn)]))
    np.testing.assert_array_equal(labelme.rasterize(outlined, drawn.shape), drawn)


def test_long_runs_and_single_values_are_read() -> None:
    drawn = np.zeros((300, 400), bool)
    drawn[200:, 100:] = True
    np.testing.assert_array_equal(labelstudio.unpack(labelstudio.pack(drawn), drawn.shape), drawn)
    # 4 values of 8 bits, lengths of 1 to 4 bits; a run of 4 values, one by one: only A is set
    bits = f"{4:032b}{7:05b}" + "0000000100100011" + "0" + "01" + "11" + "0" * 24 + "1" * 8
    code = [int(bits[k : k + 8].ljust(8, "0"), 2) for k in range(0, len(bits), 8)]
    assert labelstudio.unpack(code, (1, 1)).tolist() == [[True]]


def region(kind: str, name: str, **value: Any) -> dict[str, Any]:
    size = {"original_height": SIZE[0], "original_width": SIZE[1]}
    return {"type": kind, **size, "value": {kind: [name], **value}}


def task(image: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"image": image}, "annotations": list(annotations), "predictions": []}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/upload/7/0a1b2c3d-a_b.png", "/data/a_b.png"),
        ("/data/local-files/?d=out/images/c%20d/a.png", "out/images/c d/a.png"),
        ("s3://bucket/x/a.png", "s3://bucket/x/a.png"),
    ],
)
def test_label_studio_exports_the_last_annotation_that_was_submitted(
    tmp_path: Path, url: str, name: str
) -> None:
    square = [[25, 50], [75, 50], [75, 100], [25, 100]]
    old = {"result": [region("brushlabels", "cat", rle=labelstudio.pack(mask() == 0))]}
    new = {
        "result": [region("polygonlabels", "dog", points=square), {"type": "choices"}],
        "was_cancelled": False,
    }
    skipped = {"result": [], "was_cancelled": True}
    tasks = [task(url, old, new, skipped), task("b.png"), task("c.png", {"result": []})]
    found = dict(labelstudio.read(write(tmp_path / "x.json", json.dumps(tasks))))
    assert [*found] == [name, "c.png"]
    semantic, ids = found[name](LABELS, SIZE)
    np.testing.assert_array_equal(semantic, mask((6, 4, 12, 12, 2)))
    np.testing.assert_array_equal(ids, mask((6, 4, 12, 12, 1)))
    assert not found["c.png"](LABELS, SIZE)[0].any()


def polygon(label: str, *corners: tuple[int, int], group: int | None = None) -> dict[str, Any]:
    return {"label": label, "points": corners, "group_id": group, "shape_type": "polygon"}


def box(top: int, left: int, bottom: int, right: int) -> list[tuple[int, int]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def test_labelme_groups_parts_and_holes(tmp_path: Path) -> None:
    shapes = [
        polygon("cat", *box(0, 0, 8, 8), group=1),
        polygon("_background_", *box(2, 2, 6, 6), group=1),
        polygon("cat", *box(10, 10, 11, 11), group=1),
        polygon("dog", *box(0, 10, 2, 15)),
        polygon("dog", *box(4, 10, 6, 15)),
        polygon("_background_", *box(5, 10, 5, 15)),
        polygon("__ignore__", *box(11, 0, 11, 3)),
    ]
    content = {"imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": shapes}
    semantic, ids = labelme.read(write(tmp_path / "x.json", json.dumps(content)))(LABELS, SIZE)
    cat = mask((0, 0, 9, 9, 1), (3, 3, 6, 6, 0), (10, 10, 12, 12, 1))
    dog = mask((0, 10, 3, 16, 2), (4, 10, 5, 16, 2), (6, 10, 7, 16, 2))
    expected = np.maximum(cat, dog)
    expected[11, :4] = 255
    np.testing.assert_array_equal(semantic, expected)
    assert len({*ids[cat > 0]}) == 1
    assert len({*ids[dog > 0]}) == 2


@pytest.mark.parametrize(
    ("read", "content", "words"),
    [
        (labelstudio.read, {"images": []}, "not a list of tasks"),
        (
            labelstudio.read,
            [task("a", {"result": [region("rectanglelabels", "cat")]})],
            "rectangle",
        ),
        (labelstudio.read, [{"id": 5, "annotations": [{}]}], "task 5"),
        (labelme.read, {"imageHeight": 1}, "imageWidth"),
        (
            labelme.read,
            {"imageHeight": 1, "imageWidth": 1, "shapes": [{"shape_type": "circle"}]},
            "circle",
        ),
    ],
)
def test_other_content_is_refused(tmp_path: Path, read: Any, content: Any, words: str) -> None:
    path = write(tmp_path / "x.json", json.dumps(content))
    with pytest.raises(DatasetError, match=rf"x\.json.*{words}"):
        dict(read(path))
