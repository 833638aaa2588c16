from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.browser.layers import LAYERS, drawn_size
from pipeline.browser.run import Run
from pipeline.browser.sample import Sample, WalkSettings
from pipeline.core.artifacts import IGNORE
from pipeline.views import overlays
from tests.support.runs import HEIGHT, WIDTH, record

SIZE = drawn_size((HEIGHT, WIDTH))


def blended(layer: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A layer over an image as a browser blends it."""
    cover = layer[..., 3:].astype(np.float32) / 255
    return image + cover * (layer[..., :3].astype(np.float32) - image)


@pytest.mark.parametrize("key", LAYERS)
def test_every_layer_over_the_image_is_what_overlays_draws(run: Run, key: str) -> None:
    sample = Sample(run, "c été <b>")
    image = overlays.resized(sample.image(), SIZE)
    layer = overlays.layer(LAYERS[key].draw(sample, WalkSettings(), SIZE), SIZE)
    assert layer.shape == (*SIZE, 4)
    assert LAYERS[key].available(sample)
    assert layer[..., 3].any()
    drawn = LAYERS[key].draw(sample, WalkSettings(), SIZE)(image)
    # up to three levels are lost where color and cover are rounded
    assert np.abs(blended(layer, image) - drawn).max() <= 3


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("labels", lambda i: overlays.labels_over(i, ids("labels", "semantic", 2))),
        ("seeds", lambda i: overlays.labels_over(i, ids("seeds", "seeds"))),
        ("predictions", lambda i: overlays.labels_over(i, ids("predictions", "semantic"))),
        ("instances", lambda i: overlays.instances_over(i, ids("labels", "instances", 2))),
        ("segments", lambda i: overlays.regions_over(i, ids("segments", "segments"))),
    ],
)
def test_layers_are_those_of_the_sheets(
    run: Run, key: str, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    sample = Sample(run, "a one")
    image = overlays.resized(sample.image(), SIZE)
    np.testing.assert_array_equal(
        LAYERS[key].draw(sample, WalkSettings(), SIZE)(image), expected(image)
    )


def ids(format_: str, array: str, shift: int = 0) -> np.ndarray:
    return overlays.resized_ids(record(format_, 0, shift)[array], SIZE)


def test_settings_change_what_is_drawn(run: Run) -> None:
    sample = Sample(run, "f")

    def drawn(key: str, **settings: Any) -> bytes:
        return overlays.layer(
            LAYERS[key].draw(sample, WalkSettings(**settings), SIZE), SIZE
        ).tobytes()

    assert drawn("cams", class_=0) != drawn("cams", class_=2)
    assert drawn("cams", threshold=0.1) != drawn("cams", threshold=0.9)
    assert drawn("relabeled", background=0.1) != drawn("relabeled", background=0.8)
    assert drawn("walk", steps=0) != drawn("walk")
    assert drawn("cams", beta=3) == drawn("cams")


def test_hints_of_a_model_are_drawn_where_it_sees_something_or_has_a_box(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints = dict(record("hints", 0, 0))
    evidence, box = np.zeros_like(hints["evidence"][:1]), np.array([[1, 0.7, 0, 1, 2, 5, 9]])
    evidence[0, 20:26, 30:40] = 0.5
    hints |= {"pixels": np.full_like(hints["pixels"], IGNORE), "evidence": evidence}
    hints |= {"classes": hints["classes"][:1], "boxes": box.astype(np.float32)}
    monkeypatch.setattr(Sample, "record", lambda sample, step: hints)
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    drawn = LAYERS["hints"].draw(Sample(run, "f"), WalkSettings(), (HEIGHT, WIDTH))(image)
    painted = (drawn != image).any(2)
    assert painted[20:26, 30:40].all()
    assert painted[2:9, 1:5].any()
    painted[18:28, 28:42] = painted[0:11, 0:7] = False
    assert not painted.any()


def test_large_images_are_drawn_smaller_and_small_ones_larger() -> None:
    assert drawn_size((1000, 4000)) == (320, 1280)
    assert drawn_size((60, 80)) == (480, 640)
    assert drawn_size((500, 800)) == (500, 800)
