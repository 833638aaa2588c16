import numpy as np
import pytest

from pipeline.views.artifact_stats import STATS, describe_artifact
from tests.support.runs import CLASSES, GRID, HEIGHT, WIDTH, record

H, W = HEIGHT, WIDTH
NAN = np.full((2, *GRID), np.nan, np.float16)
ZERO = np.zeros((H, W), np.uint8)
STRANGE = np.where(np.eye(H, W) > 0, np.uint8(77), record("seeds", 0)["seeds"])
CONSTANT = np.full(GRID, 0.5, np.float16)


class Fake(dict[str, dict[str, np.ndarray]]):
    """An artifact of these records."""

    def __init__(self, format_: str, items: dict[str, dict[str, np.ndarray]]) -> None:
        super().__init__(items)
        self.format, self.classes = format_, CLASSES


def describe(format_: str, **items: dict[str, np.ndarray]) -> list[str]:
    return describe_artifact(Fake(format_, items))  # type: ignore[arg-type]


def sound(format_: str, **changes: np.ndarray) -> dict[str, np.ndarray]:
    return {**record(format_, 0), **changes}


@pytest.mark.parametrize("format_", STATS)
def test_sound_artifact_has_nothing_odd(format_: str) -> None:
    lines = describe(format_, a=sound(format_), b=sound(format_))
    assert lines[0] == f"{format_}: 2 images, 3 classes"
    assert lines[-1] == "nothing odd"
    if format_ == "fields":
        assert "grid height: 8 to 8" in lines
    else:
        assert {"height: 30 to 30", "width: 41 to 41"} <= set(lines)
    if format_ not in ("fields", "segments"):
        assert "images by class: cat 2, dog, or wolf 2" in lines
        assert "classes in no image: 日本" in lines


@pytest.mark.parametrize(
    ("format_", "changes", "oddity"),
    [
        ("cams", {"cams": 0 * NAN[:, :0]}, "a map off the stride-4 grid"),
        ("cams", {"cams": np.zeros((2, *GRID))}, "a class map that is zero everywhere"),
        ("cams", {"cams": NAN[:0], "labels": np.zeros(0, np.uint8)}, "no class map"),
        ("cams", {"cams": sound("cams")["cams"] * 3}, "values outside [0, 1]"),
        ("cams", {"labels": np.array([0, 9], np.uint8)}, "unknown classes"),
        ("cams", {"size": np.array([H, W + 9], np.int32)}, "a map off the stride-4 grid"),
        ("walk", {"maps": NAN}, "NaN or infinity"),
        ("walk", {"classes": np.zeros(9, np.uint8)}, "numbers of labels and maps differ"),
        ("seeds", {"seeds": ZERO + np.uint8(255)}, "no seeds at all"),
        ("seeds", {"seeds": ZERO}, "no foreground seeds"),
        ("seeds", {"seeds": ZERO + np.uint8(1)}, "no background seeds"),
        ("seeds", {"seeds": STRANGE}, "unknown classes"),
        ("fields", {"displacement": NAN}, "NaN or infinity"),
        ("fields", {"displacement": np.zeros((2, *GRID))}, "no displacement anywhere"),
        ("fields", {"boundary": CONSTANT}, "a constant boundary"),
        ("fields", {"boundary": sound("fields")["boundary"] + 1}, "boundary outside [0, 1]"),
        ("segments", {"segments": ZERO}, "segments without pixels"),
        ("segments", {"stability": np.zeros(1)}, "segment ids without a stability"),
        ("segments", {"embeddings": NAN}, "embeddings that are not finite"),
        ("labels", {"instances": ZERO}, "classes but no instance"),
        ("labels", {"scores": np.array([np.nan, 1])}, "scores that are not finite"),
        ("labels", {"classes": np.zeros(1, np.uint8)}, "instances without a class"),
        ("predictions", {"semantic": ZERO}, "an empty label map"),
        ("predictions", {"scores": np.zeros(3)}, "numbers of scores and instances differ"),
    ],
)
def test_oddities_are_found_in_the_right_image(
    format_: str, changes: dict[str, np.ndarray], oddity: str
) -> None:
    lines = describe(format_, good=sound(format_), bad=sound(format_, **changes))
    assert f"odd: {oddity} in 1 image: bad" in lines


def test_nan_does_not_hide_the_range() -> None:
    cams = sound("cams")["cams"].copy()
    cams[0, 0, 0] = np.nan
    lines = describe("cams", a=sound("cams", cams=cams))
    assert "odd: NaN or infinity in 1 image: a" in lines
    (values,) = [line for line in lines if line.startswith("values")]
    assert "nan" not in values


def test_some_images_are_named_and_all_counted() -> None:
    empty = sound("predictions", semantic=ZERO)
    lines = describe("predictions", **{f"p{i}": empty for i in range(9)})
    assert "odd: an empty label map in 9 images: p0, p1, p2, p3, p4, ..." in lines
    assert describe("seeds")[-1] == "odd: no images at all"
