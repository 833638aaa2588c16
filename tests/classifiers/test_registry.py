"""The registry of the classifiers."""

import subprocess
import sys
import typing

import pytest

from pipeline.classifiers import CLASSIFIERS, load_classifier
from pipeline.params.pseudo_labels import Classifier


def test_methods_are_those_of_the_parameters() -> None:
    assert tuple(CLASSIFIERS) == typing.get_args(Classifier.model_fields["method"].annotation)


def test_header_of_an_unknown_method_lists_the_known_ones() -> None:
    header = {"method": "grad-cam", "backbone": "x", "classes": [], "options": {}}
    with pytest.raises(ValueError, match="'grad-cam'; use one of cam, seenet, puzzlecam, s2c"):
        load_classifier(header)


@pytest.mark.slow
def test_stage_cams_loads_no_segmenter_and_nothing_of_s2cs_training() -> None:
    code = "import sys, stages.cams, pipeline.classifiers; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "pipeline.classifiers.s2c" in loaded.stdout.split()
    for name in ("segmenters", "s2c.losses", "s2c.prompts"):
        assert name not in loaded.stdout
