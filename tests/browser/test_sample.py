"""The arrays of one image, and its live walk."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.browser.run import Run
from pipeline.browser.sample import (
    Sample,
    WalkSettings,
    live_class_maps,
    live_labels,
    own_value,
    read_settings,
    walk_record,
)
from pipeline.core.artifacts import Writer
from pipeline.errors import UserError
from pipeline.labelling.pseudo_labels import pseudo_labels
from tests.support.runs import HEIGHT, PARAMETERS, WIDTH, record, run_of, truth


def test_label_maps_of_every_step(run: Run) -> None:
    sample = Sample(run, "b/two")
    np.testing.assert_array_equal(sample.label_map("truth"), truth(1))
    np.testing.assert_array_equal(sample.label_map("labels"), record("labels", 1, 2)["semantic"])
    np.testing.assert_array_equal(sample.label_map("seeds"), record("seeds", 1)["seeds"])
    assert not sample.label_map("cams", 1.0).any()
    assert set(np.unique(sample.label_map("cams"))) == {0, 2, 3}


def test_labels_at_the_runs_own_settings_are_what_stage_labels_writes(run: Run) -> None:
    sample = Sample(run, "b/two")
    rules = {k: v for k, v in PARAMETERS["labels"].items() if k not in ("vote", "agreement")}
    expected = pseudo_labels(sample.record("walk"), sample.record("fields")["boundary"], **rules)
    np.testing.assert_array_equal(
        live_labels(sample, WalkSettings())["semantic"], expected["semantic"]
    )


def test_scores_on_the_image(run: Run) -> None:
    sample = Sample(run, "f")
    assert sample.miou(record("labels", 5)["semantic"]) == 1
    assert 0.5 < (sample.miou(sample.label_map("labels")) or 0) < 1


def test_artifact_of_other_images_is_refused(folder: Path) -> None:
    with Writer(folder / "seeds.h5", "seeds", ("cat",)) as writer:
        writer.write("f", {"seeds": np.zeros((HEIGHT, WIDTH + 1), np.uint8)})
    with pytest.raises(UserError, match=r"seeds.h5: 'f' is 30 x 42, .*`dvc repro seeds`"):
        Sample(run_of(folder), "f").record("seeds")


def test_walk_follows_its_settings(run: Run) -> None:
    sample = Sample(run, "f")
    values, classes = live_class_maps(sample, WalkSettings())
    assert values.shape == (len(classes), HEIGHT, WIDTH)
    assert values.max() == pytest.approx(1)
    everything = live_labels(sample, WalkSettings(background=0.0))["semantic"]
    own = live_labels(sample, WalkSettings())["semantic"]
    assert (everything > 0).sum() > (own > 0).sum() > 0
    assert not live_labels(sample, WalkSettings(background=1.0))["semantic"].any()
    for settings in (WalkSettings(steps=0), WalkSettings(beta=1.0)):
        assert not np.array_equal(live_class_maps(sample, settings)[0], values)


def test_own_settings_read_the_artifact_others_are_computed(folder: Path) -> None:
    run, own = run_of(folder), PARAMETERS["walk"]
    same = WalkSettings(beta=own["beta"], steps=own["steps"])
    np.testing.assert_array_equal(
        walk_record(Sample(run, "f"), same)["maps"], record("walk", 5)["maps"]
    )
    nearly = WalkSettings(beta=own["beta"] + 1e-9)
    computed = walk_record(Sample(run, "f"), nearly)["maps"].astype(np.float32)
    np.testing.assert_allclose(computed, record("walk", 5)["maps"], atol=1e-3)
    (folder / "cams.h5").unlink()
    assert len(walk_record(Sample(run, "f"), same)["maps"])
    with pytest.raises(UserError, match=r"cams.h5: no such file"):
        walk_record(Sample(run, "f"), nearly)


def test_missing_parameter_is_named(folder: Path) -> None:
    run = run_of(folder)
    run._parameters = lambda: {"labels": {}}
    with pytest.raises(UserError, match=r"walk\.beta: not in the run's parameters"):
        live_labels(Sample(run, "f"), WalkSettings())


def test_settings_are_read_from_a_query_and_invalid_ones_dropped() -> None:
    query = {"class_": "2", "threshold": "0.31", "beta": "7.5", "steps": "64", "background": "0"}
    assert read_settings(query) == WalkSettings(2, 0.31, 7.5, 64, 0.0)
    wrong = {"class_": "x", "threshold": "2", "beta": "nan", "steps": "-1", "background": ""}
    assert read_settings(wrong) == WalkSettings()


def test_a_walk_on_features_needs_no_fields(folder: Path) -> None:
    (folder / "fields.h5").unlink()
    run = run_of(folder)
    own = {**PARAMETERS["walk"], "affinity": "features", "features": {"beta": 3.0, "steps": 16}}
    run._parameters = lambda: {**PARAMETERS, "walk": own}
    sample = Sample(run, "f")
    assert (own_value(run, "beta"), own_value(run, "steps")) == (3.0, 16)
    np.testing.assert_array_equal(
        walk_record(sample, WalkSettings())["maps"], record("walk", 5)["maps"]
    )
    assert live_labels(sample, WalkSettings())["semantic"].any()
    near, far = (live_class_maps(sample, WalkSettings(steps=n))[0] for n in (1, 64))
    assert not np.array_equal(near, far)
