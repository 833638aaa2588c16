import numpy as np
import pytest

from pipeline.instances.base import pack
from pipeline.views import inspection
from pipeline.views.inspection.facts import CLASSLESS

CLASSES = ("cat", "dog", "cow")
H, W = 30, 41
GRID = (8, 11)
FORMATS = ("segments", "cams", "seeds", "fields", "labels", "predictions")


class Fake(dict[str, dict[str, np.ndarray]]):
    def __init__(self, format_: str, items: dict[str, dict[str, np.ndarray]]) -> None:
        super().__init__(items)
        self.format, self.classes = format_, CLASSES


def sound(format_: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.zeros((H, W), np.uint8)
    labels[5:20, 5:20], labels[10:25, 25:38] = 1, 3
    ids = labels.astype(np.uint16)
    ids[ids == 3] = 2
    return {
        "segments": {
            "embeddings": np.zeros((0, 0, 0), np.float16),
            "segments": ids,
            "stability": np.array([0.9, 1], np.float32),
            "iou": np.array([0.8, 0.7], np.float32),
        },
        "cams": {
            "cams": generator.random((2, *GRID)).astype(np.float16),
            "labels": np.array([0, 2], np.uint8),
            "size": np.array([H, W], np.int32),
        },
        "seeds": {"seeds": np.where(generator.random((H, W)) < 0.2, np.uint8(255), labels)},
        "fields": {
            "boundary": generator.uniform(0.1, 0.9, GRID).astype(np.float16),
            "displacement": generator.normal(size=(2, *GRID)).astype(np.float16),
        },
        "labels": {
            "semantic": labels,
            "instances": ids,
            "classes": np.array([0, 2], np.uint8),
            "scores": np.array([0.5, 1], np.float32),
        },
        "predictions": {
            "semantic": labels,
            "instances": pack(ids == np.array([1, 2])[:, None, None]),
            "classes": np.array([0, 2], np.uint8),
            "scores": np.array([0.5, 1], np.float32),
        },
    }[format_]


def described(format_: str, **changes: np.ndarray) -> list[str]:
    """The odd lines for one sound image `good` and one with changes, `bad`."""
    lines = inspection.describe(
        Fake(format_, {"good": sound(format_), "bad": sound(format_) | changes})
    )
    return [line for line in lines if "odd" in line]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_sound_artifact_has_nothing_odd(format_: str) -> None:
    lines = inspection.describe(Fake(format_, {"a": sound(format_), "b": sound(format_)}))
    assert lines[0] == f"{format_}: 2 images, 3 classes"
    assert lines[-1] == "nothing odd"
    if format_ == "fields":
        assert "grid height: 8 to 8" in lines
    else:
        assert "height: 30 to 30" in lines
        assert "width: 41 to 41" in lines
    if format_ not in CLASSLESS:
        assert "images by class: cat 2, cow 2" in lines
        assert "classes in no image: dog" in lines


NAN = np.full((2, *GRID), np.nan, np.float16)
ZERO = np.zeros((H, W), np.uint8)
STRANGE = np.where(np.eye(H, W) > 0, np.uint8(77), sound("seeds")["seeds"])


@pytest.mark.parametrize(
    ("format_", "changes", "oddity"),
    [
        ("cams", {"cams": np.zeros((2, *GRID), np.float16)}, "a class map that is zero everywhere"),
        (
            "cams",
            {"cams": np.zeros((0, *GRID), np.float16), "labels": np.zeros(0, np.uint8)},
            "no class map",
        ),
        ("cams", {"cams": sound("cams")["cams"] * 2}, "values outside [0, 1]"),
        ("cams", {"labels": np.array([0, 9], np.uint8)}, "unknown classes"),
        (
            "cams",
            {"size": np.array([H, W + 9], np.int32)},
            "a map that is not on the stride-4 grid",
        ),
        ("seeds", {"seeds": np.full((H, W), 255, np.uint8)}, "no seeds at all"),
        ("seeds", {"seeds": ZERO}, "no foreground seeds"),
        ("seeds", {"seeds": ZERO + np.uint8(1)}, "no background seeds"),
        (
            "seeds",
            {"seeds": STRANGE},
            "unknown classes",
        ),
        ("fields", {"displacement": NAN}, "NaN or infinity"),
        ("fields", {"displacement": np.zeros((2, *GRID), np.float16)}, "no displacement anywhere"),
        ("fields", {"boundary": np.full(GRID, 0.5, np.float16)}, "the same boundary everywhere"),
        ("fields", {"boundary": sound("fields")["boundary"] + 1}, "boundary outside [0, 1]"),
        ("segments", {"segments": np.zeros((H, W), np.uint16)}, "segments without pixels"),
        ("segments", {"stability": np.zeros(1, np.float32)}, "segment ids without a stability"),
        (
            "segments",
            {"embeddings": np.full((1, 1, 1), np.inf, np.float16)},
            "embeddings that are not finite",
        ),
        ("labels", {"instances": np.zeros((H, W), np.uint16)}, "classes but no instance"),
        ("labels", {"scores": np.array([np.nan, 1], np.float32)}, "scores that are not finite"),
        ("labels", {"classes": np.zeros(1, np.uint8)}, "instances without a class"),
        ("predictions", {"semantic": ZERO}, "an empty label map"),
        (
            "predictions",
            {"scores": np.zeros(3, np.float32)},
            "as many scores as instances are not there",
        ),
    ],
)
def test_planted_oddities_are_found_in_the_right_image(
    format_: str, changes: dict[str, np.ndarray], oddity: str
) -> None:
    assert f"odd: {oddity} in 1 image: bad" in described(format_, **changes)


def test_nan_does_not_hide_the_range() -> None:
    cams = sound("cams")["cams"].copy()
    cams[0, 0, 0] = np.nan
    lines = inspection.describe(Fake("cams", {"a": sound("cams") | {"cams": cams}}))
    assert "odd: NaN or infinity in 1 image: a" in lines
    (values,) = [line for line in lines if line.startswith("values")]
    assert "nan" not in values


def test_only_some_images_are_named_but_all_counted() -> None:
    empty = sound("predictions") | {"semantic": ZERO}
    lines = inspection.describe(Fake("predictions", {f"p{i}": empty for i in range(9)}))
    assert "odd: an empty label map in 9 images: p0, p1, p2, p3, p4, ..." in lines


def test_no_images_and_unknown_formats() -> None:
    assert inspection.describe(Fake("seeds", {}))[-1] == "odd: no images at all"
    with pytest.raises(ValueError, match="known are segments, cams, seeds"):
        inspection.describe(Fake("weights", {}))
    with pytest.raises(ValueError, match="known are segments, cams, seeds"):
        inspection.draw("weights", {}, np.zeros((4, 4, 3), np.uint8), CLASSES)


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_can_be_drawn(format_: str) -> None:
    image = np.random.default_rng(1).integers(0, 256, (H, W, 3)).astype(np.uint8)
    drawn = inspection.draw(format_, sound(format_), image, CLASSES, side=80)
    assert drawn.dtype == np.uint8
    panels = {"segments": 2, "cams": 3, "seeds": 2, "fields": 3, "labels": 3, "predictions": 3}[
        format_
    ]
    assert drawn.shape[1] == panels * 80 + (panels + 1) * 6
    np.testing.assert_array_equal(
        drawn, inspection.draw(format_, sound(format_), image, CLASSES, side=80)
    )


def test_broken_items_can_be_drawn_too() -> None:
    image = np.zeros((H, W, 3), np.uint8)
    inspection.draw(
        "cams", sound("cams") | {"cams": NAN, "labels": np.array([0, 9], np.uint8)}, image, CLASSES
    )
    inspection.draw("fields", sound("fields") | {"displacement": NAN}, image, CLASSES)
    inspection.draw("seeds", {"seeds": STRANGE}, image, CLASSES)
    many = {"cams": np.zeros((6, *GRID), np.float16), "labels": np.arange(6, dtype=np.uint8)}
    wide = inspection.draw("cams", sound("cams") | many, image, CLASSES, side=80)
    assert wide.shape[1] == 4 * 80 + 5 * 6
