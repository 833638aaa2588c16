"""Ground truth of a trial set."""

from pathlib import Path

import numpy as np

from pipeline.metrics.truth import TrialTruth
from pipeline.readers.build import build
from tests.support.sources import mask, own_folder, save


def test_labels_of_pixels_alone_are_no_instances(tmp_path: Path) -> None:
    """Scored as instances, all that is found there would be false."""
    source = own_folder(tmp_path / "src", ["a,cat,train", "b,cat,train"], "image,classes,split")
    save(source / "hints/trial/a.png", mask((0, 0, 6, 8, 1)))
    save(source / "hints/trial/b.png", mask())
    truth = TrialTruth(build("folder", source, tmp_path / "dataset"), source)
    assert truth.known(["a", "b", "c"]) == ["a", "b"]
    assert truth.instances("a") is None
    found = truth.instances("b")
    assert found is not None
    assert not len(found[1]), "a person says that there is none"
    np.testing.assert_array_equal(truth.semantic("a"), mask((0, 0, 6, 8, 1)))
