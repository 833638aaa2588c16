import numpy as np
import pytest

from pipeline.browser.live_walk import Settings, relabeled, scores
from pipeline.browser.run import Run
from pipeline.browser.sample import Sample, difference
from pipeline.core.artifacts import Writer
from pipeline.errors import UserError
from tests.support.runs import HEIGHT, WIDTH, record, run_of, truth


def test_label_maps_of_every_step(run: Run) -> None:
    shown = Sample(run, "b/two")
    np.testing.assert_array_equal(shown.label_map("truth", 0), truth(1))
    np.testing.assert_array_equal(shown.label_map("labels", 0), record("labels", 1, 2)["semantic"])
    np.testing.assert_array_equal(shown.label_map("seeds", 0), record("seeds", 1)["seeds"])
    assert not shown.label_map("cams", 1.0).any()
    assert set(np.unique(shown.label_map("cams", 0.3))) == {0, 2, 3}


def test_scores_on_the_image(run: Run) -> None:
    shown = Sample(run, "f")
    assert shown.miou(record("labels", 5)["semantic"]) == 1
    assert 0.5 < (shown.miou(shown.label_map("labels", 0)) or 0) < 1


def test_difference_leaves_ignored_pixels_out() -> None:
    one = np.array([[0, 1, 255, 2]], np.uint8)
    other = np.array([[0, 2, 1, 255]], np.uint8)
    assert difference(one, other) == 0.5
    assert difference(one, one) == 0
    assert difference(np.full_like(one, 255), one) is None


def test_an_artifact_of_other_images_is_refused(folder) -> None:
    with Writer(folder / "seeds.h5", "seeds", ("cat",)) as writer:
        writer.write("f", {"seeds": np.zeros((HEIGHT, WIDTH + 1), np.uint8)})
    shown = Sample(run_of(folder), "f")
    with pytest.raises(UserError, match=r"seeds.h5: 'f' is of 30 x 42, .*`dvc repro seeds`"):
        shown.record("seeds")


def test_the_walk_follows_its_settings(run: Run) -> None:
    shown = Sample(run, "f")
    values, classes = scores(shown, Settings())
    assert values.shape == (len(classes), HEIGHT, WIDTH)
    assert values.max() == pytest.approx(1)
    everything = relabeled(shown, Settings(background=0.0))["semantic"]
    nothing = relabeled(shown, Settings(background=1.0))["semantic"]
    assert (everything > 0).sum() > (relabeled(shown, Settings())["semantic"] > 0).sum() > 0
    assert not nothing.any()
    assert not np.array_equal(scores(shown, Settings(steps=0))[0], values)
    assert not np.array_equal(scores(shown, Settings(beta=1.0))[0], values)


def test_a_parameter_that_a_run_lacks_is_named(folder) -> None:
    run = run_of(folder)
    run._parameters = lambda: {"labels": {}}
    with pytest.raises(UserError, match=r"labels\.normalize: not in the run's parameters"):
        relabeled(Sample(run, "f"), Settings())
